"""A published catalogue as a HATS folder that is whole or absent: made aside, then renamed."""

import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from apogee_batch.catalog.hats import (
    MARK,
    MAX_MARGIN_ARCSEC,
    PARTITION_ROWS,
    PositionedRows,
    make_collection,
    refuse_without_hats_import,
    write_positioned,
)
from apogee_batch.catalog.rows import CatalogRows
from apogee_batch.errors import ApogeeBatchError, UsageError
from apogee_batch.files import flush_file, make_folder
from apogee_batch.run.clusters.in_process import in_process_dask

FOLDER = "hats"
DEFAULT_MARGIN_ARCSEC = 10.0
_LOCK = "lock"  # in the folder of an export; the kernel frees it when the export ends, however it ends
_MADE_IN = re.compile(r"\.hats\.[0-9a-f]{32}\.partial")
_PART = re.compile(
    r"lock|\.?rows\.parquet(\..*)?|apogee_batch|verification|old-\d"
)  # what such a folder holds
_TRIES = 5


def check_hats_export(folder: Path, margin_arcsec: float) -> None:
    """Refuse what cannot be exported before anything is written.

    Raises
    ------
    UsageError
        If hats-import is missing, the margin is none, or `folder` is no exported catalogue.
    """
    refuse_without_hats_import()
    if not 0 < margin_arcsec <= MAX_MARGIN_ARCSEC:
        raise UsageError(
            f"--margin {margin_arcsec:g}: give more than 0 and at most {MAX_MARGIN_ARCSEC:g} arcsec"
        )
    if (folder.exists() or folder.is_symlink()) and not _is_replaceable(folder):
        raise UsageError(
            f"{folder}: is no exported catalogue; move it away, or name another place with --out"
        )


def export_hats(
    rows: CatalogRows,
    folder: Path,
    *,
    metadata: Mapping[str, str],
    margin_arcsec: float = DEFAULT_MARGIN_ARCSEC,
    partition_rows: int = PARTITION_ROWS,
) -> PositionedRows:
    """Write a catalogue as a HATS collection with a margin cache.

    Nothing is at `folder` before all of it is on the disk, and verified. An earlier export there is replaced;
    for the moment between two renames there is none.

    Parameters
    ----------
    rows : CatalogRows
        The catalogue.
    folder : Path
        The collection.
    metadata : mapping of str to str
        What else to say of the catalogue: metadata of each file.
    margin_arcsec : float
        How far beyond its border a partition knows the stars, at least.
    partition_rows : int
        Rows of a partition, at most.

    Returns
    -------
    PositionedRows
        How many rows it holds, and how many have no position and are left out.

    Raises
    ------
    UsageError
        As `check_hats_export`, or if no row has a position.
    ApogeeBatchError
        If hats-import fails.
    """
    check_hats_export(folder, margin_arcsec)
    make_folder(folder.parent)
    _remove_leftovers(folder.parent)
    with _making_in(folder.parent) as aside:
        table = write_positioned(rows, aside / "rows.parquet", metadata=metadata)
        made = aside / "apogee_batch"
        try:
            with in_process_dask() as client:
                make_collection(
                    table, made, client, margin_arcsec=margin_arcsec, partition_rows=partition_rows
                )
        except (RuntimeError, ValueError, AssertionError) as error:
            text = " ".join(str(error).split())
            raise ApogeeBatchError(
                f"{folder}: hats-import could not make the catalogue ({text}); is the disk full? "
                "Give the command again, or choose another format"
            ) from error
        _put_in_place(made, folder, aside)
    return table


def _is_replaceable(folder: Path) -> bool:
    """Tell whether a folder is an export of ours, or empty."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    properties = folder / "collection.properties"
    return (properties.is_file() and MARK in properties.read_text(errors="replace")) or not any(
        folder.iterdir()
    )


@contextmanager
def _making_in(parent: Path) -> Iterator[Path]:
    """Give a new folder for what is unfinished, locked while the block runs, and gone after it."""
    number = uuid.uuid4().hex
    aside = parent / f".hats-{number}"  # no leftover by its name: another export could lock it before us
    aside.mkdir()
    try:
        with (aside / _LOCK).open("wb") as lock:
            with suppress(OSError):  # a file system without locks: then leftovers there stay
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            aside = aside.rename(parent / f".hats.{number}.partial")
            yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    """Remove what killed exports left; living ones hold their lock."""
    for path in parent.iterdir():
        if _MADE_IN.fullmatch(path.name) and path.is_dir() and not path.is_symlink() and _is_dead(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_dead(aside: Path) -> bool:
    """Tell whether a folder of an export is one that nobody works in, and holds nothing but that."""
    if not all(_PART.fullmatch(path.name) for path in aside.iterdir()):
        return False
    try:
        with (aside / _LOCK).open("rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _put_in_place(made: Path, folder: Path, aside: Path) -> None:
    """Force the collection to the disk and give it its name, in place of an earlier one."""
    for path in made.rglob("*"):
        flush_file(path)
    for i in range(_TRIES):
        with suppress(FileNotFoundError):
            folder.rename(aside / f"old-{i}")
        try:
            made.rename(folder)
        except OSError as error:  # another export was quicker, after the line above
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or i == _TRIES - 1:
                raise OSError(error.errno, os.strerror(error.errno or errno.EIO), str(folder)) from error
        else:
            break
    flush_file(folder)
