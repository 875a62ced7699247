"""Hypothesis strategies for the files of the survey, as awkward as the real ones."""

import gzip
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from hypothesis import strategies as st

from apogee_batch.survey.pixels import N_PIXELS

NAME = "apStar-r8-2M19390532+4027346.fits"
GAPS = (slice(0, 205), slice(3310, 3545), slice(6117, 6302), slice(8370, 8575))
CARDS = {
    "OBJID": "2M19390532+4027346",
    "TELESCOP": "apo25m",
    "LOCID": 4263,
    "FIELD": "N6819",
    "RA": 294.772188,
    "DEC": 40.459633,
    "J": 10.517,
    "H": 10.305,
    "K": 10.268,
    "STARFLAG": 198656,
}
GRID = {"CRVAL1": 4.179, "CDELT1": 6e-6, "CRPIX1": 1, "CTYPE1": "LOG-LINEAR"}


@dataclass(frozen=True)
class ApStarFile:
    """An apStar file and what went into it.

    Attributes
    ----------
    content : bytes
        The file, not compressed.
    flux, err, mask : ndarray, shape (n_rows, n_pixels)
        As written: any type, gaps in any form.
    is_gap : ndarray of bool, shape (n_rows, n_pixels)
        Pixels without a measurement.
    """

    content: bytes
    flux: npt.NDArray[Any]
    err: npt.NDArray[Any]
    mask: npt.NDArray[Any]
    is_gap: npt.NDArray[np.bool_]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Tell Hypothesis how to print it: without its megabyte."""
        kinds = ", ".join(f"{a.dtype} {a.shape}" for a in (self.flux, self.mask))
        printer.text(f"ApStarFile of {len(self.content)} bytes: {kinds}")

    @property
    def n_visits(self) -> int:
        """Visits in it."""
        return max(1, len(self.flux) - 2)


def simple_file(n_rows: int = 1, **options: Any) -> bytes:
    """Return an ordinary apStar file; `options` as for `write_apstar`."""
    flux, err, mask, _ = make_values(n_rows)
    return write_apstar(flux, err, mask, **options)


def compress_images(images: list[npt.NDArray[Any]]) -> list[Any]:
    """Return images as tables of compressed tiles, without loss, as fpack writes them."""
    hdus = [fits.CompImageHDU(image, compression_type="GZIP_1", quantize_level=0.0) for image in images]
    for hdu in hdus:
        hdu.header.update(GRID)
    return hdus


def make_values(
    n_rows: int, *, seed: int = 0, real: str = "f4", integer: str = "i2", gap: str = "zero"
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return flux, err, mask and gaps of some rows; flux spans the survey's three decades."""
    rng = np.random.default_rng(seed)
    shape = (n_rows, N_PIXELS)
    flux = (10 ** rng.uniform(0, 4) * rng.normal(1.0, 0.05, shape)).astype(real)
    err = np.abs(flux * 0.01 + 1.0).astype(real)
    mask = rng.integers(0, 1 << 7, shape).astype(integer)
    is_gap = np.zeros(shape, bool)
    for block in GAPS:
        is_gap[:, block] = True
    is_gap |= rng.random(shape) < 0.003
    flux[is_gap], err[is_gap] = (0.0, 1e10) if gap == "zero" else (np.nan, np.nan)
    mask[is_gap] |= 1
    return flux, err, mask, is_gap


def write_apstar(
    flux: npt.NDArray[Any],
    err: npt.NDArray[Any],
    mask: npt.NDArray[Any],
    *,
    cards: dict[str, Any] | None = None,
    grid: dict[str, Any] | None = None,
    grid_in_primary: bool = False,
    n_extra: int = 2,
) -> bytes:
    """Return an apStar file, written by astropy; `n_extra` images follow the mask, as sky does."""
    grid = GRID if grid is None else grid
    with np.errstate(all="ignore"):
        ratio = np.atleast_2d(flux)[0] / np.atleast_2d(err)[0]
    ratio = ratio[np.isfinite(ratio)]
    snr = float(np.median(ratio)) if len(ratio) else None
    primary = fits.PrimaryHDU()
    own = {"SNR": snr, "NVISITS": max(1, np.atleast_2d(flux).shape[0] - 2), **CARDS, **(cards or {})}
    for name, value in {**own, **(grid if grid_in_primary else {})}.items():
        if value is not None:
            primary.header[name] = value
    images = [fits.ImageHDU(array) for array in (flux, err, mask, *[flux] * n_extra)]
    for image in images:
        image.header.update({} if grid_in_primary else grid)
    return to_bytes([primary, *images])


@st.composite
def apstar_files(draw: st.DrawFn, *, max_rows: int = 4) -> ApStarFile:
    """Draw an apStar file of any release: any shape, type, form of gaps and place of the grid."""
    n_rows = draw(st.sampled_from([1, *range(3, max_rows + 1)]))
    flux, err, mask, is_gap = make_values(
        n_rows,
        seed=draw(st.integers(0, 2**32 - 1)),
        real=draw(st.sampled_from(["f4", "f8"])),
        integer=draw(st.sampled_from(["u1", "i2", "i4", "i8"])),
        gap=draw(st.sampled_from(["zero", "nan"])),
    )
    is_flat = n_rows == 1 and draw(st.booleans())
    written = [array[0] if is_flat else array for array in (flux, err, mask)]
    content = write_apstar(
        *written, grid_in_primary=draw(st.booleans()), n_extra=draw(st.integers(min_value=0, max_value=2))
    )
    return ApStarFile(content, flux, err, mask, is_gap)


def to_bytes(hdus: list[Any]) -> bytes:
    """Return the file that some HDUs make."""
    file = io.BytesIO()
    fits.HDUList(hdus).writeto(file)
    return file.getvalue()


def packed(content: bytes) -> bytes:
    """Return the gzip form of a file, the same each time."""
    return gzip.compress(content, compresslevel=1, mtime=0)


def make_table(folder: Path, columns: dict[str, tuple[str, list[Any]]], name: str = "allStar.fits") -> Path:
    """Write a table of FITS formats and values."""
    hdu = fits.BinTableHDU.from_columns(
        [fits.Column(name, form, array=np.array(values)) for name, (form, values) in columns.items()]
    )
    path = folder / name
    path.write_bytes(to_bytes([fits.PrimaryHDU(), hdu]))
    return path
