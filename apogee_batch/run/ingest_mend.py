"""What damage a store has suffered since it was written, and how an ingest mends it.

Whatever is lost can be written again from what is left: a plan from the metadata of the inputs beside it,
the inputs from the parts, Zarr's metadata from the plans, tables from the parts, and a shard from its files.
"""

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import (
    FileDigest,
    read_sealed_json,
    remove_leftovers,
    sha256_of_file,
    write_sealed_json,
)
from apogee_batch.run.archive import is_there, list_files, needs_packing, pack
from apogee_batch.run.ingest_inputs import INPUTS_FILE, INPUTS_SCHEMA, TIMES, read_inputs, write_inputs
from apogee_batch.run.ingest_plan import (
    FOLDER_NAMES,
    SUMMARY_FILE,
    IngestPlan,
    ingest_folders,
    is_finished,
    read_ingest,
)
from apogee_batch.run.ingest_tables import CONTENTS, PARTS_FOLDER, PLANNED, ingest_ledger, read_part
from apogee_batch.run.ledger import WrittenFile, find_damage, relative_digest
from apogee_batch.run.plan import LEDGER_FOLDER, PLAN_FILE, read_plan, write_plan
from apogee_batch.store.metadata import restore_metadata
from apogee_batch.store.spectra import STAGING, resize_store

INPUTS_NOTE = "inputs_file"  # key of a summary: path, size and hash of the inputs


def remove_store_leftovers(store: Path) -> int:
    """Remove the unfinished files of killed processes; return how many. The store must be locked."""
    folders = [store / STAGING, store / "tables", *store.glob("ingest/*"), *store.glob("ingest/*/ledger")]
    return sum(remove_leftovers(folder) for folder in folders if folder.is_dir())


def mend_store(store: Path) -> list[Path]:
    """Write lost or damaged plans, inputs and metadata again; return what was written.

    Raises
    ------
    IntegrityError
        If something is lost with all its copies; the message names it.
    """
    mended = []
    for folder in sorted((store / "ingest").glob(FOLDER_NAMES)):
        mended += _mend_plan(folder)
    # the inputs of an unfinished ingest are written again when it goes on, from the files that it is given
    found = [_read_if_needed(folder) for folder in ingest_folders(store)]
    plans = [plan for plan in found if plan is not None]
    if plans:
        n_rows = max(plan.n_rows for plan in plans)
        with suppress(IntegrityError, UsageError, ValueError, KeyError, TypeError, FileNotFoundError):
            resize_store(store, n_rows=n_rows)  # whole, but an ingest was killed between its plan and this
        mended += restore_metadata(store, n_rows=n_rows, shard_stars=plans[0].shard_stars)
    return mended


def pack_finished(store: Path) -> None:
    """Put ledger and parts of each finished ingest into one archive each, and mend those that are torn.

    The store must be locked. Shards that the archives lack must have been made again before.
    """
    for folder in filter(is_finished, ingest_folders(store)):
        for small in (folder / PARTS_FOLDER, folder / LEDGER_FOLDER):
            if needs_packing(small):
                pack(small, staging=store / STAGING)


def _read_if_needed(folder: Path) -> IngestPlan | None:
    if is_finished(folder):
        return read_ingest(folder)
    try:
        return read_ingest(folder)
    except IntegrityError:
        return None


def _mend_plan(folder: Path) -> list[Path]:
    """Write plan or inputs of an ingest again, each from the other's copy."""
    plan = _or_none(lambda: read_plan(folder))
    noted = _or_none(lambda: read_inputs(folder)[1])
    if plan is None and noted is not None:
        write_plan(folder, noted)
        return [folder / PLAN_FILE]
    if plan is None and (folder / PLAN_FILE).exists() and not is_there(folder / LEDGER_FOLDER):
        (folder / PLAN_FILE).unlink()  # damaged before anything was done by it: the ingest begins again
        return [folder / PLAN_FILE]
    if noted is None and plan is not None and is_finished(folder):
        return [_restore_inputs(folder, plan)]
    note = read_summary(folder).get(INPUTS_NOTE)
    if noted is not None and note and find_damage(WrittenFile(**note), folder.parent.parent):
        _rewrite_inputs(folder, read_inputs(folder)[0], noted)  # damaged where nobody reads it
        return [folder / INPUTS_FILE]
    return []


def note_inputs(store: Path, folder: Path) -> dict[str, Any]:
    """Return path, size and hash of the inputs of an ingest, for its summary."""
    path = folder / INPUTS_FILE
    digest = FileDigest(path, path.stat().st_size, sha256_of_file(path))
    return asdict(relative_digest(digest, store))


def _restore_inputs(folder: Path, plan: dict[str, Any]) -> Path:
    """Write the inputs of a finished ingest again, from what its parts say of them."""
    paths = [path for path in list_files(folder / PARTS_FOLDER) if path.match(f"{CONTENTS}-*.parquet")]
    parts = [read_part(path) for path in paths]
    if not parts:
        raise IntegrityError(
            f"{folder / INPUTS_FILE}: is damaged, and so are the parts; ingest into a new store"
        )
    table = pa.concat_tables(parts).select([field.name for field in PLANNED]).sort_by("row")
    zeros = pa.array([0] * len(table), pa.int64())  # unknown: the size alone then tells of a changed reject
    for name in TIMES:
        table = table.append_column(name, zeros)
    _rewrite_inputs(folder, table.cast(INPUTS_SCHEMA), plan)
    read_ingest(folder)  # the parts may be damaged too
    return folder / INPUTS_FILE


def _rewrite_inputs(folder: Path, table: pa.Table, plan: dict[str, Any]) -> None:
    """Write inputs, and their hash into the summary unless that is damaged too: then it is written later."""
    write_inputs(folder, table, plan)
    summary = read_summary(folder)
    if summary:
        note = note_inputs(folder.parent.parent, folder)
        write_sealed_json(folder / SUMMARY_FILE, summary | {INPUTS_NOTE: note})


def _or_none(read: Any) -> Any:
    try:
        return read()
    except IntegrityError:
        return None


def damaged_ingests(store: Path, *, check_bytes: bool = True) -> list[IngestPlan]:
    """Return the finished ingests of a store of which a file is damaged, or their summary.

    Parameters
    ----------
    store : Path
        Folder of the store.
    check_bytes : bool
        Whether to compare hashes, or only sizes.
    """
    plans = [read_ingest(folder) for folder in ingest_folders(store) if is_finished(folder)]
    return [
        plan
        for plan in plans
        if not read_summary(plan.folder)
        or len(ingest_ledger(store, plan).done(check_bytes=check_bytes)) < len(plan.shards)
    ]


def read_summary(folder: Path) -> dict[str, Any]:
    """Read the summary of an ingest; empty where there is none, or it is damaged."""
    try:
        return read_sealed_json(folder / SUMMARY_FILE)
    except (OSError, ValueError):
        return {}
