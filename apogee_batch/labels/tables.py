"""A table of training labels: which of its columns mean what, in which unit."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from apogee_batch.errors import UsageError
from apogee_batch.labels.columns import find_columns, first_text, list_columns, text_values
from apogee_batch.labels.formats import RawColumn, TableFile, open_table
from apogee_batch.labels.rows import LabelTable, complete_rows, first_row_of_each_star
from apogee_batch.labels.units import to_label_unit
from apogee_batch.schema import DATA_SETS, DATA_TYPES, LABEL_NAMES, DoubleArray

__all__ = ["KNOWN_NAMES", "LabelTable", "read_label_table"]

KNOWN_NAMES = {  # our name, and those that are taken for it whatever their case; [M/H] is not [Fe/H]
    "apogee_id": ("apogee_id",),
    "apstar_id": ("apstar_id",),
    "teff": ("teff",),
    "logg": ("logg",),
    "fe_h": ("fe_h", "feh"),
    "data_set": ("data_set",),
}
IDENTIFIERS = ("apogee_id", "apstar_id")
TWOMASS_NAME = re.compile(r"(?:2MASS\s*)?J?(\d{8}[+-]\d{7})", re.ASCII)  # as SIMBAD and VizieR write it
MISSING_AT_OR_BELOW = -99.0  # APOGEE writes -9999, others -999 or -99; no label in any unit reaches so low


def read_label_table(
    path: Path, data_type: str, *, column_map: Mapping[str, str] | None = None
) -> LabelTable:
    """Read a table of labels in FITS, CSV, ECSV, Parquet or VOTable.

    Needed are `teff`, `logg`, `fe_h` and `apogee_id` or `apstar_id` (or both: `apstar_id` is the
    more exact). An `apogee_id` may also be written as 2MASS is elsewhere, "2MASS J00000000+0000000" or
    without its first words. A column `data_set` sets the split of the rows where it is filled in.

    Parameters
    ----------
    path : Path
        The table; its suffix tells the format.
    data_type : str
        "payne", "mstar" or "yso".
    column_map : mapping of str to str, optional
        Our name of a column to the table's. Other columns are found by our name, whatever its case.

    Returns
    -------
    LabelTable

    Raises
    ------
    UsageError
        If the file cannot be read, a column is missing, ambiguous or no number, a unit cannot be
        converted, or a split has another name.
    """
    if data_type not in DATA_TYPES:
        raise UsageError(f"unknown label type {data_type!r}; it is one of {', '.join(DATA_TYPES)}")
    file = open_table(path)
    names = _column_names(path, file, column_map or {})
    raw = file.read(tuple(dict.fromkeys(names.values())))
    columns = {ours: raw[theirs] for ours, theirs in names.items()}
    for ours, column in columns.items():
        if column.values.ndim != 1:
            raise UsageError(f"{path}: column {names[ours]!r} holds vectors; give a column of single values")
    n_rows = len(next(iter(columns.values())).values)
    labels = [
        _label_values(label, columns[label], f"{path}: column {names[label]!r}") for label in LABEL_NAMES
    ]
    texts = {name: text_values(columns[name]) if name in columns else ("",) * n_rows for name in IDENTIFIERS}
    texts["apogee_id"] = tuple(_survey_name(text) for text in texts["apogee_id"])
    data_set = ("",) * n_rows
    if "data_set" in columns:
        data_set = _splits(text_values(columns["data_set"]), f"{path}: column {names['data_set']!r}")
    everything = LabelTable(
        source=str(path),
        data_type=data_type,
        apogee_id=texts["apogee_id"],
        apstar_id=texts["apstar_id"],
        labels=np.stack(labels, axis=1),
        data_set=data_set,
        n_rows=n_rows,
    )
    return first_row_of_each_star(complete_rows(everything))


def _survey_name(text: str) -> str:
    """Return a name of 2MASS in the form of the survey, 2M00000000+0000000, and any other as it is."""
    match = TWOMASS_NAME.fullmatch(text)
    return text if match is None else f"2M{match[1]}"


def _column_names(path: Path, file: TableFile, column_map: Mapping[str, str]) -> dict[str, str]:
    """Return the table's name of each of our columns that it has."""
    unknown = sorted(set(column_map) - set(KNOWN_NAMES))
    if unknown:
        raise UsageError(f"cannot map {', '.join(unknown)}: the columns to map are {', '.join(KNOWN_NAMES)}")
    found = {}
    for ours, candidates in KNOWN_NAMES.items():
        wanted = (column_map[ours],) if ours in column_map else candidates
        matches = find_columns(wanted, file.names)
        if len(matches) > 1:
            raise UsageError(
                f"{path}: {' and '.join(matches)} may be {ours}; say which: --map {ours}={matches[0]}"
            )
        if matches:
            found[ours] = matches[0]
        elif ours in column_map:
            raise UsageError(f"{path}: no column {column_map[ours]!r} for {ours}; {list_columns(file.names)}")
    missing = [label for label in LABEL_NAMES if label not in found]
    if not any(name in found for name in IDENTIFIERS):
        missing.insert(0, "apogee_id")
    if missing:
        raise UsageError(
            f"{path}: no column for {', '.join(missing)}; {list_columns(file.names)}; "
            f"say which is meant: --map {missing[0]}=NAME"
        )
    repeated = [ours for ours, theirs in found.items() if list(found.values()).count(theirs) > 1]
    if repeated:
        raise UsageError(f"{path}: column {found[repeated[0]]!r} cannot be {' and '.join(repeated)} at once")
    return found


def _label_values(label: str, column: RawColumn, where: str) -> DoubleArray:
    """Return a label in its unit; NaN where it is missing."""
    is_missing = column.is_missing
    if column.values.dtype.kind not in "fiu" and not is_missing.all():
        i = first_text(column)
        raise UsageError(
            f"{where} is not of numbers ({str(column.values[i])!r} in row {i + 1}); "
            f"leave a missing value empty, or map another column: --map {label}=NAME"
        )
    values = np.full(len(is_missing), np.nan)
    values[~is_missing] = column.values[~is_missing]
    values[~np.isfinite(values) | (values <= MISSING_AT_OR_BELOW)] = np.nan
    converted = to_label_unit(label, values, column.unit, where=where)
    if label == "teff":
        converted = np.where(converted > 0, converted, np.nan)  # 0 K is another way to say unknown
    return converted


def _splits(texts: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the split that each row asks for, in our words."""
    splits = tuple(text.lower() for text in texts)
    others = sorted(set(splits) - {*DATA_SETS, ""})
    if others:
        raise UsageError(
            f"{where} holds {others[0]!r}; the splits are called {', '.join(DATA_SETS)} "
            "(a validation set is dev), and an empty cell is drawn by the star's name"
        )
    return splits
