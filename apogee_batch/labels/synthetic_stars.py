"""Young stars as isochrones, dust and surveys make them: what the photometric network learns from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np

from apogee_batch.errors import UsageError
from apogee_batch.labels.extinction import band_extinction
from apogee_batch.labels.isochrone_grid import MAX_AGE_GAP_DEX, Isochrones, StarModels
from apogee_batch.schema import BoolArray, DoubleArray

OUTPUTS = ("log_age", "mass", "logg", "log_teff", "a_v")  # what the network tells of a star, in this order
GAIA_BANDS, TWOMASS_BANDS = ("g_gaia", "bp", "rp"), ("j", "h", "k")
LIMITS_MAG = {
    "g_gaia": 21.0,  # Gaia DR2 is of sources brighter than that (Gaia Collaboration 2018)
    "bp": 21.0,
    "rp": 20.0,
    "j": 15.8,  # where 2MASS is complete, with a signal to noise of 10
    "h": 15.1,
    "k": 14.3,
}
"""Limiting magnitudes. Those of the paper cannot be recovered; of BP and RP these are our choice."""
REQUIRED_BAND = "h"  # APOGEE chooses its stars in H; which band the paper asked for is lost
RADIUS_LUMINOSITY = ("log_radius", "log_luminosity")
DISTANCE = "log_distance"
_ROUNDS = 200  # of drawing stars until enough are covered and bright enough


@dataclass(frozen=True)
class SyntheticSettings:
    """How synthetic stars are drawn; the defaults are those of the paper (section 2.4) where it tells.

    Attributes
    ----------
    bands : tuple of str
        Photometric bands, by rising wavelength.
    uses_radius_luminosity : bool
        Whether radius and luminosity are among the inputs.
    mass_msun, age_myr, a_v, distance_pc : tuple of float
        Least and largest; each is drawn evenly.
    draws_log_age : bool
        Whether log age is drawn evenly instead of age.
    limits_mag : mapping of str to float
        Limiting magnitudes of the bands.
    required_band : str
        A star fainter than the limit of this band is not drawn.
    radius_max_g, radius_teff_k, radius_min_rsun : float, tuple of float, float
        Radius and luminosity are given to stars up to this G, within these Teff, from this radius on.
    radius_hidden : float
        Share of those from which they are withheld all the same, since Gaia has no value for many.
    extinction_ratios : mapping of str to float
        A(band)/A(V) that replace those of `band_extinction`.
    max_age_gap_dex : float
        Largest step in log age between two isochrones that is interpolated over.
    scatter_mag : float
        Normal error of every magnitude. The paper's stars have none; a network that learned from exact
        magnitudes takes the errors of real ones for colours that mean something.
    """

    bands: tuple[str, ...] = (*GAIA_BANDS, *TWOMASS_BANDS)
    uses_radius_luminosity: bool = False
    mass_msun: tuple[float, float] = (0.08, 3.0)
    age_myr: tuple[float, float] = (1.0, 100.0)
    a_v: tuple[float, float] = (0.0, 20.0)
    distance_pc: tuple[float, float] = (50.0, 1000.0)
    draws_log_age: bool = False
    limits_mag: Mapping[str, float] = field(default_factory=dict)
    required_band: str = REQUIRED_BAND
    radius_max_g: float = 17.0
    radius_teff_k: tuple[float, float] = (3300.0, 10000.0)
    radius_min_rsun: float = 0.5
    radius_hidden: float = 0.2
    extinction_ratios: Mapping[str, float] = field(default_factory=dict)
    max_age_gap_dex: float = MAX_AGE_GAP_DEX
    scatter_mag: float = 0.0

    def __post_init__(self) -> None:
        if self.required_band not in self.bands:
            raise UsageError(f"band {self.required_band} must be among the bands: every star is chosen by it")
        unlimited = [band for band in self.bands if band not in self.limits]
        if unlimited:
            raise UsageError(
                f"no limiting magnitude is known of {', '.join(unlimited)}; give it: "
                f"--limit {unlimited[0]}=MAG"
            )

    @property
    def limits(self) -> dict[str, float]:
        """Limiting magnitude of each band."""
        return LIMITS_MAG | dict(self.limits_mag)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the network is told of a star: the bands, then radius and luminosity, then the distance."""
        return (*self.bands, *(RADIUS_LUMINOSITY if self.uses_radius_luminosity else ()), DISTANCE)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "SyntheticSettings":
        """Return the settings that `to_json` wrote."""
        known: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in saved.items()}
        return cls(**known)


@dataclass(frozen=True)
class StarInputs:
    """What is known of stars, as the network takes it.

    Attributes
    ----------
    values : ndarray, shape (n_stars, n_inputs)
        Magnitudes, log10 of radius and luminosity in solar units, log10 of the distance in pc.
    is_given : ndarray of bool, shape (n_stars, n_inputs)
        False where a band is at its limit, or radius and luminosity are missing (then 0).
    """

    values: DoubleArray
    is_given: BoolArray

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class SyntheticStars:
    """Synthetic stars and what is known of them; `outputs` has shape (n_stars, 5), see `OUTPUTS`."""

    inputs: StarInputs
    outputs: DoubleArray


def arrange_inputs(
    settings: SyntheticSettings, magnitude: Mapping[str, DoubleArray], others: Mapping[str, DoubleArray]
) -> StarInputs:
    """Put what is known of stars into the network's order; a band too faint or missing is set to its limit.

    Parameters
    ----------
    settings : SyntheticSettings
    magnitude : mapping of str to ndarray, shape (n_stars,)
        Apparent magnitudes; NaN where there is none.
    others : mapping of str to ndarray, shape (n_stars,)
        `log_distance`, and `log_radius` and `log_luminosity` where they are inputs; NaN where missing.
    """
    values, given = [], []
    for name in settings.inputs:
        found = magnitude[name] if name in settings.bands else others[name]
        filler = settings.limits[name] if name in settings.bands else 0.0
        is_given = np.isfinite(found)
        if name in settings.bands:
            is_given &= np.nan_to_num(found) < filler
        values.append(np.where(is_given, found, filler))
        given.append(is_given)
    return StarInputs(np.stack(values, axis=1), np.stack(given, axis=1))


def apparent_magnitudes(
    settings: SyntheticSettings, models: StarModels, a_v: DoubleArray, distance_pc: DoubleArray
) -> dict[str, DoubleArray]:
    """Return how bright stars appear in each band behind dust at a distance; shapes (n_stars,)."""
    ratios = dict(settings.extinction_ratios)
    modulus = 5 * np.log10(distance_pc) - 5
    return {
        band: models.magnitude[band] + modulus + band_extinction(band, a_v, models.log_teff, ratios=ratios)
        for band in settings.bands
    }


def drawable_ages(isochrones: Isochrones, settings: SyntheticSettings) -> tuple[tuple[float, float], ...]:
    """Return the intervals of log10 age that are asked for and that the isochrones cover.

    Raises
    ------
    UsageError
        If there is none, or the isochrones lack a band.
    """
    lacking = [band for band in settings.bands if band not in isochrones.bands]
    if lacking:
        raise UsageError(
            f"the isochrones have no band {', '.join(lacking)} (they have {', '.join(isochrones.bands)}); "
            f"leave it out (--bands), or download tables with it"
        )
    least, largest = (6 + np.log10(age) for age in settings.age_myr)
    covered = isochrones.covered_ages(max_age_gap_dex=settings.max_age_gap_dex)
    parts = [(max(start, least), min(end, largest)) for start, end in covered]
    found = tuple((float(start), float(end)) for start, end in parts if end > start)
    if not found:
        ages = ", ".join(f"{isochrone.age_myr:.3g}" for isochrone in isochrones.isochrones)
        raise UsageError(
            f"the isochrones (ages in Myr: {ages}) cover no range of ages within "
            f"{settings.age_myr[0]:g} to {settings.age_myr[1]:g} Myr: no two of them are within "
            f"{settings.max_age_gap_dex:g} dex; give more ages, or raise --max-age-gap"
        )
    return found


def draw_synthetic_stars(
    isochrones: Isochrones, settings: SyntheticSettings, *, n_stars: int, seed: int, purpose: str
) -> SyntheticStars:
    """Draw stars of any mass, age, extinction and distance that the required band shows.

    Parameters
    ----------
    isochrones : Isochrones
    settings : SyntheticSettings
    n_stars : int
    seed : int
    purpose : str
        For example "train": stars of another purpose are other stars.

    Raises
    ------
    UsageError
        If the isochrones do not cover what is asked for.
    """
    ages = drawable_ages(isochrones, settings)
    digest = blake2b(f"{seed}\0synthetic\0{purpose}".encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big")))
    drawn: list[SyntheticStars] = []
    for _ in range(_ROUNDS):
        drawn.append(_draw(isochrones, settings, ages, generator, n_stars))
        if sum(len(stars.inputs) for stars in drawn) >= n_stars:
            break
    else:
        raise UsageError(
            "nearly none of the synthetic stars is covered by the isochrones and bright enough; "
            "check the limiting magnitudes and the range of masses in the tables"
        )
    return SyntheticStars(
        StarInputs(
            np.concatenate([stars.inputs.values for stars in drawn])[:n_stars],
            np.concatenate([stars.inputs.is_given for stars in drawn])[:n_stars],
        ),
        np.concatenate([stars.outputs for stars in drawn])[:n_stars],
    )


def _draw(
    isochrones: Isochrones,
    settings: SyntheticSettings,
    ages: Sequence[tuple[float, float]],
    generator: np.random.Generator,
    n_stars: int,
) -> SyntheticStars:
    """Draw stars and keep those that have a model and show in the required band."""
    uniform = generator.random((5, n_stars))
    mass, a_v, distance = (
        low + (high - low) * u
        for (low, high), u in zip(
            (settings.mass_msun, settings.a_v, settings.distance_pc), uniform, strict=False
        )
    )
    log_age = _draw_log_age(ages, uniform[3], is_log=settings.draws_log_age)
    models = isochrones.at(mass, log_age, max_age_gap_dex=settings.max_age_gap_dex)
    magnitude = apparent_magnitudes(settings, models, a_v, distance)
    if settings.scatter_mag:
        noise = settings.scatter_mag * generator.standard_normal((len(settings.bands), n_stars))
        magnitude = {band: magnitude[band] + error for band, error in zip(settings.bands, noise, strict=True)}
    others = _gaia_radius_luminosity(settings, models, magnitude, uniform[4])
    inputs = arrange_inputs(settings, magnitude, others | {DISTANCE: np.log10(distance)})
    is_kept = models.is_covered & inputs.is_given[:, settings.bands.index(settings.required_band)]
    outputs = np.stack([log_age, mass, models.logg, models.log_teff, a_v], axis=1)
    return SyntheticStars(StarInputs(inputs.values[is_kept], inputs.is_given[is_kept]), outputs[is_kept])


def _draw_log_age(ages: Sequence[tuple[float, float]], uniform: DoubleArray, *, is_log: bool) -> DoubleArray:
    """Return log ages, spread evenly in age or in log age over the intervals together."""
    limits = np.array(ages) if is_log else 10 ** np.array(ages)
    edges = np.concatenate([[0.0], np.cumsum(limits[:, 1] - limits[:, 0])])
    place = uniform * edges[-1]
    k = np.clip(np.searchsorted(edges, place, side="right") - 1, 0, len(limits) - 1)
    value = limits[k, 0] + place - edges[k]
    lowest, highest = np.array(ages)[k].T
    return np.asarray(np.clip(value if is_log else np.log10(value), lowest, highest))


def _gaia_radius_luminosity(
    settings: SyntheticSettings,
    models: StarModels,
    magnitude: Mapping[str, DoubleArray],
    uniform: DoubleArray,
) -> dict[str, DoubleArray]:
    """Return radius and luminosity where Gaia DR2 would give them, NaN elsewhere; nothing if no inputs."""
    if not settings.uses_radius_luminosity:
        return {}
    if "g_gaia" not in settings.bands:
        raise UsageError("radius and luminosity come with Gaia's G; add g_gaia to the bands")
    coolest, hottest = np.log10(settings.radius_teff_k)
    is_given = (magnitude["g_gaia"] <= settings.radius_max_g) & (uniform >= settings.radius_hidden)
    is_given &= (models.log_teff >= coolest) & (models.log_teff <= hottest)
    is_given &= models.log_radius >= np.log10(settings.radius_min_rsun)
    return {name: np.where(is_given, getattr(models, name), np.nan) for name in RADIUS_LUMINOSITY}
