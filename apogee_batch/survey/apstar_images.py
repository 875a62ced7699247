"""The images of an apStar file: where flux, err and mask lie in it, and their values as it types them."""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np

from apogee_batch.errors import ApStarError, RejectReason
from apogee_batch.survey.byte_ranges import FIRST_READ_BYTES, MAX_FILE_BYTES, ByteSource
from apogee_batch.survey.fits_headers import (
    BLOCK_BYTES,
    Hdu,
    Header,
    check_promise,
    check_rest,
    read_hdu,
)
from apogee_batch.survey.pixels import LOG10_WAVELENGTH_0, LOG10_WAVELENGTH_STEP, N_PIXELS
from apogee_batch.survey.spectrum import AnyArray

Rows = Literal["combined", "visits"]

DTYPES: dict[int, np.dtype[Any]] = {  # of BITPIX
    8: np.dtype("u1"),
    16: np.dtype(">i2"),
    32: np.dtype(">i4"),
    64: np.dtype(">i8"),
    -32: np.dtype(">f4"),
    -64: np.dtype(">f8"),
}
_DECODING = Lock()  # `warnings.catch_warnings` changes what all threads share
CONTENTS = ("flux", "err", "mask")  # of HDU 1, 2 and 3
VISIT_SHAPES = ((3, 4096), (3, 2048))  # three detectors, dithered or not: apVisit, asVisit
N_COMBINED_ROWS = 2  # combined by pixel weights and combined globally come before the visits
GRID_TOLERANCE = 0.01 * LOG10_WAVELENGTH_STEP
# Of HDU 1, 2 and 3, header and combined spectrum: behind the first read, float32, int16.
AHEAD_BYTES = (BLOCK_BYTES, BLOCK_BYTES + 4 * N_PIXELS, BLOCK_BYTES + 2 * N_PIXELS)


def read_images(source: ByteSource, primary: Hdu, rows: Rows) -> tuple[int, list[AnyArray]]:
    """Read flux, err and mask of the rows wanted.

    Parameters
    ----------
    source : ByteSource
        The file.
    primary : Hdu
        Its primary HDU.
    rows : {"combined", "visits"}
        Which rows.

    Returns
    -------
    int
        Number of rows in the file.
    list of ndarray, each of shape (n_spectra, n_pixels)
        Flux, err and mask, as the file types them.

    Raises
    ------
    ApStarError
        With the reason why not.
    """
    path = source.path
    flux_hdu = _image(source, primary.end, 1)
    err_hdu = _image(source, flux_hdu.end, 2)
    mask_hdu = _image(source, err_hdu.end, 3)
    n_rows = _count_rows(path, flux_hdu, err_hdu, mask_hdu)
    _check_grid(path, primary.header, flux_hdu.header)
    first, n_spectra = _choose_rows(path, n_rows, rows)
    arrays = _values(source, (flux_hdu, err_hdu, mask_hdu), first, n_spectra)
    check_rest(source, mask_hdu.end)
    return n_rows, arrays


def count_rows(source: ByteSource, rows: Rows) -> int:
    """Return how many spectra a file holds of those wanted, from its first two headers.

    Raises
    ------
    ApStarError
        As for `read_images`.
    """
    flux_hdu = _image(source, open_primary(source).end, 1)
    return _choose_rows(source.path, _count_rows(source.path, flux_hdu), rows)[1]


def open_primary(source: ByteSource) -> Hdu:
    """Return the primary HDU; raise NOT_FITS where there is none."""
    primary = read_hdu(source, 0, ahead=FIRST_READ_BYTES)
    if primary is None:
        text = "does not begin as FITS files do, with SIMPLE"
        raise ApStarError(source.path, RejectReason.NOT_FITS, text)
    return primary


def _image(source: ByteSource, start: int, number: int) -> Hdu:
    """Return HDU `number`, which begins at `start` and must be an image on the apStar grid.

    Raises
    ------
    ApStarError
        MISSING_HDU, NOT_APSTAR, BAD_SHAPE, TOO_LARGE, TRUNCATED.
    """
    hdu = read_hdu(source, start, ahead=AHEAD_BYTES[number - 1])
    if hdu is None:
        reason = RejectReason.TRUNCATED if start > source.size() else RejectReason.MISSING_HDU
        raise ApStarError(source.path, reason, f"the file has no HDU{number} ({CONTENTS[number - 1]})")
    if number not in hdu.header.accepted_as:  # those of most files were seen before
        _check_image(source, hdu.header, number)
        hdu.header.accepted_as |= {number}
    check_promise(source, hdu)
    return hdu


def _check_image(source: ByteSource, header: Header, number: int) -> None:
    """Raise NOT_APSTAR, BAD_SHAPE or TOO_LARGE unless a header is that of HDU `number`."""
    image, content = header.image, CONTENTS[number - 1]
    if image is None:
        text = f"HDU{number} is a table where apStar has an image of the {content}"
        raise ApStarError(source.path, RejectReason.NOT_APSTAR, text)
    if image.shape in VISIT_SHAPES:
        text = (
            f"HDU{number} has shape {image.shape}, as apVisit files have: one exposure, on the pixels of the "
            "detectors; give the apStar file of its star (--row visits reads its visits)"
        )
        raise ApStarError(source.path, RejectReason.NOT_APSTAR, text)
    if len(image.shape) not in (1, 2) or image.shape[-1] != N_PIXELS or image.shape[0] < 1:
        text = f"HDU{number} ({content}) has shape {image.shape}, not (n, {N_PIXELS}) or ({N_PIXELS},)"
        raise ApStarError(source.path, RejectReason.BAD_SHAPE, text)
    # A few compressed tiles may promise any size.
    if prod(image.shape) * abs(image.bitpix) // 8 > MAX_FILE_BYTES:
        text = f"HDU{number} ({content}) has shape {image.shape}, larger than any apStar file's"
        raise ApStarError(source.path, RejectReason.TOO_LARGE, text)
    if (image.bitpix > 0) != (content == "mask"):
        kind = "integers" if image.bitpix > 0 else "real numbers"
        text = f"HDU{number} holds {kind} where apStar has its {content}, as aspcapStar and others do"
        raise ApStarError(source.path, RejectReason.NOT_APSTAR, text)


def _count_rows(path: Path, *hdus: Hdu) -> int:
    """Return the number of spectra in a file; a star with one visit has no axis for them.

    Raises
    ------
    ApStarError
        BAD_SHAPE where flux, err and mask differ.
    """
    shapes = [hdu.header.image.shape for hdu in hdus if hdu.header.image is not None]
    if shapes.count(shapes[0]) < len(shapes):
        text = f"flux, err and mask have shapes {shapes[0]}, {shapes[1]} and {shapes[2]}"
        raise ApStarError(path, RejectReason.BAD_SHAPE, text)
    return shapes[0][0] if len(shapes[0]) > 1 else 1


def _check_grid(path: Path, primary: Header, of_flux: Header) -> None:
    """Raise BAD_GRID unless both ends of the wavelength axis are where they should be."""
    start, step, reference = of_flux.grid if of_flux.grid[0] is not None else primary.grid
    if start is None or step is None:
        raise ApStarError(path, RejectReason.BAD_GRID, "no CRVAL1 and CDELT1 in HDU1 or HDU0")
    if not _is_apstar_grid(start, step, reference):
        text = f"wavelengths are 10**({start} + {step} i), not {LOG10_WAVELENGTH_0} and 6e-6"
        raise ApStarError(path, RejectReason.BAD_GRID, text)


@lru_cache(maxsize=64)
def _is_apstar_grid(start: float, step: float, reference: float | None) -> bool:
    """Tell whether the first and the last pixel are where those of apStar are."""
    start += (1.0 - (1.0 if reference is None else reference)) * step  # pixels are counted from 1
    at_first, of_step = start - LOG10_WAVELENGTH_0, step - LOG10_WAVELENGTH_STEP
    return abs(at_first) < GRID_TOLERANCE and abs(at_first + (N_PIXELS - 1) * of_step) < GRID_TOLERANCE


def _choose_rows(path: Path, n_rows: int, rows: Rows) -> tuple[int, int]:
    """Return the first row to read and how many.

    Raises
    ------
    ApStarError
        BAD_SHAPE for two rows, which are two combinations of no visits.
    """
    if rows == "combined" or n_rows == 1:
        return 0, 1
    if n_rows == N_COMBINED_ROWS:
        raise ApStarError(path, RejectReason.BAD_SHAPE, "two rows: combined spectra without their visits")
    return N_COMBINED_ROWS, n_rows - N_COMBINED_ROWS


def _values(source: ByteSource, hdus: Sequence[Hdu], first: int, n_spectra: int) -> list[AnyArray]:
    """Return flux, err and mask as the file types them, each of shape (n_spectra, n_pixels)."""
    if not all([hdu.header.is_plain for hdu in hdus]):  # noqa: C419  a generator takes longer
        return _decode(source, first, n_spectra)
    arrays: list[AnyArray] = []
    for hdu in hdus:
        dtype = DTYPES[hdu.layout.bitpix]
        row_bytes = N_PIXELS * dtype.itemsize
        n_bytes = n_spectra * row_bytes
        content, at = source.locate(hdu.data_start + first * row_bytes, n_bytes)
        if len(content) < at + n_bytes:  # another process has cut the file since we asked
            raise ApStarError(source.path, RejectReason.TRUNCATED, "the file became shorter while read")
        arrays.append(np.frombuffer(content, dtype, n_spectra * N_PIXELS, at).reshape(n_spectra, N_PIXELS))
    return arrays


def _decode(source: ByteSource, first: int, n_spectra: int) -> list[AnyArray]:
    """Return the same as `_values` by astropy, for scaled and tile-compressed images."""
    from astropy.io import fits  # few files need it, and to import it takes a quarter of a second

    content = BytesIO(source.read(0, source.size()))
    wanted = slice(first, first + n_spectra)
    try:
        with _DECODING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(content, memmap=False) as hdus:
                # copies: views would keep all rows of the file in memory for as long as these
                arrays = [np.array(np.atleast_2d(hdus[number].data)[wanted]) for number in (1, 2, 3)]
    except Exception as error:  # decoders have error types of their own, which they do not export
        text = f"astropy cannot decode it: {error!r:.300}"  # as repr, because the file may speak through it
        raise ApStarError(source.path, RejectReason.UNREADABLE, text) from error
    if any(array.shape != (n_spectra, N_PIXELS) for array in arrays):
        raise ApStarError(source.path, RejectReason.BAD_SHAPE, "an image is not what its header says")
    return arrays
