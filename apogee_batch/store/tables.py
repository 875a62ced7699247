"""The tables beside the arrays: stars, labels and rejects, as Parquet in the store's `tables/` group."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from apogee_batch.errors import IntegrityError, UsageError

REMEDY = "give the command that wrote it again"
STARS, LABELS, UNMATCHED, REJECTS = "stars", "labels", "unmatched_labels", "rejects"


def table_path(store: Path, name: str) -> Path:
    """Return the file of one of the store's tables."""
    return store / "tables" / f"{name}.parquet"


def read_table(path: Path, content: bytes | None = None) -> pa.Table:
    """Read a Parquet table written by `files.write_table`.

    Parameters
    ----------
    path : Path
        The file.
    content : bytes, optional
        What it holds, where that lies in another file.

    Raises
    ------
    IntegrityError
        If the file is damaged.
    """
    try:
        return open_table(path, content).read()
    except (pa.ArrowInvalid, OSError) as error:
        text = " ".join(str(error).split())
        raise IntegrityError(f"{path}: missing or damaged ({text}); {REMEDY}") from error


def open_table(path: Path, content: bytes | None = None) -> pq.ParquetFile:
    """Open a Parquet table, whose pages are checked as they are read; for the arguments see `read_table`."""
    # Arrow takes a name that is text to be UTF-8, which those of a file system need not be.
    source = pa.OSFile(os.fsencode(path)) if content is None else pa.BufferReader(content)
    return pq.ParquetFile(source, page_checksum_verification=True)


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
