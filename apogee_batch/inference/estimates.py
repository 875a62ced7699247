"""Labels of stars with uncertainties: the mean and the scatter of their realizations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apogee_batch.inference.engines import Engine
from apogee_batch.inference.realizations import ErrCap, draw_realizations, star_seed
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
    if n_realizations < 2:
        raise ValueError(f"{n_realizations} realizations have no standard deviation; ask for 2 or more")
    shape = (len(star_keys), N_LABELS)
    mean, std, clean = np.empty(shape), np.empty(shape), np.empty(shape)
    for i, key in enumerate(star_keys):
        copies = draw_realizations(
            flux[i], err[i], n_realizations=n_realizations, seed=star_seed(run_seed, key), cap=cap
        )
        labels = engine.predict(np.concatenate([flux[i][None], copies]), flux[i])
        clean[i] = labels[0]
        mean[i], std[i] = labels[1:].mean(axis=0), labels[1:].std(axis=0, ddof=1)
    return LabelEstimates(mean, std, clean)
