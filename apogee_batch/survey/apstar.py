"""One apStar file: its combined spectrum or its visits, or the reason why it cannot be used."""

from pathlib import Path
from typing import NamedTuple

from apogee_batch.errors import ApStarError
from apogee_batch.survey.apstar_images import N_COMBINED_ROWS, Rows, count_rows, open_primary, read_images
from apogee_batch.survey.byte_ranges import ByteSource, open_bytes
from apogee_batch.survey.content_hash import ContentHash, FileContent, HashName, begin_hash
from apogee_batch.survey.fits_headers import Hdu, Header
from apogee_batch.survey.identity import describe_star, guess_apogee_id, is_identifier
from apogee_batch.survey.spectrum import AnyArray, RejectedSpectrum, Spectrum, Star, measure_spectrum

__all__ = [
    "FileContent",
    "FileValues",
    "RejectedSpectrum",
    "Rows",
    "Spectrum",
    "Star",
    "count_spectra",
    "read_apstar",
    "read_apstar_file",
    "read_values",
]


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
    return _measured(read_values(path, rows, known, None))


def read_apstar_file(
    path: Path, *, rows: Rows = "combined", known: Star | None = None, hash_name: HashName = "blake3"
) -> tuple[list[Spectrum] | RejectedSpectrum, FileContent]:
    """Read the spectra of one file, as `read_apstar` does, and tell what the file was.

    The hash is made of what is read, while it is read: the file is not read a second time, and a change
    behind the mask of an uncompressed file goes unseen, as it does in the spectrum.
    """
    content = begin_hash(hash_name)
    return _measured(read_values(path, rows, known, content)), content.content()


class FileValues(NamedTuple):
    """What a file holds of spectra, before they are looked at.

    Attributes
    ----------
    path, known, primary
        The file; what a summary table knows of its star; the primary HDU.
    stars : list of Star, length n_spectra
        Whose they are, without what the spectra tell.
    flux, err, mask : ndarray, shape (n_spectra, n_pixels)
        As the file types them.
    """

    path: Path
    known: Star | None
    primary: Hdu
    stars: list[Star]
    flux: AnyArray
    err: AnyArray
    mask: AnyArray

    def measure(self) -> list[Spectrum] | RejectedSpectrum:
        """Return the spectra, their gaps in one form; or, for the first that is of no use, why."""
        try:
            rows = zip(self.stars, self.flux, self.err, self.mask, strict=True)
            return [measure_spectrum(self.path, *row) for row in rows]
        except ApStarError as error:
            return _reject(error, self.path, self.known, self.primary)


def read_values(
    path: Path, rows: Rows, known: Star | None, content: ContentHash | None
) -> FileValues | RejectedSpectrum:
    """Read what one file holds of spectra, which are to be measured yet.

    Parameters
    ----------
    path, rows, known
        As for `read_apstar`.
    content : ContentHash or None
        Told what is read.
    """
    primary = None
    try:
        with open_bytes(path, content) as source:
            primary = open_primary(source)
            return _read(source, primary, rows, known)
    except ApStarError as error:
        return _reject(error, path, known, primary)


def _measured(values: FileValues | RejectedSpectrum) -> list[Spectrum] | RejectedSpectrum:
    return values if isinstance(values, RejectedSpectrum) else values.measure()


def _reject(error: ApStarError, path: Path, known: Star | None, primary: Hdu | None) -> RejectedSpectrum:
    """Say why a file is of no use, and which star it is about, as far as anything tells."""
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
            return count_rows(source, rows)
    except ApStarError:
        return 1


def _read(source: ByteSource, primary: Hdu, rows: Rows, known: Star | None) -> FileValues:
    """Read what one file holds.

    Raises
    ------
    ApStarError
        With the reason why not.
    """
    path = source.path
    n_rows, (flux, err, mask) = read_images(source, primary, rows)
    n_visits = max(1, n_rows - N_COMBINED_ROWS)
    star = describe_star(path, primary.header, n_visits=n_visits, known=known)
    stars = [star]
    if rows == "visits":
        stars = [_describe_visit(star, primary.header, i + 1) for i in range(len(flux))]
    return FileValues(path, known, primary, stars, flux, err, mask)


def _describe_visit(star: Star, primary: Header, visit: int) -> Star:
    """Return what is known of one visit of a star."""
    flag = primary.integer(f"FLAG{visit}")
    of_visit = {
        "apstar_id": f"{star.apstar_id}.visit{visit:02d}",
        "snr_header": float("nan"),
        "n_visits": 1,
        "visit": visit,
        "starflag": star.starflag if flag is None or not 0 <= flag < 2**63 else flag,
    }
    return Star.of(vars(star) | of_visit)
