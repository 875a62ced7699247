"""One apStar file: its combined spectrum or its visits, or the reason why it cannot be used."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from astropy.io import fits

from apogee_batch.errors import ApStarError, RejectReason
from apogee_batch.survey.byte_ranges import (
    FIRST_READ_BYTES,
    MAX_FILE_BYTES,
    ByteSource,
    open_bytes,
)
from apogee_batch.survey.content_hash import ContentHash, FileContent, HashName, begin_hash
from apogee_batch.survey.fits_headers import (
    BLOCK_BYTES,
    Hdu,
    Header,
    check_promise,
    check_rest,
    read_hdu,
)
from apogee_batch.survey.identity import describe_star, guess_apogee_id, is_identifier
from apogee_batch.survey.pixels import LOG10_WAVELENGTH_0, LOG10_WAVELENGTH_STEP, N_PIXELS
from apogee_batch.survey.spectrum import AnyArray, RejectedSpectrum, Spectrum, Star, measure_spectrum

__all__ = [
    "FileContent",
    "RejectedSpectrum",
    "Rows",
    "Spectrum",
    "Star",
    "count_spectra",
    "read_apstar",
    "read_apstar_file",
]

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
N_COMBINED_ROWS = 2  # combined by pixel weights and combined globally come before the visits
GRID_TOLERANCE = 0.01 * LOG10_WAVELENGTH_STEP
# Of HDU 1, 2 and 3, header and combined spectrum: behind the first read, float32, int16.
AHEAD_BYTES = (BLOCK_BYTES, BLOCK_BYTES + 4 * N_PIXELS, BLOCK_BYTES + 2 * N_PIXELS)


def read_apstar(
    path: Path, *, rows: Rows = "combined", known: Star | None = None
) -> list[Spectrum] | RejectedSpectrum:
    """Read the spectra of one file; a file that cannot be used costs that file only.

    An uncompressed file is read by byte range: about 100 kB of it. What it holds beside flux, err
    and mask is not looked at.

    Parameters
    ----------
    path : Path
        The file, plain or gzip.
    rows : {"combined", "visits"}
        The spectrum combined by pixel weights (one), or each visit (one or more).
    known : Star, optional
        What a summary table knows of the star; it wins over the header. Where it says nothing
        ("", None, NaN, 0 visits, starflag -1) the header does, else the names of file and folder.

    Returns
    -------
    list of Spectrum, or RejectedSpectrum
        A file is taken whole or not at all: one visit without a good pixel rejects it.
    """
    return _read_or_reject(path, rows, known, None)


def read_apstar_file(
    path: Path, *, rows: Rows = "combined", known: Star | None = None, hash_name: HashName = "blake3"
) -> tuple[list[Spectrum] | RejectedSpectrum, FileContent]:
    """Read the spectra of one file, as `read_apstar` does, and tell what the file was.

    The hash is made of what is read, while it is read: the file is not read a second time, and a change
    behind the mask of an uncompressed file goes unseen, as it does in the spectrum.
    """
    content = begin_hash(hash_name)
    return _read_or_reject(path, rows, known, content), content.content()


def _read_or_reject(
    path: Path, rows: Rows, known: Star | None, content: ContentHash | None
) -> list[Spectrum] | RejectedSpectrum:
    """Read the spectra of one file, and note what is read in `content`."""
    primary = None
    try:
        with open_bytes(path, content) as source:
            primary = _open_primary(source)
            return _read(source, primary, rows, known)
    except ApStarError as error:
        is_known = known is not None and is_identifier(known.apogee_id)
        apogee_id = known.apogee_id if known is not None and is_known else guess_apogee_id(path, primary)
        return RejectedSpectrum(str(path), apogee_id, error.reason, error.text)


def count_spectra(path: Path, *, rows: Rows) -> int:
    """Return how many spectra `read_apstar` gives, from the headers alone.

    It is 1 for a file that cannot be read: `read_apstar` rejects it, which takes a row too.
    """
    if rows == "combined":
        return 1
    try:
        with open_bytes(path) as source:
            flux_hdu = _image(source, _open_primary(source).end, 1)
            return _choose_rows(path, _count_rows(path, flux_hdu), rows)[1]
    except ApStarError:
        return 1


def _read(source: ByteSource, primary: Hdu, rows: Rows, known: Star | None) -> list[Spectrum]:
    """Read the spectra of one file.

    Raises
    ------
    ApStarError
        With the reason why not.
    """
    path = source.path
    n_rows, arrays = _read_arrays(source, primary, rows)
    n_visits = max(1, n_rows - N_COMBINED_ROWS)
    star = describe_star(path, primary.header, n_visits=n_visits, known=known)
    spectra = []
    for i, (flux, err, mask) in enumerate(zip(*arrays, strict=True)):
        of_row = star if rows == "combined" else _describe_visit(star, primary.header, i + 1)
        spectra.append(measure_spectrum(path, of_row, flux, err, mask))
    return spectra


def _read_arrays(source: ByteSource, primary: Hdu, rows: Rows) -> tuple[int, list[AnyArray]]:
    """Return the number of rows in a file, and flux, err and mask of those wanted, as the file types them."""
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


def _open_primary(source: ByteSource) -> Hdu:
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
    content = CONTENTS[number - 1]
    if hdu is None:
        reason = RejectReason.TRUNCATED if start > source.size() else RejectReason.MISSING_HDU
        raise ApStarError(source.path, reason, f"the file has no HDU{number} ({content})")
    image = hdu.header.image
    if image is None:
        text = f"HDU{number} is a table where apStar has an image of the {content}"
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
    check_promise(source, hdu)
    return hdu


def _count_rows(path: Path, *hdus: Hdu) -> int:
    """Return the number of spectra in a file; a star with one visit has no axis for them.

    Raises
    ------
    ApStarError
        BAD_SHAPE where flux, err and mask differ.
    """
    shapes = [hdu.header.image.shape for hdu in hdus if hdu.header.image is not None]
    if any(shape != shapes[0] for shape in shapes):
        text = f"flux, err and mask have shapes {shapes[0]}, {shapes[1]} and {shapes[2]}"
        raise ApStarError(path, RejectReason.BAD_SHAPE, text)
    return shapes[0][0] if len(shapes[0]) > 1 else 1


def _check_grid(path: Path, primary: Header, of_flux: Header) -> None:
    """Raise BAD_GRID unless both ends of the wavelength axis are where they should be."""
    header = of_flux if of_flux.number("CRVAL1") is not None else primary
    start, step = header.number("CRVAL1"), header.number("CDELT1")
    if start is None or step is None:
        raise ApStarError(path, RejectReason.BAD_GRID, "no CRVAL1 and CDELT1 in HDU1 or HDU0")
    if not _is_apstar_grid(start, step, header.number("CRPIX1")):
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
    if not all(hdu.header.is_plain for hdu in hdus):
        return _decode(source, first, n_spectra)
    arrays = []
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
    content = BytesIO(source.read(0, source.size()))
    wanted = slice(first, first + n_spectra)
    try:
        with _DECODING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(content, memmap=False) as hdus:
                arrays = [np.atleast_2d(hdus[number].data)[wanted] for number in (1, 2, 3)]
    except Exception as error:  # decoders have error types of their own, which they do not export
        text = f"astropy cannot decode it: {error!r:.300}"  # as repr, because the file may speak through it
        raise ApStarError(source.path, RejectReason.UNREADABLE, text) from error
    if any(array.shape != (n_spectra, N_PIXELS) for array in arrays):
        raise ApStarError(source.path, RejectReason.BAD_SHAPE, "an image is not what its header says")
    return arrays


def _describe_visit(star: Star, primary: Header, visit: int) -> Star:
    """Return what is known of one visit of a star."""
    flag = primary.integer(f"FLAG{visit}")
    return replace(
        star,
        apstar_id=f"{star.apstar_id}.visit{visit:02d}",
        snr_header=float("nan"),
        n_visits=1,
        visit=visit,
        starflag=star.starflag if flag is None or not 0 <= flag < 2**63 else flag,
    )
