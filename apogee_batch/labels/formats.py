"""Columns out of the file formats that tables come in: FITS, CSV, ECSV, Parquet, VOTable.

Only the columns that are asked for are read, so that an allStar summary of gigabytes costs no more
than its four useful columns.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits, votable
from astropy.table import Table
from astropy.table.meta import get_header_from_yaml
from astropy.utils.exceptions import AstropyWarning

from apogee_batch.errors import UsageError
from apogee_batch.schema import BoolArray
from apogee_batch.survey.table_files import UNREADABLE, first_words, open_hdus

FORMAT_OF_SUFFIX = {
    ".fits": "fits",
    ".fit": "fits",
    ".csv": "csv",
    ".ecsv": "ecsv",
    ".parquet": "parquet",
    ".parq": "parquet",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
}


@dataclass(frozen=True)
class RawColumn:
    """One column as the file gives it.

    Attributes
    ----------
    values : ndarray, shape (n_rows,) or more dimensions for a vector column
        Numbers or texts; anything where `is_missing`.
    is_missing : ndarray of bool, shape (n_rows,)
        Null, masked, or the column's declared null value.
    unit : str
        Unit as the file words it, "" for none.
    """

    values: npt.NDArray[Any]
    is_missing: BoolArray
    unit: str


@dataclass(frozen=True)
class TableFile:
    """An opened table: its column names, and a function that reads some of them."""

    names: tuple[str, ...]
    read: Callable[[Sequence[str]], dict[str, RawColumn]]


def open_table(path: Path) -> TableFile:
    """Open a table in any of the formats of `FORMAT_OF_SUFFIX`, told by the suffix (.gz after it is fine).

    Raises
    ------
    UsageError
        If there is no such file, its format is not one of them, or it cannot be read.
    """
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise UsageError(f"{path}: {problem}; give one table: {', '.join(FORMAT_OF_SUFFIX)}")
    plain_name = path.name.lower().removesuffix(".gz")
    file_format = FORMAT_OF_SUFFIX.get(Path(plain_name).suffix)
    if file_format is None:
        raise UsageError(f"{path}: unknown kind of table; give one of {', '.join(FORMAT_OF_SUFFIX)}")
    with _readable(path):
        return _OPENERS[file_format](path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what the readers raise on a damaged file into one line; their warnings are about style."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            warnings.filterwarnings("error", message=".*truncated", category=AstropyWarning)
            yield
    except UNREADABLE as error:
        raise UsageError(
            f"{path}: cannot be read as a table ({first_words(error)}); is the file whole?"
        ) from error


def _open_fits(path: Path) -> TableFile:
    """Open the first table extension of a FITS file."""
    with open_hdus(path) as hdus:
        names = tuple(_first_table(hdus).columns.names)
    if not all(names):
        raise ValueError("a column without a name")

    def read(wanted: Sequence[str]) -> dict[str, RawColumn]:
        with _readable(path), open_hdus(path) as hdus:
            hdu = _first_table(hdus)
            return {name: _fits_column(hdu.data.field(name), hdu.columns[name]) for name in wanted}

    return TableFile(names, read)


def _first_table(hdus: Iterator[Any]) -> Any:
    """Return the first table extension."""
    for hdu in hdus:
        if isinstance(hdu, fits.BinTableHDU | fits.TableHDU):
            return hdu
    raise ValueError("no table extension in it")


def _fits_column(field: Any, column: Any) -> RawColumn:
    """Copy one FITS column out of its file, to native byte order."""
    values = np.array(field)
    if values.dtype.kind != "S":
        values = values.astype(values.dtype.newbyteorder("="))
    is_missing = np.zeros(len(values), dtype=bool)
    if isinstance(column.null, int) and values.ndim == 1:
        null = column.null * (column.bscale or 1) + (column.bzero or 0)  # `values` are scaled already
        is_missing = np.asarray(values == null)
    return RawColumn(values, is_missing, column.unit or "")


def _open_csv(path: Path) -> TableFile:
    return _from_astropy(Table.read(path, format="ascii.csv", encoding="utf-8-sig"))


def _open_ecsv(path: Path) -> TableFile:
    return _from_astropy(Table.read(path, format="ascii.ecsv"))


def _open_votable(path: Path) -> TableFile:
    parsed = votable.parse(path, verify="ignore")
    return _from_astropy(parsed.get_first_table().to_table(use_names_over_ids=True))


def _from_astropy(table: Any) -> TableFile:
    """Wrap an astropy table, which is in memory already."""

    def read(wanted: Sequence[str]) -> dict[str, RawColumn]:
        return {name: _astropy_column(table[name]) for name in wanted}

    return TableFile(tuple(table.colnames), read)


def _astropy_column(column: Any) -> RawColumn:
    """Return an astropy column, or quantity, without its mask."""
    unit = "" if column.info.unit is None else str(column.info.unit)
    values = np.asarray(getattr(column, "unmasked", column))  # a masked Quantity has no plain array else
    mask = np.broadcast_to(getattr(column, "mask", False), values.shape)
    is_missing = np.any(mask.reshape(len(values), math.prod(values.shape[1:])), axis=1)
    return RawColumn(values, np.asarray(is_missing), unit)


def _open_parquet(path: Path) -> TableFile:
    """Open a Parquet file; not through astropy, which turns a null text into the word None."""
    schema = pq.read_schema(path)
    units = _parquet_units(schema)

    def read(wanted: Sequence[str]) -> dict[str, RawColumn]:
        # astropy writes a masked column as two: the numbers, and where they are void
        masks = {name: f"{name}.mask" for name in wanted if f"{name}.mask" in schema.names}
        with _readable(path):
            table = pq.ParquetFile(path).read(columns=[*wanted, *masks.values()])
            columns = {}
            for name in wanted:
                values, is_missing = _arrow_values(table[name])
                if name in masks:
                    is_missing = is_missing | table[masks[name]].to_numpy(zero_copy_only=False).astype(bool)
                columns[name] = RawColumn(values, is_missing, units.get(name, ""))
            return columns

    return TableFile(tuple(schema.names), read)


def _parquet_units(schema: Any) -> dict[str, str]:
    """Return the units that a Parquet file declares in its fields, or as astropy declares them."""
    metadata = schema.metadata or {}
    units = {}
    if b"table_meta_yaml" in metadata:
        header = get_header_from_yaml(metadata[b"table_meta_yaml"].decode("utf-8").split("\n"))
        units = {entry["name"]: str(entry["unit"]) for entry in header["datatype"] if entry.get("unit")}
    for field in schema:
        if field.metadata and b"unit" in field.metadata:
            units[field.name] = field.metadata[b"unit"].decode("utf-8")
    return units


def _arrow_values(column: Any) -> tuple[npt.NDArray[Any], BoolArray]:
    """Return an Arrow column as numbers or texts, and where it is null."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    values = column.to_numpy(zero_copy_only=False)
    return values, column.is_null().to_numpy(zero_copy_only=False)


_OPENERS: dict[str, Callable[[Path], TableFile]] = {
    "fits": _open_fits,
    "csv": _open_csv,
    "ecsv": _open_ecsv,
    "parquet": _open_parquet,
    "votable": _open_votable,
}
