"""A star and its spectrum on the apStar grid, or the reason why there is none."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from apogee_batch.errors import ApStarError, RejectReason, UsageError
from apogee_batch.schema import DoubleArray, FloatArray, IntArray
from apogee_batch.survey.pixels import BAD_PIXEL_ERR, GAP_ERR, GAP_FLUX, N_PIXELS, wavelength

AnyArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Star:
    """What is known of a star beside its spectrum.

    Attributes
    ----------
    apstar_id, apogee_id, telescope, field : str
        Unique name of the spectrum; 2MASS-style name of the star, not unique; telescope; field. The
        last two are "" where nothing tells them.
    location_id : int or None
        Number of the field.
    ra, dec : float
        Degrees, J2000; NaN where unknown.
    j, h, k : float
        2MASS magnitudes; NaN where missing.
    snr : float
        Median of flux/err over all pixels of this spectrum (NaN gaps left out).
    snr_header : float
        SNR card of the file; NaN where absent, and for a visit.
    n_visits : int
        Number of visits combined.
    visit : int
        0 for the combined spectrum, else the number of the visit, from 1.
    starflag : int
        APOGEE_STARFLAG bits.
    release : str
        Reduction, for example "r8" or "dr17"; "" where unknown.
    n_bad_pixels : int
        Pixels without a measurement.
    file : str
        Name of the file, without its folder.
    """

    apstar_id: str
    apogee_id: str
    telescope: str
    field: str
    location_id: int | None
    ra: float
    dec: float
    j: float
    h: float
    k: float
    snr: float
    snr_header: float
    n_visits: int
    visit: int
    starflag: int
    release: str
    n_bad_pixels: int
    file: str

    def measured(self, *, snr: float, n_bad_pixels: int) -> "Star":
        """Return the same star with what its spectrum tells."""
        return Star.of({**vars(self), "snr": snr, "n_bad_pixels": n_bad_pixels})

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Star":
        """Return the star with these attributes, which must be all; in a fifth of the time of `Star()`."""
        star = object.__new__(cls)
        vars(star).update(values)
        return star


UNKNOWN_STAR = Star(
    apstar_id="",
    apogee_id="",
    telescope="",
    field="",
    location_id=None,
    ra=math.nan,
    dec=math.nan,
    j=math.nan,
    h=math.nan,
    k=math.nan,
    snr=math.nan,
    snr_header=math.nan,
    n_visits=0,
    visit=0,
    starflag=-1,
    release="",
    n_bad_pixels=0,
    file="",
)
"""What a source of information says that knows nothing of a star."""


@dataclass(frozen=True)
class Spectrum:
    """A spectrum on the apStar grid. A pixel without a measurement has flux 0 and err 1e10.

    Attributes
    ----------
    star : Star
        Whose it is.
    flux, err : ndarray of float32, shape (n_pixels,)
        Flux and its one-sigma error, 1e-17 erg/s/cm^2/Angstrom.
    mask : ndarray of int32, shape (n_pixels,)
        APOGEE_PIXMASK bits.
    """

    star: Star
    flux: FloatArray
    err: FloatArray
    mask: IntArray

    def __post_init__(self) -> None:
        """Check the shapes."""
        if self.flux.shape == self.err.shape == self.mask.shape == (N_PIXELS,):
            return
        for name in ("flux", "err", "mask"):
            shape = getattr(self, name).shape
            if shape != (N_PIXELS,):
                raise ValueError(f"{name} has shape {shape}, not ({N_PIXELS},)")

    @property
    def wavelength(self) -> DoubleArray:
        """Vacuum wavelength of the pixels in the star's rest frame, Angstrom, shape (n_pixels,)."""
        return wavelength()

    def to_specutils(self) -> Any:
        """Return the spectrum as specutils has it: with units, errors, and a mask of the gaps.

        Raises
        ------
        UsageError
            If specutils is not installed.
        """
        try:
            import specutils
        except ImportError as error:
            raise UsageError("this needs specutils; install it with: pip install specutils") from error
        from astropy import units as u
        from astropy.nddata import StdDevUncertainty

        kind = getattr(specutils, "Spectrum", None) or specutils.Spectrum1D  # the name before version 2
        return kind(
            flux=self.flux * u.Unit("1e-17 erg / (s cm2 Angstrom)"),
            spectral_axis=self.wavelength * u.Angstrom,
            uncertainty=StdDevUncertainty(self.err),
            mask=self.err >= BAD_PIXEL_ERR,
            meta={"star": self.star},
        )


@dataclass(frozen=True)
class RejectedSpectrum:
    """A file that gave no spectrum.

    Attributes
    ----------
    path : str
        The file.
    apogee_id : str or None
        Name of the star, where the file or its name told it.
    reason : RejectReason
        The reason code.
    text : str
        What was found, for people.
    """

    path: str
    apogee_id: str | None
    reason: RejectReason
    text: str


def measure_spectrum(path: Path, star: Star, flux: AnyArray, err: AnyArray, mask: AnyArray) -> Spectrum:
    """Return a spectrum with its gaps in one form, its SNR measured and its bad pixels counted.

    Parameters
    ----------
    path : Path
        Where the values are from, for the message of an error.
    star : Star
        Whose they are; `snr` and `n_bad_pixels` are filled in.
    flux, err, mask : ndarray, shape (n_pixels,)
        As a file holds them: any type, either byte order.

    Raises
    ------
    ApStarError
        NON_FINITE, NO_GOOD_PIXELS, BAD_MASK.
    """
    with np.errstate(all="ignore"):  # NaN, 0 and 1e300 are what is looked for here
        flux32: FloatArray = flux.astype(np.float32)
        err32: FloatArray = err.astype(np.float32)
        ratio: FloatArray = flux32 / err32
        # The SNR card is a median over gaps too, where they are numbers (flux 0, err 1e10).
        # The sum of its squares tells in one pass that all of it is finite, as almost always; so is all flux.
        if np.minimum.reduce(err32) > 0 and np.dot(ratio, ratio) < np.inf:
            is_gap = err32 >= BAD_PIXEL_ERR
        else:
            is_positive = err32 > 0
            is_gap = ~(is_positive & (err32 < BAD_PIXEL_ERR) & np.isfinite(flux32))
            ratio = ratio[is_positive & np.isfinite(ratio)]
    n_bad_pixels = int(np.count_nonzero(is_gap))
    if n_bad_pixels == N_PIXELS:
        raise _without_measurement(path, star, flux, err)
    if n_bad_pixels:
        np.copyto(flux32, GAP_FLUX, where=is_gap)
        np.copyto(err32, GAP_ERR, where=is_gap)
    star = star.measured(snr=_median(ratio), n_bad_pixels=n_bad_pixels)
    return Spectrum(star, flux32, err32, _narrow_mask(path, mask))


def measure_rows(
    flux: Sequence[AnyArray], err: Sequence[AnyArray], *, flux_out: FloatArray, err_out: FloatArray
) -> tuple[list[float], list[int]] | None:
    """Do for many spectra at once what `measure_spectrum` does, bit for bit, if all of them are ordinary.

    Parameters
    ----------
    flux, err : sequence of ndarray, shape (n_pixels,)
        As files hold them: any type, either byte order.
    flux_out, err_out : ndarray of float32, shape (n_stars, n_pixels)
        Room for the same with their gaps in one form.

    Returns
    -------
    (list of float, list of int) or None
        SNR and bad pixels of each; None, and the room means nothing, where a value is not a number, an error
        is not positive, or a spectrum has no good pixel: each is then to be measured by itself.
    """
    with np.errstate(all="ignore"):  # as above
        for i, (of_flux, of_err) in enumerate(zip(flux, err, strict=True)):
            flux_out[i], err_out[i] = of_flux, of_err
        ratio = flux_out / err_out
        if not (np.minimum.reduce(err_out, axis=None) > 0 and np.isfinite(ratio).all()):
            return None
    is_gap = err_out >= BAD_PIXEL_ERR
    n_bad_pixels = [int(np.count_nonzero(row)) for row in is_gap]
    if N_PIXELS in n_bad_pixels:
        return None
    np.copyto(flux_out, GAP_FLUX, where=is_gap)
    np.copyto(err_out, GAP_ERR, where=is_gap)
    middle = N_PIXELS // 2  # their number is odd
    ratio.partition(middle, axis=1)
    return ratio[:, middle].tolist(), n_bad_pixels


def _without_measurement(path: Path, star: Star, flux: AnyArray, err: AnyArray) -> ApStarError:
    """Return the error for a spectrum of gaps alone: of NaN and infinities, or of the pipeline's fillers."""
    which = f"visit {star.visit}" if star.visit else "the spectrum"
    if (np.isfinite(flux) & np.isfinite(err)).any():
        return ApStarError(path, RejectReason.NO_GOOD_PIXELS, f"{which} has no pixel with a measurement")
    text = f"{which} has no pixel whose flux and error are both finite"
    return ApStarError(path, RejectReason.NON_FINITE, text)


def _median(values: FloatArray) -> float:
    """Return the median, NaN of nothing, and reorder the values; several times as fast as `np.median`."""
    middle = len(values) // 2
    if len(values) % 2:
        values.partition(middle)
        return float(values[middle])
    if len(values) == 0:
        return math.nan
    values.partition((middle - 1, middle))
    return float(values[middle - 1 : middle + 1].mean())


def _narrow_mask(path: Path, mask: AnyArray) -> IntArray:
    """Return a mask as int32; raise BAD_MASK where that would change it."""
    narrow = mask.astype(np.int32) if mask.dtype.kind in "iu" else None
    if narrow is None or not (is_narrow(mask.dtype) or np.array_equal(narrow, mask)):
        text = f"values of type {mask.dtype} that do not fit 32 bits"
        raise ApStarError(path, RejectReason.BAD_MASK, text)
    return narrow


@lru_cache(maxsize=64)
def is_narrow(dtype: np.dtype[Any]) -> bool:
    """Tell whether a type is one of integers that all fit int32, in either byte order."""
    return dtype.kind in "iu" and np.can_cast(dtype, np.int32)
