"""The inference stage: one shard of the store in, one part of the catalogue out."""

import shutil
import socket
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from apogee_batch.catalog.parts import build_part, write_part
from apogee_batch.errors import IntegrityError
from apogee_batch.files import replace_on_success
from apogee_batch.inference.engines import TorchEngine
from apogee_batch.inference.estimates import estimate_labels
from apogee_batch.inference.realizations import ErrCap
from apogee_batch.labels.attach import LABELS_SCHEMA
from apogee_batch.network.checkpoint import Checkpoint, load_checkpoint
from apogee_batch.network.memory import keep_freed_memory
from apogee_batch.run.devices import choose_device, device_name
from apogee_batch.run.ledger import ShardReport, describe_file
from apogee_batch.store.spectra import StoreInfo, open_store, read_spectra
from apogee_batch.store.tables import LABELS, REJECTS, STARS, read_stars, read_table, table_path

PARTS = "parts"
INPUTS = "inputs"


def shards_with_stars(store: Path) -> list[int]:
    """Return the shards of a store in which there is at least one star."""
    info = open_store(store)
    shards = pc.divide(read_stars(store)["row"], info.shard_stars)
    return sorted(set(shards.to_pylist()))


def copy_inputs(store: Path, run: Path) -> None:
    """Keep the store's tables as they are now in the run: what is attached or appended later is not its."""
    for name in (STARS, LABELS, REJECTS):
        source, copy = table_path(store, name), run / INPUTS / f"{name}.parquet"
        if source.is_file() and not copy.is_file():
            with replace_on_success(copy) as temporary:
                shutil.copyfile(source, temporary)


def part_path(run: Path, shard: int) -> Path:
    """Return the file of a shard's part of the catalogue."""
    return run / PARTS / f"part-{shard:05d}.parquet"


def infer_shard(store: str, run: str, model: str, settings: dict[str, Any], shard: int) -> ShardReport:
    """Estimate the labels of one shard's stars and write its part: a task.

    Parameters
    ----------
    store, run, model : str
        Paths of the store, the run and the model's folder.
    settings : dict
        `model_sha256`, `realizations`, `seed`, `err_cap` and `device`.
    shard : int
        The shard.
    """
    started = time.monotonic()
    keep_freed_memory()
    torch.set_num_threads(1)  # one process a core; and sums do not change with the machine's cores
    device = choose_device(settings["device"])
    checkpoint, engine = _load_engine(model, settings["model_sha256"], device)
    info = open_store(Path(store))
    stars = _stars_of_shard(info, Path(run), shard)
    batch = read_spectra(info, stars["row"].to_numpy())
    estimates = estimate_labels(
        engine,
        stars["apstar_id"].to_pylist(),
        batch.flux,
        batch.err,
        n_realizations=settings["realizations"],
        run_seed=settings["seed"],
        cap=ErrCap(settings["err_cap"]),
    )
    labels = Path(run) / INPUTS / f"{LABELS}.parquet"
    part = build_part(
        stars,
        mean=estimates.mean,
        std=estimates.std,
        clean=estimates.clean,
        n_realizations=settings["realizations"],
        labels=read_table(labels) if labels.is_file() else LABELS_SCHEMA.empty_table(),
        label_range=checkpoint.header.label_range,
    )
    path = part_path(Path(run), shard)
    write_part(path, part, staging=Path(run) / "staging")
    return ShardReport(
        shard=shard,
        n_inputs=len(stars),
        n_stars=len(part),
        n_rejected=0,
        files=(describe_file(path, Path(run)),),
        seconds=time.monotonic() - started,
        host=socket.gethostname(),
        extra={"device": device_name(device)},
    )


@lru_cache(maxsize=1)
def _load_engine(model: str, sha256: str, device: str) -> tuple[Checkpoint, TorchEngine]:
    """Load the model once a process, and make sure that it is the planned one."""
    checkpoint = load_checkpoint(Path(model))
    if checkpoint.sha256 != sha256:
        raise IntegrityError(f"{model}: the model changed while the run was going on; begin a new run")
    engine = TorchEngine(checkpoint.model, checkpoint.transform, checkpoint.scaler, device=device)
    return checkpoint, engine


def _stars_of_shard(info: StoreInfo, run: Path, shard: int) -> pa.Table:
    """Read the rows of the run's star table that lie in a shard."""
    start, stop = info.shard_rows(shard)
    within = [("row", ">=", start), ("row", "<", stop)]
    return pq.read_table(run / INPUTS / f"{STARS}.parquet", filters=within).combine_chunks()
