"""What the files that astropy reads say of themselves: FITS, VOTable, ECSV, MRT, CSV."""

import re
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import votable
from astropy.table import Table

from apogee_batch.catalog.facts import (
    FLAGS_COLUMN,
    ROW_COUNT,
    ColumnFacts,
    FileFacts,
    count_flags,
    is_ours,
)
from apogee_batch.errors import UsageError
from apogee_batch.survey.table_files import open_hdus

ASTROPY_FORMATS = {
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".xml": "votable",
    ".ecsv": "ascii.ecsv",
    ".mrt": "ascii.mrt",
    ".csv": "ascii.csv",
}
_BLOCK_BYTES = 2880  # a FITS file is whole blocks
_MAX_REMARKS = 5
_COMMENT = re.compile(r"([a-z0-9_]+): (.*)")
_BYTE_BY_BYTE = "Byte-by-byte Description"
_MRT_RULES = 3  # around the heads of the columns, and below the columns


def table_facts(path: Path) -> FileFacts:
    """Read a file whole, and tell what it holds.

    What astropy finds odd about it is a remark.

    Raises
    ------
    UsageError
        If it was cut.
    Exception
        Whatever else astropy raises.
    """
    kind = ASTROPY_FORMATS[path.suffix.lower()]
    remarks = list[str]()
    with _warnings_into(remarks):
        if kind == "fits" and path.stat().st_size % _BLOCK_BYTES:
            raise UsageError(f"{path}: is no whole number of FITS blocks; is the file whole?")
        if kind == "fits":
            with open_hdus(path) as hdus:
                deque(hdus, maxlen=0)  # Table.read would not come to an end at a damaged header
        if kind == "ascii.mrt":
            _refuse_cut_mrt(path)
        table, origin = _read(path, kind)
    told = origin.get(ROW_COUNT, str(len(table)))
    if told != str(len(table)):
        raise UsageError(f"{path}: says that it holds {told} rows, not {len(table)}; is the file whole?")
    if not table.colnames:
        raise UsageError(f"{path}: has no columns; is the file whole?")
    if kind.startswith("ascii") and not _ends_a_line(path):
        if ROW_COUNT in origin:  # ours, which always ends its lines
            raise UsageError(f"{path}: its last line has no end; is the file whole?")
        remarks.append("the last line has no end: the file may be cut")
    columns = tuple(_column_facts(table[name]) for name in table.colnames)
    counts: Any = ()
    if is_ours(table.colnames) and table[FLAGS_COLUMN].dtype.kind in "iu":
        counts = count_flags(np.asarray(np.ma.compressed(np.ma.asarray(table[FLAGS_COLUMN]))), origin)
    return FileFacts(len(table), columns, counts, origin, tuple(remarks))


@contextmanager
def _warnings_into(remarks: list[str]) -> Iterator[None]:
    """Turn warnings into a few remarks, each once."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
    texts = list(dict.fromkeys(" ".join(str(warning.message).split()) for warning in seen))
    remarks += texts[:_MAX_REMARKS]
    if len(texts) > _MAX_REMARKS:
        remarks.append(f"and {len(texts) - _MAX_REMARKS} more such remarks")


def _read(path: Path, kind: str) -> tuple[Table, dict[str, str]]:
    """Return the table, and what the file says of its origin, which each format keeps elsewhere."""
    if kind == "votable":
        parsed = votable.parse(path)
        infos = [info for resource in parsed.resources for info in resource.infos]
        return parsed.get_first_table().to_table(), {str(info.name): str(info.value) for info in infos}
    table = Table.read(path, format=kind)
    if kind == "ascii.mrt":
        return table, _comments([line.strip() for line in _mrt_sections(path)[1]])
    if kind == "fits":
        return table, _comments(table.meta.get("comments", []))
    return table, {str(key): text for key, text in table.meta.items() if isinstance(text, str)}


def _comments(lines: list[str]) -> dict[str, str]:
    """Return the lines `name: text`."""
    return {found[1]: found[2] for line in lines if (found := _COMMENT.fullmatch(line))}


def _refuse_cut_mrt(path: Path) -> None:
    """Refuse an MRT whose head has no end: a reader would take what there is of it for the table."""
    n_rules, _, has_end = _mrt_sections(path)
    if n_rules < _MRT_RULES or not has_end:
        raise UsageError(f"{path}: ends within the description of its columns; is the file whole?")


def _mrt_sections(path: Path) -> tuple[int, list[str], bool]:
    """Return the rules of the description of columns, the lines of its notes, and whether these end."""
    n_rules, notes, is_described = 0, list[str](), False
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            is_rule = line.endswith("\n") and set(line.strip()) in ({"-"}, {"="})
            if line.startswith(_BYTE_BY_BYTE):
                is_described, n_rules = True, 0
            elif is_described and is_rule:
                n_rules += 1
                if notes:
                    return n_rules, notes, True
            elif n_rules >= _MRT_RULES:
                if not notes and not line.startswith("Note"):
                    return n_rules, [], True
                notes.append(line)
    return n_rules, notes, False


def _ends_a_line(path: Path) -> bool:
    """Tell whether a text file ends as text files do."""
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 1))
        return file.read() in (b"\n", b"\r")


def _column_facts(column: Any) -> ColumnFacts:
    is_text = column.dtype.kind in "USO"
    dtype = "string" if is_text else column.dtype.name
    said = (str(column.unit or ""), str(column.meta.get("ucd", "")), str(column.description or ""))
    return ColumnFacts(column.name, dtype, *said, _count_missing(column, is_text=is_text))


def _count_missing(column: Any, *, is_text: bool) -> int:
    is_missing = np.ma.getmaskarray(np.ma.asarray(column))
    values = np.ma.getdata(np.ma.asarray(column))
    if is_text:
        is_missing = is_missing | (values.astype(str) == "")
    elif values.dtype.kind == "f":
        is_missing = is_missing | np.isnan(values)
    return int(np.count_nonzero(is_missing))
