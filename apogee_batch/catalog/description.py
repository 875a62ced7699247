"""What a catalogue file says of itself: its columns, how many values they lack, its flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io.fits.verify import VerifyError
from astropy.table import Table

from apogee_batch.errors import UsageError
from apogee_batch.schema import Flag, catalog_flags

ASTROPY_FORMATS = {
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".xml": "votable",
    ".ecsv": "ascii.ecsv",
    ".mrt": "ascii.mrt",
    ".csv": "ascii.csv",
}
PARQUET_SUFFIXES = (".parquet", ".pq")
FLAGS_COLUMN = "flags"
_ARROW_WORDS = {"float": "float32", "double": "float64", "large_string": "string"}


@dataclass(frozen=True)
class ColumnFacts:
    """One column of a file.

    Attributes
    ----------
    name, dtype, unit, ucd, description : str
        As the file tells; "" where it does not.
    n_missing : int
        Rows without a value: null, masked, NaN or an empty text.
    """

    name: str
    dtype: str
    unit: str
    ucd: str
    description: str
    n_missing: int


@dataclass(frozen=True)
class FileFacts:
    """A catalogue file.

    Attributes
    ----------
    n_rows : int
    columns : tuple of ColumnFacts
    flag_counts : tuple of (Flag, int)
        How many rows have each bit of the column `flags`; empty where there is no such column.
    origin : dict of str to str
        What the file says of the run that made it; Parquet only.
    """

    n_rows: int
    columns: tuple[ColumnFacts, ...]
    flag_counts: tuple[tuple[Flag, int], ...]
    origin: dict[str, str]


def read_facts(path: Path) -> FileFacts:
    """Look through a catalogue in Parquet, FITS, VOTable, ECSV, MRT or CSV.

    Raises
    ------
    UsageError
        If the format is another, or the file cannot be read.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file; name a catalogue or the folder of a published run")
    if suffix not in (*PARQUET_SUFFIXES, *ASTROPY_FORMATS):
        known = ", ".join((*PARQUET_SUFFIXES, *ASTROPY_FORMATS))
        raise UsageError(f"{path}: no catalogue by its suffix; files that can be described end in {known}")
    try:
        return _facts_of_parquet(path) if suffix in PARQUET_SUFFIXES else _facts_of_table(path)
    except (OSError, ValueError, TypeError, KeyError, VerifyError, pa.ArrowException) as error:
        text = " ".join(str(error).split())
        raise UsageError(f"{path}: cannot be read ({text}); is the file whole?") from error


def _facts_of_parquet(path: Path) -> FileFacts:
    """Read one column after the other, so that memory holds one."""
    with pq.ParquetFile(path) as file:
        schema, n_rows = file.schema_arrow, file.metadata.num_rows
        columns, flags = [], None
        for field in schema:
            values = file.read(columns=[field.name])[field.name]
            metadata = {key.decode(): text.decode() for key, text in (field.metadata or {}).items()}
            unit, ucd, text = (metadata.get(key, "") for key in ("unit", "ucd", "description"))
            dtype = _ARROW_WORDS.get(str(field.type), str(field.type))
            columns.append(ColumnFacts(field.name, dtype, unit, ucd, text, values.null_count))
            if field.name == FLAGS_COLUMN and pa.types.is_integer(field.type):
                flags = np.asarray(values.drop_null().to_numpy())
    prefix = b"apogee_batch."
    origin = {
        key.removeprefix(prefix).decode(): text.decode()
        for key, text in (schema.metadata or {}).items()
        if key.startswith(prefix)
    }
    return FileFacts(n_rows, tuple(columns), _count_flags(flags), origin)


def _facts_of_table(path: Path) -> FileFacts:
    """Read a file that astropy knows, whole."""
    table = Table.read(path, format=ASTROPY_FORMATS[path.suffix.lower()])
    columns = []
    for name in table.colnames:
        column = table[name]
        is_text = column.dtype.kind in "USO"
        dtype = "string" if is_text else column.dtype.name
        said = (str(column.unit or ""), str(column.meta.get("ucd", "")), str(column.description or ""))
        columns.append(ColumnFacts(name, dtype, *said, _count_missing(column, is_text=is_text)))
    flags = None
    if FLAGS_COLUMN in table.colnames and table[FLAGS_COLUMN].dtype.kind in "iu":
        flags = np.asarray(np.ma.compressed(np.ma.asarray(table[FLAGS_COLUMN])))
    return FileFacts(len(table), tuple(columns), _count_flags(flags), {})


def _count_missing(column: Any, *, is_text: bool) -> int:
    is_missing = np.ma.getmaskarray(np.ma.asarray(column))
    values = np.ma.getdata(np.ma.asarray(column))
    if is_text:
        is_missing = is_missing | (values.astype(str) == "")
    elif values.dtype.kind == "f":
        is_missing = is_missing | np.isnan(values)
    return int(np.count_nonzero(is_missing))


def _count_flags(flags: Any) -> tuple[tuple[Flag, int], ...]:
    """Count the rows that have each bit."""
    if flags is None:
        return ()
    return tuple((flag, int(np.count_nonzero(flags & (1 << flag.bit)))) for flag in catalog_flags().values())
