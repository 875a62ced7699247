"""The photometric network made from isochrones: synthetic stars, training, precision."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from apogee_batch.labels.isochrone_grid import Isochrones
from apogee_batch.labels.photometric_checkpoint import TrainedNet
from apogee_batch.labels.photometric_net import PhotometricNet, TrainingSettings, one_thread, train_net
from apogee_batch.labels.synthetic_stars import (
    DISTANCE,
    OUTPUTS,
    StarInputs,
    SyntheticSettings,
    SyntheticStars,
    apparent_magnitudes,
    draw_synthetic_stars,
)
from apogee_batch.schema import DoubleArray

N_SYNTHETIC_STARS = 42_000
HELD_OUT_SHARE = 0.1  # stars that choose the epoch and, others, that test: each a tenth of those learned from
PAPER_PRECISION = {"logg": 0.01, "log_teff": 0.003}  # dex, section 2.4


def train_photometric_net(
    isochrones: Isochrones,
    settings: SyntheticSettings,
    *,
    files: Mapping[str, str],
    n_stars: int = N_SYNTHETIC_STARS,
    seed: int = 0,
    training: TrainingSettings | None = None,
    on_epoch: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> TrainedNet:
    """Draw synthetic stars, train the network on them, and measure it on others.

    Parameters
    ----------
    isochrones : Isochrones
    settings : SyntheticSettings
    files : mapping of str to str
        SHA-256 of each isochrone table by its name, kept with the network.
    n_stars : int
        Stars that it learns from; a tenth as many choose the epoch, and as many test it.
    seed : int
        Of stars and weights.
    training : TrainingSettings, optional
    on_epoch : callable
        Told the number of epochs done and the loss.

    Raises
    ------
    UsageError
        If the isochrones do not cover what is asked for.
    """
    training = training or TrainingSettings()
    n_held_out = max(round(HELD_OUT_SHARE * n_stars), 2)
    train, dev, test = (
        draw_synthetic_stars(isochrones, settings, n_stars=n, seed=seed, purpose=purpose)
        for purpose, n in (("train", n_stars), ("dev", n_held_out), ("test", n_held_out))
    )
    net = PhotometricNet(settings.inputs, settings.bands, settings.required_band)
    with one_thread():
        train_net(net, train, dev, training, seed=seed, on_epoch=on_epoch)
    ranges = {
        name: [float(train.outputs[:, k].min()), float(train.outputs[:, k].max())]
        for k, name in enumerate(OUTPUTS)
    }
    told = {"seed": seed, "n_stars": n_stars, "ranges": ranges, **asdict(training)}
    trained = TrainedNet(net.eval(), settings, isochrones, files, {}, told)
    return TrainedNet(net.eval(), settings, isochrones, files, measure_net(trained, test), told)


def measure_net(trained: TrainedNet, stars: SyntheticStars) -> dict[str, Any]:
    """Return the precision of a network on synthetic stars.

    Returns
    -------
    dict
        `n_stars`; of each group of stars (`all`, and `every_band` for those brighter than every limit) the
        number, and of each output the `rms` and the `robust` deviation (1.4826 times the median of the
        absolute residual); `residual_mag` at the 50th, 90th and 99th percentile.
    """
    predicted = trained.net.predict(stars.inputs)
    residual = predicted - stars.outputs
    n_bands = len(trained.settings.bands)
    groups = {
        "all": np.ones(len(residual), dtype=bool),
        "every_band": stars.inputs.is_given[:, :n_bands].all(axis=1),
    }
    measured: dict[str, Any] = {"n_stars": len(residual)}
    for group, rows in groups.items():
        some = residual[rows] if rows.any() else np.zeros((1, len(OUTPUTS)))
        measured[group] = {"n_stars": int(rows.sum())} | {
            name: {
                "rms": float(np.sqrt(np.mean(some[:, k] ** 2))),
                "robust": float(1.4826 * np.median(np.abs(some[:, k]))),
            }
            for k, name in enumerate(OUTPUTS)
        }
    magnitudes = photometric_residual(trained, stars.inputs, predicted)
    magnitudes = np.where(np.isfinite(magnitudes), magnitudes, 99.0)
    measured["residual_mag"] = {str(p): float(np.percentile(magnitudes, p)) for p in (50, 90, 99)}
    return measured


def photometric_residual(trained: TrainedNet, inputs: StarInputs, outputs: DoubleArray) -> DoubleArray:
    """Return how far the photometry of stars is from that of the models which their labels name.

    Parameters
    ----------
    trained : TrainedNet
    inputs : StarInputs
    outputs : ndarray, shape (n_stars, 5)
        What the network says of them; taken to the nearest labels that it learned.

    Returns
    -------
    ndarray, shape (n_stars,)
        Rms in magnitudes over the bands that are given; infinite where the isochrones have no such star.
    """
    ranges = np.array([trained.training["ranges"][name] for name in OUTPUTS])
    log_age, mass, _, _, a_v = np.clip(outputs, ranges[:, 0], ranges[:, 1]).T
    settings = trained.settings
    models = trained.isochrones.at(mass, log_age, max_age_gap_dex=settings.max_age_gap_dex)
    distance = 10 ** inputs.values[:, settings.inputs.index(DISTANCE)]
    expected = apparent_magnitudes(settings, models, a_v, distance)
    n_bands = len(settings.bands)
    difference = np.stack([expected[band] for band in settings.bands], axis=1) - inputs.values[:, :n_bands]
    given = inputs.is_given[:, :n_bands]
    squares = np.where(given, np.where(np.isfinite(difference), difference, np.inf) ** 2, 0.0)
    return np.asarray(np.sqrt(squares.sum(axis=1) / np.maximum(given.sum(axis=1), 1)))
