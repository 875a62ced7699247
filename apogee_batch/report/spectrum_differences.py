"""Where a spectrum differs from those of ordinary stars like it, in numbers and in words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apogee_batch.schema import BoolArray, DoubleArray, FloatArray

LARGEST_ERR = (
    10.0  # times the median: beside the gaps the errors grow a thousandfold, and the flux means nothing
)
FEWEST_NEIGHBOURS = 5  # of fewer stars a median says little
PixelArray = npt.NDArray[np.intp]
BIN_ANGSTROM = 30.0
FEWEST_PIXELS = 70  # of the 136 of a bin: fewer are the end of a chip
FEWEST_BINS = 6
SHARE_OF_LARGEST = 0.7  # bins that differ by so much of the largest difference are named beside it
MOST_NAMED = 3  # intervals
EVERYWHERE = 1.6  # times the median of the bins: below it no place stands out
CHANCE = 4.0  # standard deviations by which the noise of a bin may be underrated
SPIKE, BESIDE_SPIKE = 8.0, 4.0  # times the noise: a pixel that stands out, and those beside it that do not
LEAST_NOISE = 0.005  # of the flux: the median of others has noise as well
FEWEST_SPIKES = 5
LEAST = 0.015  # of the flux: below it nothing is said to differ
HIGH, SURELY = 2.0, 3.0  # times the median; errors above it: none of 512 mock spectra had such a pixel
MANY = 10  # pixels
LEAST_TILT = 0.05  # of the flux, from one end to the other


@dataclass(frozen=True)
class Difference:
    """By what a spectrum differs from ordinary ones.

    Attributes
    ----------
    intervals : tuple of (float, float)
        Where it differs most, Angstrom, in ascending order; none if no place stands out.
    words : str
        The same in words, without a full stop.
    """

    intervals: tuple[tuple[float, float], ...]
    words: str


def in_medians(flux: FloatArray, err: FloatArray) -> DoubleArray:
    """Return a flux in units of its median.

    Parameters
    ----------
    flux, err : ndarray of float32, shape (n_pixels,)
        0, and very large, where there is no measurement.

    Returns
    -------
    ndarray of float64, shape (n_pixels,)
        NaN where the flux is not measured or its error is far above the others.
    """
    kept = _is_kept(flux, err)
    if not kept.any():
        return np.full(len(flux), np.nan)
    return np.where(kept, flux.astype(np.float64), np.nan) / (abs(float(np.median(flux[kept]))) or 1.0)


def _is_kept(flux: FloatArray, err: FloatArray) -> BoolArray:
    is_measured = np.asarray(flux != 0)
    limit = LARGEST_ERR * float(np.median(err[is_measured])) if is_measured.any() else 0.0
    return np.asarray(is_measured & (err <= limit))


def describe_alone(flux: FloatArray, err: FloatArray) -> str:
    """Say of a spectrum without ordinary ones beside it what no good spectrum has; empty if it is nothing.

    Parameters
    ----------
    flux, err : ndarray of float32, shape (n_pixels,)
        As for `in_medians`.
    """
    kept = _is_kept(flux, err)
    if not kept.any():
        return ""
    middle = abs(float(np.median(flux[kept])))
    n_high = int((kept & (flux - HIGH * middle > SURELY * err)).sum())
    n_low = int((kept & (flux < -SURELY * err)).sum())
    words = [f"{n_high:,} pixels above twice the median (sky lines, or emission?)"] if n_high >= MANY else []
    words += [f"{n_low:,} pixels below 0"] if n_low >= MANY else []
    return ", ".join(words)


def median_of(spectra: Sequence[DoubleArray]) -> DoubleArray | None:
    """Return the median of spectra in units of their medians; None if there are too few.

    Pixels that fewer than half of them have are NaN: chips end elsewhere on each star's own grid.
    """
    if len(spectra) < FEWEST_NEIGHBOURS:
        return None
    stacked = np.array(spectra)
    is_common = np.isfinite(stacked).sum(axis=0) >= len(spectra) / 2
    middle = np.full(stacked.shape[1], np.nan)
    middle[is_common] = np.nanmedian(stacked[:, is_common], axis=0)
    return middle


def find_difference(
    wavelength: DoubleArray, flux: FloatArray, err: FloatArray, reference: DoubleArray
) -> Difference:
    """Find where a spectrum differs most from a reference, noise and slope of the continuum apart.

    In bins of `BIN_ANGSTROM` the variance of the difference is compared with that of the noise; a straight
    line through the bins, which dust and the fluxes' calibration make, is taken off before and told apart.
    So are single pixels, narrower than any line.

    Parameters
    ----------
    wavelength : ndarray of float64, shape (n_pixels,)
        Angstrom.
    flux, err : ndarray of float32, shape (n_pixels,)
        Of the star.
    reference : ndarray of float64, shape (n_pixels,)
        In units of its median, as `median_of` gives it.
    """
    difference = in_medians(flux, err) - reference
    bins = _bins(wavelength, difference)
    if len(bins) < FEWEST_BINS:
        return Difference((), "too few pixels are measured to compare it with others")
    noise = err / (abs(float(np.median(flux[_is_kept(flux, err)]))) or 1.0)
    starts = np.array([low for low, _ in bins])
    slope, height = np.polyfit(starts, [np.median(difference[pixels]) for _, pixels in bins], 1)
    left = difference - height - slope * wavelength
    is_spike = _find_spikes(np.abs(left) / np.maximum(noise, LEAST_NOISE))
    left[is_spike] = np.nan
    size = [_excess(left[pixels], noise[pixels]) for _, pixels in bins]
    return _say(starts, np.array(size), float(slope * (starts[-1] - starts[0])), int(is_spike.sum()))


def _bins(wavelength: DoubleArray, difference: DoubleArray) -> list[tuple[float, PixelArray]]:
    """Return the beginning and the measured pixels of each interval that has enough of them."""
    first, last = (int(end // BIN_ANGSTROM) for end in (wavelength[0], wavelength[-1]))
    bins = []
    for low in (number * BIN_ANGSTROM for number in range(first, last + 1)):
        is_inside = (wavelength >= low) & (wavelength < low + BIN_ANGSTROM) & np.isfinite(difference)
        if is_inside.sum() >= FEWEST_PIXELS:
            bins.append((low, np.flatnonzero(is_inside)))
    return bins


def _find_spikes(distance: DoubleArray) -> BoolArray:
    """Tell which pixels stand out of the noise and have neighbours that do not; NaN is none."""
    is_quiet = np.pad(distance, 1, constant_values=np.inf) < BESIDE_SPIKE
    return np.asarray((distance > SPIKE) & is_quiet[:-2] & is_quiet[2:])


def _excess(difference: DoubleArray, noise: FloatArray) -> float:
    """Return the root mean square of differences beyond their noise; 0 where chance would make as much."""
    is_used = np.isfinite(difference)  # spikes are not
    difference, noise = difference[is_used], noise[is_used]
    variance = float(np.mean(noise**2))
    excess = float(np.mean(difference**2)) - variance
    return float(np.sqrt(excess)) if excess > CHANCE * np.sqrt(2 / len(noise)) * variance else 0.0


def _say(starts: DoubleArray, size: DoubleArray, tilt: float, n_spikes: int) -> Difference:
    """Name the intervals of the largest differences, and the tilt of the continuum if there is one."""
    largest = float(size.max())
    intervals: tuple[tuple[float, float], ...] = ()
    if largest < LEAST:
        words = "no interval differs by more than 1.5 % or the noise"
    elif largest < EVERYWHERE * np.median(size):
        words = f"differs everywhere alike (by {100 * largest:.0f} %)"
    else:
        intervals = _largest(starts, size)
        named = [f"{low:,.0f}-{high:,.0f}" for low, high in intervals]
        listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
        words = f"differs most at {listed} Angstrom (by {100 * largest:.0f} %)"
    if abs(tilt) >= LEAST_TILT:
        words += f"; continuum {'redder' if tilt > 0 else 'bluer'} by {100 * abs(tilt):.0f} % from end to end"
    if n_spikes >= FEWEST_SPIKES:
        words += f"; {n_spikes:,} single pixels stand out"
    return Difference(intervals, words)


def _largest(starts: DoubleArray, size: DoubleArray) -> tuple[tuple[float, float], ...]:
    """Return the intervals of the largest differences, neighbouring bins joined, in ascending order."""
    joined: list[tuple[float, float, float]] = []  # size, begin, end
    for start, value in zip(starts.tolist(), size.tolist(), strict=True):
        if value < SHARE_OF_LARGEST * size.max():
            continue
        if joined and joined[-1][2] == start:
            before = joined.pop()
            joined.append((max(value, before[0]), before[1], start + BIN_ANGSTROM))
        else:
            joined.append((value, start, start + BIN_ANGSTROM))
    strongest = sorted(joined, reverse=True)[:MOST_NAMED]
    return tuple(sorted((low, high) for _, low, high in strongest))
