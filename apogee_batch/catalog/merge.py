"""The catalogue that all parts make, read part by part: memory grows by some tens of bytes a star."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from apogee_batch.catalog.annotations import is_logarithmic
from apogee_batch.catalog.flags import mark_duplicates
from apogee_batch.catalog.parts import FIRST_ROW_KEY, LAST_ROW_KEY, VERSION_KEY
from apogee_batch.catalog.rows import CatalogRows, Summary
from apogee_batch.catalog.sky_order import POSITION_COLUMNS
from apogee_batch.errors import IntegrityError
from apogee_batch.schema import arrow_schema, catalog_columns, catalog_flags, catalog_version

REMEDY = "remove the parts and run the same again"
ONE_REMEDY = "remove it and run the same again"
_VISIT = r"\.visit[0-9]+$"
IntegerArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Names:
    """Hashes of names: who has the same name is found by them, and then the names are compared.

    Attributes
    ----------
    starts : ndarray of int64, shape (n_parts + 1,)
        Place of the first row of each part.
    apstar, star, spectrum : ndarray of int64, shape (n_stars,)
        Of `apstar_id`, of `apogee_id`, and of `apstar_id` without the number of a visit.
    """

    starts: IntegerArray
    apstar: IntegerArray
    star: IntegerArray
    spectrum: IntegerArray


def merge_parts(paths: Sequence[Path]) -> CatalogRows:
    """Join parts, with DUPLICATE set; nothing is read before all are known to be there.

    Parameters
    ----------
    paths : sequence of Path
        The parts, in any order.

    Returns
    -------
    CatalogRows
        By store row. Reading them raises IntegrityError for a part that is damaged.

    Raises
    ------
    IntegrityError
        If parts are missing (all are named), damaged, of another version, or have rows or names in common.
    """
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        named = ", ".join(missing) or "all of them"
        raise IntegrityError(f"{len(missing)} of {len(paths)} parts are missing: {named}; run the same again")
    ordered = _in_order(paths)
    summary, names = _look_through(ordered)
    _check_unique(ordered, names)
    repeated = _find_repeated(ordered, names)

    def read() -> Iterator[pa.Table]:
        return (_mark(_read(path), repeated) for path in ordered)

    return CatalogRows(read, summary)


def sky_positions(paths: Sequence[Path]) -> Iterator[pa.Table]:
    """Give `ra` and `dec` of the stars of parts, in any order, by store row.

    Raises
    ------
    IntegrityError
        If a part is damaged.
    """
    return (_read(path, POSITION_COLUMNS) for path in _in_order(paths))


def _in_order(paths: Sequence[Path]) -> list[Path]:
    """Return the parts by store row, those without stars first; refuse what is no part."""
    found = []
    for path in paths:
        metadata = _check_schema(path, _attempt(path, lambda path=path: pq.read_schema(path)))
        first, last = (int(metadata.get(key, b"-1")) for key in (FIRST_ROW_KEY, LAST_ROW_KEY))
        found.append((first, last, path))
    found.sort(key=lambda item: item[0])
    for (_, last, _), (first, _, _) in pairwise(item for item in found if item[0] >= 0):
        if first <= last:
            raise IntegrityError(f"store row {first} is in two parts; {REMEDY}")
    return [path for _, _, path in found]


def _look_through(paths: Sequence[Path]) -> tuple[Summary, _Names]:
    """Read once what must be known of all rows."""
    columns = [
        column.name for column in catalog_columns() if column.dtype == "string" or is_logarithmic(column)
    ]
    summary, starts = Summary(), [0]
    hashes: dict[str, list[IntegerArray]] = {"apstar": [], "star": [], "spectrum": []}
    for path in paths:
        part = _read(path, columns)
        summary.add(part)
        starts.append(summary.n_rows)
        hashes["apstar"].append(_hash(part["apstar_id"]))
        hashes["star"].append(_hash(part["apogee_id"]))
        spectrum = pc.replace_substring_regex(part["apstar_id"], pattern=_VISIT, replacement="")
        is_combined = spectrum.equals(part["apstar_id"])
        hashes["spectrum"].append(hashes["apstar"][-1] if is_combined else _hash(spectrum))
    return summary, _Names(
        np.array(starts), **{name: np.concatenate(parts) for name, parts in hashes.items()}
    )


def _hash(texts: Any) -> IntegerArray:
    return np.fromiter(map(hash, texts.to_pylist()), np.int64, len(texts))


def _check_unique(paths: Sequence[Path], names: _Names) -> None:
    """Refuse a catalogue in which a spectrum occurs twice."""
    ordered = np.sort(names.apstar)
    suspects = _take(paths, names.starts, np.isin(names.apstar, ordered[1:][ordered[1:] == ordered[:-1]]))
    counts = pc.value_counts(suspects["apstar_id"])
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
    if repeated:
        raise IntegrityError(
            f"{len(repeated)} stars are twice in the parts, {repeated[0]} among them; {REMEDY}"
        )


def _find_repeated(paths: Sequence[Path], names: _Names) -> pa.Array:
    """Return the names of the stars that have more than one apStar spectrum."""
    order = np.argsort(names.star, kind="stable")
    star, spectrum = names.star[order], names.spectrum[order]
    is_same_star = (star[1:] == star[:-1]) & (spectrum[1:] != spectrum[:-1])
    suspects = mark_duplicates(_take(paths, names.starts, np.isin(names.star, star[1:][is_same_star])))
    is_duplicate = pc.not_equal(pc.bit_wise_and(suspects["flags"], _duplicate_bit()), 0)
    return suspects["apogee_id"].filter(is_duplicate).unique()


def _take(paths: Sequence[Path], starts: IntegerArray, is_wanted: npt.NDArray[np.bool_]) -> pa.Table:
    """Return names and flags of some rows."""
    schema = arrow_schema(catalog_columns())
    columns = ["apstar_id", "apogee_id", "flags"]
    taken = [pa.schema([schema.field(name) for name in columns]).empty_table()]
    for path, (start, stop) in zip(paths, pairwise(starts.tolist()), strict=True):
        if is_wanted[start:stop].any():
            taken.append(_read(path, columns).select(columns).filter(pa.array(is_wanted[start:stop])))
    return pa.concat_tables(taken)


def _mark(part: pa.Table, repeated: pa.Array) -> pa.Table:
    """Set DUPLICATE where it belongs, and clear it elsewhere."""
    bit = _duplicate_bit()
    is_duplicate = pc.is_in(part["apogee_id"], value_set=repeated)
    cleared = pc.bit_wise_and(part["flags"], pc.bit_wise_not(bit))
    flags = pc.bit_wise_or(cleared, pc.if_else(is_duplicate, bit, pa.scalar(0, pa.int32())))
    i = part.schema.get_field_index("flags")
    return part.set_column(i, part.schema.field(i), flags)


def _duplicate_bit() -> pa.Scalar:
    return pa.scalar(1 << catalog_flags()["DUPLICATE"].bit, pa.int32())


def _read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a part, or some of its columns, and check that it is one."""

    def read() -> pa.Table:
        wanted = None if columns is None else list(columns)
        return pq.ParquetFile(path, page_checksum_verification=True).read(columns=wanted)

    part = _attempt(path, read)
    if columns is None:
        _check_schema(path, part.schema)
    return part.replace_schema_metadata(None)


def _attempt(path: Path, read: Any) -> Any:
    try:
        return read()
    except (OSError, pa.ArrowException) as error:
        text = " ".join(str(error).split())
        raise IntegrityError(f"{path}: damaged ({text}); {ONE_REMEDY}") from error


def _check_schema(path: Path, schema: pa.Schema) -> dict[bytes, bytes]:
    """Return what a part says of itself; refuse what is no part."""
    metadata: dict[bytes, bytes] = schema.metadata or {}
    version = metadata.get(VERSION_KEY, b"").decode("utf-8")
    if version != str(catalog_version()) or not schema.equals(arrow_schema(catalog_columns())):
        raise IntegrityError(f"{path}: no part of a catalogue of version {catalog_version()}; {ONE_REMEDY}")
    return metadata
