"""Where the files of a run lie, and what goes into them before any shard is done.

Many want to know that; nobody who imports it waits for torch, pictures or Dask.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from apogee_batch.errors import IntegrityError
from apogee_batch.files import remove_leftovers, sha256_of_file, write_bytes
from apogee_batch.network.model_files import Identity
from apogee_batch.run.plan import LEDGER_FOLDER
from apogee_batch.store.tables import LABELS, REJECTS, STARS, table_path

if TYPE_CHECKING:
    from apogee_batch.inference.engines import EngineChoice
    from apogee_batch.run.config import Device

PARTS = "parts"
INPUTS = "inputs"
STAGING = "staging"
MODEL_FOLDER = "model"
SETTINGS_FILE = "settings.json"
MANIFEST_FILE = "manifest.json"
CATALOG_FILE = "catalog/catalog.parquet"
FITS_FILE = "catalog/catalog.fits"
RESULTS_FILE = "report/results.json"
KILLED = "killed"  # names of the stars that were left out, in a shard's report


def shard_sizes(stars: pa.Table, shard_stars: int) -> dict[int, int]:
    """Return how many stars each shard holds that holds any, in the order of the shards.

    Parameters
    ----------
    stars : pa.Table
        Star table of a store or a run.
    shard_stars : int
        Rows of a shard.
    """
    shards, counts = np.unique(stars["row"].to_numpy() // shard_stars, return_counts=True)
    return dict(zip(shards.tolist(), counts.tolist(), strict=True))


def hash_inputs(store: Path) -> dict[str, str]:
    """Return the hashes of the store's tables that a run copies; labels only where there are any."""
    paths = {name: table_path(store, name) for name in (STARS, LABELS, REJECTS)}
    return {name: sha256_of_file(path) for name, path in paths.items() if path.is_file()}


def copy_inputs(store: Path, run: Path, planned: dict[str, str]) -> None:
    """Keep the store's tables as they are now in the run: what is attached or appended later is not its.

    Parameters
    ----------
    store, run : Path
        The store; the run's folder.
    planned : dict of str to str
        Hash of each table, as `hash_inputs` gives it; a copy that has it stays.

    Raises
    ------
    IntegrityError
        If a table of the store is not the planned one, and no copy is.
    """
    for name, sha256 in planned.items():
        copy = run / INPUTS / f"{name}.parquet"
        if copy.is_file() and sha256_of_file(copy) == sha256:
            continue
        written = write_bytes(copy, table_path(store, name).read_bytes())
        if written.sha256 != sha256:
            raise IntegrityError(f"{table_path(store, name)}: changed while the run began; give it again")


def part_path(run: Path, shard: int) -> Path:
    """Return the file of a shard's part of the catalogue."""
    return run / PARTS / f"part-{shard:05d}.parquet"


def inference_settings(
    plan: dict[str, Any], model: Identity, *, device: "Device", engine: "EngineChoice"
) -> dict[str, Any]:
    """Return what the task of a shard is told beside paths."""
    planned = {key: plan[key] for key in ("realizations", "seed", "err_cap", "precision")}
    return planned | model._asdict() | {"device": device, "engine": engine}


def remove_run_leftovers(out: Path) -> int:
    """Remove the unfinished files of killed processes; return how many. The run must be locked."""
    names = ("", STAGING, PARTS, INPUTS, MODEL_FOLDER, LEDGER_FOLDER, "catalog", "report", "report/figures")
    return sum(remove_leftovers(out / name) for name in names if (out / name).is_dir())
