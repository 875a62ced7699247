"""Labels of young stars: what a network made from isochrones says of real photometry."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import numpy as np

from apogee_batch.labels.photometric_checkpoint import TrainedNet
from apogee_batch.labels.photometric_net import one_thread
from apogee_batch.labels.photometry import Photometry
from apogee_batch.labels.synthetic_stars import (
    DISTANCE,
    OUTPUTS,
    RADIUS_LUMINOSITY,
    StarInputs,
    SyntheticSettings,
    arrange_inputs,
)
from apogee_batch.labels.yso_training import photometric_residual
from apogee_batch.schema import BoolArray, DoubleArray

QUANTITIES = ("teff", "logg", "log_age", "mass", "a_v")
FE_H = 0.0  # of every synthetic star (section 2.4); young stars nearby have the Sun's metallicity
MAX_RESIDUAL_MAG = 0.15
"""Largest rms difference between the photometry of a star and that of the model which its labels name.
98 % of held-out synthetic stars stay below it (docs/ysos.md)."""
DEFAULT_ERROR_MAG = 0.02  # of a magnitude that is given without an error
DEFAULT_ERROR_DEX = 0.05  # of a radius or luminosity without one; Gaia DR2's are good to 10 and 15 %
EDGE_SIGMAS = 3.0  # a label this many (robust) held-out deviations beyond those learned is extrapolated


class YsoReason(StrEnum):
    """Why a star has no label: the `reason` column."""

    NO_NAME = "NO_NAME"  # neither apogee_id nor apstar_id
    NO_REQUIRED_BAND = "NO_REQUIRED_BAND"  # the band by which stars are chosen is missing or at its limit
    NO_PARALLAX = "NO_PARALLAX"  # missing, not positive, or without an error
    OUTSIDE_DISTANCE = "OUTSIDE_DISTANCE"  # nearer or farther than any synthetic star
    OUTSIDE_LABELS = "OUTSIDE_LABELS"  # the network extrapolates beyond the ages or masses that it learned
    UNLIKE_MODELS = "UNLIKE_MODELS"  # no synthetic star of these labels has this photometry


@dataclass(frozen=True)
class YsoSettings:
    """How labels are made of real photometry.

    Attributes
    ----------
    n_realizations : int
        Noisy copies of the photometry of each star.
    seed : int
        Of the noise.
    max_residual_mag : float
        See `MAX_RESIDUAL_MAG`.
    """

    n_realizations: int = 100
    seed: int = 0
    max_residual_mag: float = MAX_RESIDUAL_MAG


@dataclass(frozen=True)
class YsoLabels:
    """Labels of young stars, in the order of their photometry.

    Attributes
    ----------
    values, errors : mapping of str to ndarray, shape (n_stars,)
        Mean and standard deviation over the realizations of each of `QUANTITIES`; NaN without a label.
    n_bands : ndarray of int, shape (n_stars,)
        Bands that were brighter than their limits.
    residual_mag : ndarray, shape (n_stars,)
        Rms over those bands of photometry minus the model of the prediction without noise; NaN where it could
        not be computed.
    reason : tuple of YsoReason or None, length n_stars
    """

    values: Mapping[str, DoubleArray]
    errors: Mapping[str, DoubleArray]
    n_bands: Any
    residual_mag: DoubleArray
    reason: tuple[YsoReason | None, ...]


def estimate_yso_labels(trained: TrainedNet, photometry: Photometry, settings: YsoSettings) -> YsoLabels:
    """Tell young stars from their photometry; a star's numbers depend on the seed, its name and its row only.

    Parameters
    ----------
    trained : TrainedNet
    photometry : Photometry
        With the bands of the network, and `radius` and `luminosity` where it takes them.
    settings : YsoSettings
    """
    n_stars = photometry.n_stars
    values, errors = ({name: np.full(n_stars, np.nan) for name in QUANTITIES} for _ in range(2))
    measured = _Measurements(trained.settings, photometry)
    residual_mag = np.full(n_stars, np.nan)
    reasons: list[YsoReason | None] = list(measured.reasons(photometry))
    for i in np.flatnonzero([reason is None for reason in reasons]).tolist():
        inputs = measured.realizations(i, photometry.keys[i], settings)
        with one_thread():
            outputs = trained.net.predict(inputs)  # one star at a time: it does not feel its neighbours
        clean = StarInputs(inputs.values[:1], inputs.is_given[:1])
        residual_mag[i] = photometric_residual(trained, clean, outputs[:1])[0]
        mean = outputs[1:].mean(axis=0)  # the label is this, and may lie elsewhere where errors are large
        if _is_extrapolated(trained, outputs[0]) or _is_extrapolated(trained, mean):
            reasons[i] = YsoReason.OUTSIDE_LABELS
        elif residual_mag[i] > settings.max_residual_mag:
            reasons[i] = YsoReason.UNLIKE_MODELS
        else:
            drawn = _quantities(outputs[1:])
            for name in QUANTITIES:
                values[name][i], errors[name][i] = drawn[name].mean(), drawn[name].std(ddof=1)
    residual_mag[~np.isfinite(residual_mag)] = np.nan
    return YsoLabels(values, errors, measured.n_bands, residual_mag, tuple(reasons))


def _quantities(outputs: DoubleArray) -> dict[str, DoubleArray]:
    """Return `QUANTITIES` of what the network says."""
    found = dict(zip(OUTPUTS, outputs.T, strict=True))
    return {"teff": 10 ** found.pop("log_teff"), **found}


def _is_extrapolated(trained: TrainedNet, output: DoubleArray) -> bool:
    """Whether a label lies beyond all that were learned, by more than the network errs."""
    for k, name in enumerate(OUTPUTS):
        low, high = trained.training["ranges"][name]
        margin = EDGE_SIGMAS * trained.held_out["all"][name]["robust"]
        if not low - margin <= output[k] <= high + margin:
            return True
    return False


class _Measurements:
    """What a table says of its stars, in the network's terms."""

    def __init__(self, settings: SyntheticSettings, photometry: Photometry) -> None:
        self._settings = settings
        bands = settings.bands
        self._names = settings.inputs[:-1]  # the distance is drawn as a parallax
        parallax, e_parallax = photometry.parallax_mas, photometry.parallax_error_mas
        has_parallax = np.isfinite(parallax) & np.isfinite(e_parallax) & (np.nan_to_num(parallax) > 0)
        self._parallax = np.where(has_parallax, parallax, np.nan)
        self._e_parallax = np.where(has_parallax, e_parallax, np.nan)
        value = {band: _detected(photometry, band) for band in bands}
        error = {band: _filled(photometry.error[band], DEFAULT_ERROR_MAG) for band in bands}
        nothing = np.full(photometry.n_stars, np.nan)
        for name, column in zip(RADIUS_LUMINOSITY, ("radius", "luminosity"), strict=True):
            given = photometry.numbers.get(column, nothing)
            given = np.where(np.nan_to_num(given) > 0, given, np.nan)
            relative = photometry.numbers.get(f"e_{column}", nothing) / (given * np.log(10))
            value[name], error[name] = np.log10(given), _filled(relative, DEFAULT_ERROR_DEX)
        self._value = np.stack([value[name] for name in self._names], axis=1)
        self._error = np.stack([error[name] for name in self._names], axis=1)
        clean = self._arrange(self._value, 1000 / self._parallax)
        self._is_given = clean.is_given
        self.n_bands = clean.is_given[:, : len(bands)].sum(axis=1).astype(np.int32)

    def _arrange(self, values: DoubleArray, distance_pc: DoubleArray) -> StarInputs:
        """Return rows of values and distances as the network's inputs."""
        columns = dict(zip(self._names, values.T, strict=True))
        return arrange_inputs(self._settings, columns, columns | {DISTANCE: np.log10(distance_pc)})

    def reasons(self, photometry: Photometry) -> list[YsoReason | None]:
        """Return why stars cannot be told from what is given; the first reason that holds."""
        nearest, farthest = self._settings.distance_pc
        distance = 1000 / self._parallax
        required = self._settings.inputs.index(self._settings.required_band)
        is_inside: BoolArray = (distance >= nearest) & (distance <= farthest)
        checks = (
            (YsoReason.NO_NAME, np.array([key == "" for key in photometry.keys])),
            (YsoReason.NO_REQUIRED_BAND, ~self._is_given[:, required]),
            (YsoReason.NO_PARALLAX, np.isnan(self._parallax)),
            (YsoReason.OUTSIDE_DISTANCE, ~is_inside),
        )
        return [
            next((reason for reason, holds in checks if holds[i]), None) for i in range(photometry.n_stars)
        ]

    def realizations(self, i: int, key: str, settings: YsoSettings) -> StarInputs:
        """Return the inputs of a star: as measured, then with noise; n_realizations + 1 rows."""
        digest = blake2b(f"{settings.seed}\0yso\0{key}".encode(), digest_size=16).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big")))
        noise = generator.standard_normal((settings.n_realizations + 1, len(self._names) + 1))
        noise[0] = 0.0
        values = self._value[i] + noise[:, :-1] * self._error[i]
        parallax = self._parallax[i] + noise[:, -1] * self._e_parallax[i]
        nearest, farthest = self._settings.distance_pc
        return self._arrange(values, 1000 / np.clip(parallax, 1000 / farthest, 1000 / nearest))


def _detected(photometry: Photometry, band: str) -> DoubleArray:
    """Return magnitudes; where a table has errors, one without is an upper limit, as in 2MASS: it is none."""
    magnitude, error = photometry.magnitude[band], photometry.error[band]
    has_errors = f"e_{band}" in photometry.columns
    return np.where(np.isfinite(error), magnitude, np.nan) if has_errors else magnitude


def _filled(errors: DoubleArray, default: float) -> DoubleArray:
    """Return errors with a default where there is none."""
    return np.where(np.isfinite(errors), errors, default)
