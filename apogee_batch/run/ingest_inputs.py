"""The inputs of an ingest: which files, how large, and which rows of the store each of them gets.

They are a Parquet file beside the plan, which holds their hash: JSON would be hundreds of MB for a survey.
"""

import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import canonical_json, write_bytes
from apogee_batch.run.in_flight import N_IN_FLIGHT
from apogee_batch.run.plan import read_plan
from apogee_batch.store.tables import read_table
from apogee_batch.survey.apstar import Star, read_apstar
from apogee_batch.survey.pixels import N_PIXELS

INPUTS_FILE = "inputs.parquet"
INPUTS_SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "size": pa.int64(),  # bytes; -1 for what is no file that can be read
        "shard": pa.int64(),
        "row": pa.int64(),
        "n_rows": pa.int64(),
        "known": pa.string(),  # what the allStar summary says of the star, as JSON
        "mtime_ns": pa.int64(),  # times are no part of the hash: touching a file changes nothing
        "ctime_ns": pa.int64(),  # of a change of mode or owner, too
    }
)
TIMES = ("mtime_ns", "ctime_ns")
HASHED = [name for name in INPUTS_SCHEMA.names if name not in TIMES]
MAYBE_UNKNOWN = ("ra", "dec", "j", "h", "k", "snr", "snr_header")  # NaN in a Star, null in JSON
PLAN_KEY = b"apogee_batch.plan"
IN_FLIGHT_BYTES = 128 << 20  # of files that are read at once: more than most visits of 16 stars take
IN_FLIGHT_PIXEL_BYTES = (
    48  # of flux, err and mask: as float64 and int64 in the file, as 32 bits, and some in between
)
BATCH = 1 << 16  # inputs that are Python objects at a time
_encode = json.JSONEncoder(sort_keys=True).encode  # json.dumps would make an encoder for each star


@dataclass(frozen=True)
class IngestInput:
    """One file of an ingest.

    Attributes
    ----------
    path : Path
        The file.
    known : Star or None
        What the survey's summary says of it.
    """

    path: Path
    known: Star | None


def stat_file(path: str) -> tuple[int, int, int]:
    """Return size, mtime and ctime in ns of a regular file; -1 and zeros where there is none to read."""
    try:
        found = os.stat(path)  # noqa: PTH116  a quarter of the time of Path's, for each of 263,000 files
    except OSError:
        return -1, 0, 0
    if not stat.S_ISREG(found.st_mode):
        return -1, 0, 0
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def lay_out(
    inputs: Sequence[IngestInput], counts: Sequence[int], shard_stars: int, first_row: int
) -> pa.Table:
    """Give each input its rows; the visits of one file stay in one shard.

    Parameters
    ----------
    inputs : sequence of IngestInput
        The files, in the order of their rows.
    counts : sequence of int
        Spectra of each.
    shard_stars, first_row : int
        Rows of a shard; where the rows begin.

    Returns
    -------
    pa.Table
        Of `INPUTS_SCHEMA`, ordered by row.

    Raises
    ------
    UsageError
        For a path that no table can hold, or a file with more visits than a shard has rows.
    """
    columns: dict[str, list[Any]] = {name: [] for name in INPUTS_SCHEMA.names}
    row = first_row
    for item, count in zip(inputs, counts, strict=True):
        path = _checked_name(item.path)
        if count > shard_stars and (count := _count_by_reading(item.path)) > shard_stars:
            raise UsageError(
                f"{path}: {count} visits do not fit a shard of {shard_stars}; raise --shard-stars"
            )
        if row % shard_stars + count > shard_stars:
            row = -(-row // shard_stars) * shard_stars
        known = None if item.known is None else star_to_json(item.known)
        size, *times = stat_file(path)
        record = (path, size, row // shard_stars, row, count, known, *times)
        for column, value in zip(columns.values(), record, strict=True):
            column.append(value)
        row += count
    return pa.table(columns, schema=INPUTS_SCHEMA)


def _count_by_reading(path: Path) -> int:
    """Return how many visits a file gives, 1 for one that is rejected: a damaged header may promise any."""
    found = read_apstar(path, rows="visits")
    return len(found) if isinstance(found, list) else 1


def most_at_once(records: Sequence[dict[str, Any]]) -> int:
    """Return how many files of a shard may be in memory while they are read, by the visits of the largest.

    Parameters
    ----------
    records : sequence of dict
        Rows of the table of inputs.
    """
    largest = max((record["n_rows"] for record in records), default=1) * N_PIXELS * IN_FLIGHT_PIXEL_BYTES
    return min(N_IN_FLIGHT, max(1, IN_FLIGHT_BYTES // largest))


def _checked_name(path: Path) -> str:
    """Return a path as text; refuse one that no table can hold."""
    text = str(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{text!r}: its name is not UTF-8; rename it") from error
    return text


def star_to_json(star: Star) -> str:
    """Return a star as JSON; NaN, which JSON does not know, becomes null."""
    # not asdict, which copies deeply: four fifths of the time to plan a survey
    return _encode({key: None if value != value else value for key, value in vars(star).items()})


def star_from_json(text: str) -> Star:
    """Return the star that the plan recorded."""
    values = json.loads(text)
    return Star(**values | {name: math.nan for name in MAYBE_UNKNOWN if values[name] is None})


def hash_of_inputs(table: pa.Table) -> str:
    """Return the hash of what is planned; the times of modification are no part of it."""
    return _hash_columns(lambda name: (batch.column(0) for batch in table.select([name]).to_batches(BATCH)))


def _hash_columns(batches: Callable[[str], Iterable[pa.Array]]) -> str:
    """Return the hash of what `repr` makes of each column as a list, without ever holding one whole."""
    digest = sha256()
    for name in HASHED:
        before = b"["
        for values in batches(name):
            if len(values):
                digest.update(before + repr(values.to_pylist())[1:-1].encode())
                before = b", "
        digest.update(b"]" if before == b", " else b"[]")
    return digest.hexdigest()


def write_inputs(folder: Path, table: pa.Table, plan: dict[str, Any]) -> None:
    """Write the inputs of a plan, one row group a shard, so that a task reads only its own.

    The plan is in the file's metadata once more, should the other one be lost.
    """
    stream = pa.BufferOutputStream()
    schema = INPUTS_SCHEMA.with_metadata({PLAN_KEY: canonical_json(plan).encode()})
    with pq.ParquetWriter(stream, schema, compression="zstd", write_page_checksum=True) as writer:
        shards = table["shard"].to_numpy()
        starts = np.flatnonzero(np.diff(shards, prepend=-1)).tolist()  # the table is ordered by row
        for start, stop in pairwise([*starts, len(table)]):
            writer.write_table(table.slice(start, stop - start).cast(schema))
    write_bytes(folder / INPUTS_FILE, memoryview(stream.getvalue()))


def read_inputs(folder: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Read the inputs of an ingest, and the plan that is noted with them.

    Raises
    ------
    IntegrityError
        If the file is missing, damaged, or not the one that its plan names.
    """
    table = read_table(folder / INPUTS_FILE)
    try:
        plan: dict[str, Any] = json.loads((table.schema.metadata or {})[PLAN_KEY])
        is_whole = (
            table.schema.names == INPUTS_SCHEMA.names and hash_of_inputs(table) == plan["inputs_sha256"]
        )
    except (KeyError, ValueError, TypeError):
        is_whole = False
    if not is_whole:
        raise IntegrityError(
            f"{folder / INPUTS_FILE}: not the inputs that were planned; give the ingest again"
        )
    return table.replace_schema_metadata(None), plan


def planned_shards(folder: Path) -> tuple[list[int], dict[str, Any]]:
    """Return the shards and the plan of an ingest, in little memory; raises like `read_inputs`."""
    path = folder / INPUTS_FILE
    shards = set[int]()
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        plan: dict[str, Any] = json.loads((file.schema_arrow.metadata or {})[PLAN_KEY])

        def batches(name: str) -> Iterator[pa.Array]:
            for batch in file.iter_batches(BATCH, columns=[name]):
                if name == "shard":
                    shards.update(batch.column(0).unique().to_pylist())
                yield batch.column(0)

        is_whole = _hash_columns(batches) == plan["inputs_sha256"]
    except (KeyError, ValueError, TypeError, OSError, pa.ArrowException):
        is_whole = False
    if not is_whole or read_plan(folder) != plan:
        raise IntegrityError(f"{path}: not the inputs that were planned; give the ingest again")
    return sorted(shards), plan


def read_shard_inputs(folder: Path, shard: int) -> list[dict[str, Any]]:
    """Read the inputs of one shard."""
    file = pq.ParquetFile(folder / INPUTS_FILE, page_checksum_verification=True)
    first = int(file.read_row_group(0, columns=["shard"])["shard"][0].as_py())
    records: list[dict[str, Any]] = file.read_row_group(shard - first).to_pylist()
    return records


def compare_inputs(old: pa.Table, new: pa.Table) -> list[str]:
    """List what differs between two sets of inputs: files added, removed, changed, each with an example."""
    before = dict(zip(old["path"].to_pylist(), old["size"].to_pylist(), strict=True))
    now = dict(zip(new["path"].to_pylist(), new["size"].to_pylist(), strict=True))
    kinds = {
        "added": [path for path in now if path not in before],
        "removed": [path for path in before if path not in now],
        "of another size": [path for path in now if path in before and now[path] != before[path]],
    }
    lines = []
    for kind, paths in kinds.items():
        if paths:
            example = paths[0]
            if kind == "of another size":
                example += f", {before[example]} -> {now[example]} bytes"
            lines.append(f"{len(paths)} file{'s' * (len(paths) > 1)} {kind} ({example})")
    if not lines and old["known"].to_pylist() != new["known"].to_pylist():
        lines.append("the allStar summary says other things of the stars")
    return lines
