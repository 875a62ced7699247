"""The allStar table of a release: the columns that this package uses, in one form for all releases."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.errors import UsageError
from apogee_batch.survey.identity import BRIGHTEST_MAGNITUDE
from apogee_batch.survey.pixels import MISSING_MAGNITUDE
from apogee_batch.survey.spectrum import UNKNOWN_STAR, AnyArray, Star

# FITS, and what may hold it compressed: gzip, compress, bzip2, xz, zip.
FITS_STARTS = (b"SIMPLE", b"\x1f\x8b", b"\x1f\x9d", b"BZh", b"\xfd7zXZ", b"PK")
ROWS_AT_ONCE = 65536  # rows lie one behind the other, 4 kB each with columns that nobody here wants

TEXT_COLUMNS = {
    "apstar_id": "APSTAR_ID",
    "apogee_id": "APOGEE_ID",
    "telescope": "TELESCOPE",
    "field": "FIELD",
    "file": "FILE",
}
NUMBER_COLUMNS = {  # ours: theirs, lowest and highest value that is no filler
    "ra": ("RA", 0.0, 360.0),
    "dec": ("DEC", -90.0, 90.0),
    "j": ("J", BRIGHTEST_MAGNITUDE, np.nextafter(MISSING_MAGNITUDE, 0.0)),
    "h": ("H", BRIGHTEST_MAGNITUDE, np.nextafter(MISSING_MAGNITUDE, 0.0)),
    "k": ("K", BRIGHTEST_MAGNITUDE, np.nextafter(MISSING_MAGNITUDE, 0.0)),
    "snr": ("SNR", 0.0, np.finfo(np.float64).max),
}
INTEGER_COLUMNS = {  # ours: theirs, value where there is none, lowest value that is no filler
    "location_id": ("LOCATION_ID", 0, 1),
    "n_visits": ("NVISITS", UNKNOWN_STAR.n_visits, 1),
    "starflag": ("STARFLAG", UNKNOWN_STAR.starflag, 0),
    "commiss": ("COMMISS", 0, 0),
    "extratarg": ("EXTRATARG", 0, 0),
}


@dataclass(frozen=True)
class AllStar:
    """The columns of an allStar table that this package uses.

    Attributes
    ----------
    path : Path
        The file.
    table : pa.Table, n_stars rows
        Columns apstar_id, apogee_id, telescope, field, file (strings without padding, "" where
        there is none); ra, dec, j, h, k, snr (float64, NaN where there is none); location_id (0),
        n_visits (0), starflag (-1), commiss (0), extratarg (0) (int64).
    """

    path: Path
    table: pa.Table

    @property
    def n_stars(self) -> int:
        """Number of rows."""
        return int(self.table.num_rows)

    def stars(self, rows: Sequence[int]) -> list[Star]:
        """Return what some rows know, as `read_apstar` wants to be told."""
        return [
            Star(
                apstar_id=row["apstar_id"],
                apogee_id=row["apogee_id"],
                telescope=row["telescope"],
                field=row["field"],
                location_id=row["location_id"] or None,
                ra=row["ra"],
                dec=row["dec"],
                j=row["j"],
                h=row["h"],
                k=row["k"],
                snr=UNKNOWN_STAR.snr,
                snr_header=UNKNOWN_STAR.snr_header,
                n_visits=row["n_visits"],
                visit=UNKNOWN_STAR.visit,
                starflag=row["starflag"],
                release=UNKNOWN_STAR.release,
                n_bad_pixels=UNKNOWN_STAR.n_bad_pixels,
                file=row["file"],
            )
            for row in self.table.take(pa.array(rows, pa.int64())).to_pylist()
        ]


def read_allstar(path: Path | str) -> AllStar:
    """Read an allStar table of any release from DR12 to DR17.

    Column names are compared without regard to case. Only APOGEE_ID must be there; what another
    column would have told, headers, folders and file names tell.

    Raises
    ------
    UsageError
        For a file that is no such table.
    """
    from apogee_batch.survey.table_files import UNREADABLE, first_words, open_hdus

    path = Path(path)
    remedy = "name the allStar FITS file of a release, for example allStar-l31c.2.fits"
    if not path.is_file():
        raise UsageError(f"{path}: no such file; {remedy}")
    try:
        with path.open("rb") as file:
            may_be_fits = file.read(6).startswith(FITS_STARTS)
        if not may_be_fits:
            raise UsageError(
                f"{path}: is not FITS, as allStar tables are; {remedy}, or convert a table of your own, with "
                f"TOPCAT or in Python: astropy.table.Table.read({path.name!r}).write('allStar.fits')"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_hdus(path) as hdus:
                return AllStar(path, _read_columns(path, hdus, remedy))
    except UNREADABLE as error:
        raise UsageError(f"{path}: cannot be read as FITS ({first_words(error)}); {remedy}") from error


def _read_columns(path: Path, hdus: Iterator[Any], remedy: str) -> pa.Table:
    """Return the wanted columns of the first table that has APOGEE_ID."""
    from astropy.io import fits

    found = list[str]()
    for hdu in hdus:
        if not isinstance(hdu, fits.BinTableHDU):
            continue
        found += hdu.columns.names[:12]
        columns = {
            column.name.upper(): column.name
            for column in hdu.columns
            if hdu.columns.dtype[column.name].shape == ()
        }
        if "APOGEE_ID" in columns:
            starts = range(0, len(hdu.data), ROWS_AT_ONCE)
            blocks = [_read_block(hdu.data[i : i + ROWS_AT_ONCE], columns) for i in starts]
            return pa.concat_tables(blocks) if blocks else _read_block(hdu.data, columns)
    told = ", ".join(found) or "no table, or none that is whole"
    raise UsageError(f"{path}: no column APOGEE_ID; it has {told}; {remedy}")


def _read_block(rows: Any, columns: dict[str, str]) -> pa.Table:
    """Return the wanted columns of some rows."""
    n_rows = len(rows)
    block: dict[str, pa.Array] = {}
    for ours, theirs in TEXT_COLUMNS.items():
        values = rows[columns[theirs]].tolist() if theirs in columns else [b""] * n_rows
        block[ours] = pa.array([_text(value) for value in values], pa.string())
    for ours, (theirs, low, high) in NUMBER_COLUMNS.items():
        number = _numbers(rows, columns, theirs, np.nan).astype(np.float64)
        with np.errstate(invalid="ignore"):
            block[ours] = pa.array(np.where((number >= low) & (number <= high), number, np.nan))
    for ours, (theirs, filler, low) in INTEGER_COLUMNS.items():
        value = _numbers(rows, columns, theirs, filler)
        integer = np.where(np.isfinite(value), value, filler).astype(np.int64)
        block[ours] = pa.array(np.where(integer >= low, integer, filler))
    return pa.table(block)


def _text(value: bytes | str) -> str:
    """Return a padded text of a table as text."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip(" \0")


def _numbers(rows: Any, columns: dict[str, str], name: str, filler: float) -> AnyArray:
    """Return a column of numbers; `filler` throughout where there is none."""
    if name not in columns:
        return np.full(len(rows), filler)
    values = np.asarray(rows[columns[name]])
    if values.dtype.kind not in "iufb":
        raise ValueError(f"column {name} holds no numbers")
    return values
