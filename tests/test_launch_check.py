"""Engines whose batches, begun ahead, become something else than their predictions make no catalogue."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from apogee_batch.errors import IntegrityError
from apogee_batch.inference.choose import EngineOffer
from apogee_batch.inference.cuda_engine import CudaEngine
from apogee_batch.inference.engines import Precision, StarBatch
from apogee_batch.inference.launch_check import CALLS_AFTER_ALL_ARE_AHEAD, check_launching
from apogee_batch.inference.launching import BatchResult, PendingBatch
from apogee_batch.network.model import SpectrumNet, initialise_kaiming
from apogee_batch.network.official import import_official
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform
from apogee_batch.run import estimate
from apogee_batch.schema import DoubleArray

Change = Callable[["ChangedEngine", int, BatchResult], BatchResult]


@pytest.fixture(scope="module")
def engine() -> CudaEngine:
    torch.set_num_threads(1)
    model = SpectrumNet()
    initialise_kaiming(model, torch.Generator().manual_seed(5))
    return CudaEngine(model, InputTransform("contrast"), OFFICIAL_SCALER, device="cpu", batch_stars=1)


class ChangedEngine:
    """An engine whose batches become something else."""

    name = "changed"
    precision: Precision = "exact"

    def __init__(self, engine: CudaEngine, change: Change) -> None:
        self._engine, self._change = engine, change
        self.batches_ahead, self.stars_per_call = engine.batches_ahead, engine.stars_per_call
        self.seen: list[BatchResult] = []
        self.n_stars: list[int] = []

    def predict(self, stars: StarBatch, n_realizations: int) -> DoubleArray:
        return self._engine.predict(stars, n_realizations)

    def begin(self, stars: StarBatch, n_realizations: int, *, with_features: bool) -> PendingBatch:
        self.n_stars.append(len(stars))
        result = self._engine.begin(stars, n_realizations, with_features=with_features).result()
        self.seen.append(result)
        return Answer(self._change(self, len(self.seen) - 1, result))


@dataclasses.dataclass
class Answer:
    """A batch that is done."""

    answer: BatchResult

    def result(self) -> BatchResult:
        return self.answer


def changed(result: BatchResult, **arrays: DoubleArray) -> BatchResult:
    return dataclasses.replace(result, estimates=dataclasses.replace(result.estimates, **arrays))


def stale(engine: ChangedEngine, call: int, result: BatchResult) -> BatchResult:
    """Give what an earlier batch of this size became: its memory was used too soon."""
    earlier = [one for one in engine.seen[:call] if len(one.estimates.mean) == len(result.estimates.mean)]
    return earlier[-1] if earlier else result


def one_late(_: ChangedEngine, call: int, result: BatchResult) -> BatchResult:
    """Leave one number out, in one of the last batches."""
    mean = result.estimates.mean.copy()
    if call == CALLS_AFTER_ALL_ARE_AHEAD:
        mean[-1, 1] = np.nan
    return changed(result, mean=mean)


def wider(_: ChangedEngine, __: int, result: BatchResult) -> BatchResult:
    """Divide by the wrong number."""
    return changed(result, std=result.estimates.std * 1.02)


def forgotten(_: ChangedEngine, call: int, result: BatchResult) -> BatchResult:
    """Leave out the features of one star, in one of the batches."""
    assert result.features is not None
    features = result.features.copy()
    features[-1] = 0 if call == CALLS_AFTER_ALL_ARE_AHEAD else features[-1]
    return dataclasses.replace(result, features=features)


def test_an_engine_that_begins_what_it_predicts_may_make_catalogues(engine: CudaEngine) -> None:
    same = ChangedEngine(engine, lambda _, __, result: result)
    check_launching(same, n_realizations=2, pinned=False)
    assert sum(same.n_stars) > (1 + engine.batches_ahead) * engine.stars_per_call  # memory is used again
    assert len(set(same.n_stars)) > 1


def test_a_network_whose_labels_stand_still_is_no_fault_of_the_engine() -> None:
    still = SpectrumNet()
    torch.nn.init.zeros_(still.fc3.weight)
    engine = CudaEngine(still, InputTransform("contrast"), OFFICIAL_SCALER, device="cpu", batch_stars=1)
    check_launching(engine, n_realizations=3, pinned=False)


@pytest.mark.parametrize("change", [stale, one_late, wider, forgotten])
def test_one_that_does_not_is_refused(engine: CudaEngine, change: Change) -> None:
    wrong = ChangedEngine(engine, change)
    with pytest.raises(IntegrityError, match="changed exact: batches that are begun ahead differ"):
        check_launching(wrong, n_realizations=2, pinned=False)


def test_a_worker_tries_it_before_its_first_star(
    engine: CudaEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    torch.save(SpectrumNet().state_dict(), tmp_path / "model.pt")
    sha256 = import_official(tmp_path / "model.pt", tmp_path / "model").sha256
    offer = EngineOffer("torch", "exact", "cpu", "")
    monkeypatch.setattr(estimate, "choose_engine", lambda *_: offer)
    monkeypatch.setattr(estimate, "make_engine", lambda *_: ChangedEngine(engine, wider))
    settings = {
        "model_sha256": sha256,
        "realizations": 2,
        "precision": "exact",
        "device": "cpu",
        "engine": "torch",
    }
    with pytest.raises(IntegrityError, match="begun ahead"):
        estimate.load_network(tmp_path / "model", settings)
