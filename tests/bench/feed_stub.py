"""What stands for a GPU where there is none: it takes its time, does nothing and leaves the cores alone."""

import dataclasses
import json
import resource
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from apogee_batch.inference.engines import Precision, StarBatch
from apogee_batch.inference.estimates import LabelEstimates
from apogee_batch.network.checkpoint import load_checkpoint
from apogee_batch.network.features import N_ACTIVATIONS
from apogee_batch.run import estimate, infer, read_ahead
from apogee_batch.schema import N_LABELS

FORWARDS = 101  # of a star
FEATURE_ROWS = 26
ANSWER_S = 2e-4  # between the end of some work and the answer to who waits for it
TYPICAL = np.array([2.5, 4800.0, -0.2])


class Device:
    """A queue of work, each taking so long; keeps account of when it had none.

    Parameters
    ----------
    rate : float
        Stars a second.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._lock = threading.Lock()
        self._first: float | None = None
        self._free_at = self._idle = self._work = 0.0

    def queue(self, n_stars: float) -> float:
        """Begin work, and return the time at which it will be done."""
        now = time.monotonic()
        with self._lock:
            if self._first is None:
                self._first = self._free_at = now
            self._idle += max(0.0, now - self._free_at)
            self._work += n_stars / self.rate
            self._free_at = max(now, self._free_at) + n_stars / self.rate
            return self._free_at

    def account(self) -> dict[str, float]:
        """Return seconds from the first work to the end of the last, and how long there was none."""
        return {"span": self._free_at - (self._first or 0.0), "idle": self._idle, "work": self._work}


def wait_until(end: float) -> None:
    """Wait for the end of some work, as for an event."""
    time.sleep(max(0.0, end - time.monotonic()) + ANSWER_S)


@dataclass
class Pending:
    """A batch in the queue."""

    end: float
    n_stars: int
    with_features: bool

    def result(self) -> Any:
        """Wait for it."""
        from apogee_batch.inference.launching import BatchResult  # not in the code of before

        wait_until(self.end)
        labels = make_labels(self.n_stars, 2)
        estimates = LabelEstimates(labels[:, 1], np.abs(labels[:, 1] / 50), labels[:, 0])
        return BatchResult(estimates, make_features(self.n_stars) if self.with_features else None)


class Engine:
    """An engine of such a device; `LaunchingEngine` and the blocking kind in one."""

    name, stars_per_call, batches_ahead = "stub", 256, 2
    precision: Precision = "exact"

    def __init__(self, device: Device) -> None:
        self.device = device

    def predict(self, stars: StarBatch, n_realizations: int) -> Any:
        """Wait for all labels."""
        wait_until(self.device.queue(len(stars)))
        return make_labels(len(stars), 1 + n_realizations)

    def begin(self, stars: StarBatch, n_realizations: int, *, with_features: bool) -> Pending:
        """Begin a batch."""
        np.array([(key.seed, key.gamma) for key in stars.keys], np.uint64)  # as the real one sends them
        return Pending(self.device.queue(len(stars)), len(stars), with_features)


INSTALLED: list[Engine] = []  # of this process, the last one is used
ACCOUNTS: list[Path] = []


def make_labels(n_stars: int, n_spectra: int) -> Any:
    """Return labels that look like some."""
    return np.broadcast_to(TYPICAL, (n_stars, n_spectra, N_LABELS)) * (
        1 + 1e-3 * np.arange(n_spectra)[:, None]
    )


def make_features(n_stars: int) -> Any:
    """Return features in memory that is new, as that of a copy is."""
    return np.full((n_stars, N_ACTIVATIONS), 0.5, np.float32)


def features_of(_model: object, transform: Any, flux: Any) -> Any:
    """Compute features as the code of before did: a few rows at a time, each waited for."""
    engine = INSTALLED[-1]
    features = make_features(len(flux))
    for start in range(0, len(flux), FEATURE_ROWS):
        rows = torch.zeros((FEATURE_ROWS, flux.shape[1]))
        rows[: len(flux[start : start + FEATURE_ROWS])] = torch.from_numpy(flux[start : start + FEATURE_ROWS])
        transform.scale(rows)
        wait_until(engine.device.queue(FEATURE_ROWS / FORWARDS))
    return features


def pin(batch: Any) -> Any:
    """Copy a batch, which is what pinning costs."""
    return dataclasses.replace(batch, flux=batch.flux.copy(), err=batch.err.copy())


class Network(estimate.Network):
    """A model whose engine is made up."""

    def describe(self) -> str:
        """Return what the records of a shard call it, and write the account as it is now."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        took = {"cpu": usage.ru_utime + usage.ru_stime, "gib": usage.ru_maxrss / 2**20}
        ACCOUNTS[-1].write_text(json.dumps(INSTALLED[-1].device.account() | took))
        return "stub"


def install(rate: float, account: Path) -> None:
    """Let the tasks of this process compute on such a device, and write its account into a file."""
    INSTALLED.append(Engine(Device(rate)))
    ACCOUNTS.append(account)
    lock, loaded = threading.Lock(), dict[str, Network]()

    def load(model: Path, settings: dict[str, Any]) -> Network:
        estimate.keep_freed_memory()
        torch.set_num_threads(1)
        with lock:
            if str(model) not in loaded:
                checkpoint = load_checkpoint(model)
                loaded[str(model)] = Network(checkpoint, INSTALLED[-1], "cuda")
        return loaded[str(model)]

    for module, name, stand_in in (
        (estimate, "load_network", load),
        (infer, "load_network", load),
        (estimate, "features_of", features_of),
        (read_ahead, "_pin", pin),
    ):
        mock.patch.object(module, name, stand_in).start()
