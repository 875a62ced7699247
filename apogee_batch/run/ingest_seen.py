"""Where an ingest's files are, for whoever looks on from elsewhere."""

from pathlib import Path
from typing import Any

from apogee_batch.run.commits import CommitReader
from apogee_batch.run.ingest_inputs import INPUTS_FILE
from apogee_batch.run.ingest_plan import ingest_folders, is_finished, store_lock
from apogee_batch.run.plan import LEDGER_FOLDER, run_id
from apogee_batch.run.run_state import Place
from apogee_batch.store.tables import read_table

__all__ = ["is_finished", "last_ingest", "place_of_ingest"]


def last_ingest(store: Path) -> Path:
    """Return the folder of a store's last ingest; the store itself where it has none."""
    ingests = ingest_folders(store)
    return ingests[-1] if ingests else store


def place_of_ingest(folder: Path, plan: dict[str, Any]) -> Place:
    """Return where the files of an ingest are."""
    store, name, inputs = folder.parent.parent, run_id(plan), folder / INPUTS_FILE
    shards = len(set(read_table(inputs)["shard"].to_pylist())) if inputs.is_file() else 0
    ledger = CommitReader(folder / LEDGER_FOLDER, name)
    logs, n_inputs = folder.parent / "logs", int(plan["n_inputs"])
    return Place("ingest", folder, name, store_lock(store), logs, ledger, shards, n_inputs, "files")
