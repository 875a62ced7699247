"""A network on a worker, and rows of a store that it estimates: what inference and calibration share."""

import copy
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from apogee_batch.errors import IntegrityError
from apogee_batch.inference.choose import EngineOffer, choose_engine, make_engine
from apogee_batch.inference.engines import Engine, StarBatch
from apogee_batch.inference.estimates import LabelEstimates, estimate_batch, prepare_stars
from apogee_batch.inference.gate import check_engine
from apogee_batch.inference.launch_check import check_launching
from apogee_batch.inference.launching import BatchResult, LaunchingEngine, PendingBatch
from apogee_batch.inference.realizations import ErrCap
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.network.calibration import Calibration, load_calibration
from apogee_batch.network.checkpoint import Checkpoint, load_checkpoint
from apogee_batch.network.features import N_ACTIVATIONS, features_of
from apogee_batch.network.memory import keep_freed_memory
from apogee_batch.run.devices import choose_device, describe_computer
from apogee_batch.run.read_ahead import read_ahead
from apogee_batch.schema import FloatArray
from apogee_batch.store.spectra import SpectrumBatch, StoreInfo

N_TRIED = 8
READ_STARS = 256  # a multiple of the chunks that stores are made of
GPU_READERS = 4  # a core decodes and caps the errors of some 10,000 stars a second, a GPU may want more

_one_at_a_time = threading.Lock()  # an engine's memory serves one call; tasks of one process may be threads
_loading = threading.Lock()  # of them the first loads the engine, and the others wait for it


@dataclass(frozen=True)
class Network:
    """A model, and what computes it here.

    Attributes
    ----------
    checkpoint : Checkpoint
        Its model lies on the device.
    engine : Engine
    device : str
        A torch device.
    """

    checkpoint: Checkpoint
    engine: Engine
    device: str

    def describe(self) -> str:
        """Return what the run's records call this computer."""
        return describe_computer(self.engine, self.device)


def load_network(model: Path, settings: dict[str, Any]) -> Network:
    """Load a model and its engine, once a process.

    Parameters
    ----------
    model : Path
        The model's folder.
    settings : dict
        `model_sha256`, `realizations`, `precision`, `device`, `engine`, and `calibration_sha256` where the
        model's calibration is wanted.

    Raises
    ------
    IntegrityError
        If model or calibration are not these, or damaged.
    UsageError
        If there is no such engine or device here.
    """
    keep_freed_memory()
    torch.set_num_threads(1)  # one process a core; and sums do not change with the machine's cores
    device = choose_device(settings["device"])
    offer = choose_engine(settings["engine"], settings["precision"], device)
    with _loading:
        checkpoint, engine = _load_engine(model, settings["model_sha256"], offer, settings["realizations"])
        wanted = settings.get("calibration_sha256")
        if wanted is not None:
            calibration = _load_calibration(model, checkpoint.sha256, wanted)
            checkpoint = checkpoint.calibrated_by(calibration, wanted)
    return Network(checkpoint, engine, device)


@lru_cache(maxsize=1)
def _load_engine(
    model: Path, sha256: str, offer: EngineOffer, n_realizations: int
) -> tuple[Checkpoint, Engine]:
    """Load the model, if it is the planned one and the engine computes it rightly here."""
    checkpoint = load_checkpoint(model, with_calibration=False)
    if checkpoint.sha256 != sha256:
        raise IntegrityError(f"{model}: the model changed while the run was going on; begin a new run")
    others = (checkpoint.transform, checkpoint.scaler)
    engine = make_engine(offer, checkpoint.model, *others)
    if offer.name != "torch":
        on_cpu = copy.deepcopy(checkpoint.model).to("cpu")
        # An engine on a GPU is compiled for a number of realizations: it is tried with the one it will have.
        n_tried = n_realizations if offer.device == "cuda" else N_TRIED
        check_engine(engine, TorchEngine(on_cpu, *others), n_realizations=n_tried)
    if isinstance(engine, LaunchingEngine):
        check_launching(engine, n_realizations=n_realizations, pinned=offer.device == "cuda")
    checkpoint.model.to(offer.device)  # for the features; a TorchEngine has switched off TF32
    return checkpoint, engine


@lru_cache(maxsize=1)
def _load_calibration(model: Path, model_sha256: str, sha256: str) -> Calibration:
    """Load the calibration of a model, if it is the one that was planned or made."""
    found = load_calibration(model, model_sha256)
    if found is None or found[1] != sha256:
        raise IntegrityError(
            f"{model}: its calibration is not that of the run; put it back, as by the same "
            "'apogee-batch model calibrate', or begin a new run"
        )
    return found[0]


def estimate_rows(
    network: Network, info: StoreInfo, stars: pa.Table, settings: dict[str, Any], *, with_features: bool
) -> tuple[LabelEstimates, FloatArray]:
    """Estimate the labels of some rows of a store, reading the next ones meanwhile.

    Parameters
    ----------
    network : Network
    info : StoreInfo
        The store.
    stars : pa.Table
        `row`, ascending, and `apstar_id`.
    settings : dict
        `realizations`, `seed` and `err_cap`.
    with_features : bool
        Whether to compute the features of the clean spectra, too.

    Returns
    -------
    LabelEstimates
    ndarray of float32, shape (n_stars, n_features)
        Of no stars where they are not wanted.
    """
    names = dict(zip(stars["row"].to_pylist(), stars["apstar_id"].to_pylist(), strict=True))

    def prepare(batch: SpectrumBatch) -> StarBatch:
        keys = [names[row] for row in batch.row.tolist()]
        seed, cap = settings["seed"], ErrCap(settings["err_cap"])
        return prepare_stars(keys, batch.flux, batch.err, run_seed=seed, cap=cap)

    n_stars = -(-network.engine.stars_per_call // READ_STARS) * READ_STARS
    on_gpu = network.device == "cuda"
    n_threads = GPU_READERS if on_gpu else 1
    rows = stars["row"].to_numpy()
    batches = read_ahead(info, rows, n_stars, pinned=on_gpu, n_threads=n_threads, prepare=prepare)
    results = list[BatchResult]()
    with closing(batches):
        first = [batch for batch in [next(batches, None)] if batch is not None]  # read while others compute
        waiting = deque[PendingBatch]()
        with _one_at_a_time:
            for batch in chain(first, batches):
                waiting.append(_begin(network, batch, settings["realizations"], with_features))
                first.clear()
                results += _finished(waiting, at_most=_batches_ahead(network.engine))
    results += _finished(waiting, at_most=0)  # while the device computes what another task has begun
    none = np.empty((0, N_ACTIVATIONS), np.float32)
    features = [result.features for result in results if result.features is not None]
    estimates = LabelEstimates.joined([result.estimates for result in results])
    return estimates, np.concatenate([none, *features])


class _Done:
    """A batch of an engine that its caller has waited for."""

    def __init__(self, result: BatchResult) -> None:
        self._result = result

    def result(self) -> BatchResult:
        return self._result


def _begin(network: Network, batch: StarBatch, n_realizations: int, with_features: bool) -> PendingBatch:
    """Begin to estimate a batch; an engine that cannot be left alone with it ends it, too."""
    engine, checkpoint = network.engine, network.checkpoint
    if isinstance(engine, LaunchingEngine):
        return engine.begin(batch, n_realizations, with_features=with_features)
    estimates = estimate_batch(engine, batch, n_realizations)
    if not with_features:
        return _Done(BatchResult(estimates, None))
    return _Done(BatchResult(estimates, features_of(checkpoint.model, checkpoint.transform, batch.flux)))


def _batches_ahead(engine: Engine) -> int:
    """Return how many batches may be on their way."""
    return engine.batches_ahead if isinstance(engine, LaunchingEngine) else 0


def _finished(waiting: deque[PendingBatch], *, at_most: int) -> Iterator[BatchResult]:
    """Give the results of the batches that were begun first, until so many are left."""
    while len(waiting) > at_most:
        yield waiting.popleft().result()
