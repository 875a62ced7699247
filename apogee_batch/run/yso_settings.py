"""The settings of `labels ysos`: how a network is made, and how labels are made with it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apogee_batch.errors import UsageError
from apogee_batch.labels.photometric_net import TrainingSettings
from apogee_batch.labels.photometry import BANDS
from apogee_batch.labels.yso_training import N_SYNTHETIC_STARS
from apogee_batch.labels.ysos import YsoSettings


@dataclass(frozen=True)
class NetworkSettings:
    """How a network is made, if none is given.

    Attributes
    ----------
    synthetic : mapping of str to Any
        Fields of `SyntheticSettings` that differ from its defaults.
    n_stars, seed : int
        Synthetic stars, and the seed of stars and weights.
    training : TrainingSettings
    """

    synthetic: Mapping[str, Any] = field(default_factory=dict)
    n_stars: int = N_SYNTHETIC_STARS
    seed: int = 0
    training: TrainingSettings = field(default_factory=TrainingSettings)


def read_yso_settings(
    *,
    bands: str | None = None,
    limits: Sequence[str] = (),
    extinction: Sequence[str] = (),
    draws_log_age: bool = False,
    max_age_gap_dex: float | None = None,
    scatter_mag: float | None = None,
    n_stars: int | None = None,
    epochs: int | None = None,
    n_realizations: int | None = None,
    max_residual_mag: float | None = None,
    seed: int = 0,
) -> tuple[NetworkSettings, YsoSettings]:
    """Read what a command line says; None is "not said".

    Parameters
    ----------
    bands : str, optional
        Our names of bands with commas between.
    limits, extinction : sequence of str
        `BAND=NUMBER` each.
    draws_log_age, max_age_gap_dex, scatter_mag : bool, float
        As in `SyntheticSettings`.
    n_stars, epochs, n_realizations, max_residual_mag, seed : int, float
        As in `NetworkSettings`, `TrainingSettings` and `YsoSettings`.

    Raises
    ------
    UsageError
        If a band is unknown or a number is none.
    """
    synthetic: dict[str, Any] = {
        "bands": None if bands is None else _bands(bands.split(","), "--bands"),
        "limits_mag": _numbers(limits, "--limit") or None,
        "extinction_ratios": _numbers(extinction, "--extinction") or None,
        "draws_log_age": draws_log_age or None,
        "max_age_gap_dex": max_age_gap_dex,
        "scatter_mag": scatter_mag,
    }
    made = NetworkSettings(
        _said(synthetic),
        seed=seed,
        training=TrainingSettings(**_said({"epochs": epochs})),
        **_said({"n_stars": n_stars}),
    )
    said = _said({"n_realizations": n_realizations, "max_residual_mag": max_residual_mag})
    return made, YsoSettings(seed=seed, **said)


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is not None."""
    return {name: value for name, value in values.items() if value is not None}


def _bands(names: Sequence[str], option: str) -> tuple[str, ...]:
    """Return names of bands, each of them known and named once."""
    stripped = tuple(name.strip() for name in names)
    for name in stripped:
        if name not in BANDS or stripped.count(name) > 1:
            problem = "twice" if name in BANDS else "unknown"
            raise UsageError(f"{option}: band {name!r} is {problem}; the bands are {', '.join(BANDS)}")
    return stripped


def _numbers(pairs: Sequence[str], option: str) -> dict[str, float]:
    """Return the numbers of `BAND=NUMBER` pairs by band."""
    found = {}
    for pair in pairs:
        band, _, text = pair.partition("=")
        _bands([band], option)
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UsageError(f"{option} {pair}: write it as BAND=NUMBER, for example {option} w1=16.5")
        found[band.strip()] = number
    return found
