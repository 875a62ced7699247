"""Table 4 of the paper as the journals' machine-readable table (MRT)."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.table import Column, MaskedColumn, Table

from apogee_batch.catalog.annotations import FRAME, TITLE
from apogee_batch.catalog.facts import ROW_COUNT
from apogee_batch.catalog.rows import CatalogRows, ascii_text
from apogee_batch.errors import UsageError
from apogee_batch.files import FileDigest, write_text
from apogee_batch.schema import catalog_flags

TYPE_WORDS = {"mstar": "Mstar", "yso": "YSO", "payne": "Payne"}  # as the paper prints them
_WIDTH = 80  # of a line
_RULE = "=" * _WIDTH
_NOTE_RULE = "-" * _WIDTH
_NOTE, _NOTE_ON_ERRORS = "(1)", "(2)"  # what a column says that a note explains
_SCATTER = f"scatter of the realizations, not the error to use {_NOTE_ON_ERRORS}"
_ON_ERRORS = (
    "How far the network's answer moves with the noise of the spectrum. Errors of the labels and of the "
    "method are not in it; the scatter between predictions and labels is several times larger. The errors to "
    "use, where the model has a calibration, are e_logg_total, e_teff_total and e_fe_h_total of the "
    "catalogue, for rows without STRANGE_SPECTRUM, OUTSIDE_TRAINING and TEFF_EDGE."
)


@dataclass(frozen=True)
class _Printed:
    """A column as Table 4 prints it: what it is called, where it is from, with how many decimals."""

    label: str
    name: str
    decimals: int
    unit: str
    description: str


_NUMBERS = (
    _Printed("RAdeg", "ra", 6, "deg", f"Right ascension, {FRAME}"),
    _Printed("DEdeg", "dec", 6, "deg", f"Declination, {FRAME}"),
    _Printed("logg-label", "logg_label", 2, "dex(cm/s2)", "Surface gravity, label"),
    _Printed("logg", "logg", 2, "dex(cm/s2)", "Surface gravity, prediction"),
    _Printed("e_logg", "e_logg", 3, "dex(1)", f"Uncertainty of logg: {_SCATTER}"),
    _Printed("Teff-label", "teff_label", 0, "K", "Effective temperature, label"),
    _Printed("Teff", "teff", 0, "K", "Effective temperature, prediction"),
    _Printed("e_Teff", "e_teff", 1, "K", f"Uncertainty of Teff: {_SCATTER}"),
    _Printed("Fe/H-label", "fe_h_label", 2, "dex(1)", "Iron abundance, label"),
    _Printed("Fe/H", "fe_h", 2, "dex(1)", "Iron abundance, prediction"),
    _Printed("e_Fe/H", "e_fe_h", 3, "dex(1)", f"Uncertainty of Fe/H: {_SCATTER}"),
    _Printed("SNR", "snr", 1, "", "Signal-to-noise ratio per pixel"),
)
_NEEDED = ("apogee_id", *(column.name for column in _NUMBERS), "data_set", "data_type")


def write_mrt(
    rows: CatalogRows, path: Path, *, metadata: Mapping[str, str], staging: Path | None = None
) -> FileDigest:
    """Write Table 4 of the paper: its columns, without stars above 6700 K.

    Labels and predictions have its decimals, the uncertainties one more, since many would be zero. Stars
    without a prediction are left out as well. A missing value is blank.

    Parameters
    ----------
    rows : CatalogRows
        The catalogue, in the order it is to have.
    path : Path
        The file, replaced whole or not at all.
    metadata : mapping of str to str
        What else to say of the catalogue: a note below the description of the columns.
    staging : Path, optional
        Not needed: the table is made in memory.

    Raises
    ------
    UsageError
        If no star is left for it: an MRT has one line at least.
    """
    del staging
    stars = pa.concat_tables(_printed_stars(piece) for piece in rows.pieces())
    if not len(stars):
        raise UsageError(
            f"{path}: not made: an MRT without stars is none, and no star of the catalogue has a prediction "
            f"up to {catalog_flags()['TEFF_EDGE'].threshold:g} K; choose another --format"
        )
    text = io.StringIO()
    table4(stars).write(text, format="ascii.mrt")
    notes = {ROW_COUNT: str(len(stars)), **metadata}
    return write_text(path, _with_title_and_note(text.getvalue(), notes))


def _printed_stars(piece: pa.Table) -> pa.Table:
    """Return the columns of the stars that Table 4 holds."""
    limit = catalog_flags()["TEFF_EDGE"].threshold
    return piece.select(_NEEDED).filter(pc.less_equal(piece["teff"], limit))  # drops nulls too


def table4(stars: pa.Table) -> Table:
    """Return the columns of Table 4, rounded as printed.

    Parameters
    ----------
    stars : pa.Table
        Rows of the catalogue.

    Returns
    -------
    astropy.table.Table
        Numbers in float64, since the writer of MRT takes no others.
    """
    table = Table()
    table["APOGEE"] = _texts(stars["apogee_id"], {}, f"Name of the star in APOGEE {_NOTE}")
    for column in _NUMBERS:
        table[column.label] = _numbers(stars[column.name], column)
    table["Set"] = _texts(stars["data_set"], {}, "How the label was used: train, dev, test, or blank")
    table["Type"] = _texts(stars["data_type"], TYPE_WORDS, "Origin of the label: Mstar, YSO, Payne, or blank")
    return table


def _numbers(values: pa.ChunkedArray, column: _Printed) -> Any:
    """Return a column of numbers with a format of fixed width, masked where null."""
    is_missing = np.asarray(pc.is_null(values, nan_is_null=True).to_numpy(zero_copy_only=False))
    numbers = pc.fill_null(values, 0.0).to_numpy().astype(np.float64)
    numbers = np.where(is_missing, 0.0, numbers).round(column.decimals) + 0.0  # no minus before a zero
    ends = (numbers.min(), numbers.max()) if len(numbers) else (0.0,)
    printed = [f"{number:.{column.decimals}f}" for number in ends]
    width = max(map(len, printed))
    kind = "d" if column.decimals == 0 else f".{column.decimals}f"
    # the writer says of each masked column that it may lack a number
    make = partial(MaskedColumn, mask=is_missing) if is_missing.any() else Column
    return make(
        numbers.astype(np.int64) if column.decimals == 0 else numbers,
        unit=column.unit or None,
        description=column.description,
        format=f"%{width}{kind}",
    )


def _texts(values: pa.ChunkedArray, words: Mapping[str, str], description: str) -> Any:
    """Return a text column in ASCII, blank where null."""
    texts = [words.get(text, ascii_text(text)) if text else "" for text in values.to_pylist()]
    # not masked, or it would have the sign of a number that may lack
    return Column(texts, description=description, dtype=str)


def _with_title_and_note(text: str, notes: Mapping[str, str]) -> str:
    """Fill in what the writer leaves blank: without a title TOPCAT refuses the file.

    The note has the journals' form: lines of another one are stars for TOPCAT.
    """
    head, rule, rest = text.partition(_RULE)
    if not rule or head.split() != ["Title:", "Authors:", "Table:"]:
        raise RuntimeError(f"the writer of MRT gave another head: {head!r}")
    table = "Labels and predictions (Table 4 of the paper)"
    title = f"Title: {TITLE}\nAuthors: made with apogee-batch\nTable: {table}\n"
    before, found, after = rest.partition(f"{_NOTE_RULE}\nNotes:\n{_NOTE_RULE}\n")
    if not found:
        raise RuntimeError("the writer of MRT gave no place for notes")
    note = [f"Note {_NOTE}: The catalogue that this table is made from."]
    for name, value in notes.items():
        said = f"{name}: {ascii_text(value)}"
        note.append(fill(said, _WIDTH, initial_indent=2 * " ", subsequent_indent=4 * " "))
    note.append(fill(f"Note {_NOTE_ON_ERRORS}: {_ON_ERRORS}", _WIDTH, subsequent_indent=2 * " "))
    lines = "\n".join(note)
    return f"{title}{rule}{before}{_NOTE_RULE}\n{lines}\n{_NOTE_RULE}\n{after}"
