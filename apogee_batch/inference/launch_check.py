"""A check of engines that are left alone with their batches, by the way that catalogues go.

The gate and `check_engine` wait for each prediction. What a catalogue is made of is begun batches ahead,
copied and reduced meanwhile: a mistake in the order of that would show nowhere else.
"""

import dataclasses
from collections import deque

import numpy as np
import numpy.typing as npt

from apogee_batch.errors import IntegrityError
from apogee_batch.inference.device_copies import pin
from apogee_batch.inference.engines import StarBatch
from apogee_batch.inference.estimates import estimate_batch
from apogee_batch.inference.gate import CHECK_ALLOWED, CHECK_SNRS, LEAST_SIGMA, REMEDIES
from apogee_batch.inference.gate_spectra import simulate_spectra
from apogee_batch.inference.launching import BatchResult, LaunchingEngine, PendingBatch
from apogee_batch.schema import DoubleArray

Places = npt.NDArray[np.int64]
CALLS_AFTER_ALL_ARE_AHEAD = 3  # so that memory of the first is given out again
ALLOWED = CHECK_ALLOWED["exact"]  # in sigma: in another place of a batch a star may round otherwise


def check_launching(engine: LaunchingEngine, *, n_realizations: int, pinned: bool) -> None:
    """Refuse an engine whose batches, begun ahead, give other labels than when each is waited for.

    Parameters
    ----------
    engine : LaunchingEngine
        To be judged; `check_engine` has found its predictions right.
    n_realizations : int
        At least 2; best those of the run.
    pinned : bool
        Whether the stars shall lie in memory from which a GPU copies by itself, as those of a run do.

    Raises
    ------
    IntegrityError
        If they do.
    """
    stars = simulate_spectra(len(CHECK_SNRS)).at_snr(CHECK_SNRS)
    alone = engine.begin(stars, n_realizations, with_features=True).result()
    wanted = BatchResult(estimate_batch(engine, stars, n_realizations), alone.features)
    waiting: deque[tuple[Places, PendingBatch]] = deque()
    for call in range(engine.batches_ahead + CALLS_AFTER_ALL_ARE_AHEAD):
        n_stars = engine.stars_per_call if call % 3 else engine.stars_per_call // 2 + 1  # not only whole ones
        places = (call + np.arange(n_stars)) % len(stars)  # neighbours differ, and so do calls
        waiting.append((places, _begin(engine, stars, places, n_realizations, pinned=pinned)))
        if len(waiting) > engine.batches_ahead:
            _compare(engine, wanted, *waiting.popleft())
    while waiting:
        _compare(engine, wanted, *waiting.popleft())


def _begin(
    engine: LaunchingEngine, stars: StarBatch, places: Places, n_realizations: int, *, pinned: bool
) -> PendingBatch:
    """Begin a batch of the stars in some places; nobody but the engine keeps it."""
    batch = StarBatch(stars.flux[places], stars.err[places], tuple(stars.keys[i] for i in places.tolist()))
    if pinned:
        batch = dataclasses.replace(batch, flux=pin(batch.flux), err=pin(batch.err))
    return engine.begin(batch, n_realizations, with_features=True)


def _compare(engine: LaunchingEngine, wanted: BatchResult, places: Places, pending: PendingBatch) -> None:
    """Wait for a batch and refuse what differs from the predictions of its stars."""
    found = pending.result()
    with np.errstate(invalid="ignore", over="ignore"):
        truth = wanted.estimates
        least = LEAST_SIGMA * np.abs(truth.clean).max(axis=0)  # of a label that stands still
        unit = np.maximum(np.maximum(truth.std, least), np.finfo(np.float64).tiny)[places]
        largest = {
            name: _largest((getattr(found.estimates, name) - getattr(truth, name)[places]) / unit)
            for name in ("mean", "std", "clean")
        }
        largest["features"] = _largest(_spread(found, slice(None)) - _spread(wanted, places))
    if not all(value <= ALLOWED for value in largest.values()):  # NaN is not
        numbers = ", ".join(f"{name} {value:.2g}" for name, value in largest.items())
        raise IntegrityError(
            f"engine {engine.name} {engine.precision}: batches that are begun ahead differ from its"
            f" predictions by {numbers} (sigma, {ALLOWED:g} is allowed); {REMEDIES[engine.precision]}"
        )


def _spread(result: BatchResult, places: Places | slice) -> DoubleArray:
    """Return features in units of their largest, shape (n_stars, n_features); NaN where there are none."""
    if result.features is None:
        return np.full((1, 1), np.nan)
    features: DoubleArray = result.features[places].astype(np.float64)
    return features / max(float(np.abs(features).max()), np.finfo(np.float64).tiny)


def _largest(values: DoubleArray) -> float:
    return float(np.abs(values).max())
