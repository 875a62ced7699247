"""The tables beside the arrays: stars, labels and rejects, as Parquet in the store's `tables/` group."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import replace_on_success

STARS, LABELS, UNMATCHED, REJECTS = "stars", "labels", "unmatched_labels", "rejects"


def table_path(store: Path, name: str) -> Path:
    """Return the file of one of the store's tables."""
    return store / "tables" / f"{name}.parquet"


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet, whole or not at all; the same table gives the same bytes."""
    with replace_on_success(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path) -> pa.Table:
    """Read a Parquet table written by `write_table`.

    Raises
    ------
    IntegrityError
        If the file is damaged.
    """
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise IntegrityError(f"{path}: cannot be read as Parquet ({error})") from error


def read_stars(store: Path) -> pa.Table:
    """Read the star table of a store, ordered by row.

    Raises
    ------
    UsageError
        If ingest has not finished.
    """
    path = table_path(store, STARS)
    if not path.is_file():
        raise UsageError(
            f"{store}: its ingest has not finished; run the same 'apogee-batch ingest' command again"
        )
    return read_table(path)


def read_labels(store: Path) -> pa.Table | None:
    """Read the attached labels of a store; None where none were attached."""
    path = table_path(store, LABELS)
    return read_table(path) if path.is_file() else None
