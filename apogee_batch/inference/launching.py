"""Engines that compute while Python goes on: batches begun now, whose results are asked for later."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from apogee_batch.inference.engines import Engine, StarBatch
from apogee_batch.inference.estimates import LabelEstimates
from apogee_batch.schema import FloatArray


@dataclass(frozen=True)
class BatchResult:
    """What became of a batch.

    Attributes
    ----------
    estimates : LabelEstimates
    features : ndarray of float32, shape (n_stars, n_features), or None
        Of the clean spectra, as `network.features` defines them; None where they were not wanted.
    """

    estimates: LabelEstimates
    features: FloatArray | None


class PendingBatch(Protocol):
    """A batch that may still be computed."""

    def result(self) -> BatchResult:
        """Wait for the batch, and return what became of it; to be asked once, by any thread."""
        ...


@runtime_checkable
class LaunchingEngine(Engine, Protocol):
    """An engine that does not make its caller wait.

    Attributes
    ----------
    batches_ahead : int
        How many batches of `stars_per_call` are to be begun before the first is waited for, so that the
        device never waits.
    """

    @property
    def batches_ahead(self) -> int: ...  # noqa: D102  described above

    def begin(self, stars: StarBatch, n_realizations: int, *, with_features: bool) -> PendingBatch:
        """Begin to estimate the labels of a batch.

        Parameters
        ----------
        stars : StarBatch
            One or more; they stay as they are until the result is there.
        n_realizations : int
            Noisy copies of each spectrum, at least 2.
        with_features : bool
            Whether features are wanted.
        """
        ...
