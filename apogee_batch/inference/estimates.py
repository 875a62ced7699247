"""Labels of stars with uncertainties: the mean and the scatter of their realizations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apogee_batch.inference.engines import Engine, StarBatch
from apogee_batch.inference.noise import derive_noise_key
from apogee_batch.inference.realizations import ErrCap, cap_err
from apogee_batch.schema import N_LABELS, DoubleArray, FloatArray


@dataclass(frozen=True)
class LabelEstimates:
    """Estimated labels, in the order of `LABEL_NAMES` and in their physical units.

    Attributes
    ----------
    mean, std : ndarray of float64, shape (n_stars, n_labels)
        Over the realizations; the standard deviation has ddof 1.
    clean : ndarray of float64, shape (n_stars, n_labels)
        Prediction for the unperturbed spectrum.
    """

    mean: DoubleArray
    std: DoubleArray
    clean: DoubleArray

    def __post_init__(self) -> None:
        """Check shapes."""
        shape = (len(self.mean), N_LABELS)
        if not self.mean.shape == self.std.shape == self.clean.shape == shape:
            raise ValueError(f"mean, std and clean should all have the shape {shape}")

    @classmethod
    def joined(cls, parts: Sequence["LabelEstimates"]) -> "LabelEstimates":
        """Return the estimates of some batches, one after the other; of none, no star's."""
        none = np.empty((0, N_LABELS))
        columns = ([none, *(getattr(part, name) for part in parts)] for name in ("mean", "std", "clean"))
        return cls(*map(np.concatenate, columns))


def estimate_labels(
    engine: Engine,
    star_keys: Sequence[str],
    flux: FloatArray,
    err: FloatArray,
    *,
    n_realizations: int,
    run_seed: int,
    cap: ErrCap = ErrCap.MEDIAN,
) -> LabelEstimates:
    """Estimate labels of some stars, each from its own spectrum, key and the run's seed alone.

    Parameters
    ----------
    engine : Engine
        What computes the forward pass.
    star_keys : sequence of str, length n_stars
        Unique name of each star (`apstar_id`).
    flux, err : ndarray of float32, shape (n_stars, n_pixels)
        Spectra as stored.
    n_realizations : int
        Noisy copies of each spectrum, at least 2.
    run_seed : int
        Seed of the run.
    cap : ErrCap
        How errors are limited.

    Returns
    -------
    LabelEstimates
    """
    stars = prepare_stars(star_keys, flux, err, run_seed=run_seed, cap=cap)
    return estimate_batch(engine, stars, n_realizations)


def prepare_stars(
    star_keys: Sequence[str],
    flux: FloatArray,
    err: FloatArray,
    *,
    run_seed: int,
    cap: ErrCap = ErrCap.MEDIAN,
) -> StarBatch:
    """Make of some stars what an engine takes; for the parameters see `estimate_labels`."""
    capped = np.stack([cap_err(each, cap) for each in err]) if len(err) else err
    return StarBatch(flux, capped, tuple(derive_noise_key(run_seed, key) for key in star_keys))


def estimate_batch(engine: Engine, stars: StarBatch, n_realizations: int) -> LabelEstimates:
    """Estimate labels of stars that are prepared; see `estimate_labels`."""
    require_scatter(n_realizations)
    shape = (len(stars), N_LABELS)
    mean, std, clean = np.empty(shape), np.empty(shape), np.empty(shape)
    for start in range(0, len(stars), engine.stars_per_call):
        some = slice(start, min(start + engine.stars_per_call, len(stars)))
        labels = engine.predict(stars.part(some.start, some.stop), n_realizations)
        clean[some] = labels[:, 0]
        mean[some], std[some] = labels[:, 1:].mean(axis=1), labels[:, 1:].std(axis=1, ddof=1)
    return LabelEstimates(mean, std, clean)


def require_scatter(n_realizations: int) -> None:
    """Refuse so few realizations that they have no standard deviation."""
    if n_realizations < 2:
        raise ValueError(f"{n_realizations} realizations have no standard deviation; ask for 2 or more")
