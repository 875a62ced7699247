"""Rows of a store on their way through an engine, which need not be one that its caller waits for."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from apogee_batch.inference.engines import StarBatch
from apogee_batch.inference.estimates import LabelEstimates
from apogee_batch.inference.launching import BatchResult
from apogee_batch.network.features import N_ACTIVATIONS
from apogee_batch.run import estimate
from apogee_batch.run.estimate import GPU_READERS, READ_STARS, Network, estimate_rows
from apogee_batch.schema import N_LABELS
from apogee_batch.store.spectra import SpectrumBatch, StoreInfo
from apogee_batch.survey.pixels import N_PIXELS

INFO = StoreInfo(Path("unused"), 10_000, 10_000)
SETTINGS = {"realizations": 2, "seed": 1, "err_cap": "median"}
CHUNK = 2  # stars of a batch here


@dataclass
class Launching:
    """An engine that finishes nothing before it is asked; tells the order of what happens."""

    said: list[str] = field(default_factory=list)
    fails_at: int = -1
    name, precision, stars_per_call, batches_ahead = "stub", "exact", 1, 2

    def predict(self, stars: StarBatch, n_realizations: int) -> Any:
        raise AssertionError("nobody is to wait")

    def begin(self, stars: StarBatch, n_realizations: int, *, with_features: bool) -> "Pending":
        assert estimate._one_at_a_time.locked()
        number = int(stars.flux[0, 0]) // CHUNK
        if number == self.fails_at:
            raise RuntimeError("a launch failed")
        self.said.append(f"begin {number}")
        return Pending(self.said, number, stars.flux[:, :1], with_features)


@dataclass
class Pending:
    said: list[str]
    number: int
    values: np.ndarray
    with_features: bool

    def result(self) -> BatchResult:
        held = ", held" if estimate._one_at_a_time.locked() else ""
        self.said.append(f"result {self.number}{held}")
        labels = np.repeat(self.values.astype(np.float64), N_LABELS, axis=1)
        features = np.repeat(self.values, N_ACTIVATIONS, axis=1) if self.with_features else None
        return BatchResult(LabelEstimates(labels, labels, labels), features)


class Waiting(Launching):
    """An engine of the other kind: its caller waits for its labels."""

    begin = None

    def predict(self, stars: StarBatch, n_realizations: int) -> Any:
        assert estimate._one_at_a_time.locked()
        self.said.append("predict")
        return np.broadcast_to(stars.flux[:, :1, None], (len(stars), 1 + n_realizations, N_LABELS))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Let a store be read whose spectra are the numbers of their rows; tells how it was asked."""
    calls: list[dict[str, Any]] = []

    def read(info: StoreInfo, rows: np.ndarray, n_stars: int, **options: Any) -> Iterator[StarBatch]:
        calls.append({"n_stars": n_stars, **options})
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            flux = np.repeat(some[:, None], N_PIXELS, axis=1).astype(np.float32)
            yield options["prepare"](SpectrumBatch(some, flux, np.ones_like(flux)))
        calls.append({"ended": True})

    monkeypatch.setattr(estimate, "read_ahead", read)
    return calls


def stars(n: int) -> pa.Table:
    return pa.table({"row": np.arange(n), "apstar_id": [f"star {i}" for i in range(n)]})


def network(engine: Any, device: str = "cpu") -> Network:
    return Network(SimpleNamespace(model="model", transform="transform"), engine, device)


def test_batches_are_begun_before_the_first_is_waited_for(asked: list[dict[str, Any]]) -> None:
    engine = Launching()
    found, features = estimate_rows(network(engine), INFO, stars(9), SETTINGS, with_features=True)
    assert found.mean[:, 0].tolist() == features[:, 5].tolist() == list(range(9))
    assert engine.said == [
        *("begin 0", "begin 1", "begin 2", "result 0, held", "begin 3", "result 1, held"),
        *("begin 4", "result 2, held", "result 3", "result 4"),  # others may begin before these are there
    ]


def test_without_features_none_are_asked_for(asked: list[dict[str, Any]]) -> None:
    found, features = estimate_rows(network(Launching()), INFO, stars(3), SETTINGS, with_features=False)
    assert len(found.mean) == 3
    assert features.shape == (0, N_ACTIVATIONS)


def test_no_stars_have_no_estimates(asked: list[dict[str, Any]]) -> None:
    for engine in (Launching(), Waiting()):
        found, features = estimate_rows(network(engine), INFO, stars(0), SETTINGS, with_features=True)
        assert found.mean.shape == (0, N_LABELS)
        assert features.shape == (0, N_ACTIVATIONS)


def test_an_engine_that_is_waited_for_gets_one_batch_after_the_other(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def features_of(model: object, transform: object, flux: np.ndarray) -> np.ndarray:
        engine.said.append(f"features by {model}, {transform}")
        return np.repeat(flux[:, :1], N_ACTIVATIONS, axis=1)

    monkeypatch.setattr(estimate, "features_of", features_of)
    engine = Waiting()
    found, features = estimate_rows(network(engine), INFO, stars(3), SETTINGS, with_features=True)
    assert found.clean[:, 0].tolist() == features[:, 0].tolist() == [0, 1, 2]
    batches = (2, 1)
    by = "features by model, transform"
    assert engine.said == [word for n in batches for word in [*["predict"] * n, by]]


def test_the_first_spectra_are_read_while_another_task_computes(asked: list[dict[str, Any]]) -> None:
    engine, has_read = Launching(), threading.Event()
    real = estimate.prepare_stars

    def prepare(*arguments: Any, **options: Any) -> StarBatch:
        has_read.set()
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch, estimate._one_at_a_time:
        patch.setattr(estimate, "prepare_stars", prepare)
        task = threading.Thread(
            target=estimate_rows,
            args=(network(engine), INFO, stars(3), SETTINGS),
            kwargs={"with_features": True},
        )
        task.start()
        assert has_read.wait(60)
        assert engine.said == []
    task.join(60)
    assert engine.said[:2] == ["begin 0", "begin 1"]


def test_reading_ends_where_the_engine_fails(asked: list[dict[str, Any]]) -> None:
    with pytest.raises(RuntimeError, match="a launch failed"):
        estimate_rows(network(Launching(fails_at=1)), INFO, stars(9), SETTINGS, with_features=False)
    assert len(asked) == 1
    assert not estimate._one_at_a_time.locked()


def test_only_for_a_gpu_several_threads_read_into_pinned_memory(asked: list[dict[str, Any]]) -> None:
    for device, n_threads in (("cpu", 1), ("cuda", GPU_READERS)):
        asked.clear()
        estimate_rows(network(Launching(), device), INFO, stars(1), SETTINGS, with_features=False)
        assert (asked[0]["n_stars"], asked[0]["n_threads"]) == (READ_STARS, n_threads)
        assert asked[0]["pinned"] == (device == "cuda")
