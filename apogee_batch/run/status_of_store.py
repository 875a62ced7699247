"""What a store holds, and how far its ingests are, for `status`."""

from pathlib import Path

from apogee_batch.run.ingest_inputs import INPUTS_FILE
from apogee_batch.run.ingest_mend import read_summary
from apogee_batch.run.ingest_plan import ingest_folders
from apogee_batch.run.ledger import Ledger
from apogee_batch.run.plan import read_plan, run_id
from apogee_batch.store.spectra import open_store
from apogee_batch.store.tables import LABELS, read_labels, read_table, table_path


def describe_store(store: Path) -> list[str]:
    """Describe a store, its ingests and its labels."""
    info = open_store(store)
    lines = [f"store {store}: {info.n_rows} rows in {info.n_shards} shards of {info.shard_stars}"]
    lines += [_ingest_line(store, folder) for folder in ingest_folders(store)]
    labels = read_labels(store) if table_path(store, LABELS).is_file() else None
    lines.append("labels: none attached" if labels is None else f"labels: {len(labels)} spectra labelled")
    return lines


def describe_ingest(folder: Path) -> list[str]:
    """Describe one ingest of a store."""
    store = folder.parent.parent
    return [f"one ingest of the store {store}", _ingest_line(store, folder)]


def _ingest_line(store: Path, folder: Path) -> str:
    plan = read_plan(folder) or {}
    state = "planned"  # the list of inputs is written right after the plan
    summary = read_summary(folder)
    if summary:
        reasons = ", ".join(f"{n} {reason}" for reason, n in summary["rejects_by_reason"].items())
        state = f"done: {summary['stars_in_store']} stars, rejected {reasons or 'none'}"
    elif (folder / INPUTS_FILE).is_file():
        n_shards = len(set(read_table(folder / INPUTS_FILE)["shard"].to_pylist()))
        done = Ledger(folder / "ledger", store, run_id(plan)).done(check_bytes=False)
        state = f"{len(done)} of {n_shards} shards written"
    return f"ingest {folder.name}: {plan['n_inputs']} files, {state}"
