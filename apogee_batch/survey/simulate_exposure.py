"""What the spectrograph makes of a spectrum: three chips with gaps, noise, night sky, spikes and holes.

Set so that the errors spread as on real apStar files (over their median: 0.77 at 5 %, 1.26 at 75 %,
2.9 at 95 %, 23 at 99 %): 0.3 % of the pixels are spikes, and a dozen beside every gap have errors
up to 1e6 times the median.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from apogee_batch.schema import BoolArray, DoubleArray, FloatArray, IntArray
from apogee_batch.survey.pixels import BAD_PIXEL_ERR, GAP_ERR, GAP_FLUX, N_PIXELS, PixelMask

GAPS = ((0, 206), (3310, 3546), (6117, 6303), (8370, N_PIXELS))  # first pixel, one past the last, at rest
PIXEL_KM_S = 4.1416  # width of a pixel
MAX_SHIFT = 30  # pixels that the velocity moves the gaps by
BARYCENTRIC_KM_S = 25.0  # largest motion of the Earth along the line of sight that is drawn

EDGE_PIXELS = 15  # beside every gap: resampling smears the errors of the gap into them
EDGE_LOG10_ERR = (3.5, 6.0)  # of the pixel next to the gap, over the median
MAX_ERR = 0.5 * BAD_PIXEL_ERR  # of a pixel that counts as measured
MAX_NOISE_OVER_MEDIAN = 10.0  # flux beside a gap scatters far less than its error says
SPIKE_SHARE = 0.003
SPIKE_SNR = 12.0
HOLE_SHARE = 0.25  # of the stars that have holes
MAX_HOLE_PIXELS = 30
SKY_SEED = 20200417  # of the night-sky lines: one sky for all surveys
N_SKY_LINES = 280
SKY_IS_SIGNIFICANT = 2.0  # error over that of the neighbours that sets SIG_SKYLINE
TELLURIC_BANDS = ((1180, 1420), (2100, 2260), (4150, 4280))  # pixels of CO2 and CH4 of the air


@dataclass(frozen=True)
class Exposure:
    """Flux, error and mask of one star, as apStar holds them.

    Attributes
    ----------
    flux, err : ndarray of float32, shape (n_pixels,) or (2 + n_visits, n_pixels)
        1e-17 erg/s/cm2/Angstrom. One-dimensional for one visit; else combined by pixel weights, combined
        globally, then the visits.
    mask : ndarray of int32, same shape
        APOGEE_PIXMASK.
    """

    flux: FloatArray
    err: FloatArray
    mask: IntArray

    @property
    def snr(self) -> float:
        """The SNR card: median of flux/err of the combined spectrum over all pixels."""
        flux, err = np.atleast_2d(self.flux)[0], np.atleast_2d(self.err)[0]
        return float(np.median(flux / err))


@cache
def _sky() -> FloatArray:
    """Return the noise of the night sky over that of the star, in the observer's frame.

    Shape (n_pixels + 2 MAX_SHIFT,): a star at velocity zero sees all but the ends.
    """
    rng = np.random.default_rng(SKY_SEED)
    n = N_PIXELS + 2 * MAX_SHIFT
    pixel = np.arange(n)
    sky = np.zeros(n)
    for centre, height in zip(
        rng.uniform(0, n, N_SKY_LINES), 10.0 ** rng.uniform(-0.6, 1.15, N_SKY_LINES), strict=True
    ):
        sky += height * np.exp(-0.5 * ((pixel - centre) / 1.6) ** 2)
    return sky.astype(np.float32)


def _gaps(shift: int) -> BoolArray:
    """Return which pixels no chip covers, when a star's velocity moves the chips by `shift` pixels."""
    gap = np.zeros(N_PIXELS, dtype=np.bool_)
    for first, stop in GAPS:
        gap[first + shift if first else 0 : stop + shift if stop < N_PIXELS else N_PIXELS] = True
    return gap


def _holes(rng: np.random.Generator) -> BoolArray:
    """Return pixels inside the chips that are lost, in one star of four."""
    hole = np.zeros(N_PIXELS, dtype=np.bool_)
    if rng.random() < HOLE_SHARE:
        for first in rng.integers(300, 8250, rng.integers(1, 4)):
            hole[first : first + min(1 + int(rng.exponential(5.0)), MAX_HOLE_PIXELS)] = True
    return hole


def _edge_factor(gap: BoolArray, rng: np.random.Generator) -> DoubleArray:
    """Return by what the errors beside the gaps grow: up to 1e6 at the gap, one from `EDGE_PIXELS` + 1 on."""
    factor = np.ones(N_PIXELS)
    steps = np.arange(EDGE_PIXELS)
    for edge in np.flatnonzero(np.diff(gap)):
        at_gap = rng.uniform(*EDGE_LOG10_ERR)
        growth = 10.0 ** (at_gap * (1.0 - (steps / EDGE_PIXELS) ** 1.5))
        beside = edge - steps if gap[edge + 1] else edge + 1 + steps
        factor[beside] = np.maximum(factor[beside], growth)
    return factor


def _relative_err(shift: int, rng: np.random.Generator) -> FloatArray:
    """Return the errors of a visit over their median, without edges and spikes: chips, night sky, jitter."""
    start = MAX_SHIFT - shift
    sky = _sky()[start : start + N_PIXELS] * np.float32(np.exp(rng.normal(-0.2, 0.5)))
    pixel = np.linspace(-1.0, 1.0, N_PIXELS, dtype=np.float32)
    slope, bow = rng.normal(0.0, 0.25), rng.normal(0.65, 0.2)
    smooth = np.maximum(1.0 + np.float32(slope) * pixel + np.float32(bow) * pixel**2, np.float32(0.3))
    jitter = np.exp(np.float32(0.08) * rng.standard_normal(N_PIXELS, dtype=np.float32))
    relative: FloatArray = smooth * np.sqrt(1.0 + sky**2) * jitter
    return relative / np.median(relative)


def _visit(
    clean: FloatArray, level: float, shift: int, hole: BoolArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Observe a spectrum once, with a median error `level`: flux, err, mask."""
    gap = _gaps(shift)
    relative = _relative_err(shift, rng)
    usual = relative * _edge_factor(gap, rng)
    noise = rng.standard_normal(N_PIXELS, dtype=np.float32) * np.minimum(usual, MAX_NOISE_OVER_MEDIAN)
    spike = np.flatnonzero(rng.random(N_PIXELS, dtype=np.float32) < SPIKE_SHARE)
    height = SPIKE_SNR * rng.exponential(1.0, spike.size)
    noise[spike] += height * np.where(rng.random(spike.size) < 0.85, 1.0, -1.0)
    usual[spike] *= rng.uniform(1.0, 5.0, spike.size)
    mask = np.where(relative > SKY_IS_SIGNIFICANT, int(PixelMask.SIG_SKYLINE), 0)
    for first, stop in TELLURIC_BANDS:
        mask[first + shift : stop + shift] |= int(PixelMask.SIG_TELLURIC)
    mask[spike] |= int(PixelMask.CRPIX)
    lost = gap | hole
    flux = np.where(lost, GAP_FLUX, clean + level * noise).astype(np.float32)
    err = np.where(lost, GAP_ERR, np.minimum(level * usual, MAX_ERR)).astype(np.float32)
    return flux, err, np.where(lost, int(PixelMask.BADPIX), mask).astype(np.int32)


def _combined(flux: FloatArray, weight: DoubleArray, variance: DoubleArray) -> tuple[FloatArray, FloatArray]:
    """Average visits, shape (n_visits, n_pixels), by weights that are zero where there is no measurement."""
    total = weight.sum(axis=0)
    lost = total == 0.0
    safe = np.where(lost, 1.0, total)
    mean = np.where(lost, GAP_FLUX, (weight * flux).sum(axis=0) / safe)
    err = np.where(lost, GAP_ERR, np.sqrt((weight**2 * variance).sum(axis=0)) / safe)
    return mean.astype(np.float32), err.astype(np.float32)


def observe(
    clean: FloatArray, *, snr: float, n_visits: int, velocity_km_s: float, rng: np.random.Generator
) -> Exposure:
    """Observe a spectrum.

    Parameters
    ----------
    clean : ndarray of float32, shape (n_pixels,)
        Flux without noise, 1e-17 erg/s/cm2/Angstrom.
    snr : float
        Flux over error, a pixel, that the visits together aim at.
    n_visits : int
        Number of visits.
    velocity_km_s : float
        Radial velocity of the star.
    rng : Generator
        Source of all noise.

    Returns
    -------
    Exposure
    """
    hole = _holes(rng)
    level = float(np.median(clean)) / snr * np.sqrt(n_visits)
    visits = []
    for _ in range(n_visits):
        velocity = velocity_km_s + rng.uniform(-BARYCENTRIC_KM_S, BARYCENTRIC_KM_S)
        shift = int(np.clip(round(-velocity / PIXEL_KM_S), -MAX_SHIFT, MAX_SHIFT))
        visits.append(_visit(clean, float(level), shift, hole, rng))
    if n_visits == 1:
        return Exposure(*visits[0])
    flux, err, mask = (np.array(plane) for plane in zip(*visits, strict=True))
    good = err < GAP_ERR
    variance = np.where(good, err.astype(np.float64) ** 2, 1.0)
    best = _combined(flux, np.where(good, 1.0 / variance, 0.0), variance)
    by_visit = 1.0 / np.median(err, axis=1, keepdims=True).astype(np.float64) ** 2
    whole = _combined(flux, np.where(good, by_visit, 0.0), variance)
    seen = good.any(axis=0)
    # any visit's bits, but "bad" only where no visit has a measurement
    either = np.bitwise_or.reduce(np.where(good, mask, 0), axis=0)
    both = np.bitwise_and.reduce(mask, axis=0)
    lost = int(PixelMask.BADPIX)
    return Exposure(
        np.vstack([best[0], whole[0], flux]),
        np.vstack([best[1], whole[1], err]),
        np.vstack([np.where(seen, either, lost), np.where(seen, both & ~lost, lost), mask]).astype(np.int32),
    )
