"""The inference stage: one shard of the store in, one part of the catalogue out."""

import copy
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from apogee_batch.catalog.parts import build_part, write_part
from apogee_batch.errors import IntegrityError
from apogee_batch.files import sha256_of_file, write_bytes
from apogee_batch.inference.choose import EngineOffer, choose_engine, make_engine
from apogee_batch.inference.engines import Engine, EngineChoice, StarBatch
from apogee_batch.inference.estimates import LabelEstimates, estimate_batch, prepare_stars
from apogee_batch.inference.gate import check_engine
from apogee_batch.inference.realizations import ErrCap
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.labels.attach import LABELS_SCHEMA
from apogee_batch.network.checkpoint import Checkpoint, load_checkpoint
from apogee_batch.network.memory import keep_freed_memory
from apogee_batch.run.config import Device
from apogee_batch.run.devices import choose_device, describe_computer
from apogee_batch.run.ingest_tables import check_spectra
from apogee_batch.run.ledger import ShardReport, relative_digest
from apogee_batch.run.read_ahead import read_ahead
from apogee_batch.run.store_tables import read_rows
from apogee_batch.store.spectra import SpectrumBatch, StoreInfo, open_store
from apogee_batch.store.tables import LABELS, REJECTS, STARS, table_path

PARTS = "parts"
INPUTS = "inputs"
STAGING = "staging"
N_TRIED = 8
READ_STARS = 256  # a multiple of the chunks that stores are made of
KILLED = "killed"  # names of the stars that were left out, in a shard's report

_one_at_a_time = threading.Lock()  # an engine's memory serves one call; tasks of one process may be threads


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
    plan: dict[str, Any], model_sha256: str, *, device: Device, engine: EngineChoice
) -> dict[str, Any]:
    """Return what the task of a shard is told beside paths."""
    planned = {key: plan[key] for key in ("realizations", "seed", "err_cap", "precision")}
    return planned | {"model_sha256": model_sha256, "device": device, "engine": engine}


def infer_shard(
    store: str,
    run: str,
    model: str,
    settings: dict[str, Any],
    shard: int,
    *,
    excluded: Sequence[int] = (),
    only: Sequence[int] | None = None,
) -> ShardReport:
    """Estimate the labels of one shard's stars and write its part: a task.

    Parameters
    ----------
    store, run, model : str
        Paths of the store, the run and the model's folder.
    settings : dict
        `model_sha256`, `realizations`, `seed`, `err_cap`, `precision`, `device` and `engine`.
    shard : int
        The shard.
    excluded : sequence of int
        Places among the shard's stars of those that end a worker; they get no row.
    only : sequence of int, optional
        Estimate just the stars in these places, and write nothing.

    Raises
    ------
    IntegrityError
        If the spectra are not what was ingested.
    """
    started = time.monotonic()
    keep_freed_memory()
    torch.set_num_threads(1)  # one process a core; and sums do not change with the machine's cores
    device = choose_device(settings["device"])
    offer = choose_engine(settings["engine"], settings["precision"], device)
    checkpoint, engine = _load_engine(model, settings["model_sha256"], offer, settings["realizations"])
    info = open_store(Path(store))
    check_spectra(info, shard, ("flux/", "err/"))
    planned = _stars_of_shard(info, Path(run), shard)
    left_out = set(excluded)
    wanted = [i for i in (range(len(planned)) if only is None else only) if i not in left_out]
    stars = planned.take(pa.array(wanted, pa.int64()))
    estimates = _estimate(engine, info, stars, settings, pinned=device == "cuda")
    part = build_part(
        stars,
        mean=estimates.mean,
        std=estimates.std,
        clean=estimates.clean,
        n_realizations=settings["realizations"],
        labels=_labels_of_shard(info, Path(run), shard),
        label_range=checkpoint.header.label_range,
    )
    base, files = Path(run), []
    if only is None:
        files.append(write_part(part_path(base, shard), part, staging=base / STAGING))
    return ShardReport(
        shard=shard,
        n_inputs=len(planned),
        n_stars=len(part),
        n_rejected=len(excluded),
        files=tuple(relative_digest(file, base) for file in files),
        seconds=time.monotonic() - started,
        host=socket.gethostname(),
        extra={
            "device": describe_computer(engine, device),
            KILLED: [planned["apstar_id"][place].as_py() for place in excluded],
        },
    )


def _estimate(
    engine: Engine, info: StoreInfo, stars: pa.Table, settings: dict[str, Any], *, pinned: bool
) -> LabelEstimates:
    """Estimate the labels of some rows of the store, reading the next ones meanwhile."""
    names = dict(zip(stars["row"].to_pylist(), stars["apstar_id"].to_pylist(), strict=True))

    def prepare(batch: SpectrumBatch) -> StarBatch:
        keys = [names[row] for row in batch.row.tolist()]
        seed, cap = settings["seed"], ErrCap(settings["err_cap"])
        return prepare_stars(keys, batch.flux, batch.err, run_seed=seed, cap=cap)

    n_stars = -(-engine.stars_per_call // READ_STARS) * READ_STARS
    rows = stars["row"].to_numpy()
    batches = read_ahead(info, rows, n_stars, pinned=pinned, prepare=prepare)
    with _one_at_a_time, closing(batches):
        return LabelEstimates.joined(
            [estimate_batch(engine, batch, settings["realizations"]) for batch in batches]
        )


@lru_cache(maxsize=1)
def _load_engine(
    model: str, sha256: str, offer: EngineOffer, n_realizations: int
) -> tuple[Checkpoint, Engine]:
    """Load the model once a process, if it is the planned one and the engine computes it rightly here."""
    checkpoint = load_checkpoint(Path(model))
    if checkpoint.sha256 != sha256:
        raise IntegrityError(f"{model}: the model changed while the run was going on; begin a new run")
    others = (checkpoint.transform, checkpoint.scaler)
    engine = make_engine(offer, checkpoint.model, *others)
    if offer.name != "torch":
        on_cpu = copy.deepcopy(checkpoint.model).to("cpu")
        # An engine on a GPU is compiled for a number of realizations: it is tried with the one it will have.
        n_tried = n_realizations if offer.device == "cuda" else N_TRIED
        check_engine(engine, TorchEngine(on_cpu, *others), n_realizations=n_tried)
    return checkpoint, engine


def _stars_of_shard(info: StoreInfo, run: Path, shard: int) -> pa.Table:
    """Read the rows of the run's star table that lie in a shard."""
    return read_rows(run / INPUTS / f"{STARS}.parquet", *info.shard_rows(shard))


def _labels_of_shard(info: StoreInfo, run: Path, shard: int) -> pa.Table:
    """Read the labels of a shard's stars; a task needs no others."""
    path = run / INPUTS / f"{LABELS}.parquet"
    return read_rows(path, *info.shard_rows(shard)) if path.is_file() else LABELS_SCHEMA.empty_table()
