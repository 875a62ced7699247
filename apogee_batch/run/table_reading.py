"""Parts of tables: some columns, some rows, or how many there are, where the whole is much for a driver."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from apogee_batch.errors import IntegrityError
from apogee_batch.store.tables import REMEDY, open_table

T = TypeVar("T")


def read_some(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a table: all of a star table is much for the memory of a driver.

    Raises
    ------
    IntegrityError
        If the file is damaged.
    """
    return _attempt(path, lambda: open_table(path).read(columns=list(columns)))


def read_rows(path: Path, start: int, stop: int) -> pa.Table:
    """Return what a table says of the store's rows from `start` to before `stop`; raises like `read_some`."""
    within = [("row", ">=", start), ("row", "<", stop)]
    return _attempt(
        path, lambda: pq.read_table(path, filters=within, page_checksum_verification=True).combine_chunks()
    )


def count_rows(path: Path) -> int:
    """Return the length of a table; raises like `read_some`."""
    return int(_attempt(path, lambda: open_table(path).metadata.num_rows))


def each_name(path: Path) -> Iterator[str]:
    """Give the `apstar_id` of each row of a table or a part, in order; raises like `read_some`."""
    file = _attempt(path, lambda: open_table(path))
    batches = file.iter_batches(columns=["apstar_id"])
    while (batch := _attempt(path, lambda: next(batches, None))) is not None:
        yield from batch.column(0).to_pylist()


def _attempt(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except (pa.ArrowException, OSError) as error:
        text = " ".join(str(error).split())
        raise IntegrityError(f"{path}: missing or damaged ({text}); {REMEDY}") from error
