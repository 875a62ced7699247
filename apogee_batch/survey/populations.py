"""The stars of a simulated survey: what they are, where they lie, how bright they are.

Star `index` of a survey depends on the survey's seed and on `index`, and on nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from apogee_batch.schema import DATA_TYPES
from apogee_batch.survey.pixels import MISSING_MAGNITUDE
from apogee_batch.survey.sketch_atmosphere import RED_POWER, RED_SCALE, StellarParameters

TELESCOPE = "apo25m"
MAX_STARS = 3_600_000  # so many names differ by their seconds alone
NAME_STEP = 1_618_033  # shares no factor with MAX_STARS: the seconds of a name visit every value once

UNLABELLED = "unlabelled"
SHARES = {"payne": 0.75, "mstar": 0.12, "yso": 0.08, UNLABELLED: 0.05}
GOLDEN_RATIO = 0.6180339887498949
GIANT_SHARE, CLUMP_SHARE, SUBGIANT_SHARE = 0.36, 0.26, 0.08  # of the payne stars; the others are dwarfs

LABEL_NOISE = {"teff": 60.0, "logg": 0.08, "fe_h": 0.03}  # K, dex, dex: what real label tables disagree by
MULTI_VISIT_SHARE = 0.10
MAX_VISITS = 5
MISSING_SHARE = 0.01  # of the J and of the K magnitudes
PERSISTENCE_FLAG = 1 << 9  # APOGEE_STARFLAG bit PERSIST_HIGH, common and harmless
BRIGHT_NEIGHBOUR_FLAG = 1 << 3
SNR_AT_H_11_5 = 140.0

N_FIELDS = 48
N_YOUNG_FIELDS = 5  # the first fields: the pre-main sequence stars lie there
FIRST_LOCATION_ID = 4101
FIELD_RADIUS_DEG = 1.2
SOUTHERN_LIMIT_DEG = -25.0
GALACTIC_POLE_RA, GALACTIC_POLE_DEC, POLE_LONGITUDE = 192.85948, 27.12825, 122.93192  # degrees, J2000
FIELD_LATITUDES_DEG = (0.0, 4.0, -4.0, 8.0, -8.0, 16.0, -16.0, 30.0, -30.0, 60.0)


@dataclass(frozen=True)
class Field:
    """A pointing: `location_id` and `name` as in the survey's paths, centre in degrees (J2000)."""

    location_id: int
    name: str
    ra: float
    dec: float


@dataclass(frozen=True)
class SimulatedStar:
    """A star of a simulated survey.

    Attributes
    ----------
    index : int
        Its number in the survey.
    apogee_id : str
        Name, from the position.
    field : Field
        Where it is observed.
    ra, dec : float
        Degrees, J2000.
    data_type : str or None
        Which label table it is in.
    population : str
        What it is: giant, clump, subgiant, dwarf, mstar or yso.
    parameters : StellarParameters
        What its spectrum is made from; the true labels among them.
    labels : dict of str to float
        Its labels with their noise, as a label table gives them.
    j, h, k : float
        2MASS magnitudes; 99 where missing.
    snr : float
        What the observation aims at, a pixel.
    n_visits : int
        Number of visits.
    velocity_km_s : float
        Radial velocity, which moves the chips' edges on the rest-frame grid.
    starflag : int
        APOGEE_STARFLAG.
    """

    index: int
    apogee_id: str
    field: Field
    ra: float
    dec: float
    data_type: str | None
    population: str
    parameters: StellarParameters
    labels: dict[str, float]
    j: float
    h: float
    k: float
    snr: float
    n_visits: int
    velocity_km_s: float
    starflag: int

    @property
    def apstar_id(self) -> str:
        """The unique name that DR14 gives to such a spectrum."""
        return f"apogee.{TELESCOPE}.s.stars.{self.field.location_id}.{self.apogee_id}"


def data_type_of(index: int) -> str:
    """Return the label table of a star, or "unlabelled".

    Multiples of the golden ratio keep to `SHARES` even among a few stars.
    """
    place = (0.31 + index * GOLDEN_RATIO) % 1.0
    for name in DATA_TYPES:
        place -= SHARES[name]
        if place < 0.0:
            return name
    return UNLABELLED


@cache
def fields() -> tuple[Field, ...]:
    """Return the fields of every simulated survey: spread over the sky that the 2.5-m telescope sees."""
    made: list[Field] = []
    number = 0
    while len(made) < N_FIELDS:
        longitude = round(360.0 * ((number * GOLDEN_RATIO) % 1.0))
        latitude = FIELD_LATITUDES_DEG[number % len(FIELD_LATITUDES_DEG)]
        ra, dec = _equatorial(longitude, latitude)
        if dec > SOUTHERN_LIMIT_DEG:
            made.append(Field(FIRST_LOCATION_ID + len(made), f"{longitude:03d}{latitude:+03.0f}", ra, dec))
        number += 1
    return tuple(made)


def _equatorial(longitude: float, latitude: float) -> tuple[float, float]:
    """Turn galactic into equatorial coordinates (degrees)."""
    b, pole = np.radians(latitude), np.radians(GALACTIC_POLE_DEC)
    angle = np.radians(POLE_LONGITUDE - longitude)
    dec = np.arcsin(np.sin(b) * np.sin(pole) + np.cos(b) * np.cos(pole) * np.cos(angle))
    y = np.cos(b) * np.sin(angle)
    x = np.sin(b) * np.cos(pole) - np.cos(b) * np.sin(pole) * np.cos(angle)
    return float((GALACTIC_POLE_RA + np.degrees(np.arctan2(y, x))) % 360.0), float(np.degrees(dec))


def _name(field: Field, seed: int, index: int, rng: np.random.Generator) -> tuple[str, float, float]:
    """Return apogee_id, ra, dec; the seconds in the name count the stars, so no two share it."""
    offset = FIELD_RADIUS_DEG * rng.uniform(-1.0, 1.0, 2)
    ra = (field.ra + offset[0] / np.cos(np.radians(field.dec))) % 360.0
    dec = field.dec + offset[1]
    minutes, arcminutes = int(ra * 4.0), int(abs(dec) * 60.0)
    cell = (index * NAME_STEP + seed * 7919) % MAX_STARS
    hundredths, tenths = divmod(cell, 600)  # of seconds of time, of arcseconds
    sign = 1 if dec >= 0 else -1
    name = (
        f"2M{minutes // 60:02d}{minutes % 60:02d}{hundredths:04d}"
        f"{'+' if sign > 0 else '-'}{arcminutes // 60:02d}{arcminutes % 60:02d}{tenths:03d}"
    )
    return name, (minutes + hundredths / 6000.0) / 4.0, sign * (arcminutes + tenths / 600.0) / 60.0


def _payne(rng: np.random.Generator) -> tuple[str, float, float, float]:
    """Draw a red giant, a clump star, a subgiant or a dwarf: population, teff, logg, fe_h."""
    fe_h = float(np.clip(rng.normal(-0.18, 0.27), -1.4, 0.45))
    which, spread, scatter = rng.random(), rng.random(), rng.normal()
    if which < GIANT_SHARE:  # up the giant branch; few stars are near its tip
        logg = 3.4 - 2.8 * spread**1.3
        teff = 4680.0 + 400.0 * (logg - 2.5) - 45.0 * (logg - 2.5) ** 2 - 330.0 * fe_h + 70.0 * scatter
        population = "giant"
    elif which < GIANT_SHARE + CLUMP_SHARE:
        logg = 2.45 + 0.10 * rng.normal()
        teff = 4790.0 - 300.0 * fe_h + 80.0 * scatter
        population = "clump"
    elif which < GIANT_SHARE + CLUMP_SHARE + SUBGIANT_SHARE:
        logg = 3.4 + 0.7 * spread
        teff = 4950.0 + 1100.0 * spread - 250.0 * fe_h + 120.0 * scatter
        population = "subgiant"
    else:  # the main sequence, and what its hot end has evolved by
        teff = 4050.0 + 2800.0 * spread
        evolved = 0.35 * rng.random() * max(teff - 5200.0, 0.0) / 1600.0
        logg = 4.66 - 1.1e-4 * (teff - 4050.0) - evolved + 0.03 * scatter
        population = "dwarf"
    return population, float(np.clip(teff, 3545.0, 6990.0)), float(np.clip(logg, 0.3, 4.9)), fe_h


def _mstar(rng: np.random.Generator) -> tuple[str, float, float, float]:
    """Draw an M dwarf: its gravity from the radii and masses of Mann et al. 2015."""
    teff = float(rng.uniform(2850.0, 4100.0))
    fe_h = float(np.clip(rng.normal(-0.08, 0.2), -0.58, 0.45))
    t = teff / 3500.0
    radius = (16.7700 - 54.3210 * t + 57.6627 * t**2 - 19.6994 * t**3) * (1.0 + 0.4565 * fe_h)
    mass = 0.0078368671 + 0.48699518 * radius + 1.6777663 * radius**2 - 1.2430190 * radius**3
    logg = 4.438 + np.log10(mass) - 2.0 * np.log10(radius) + rng.normal(0.0, 0.02)
    return "mstar", teff, float(np.clip(logg, 4.4, 5.3)), fe_h


def _yso(rng: np.random.Generator) -> tuple[str, float, float, float]:
    """Draw a pre-main sequence star: its gravity grows as it contracts."""
    teff = float(2900.0 + 2300.0 * rng.beta(1.3, 1.8))
    log_age_myr = rng.uniform(-0.3, 1.5)
    logg = 3.55 + 0.45 * log_age_myr + 0.1 * (teff - 4000.0) / 1000.0 + rng.normal(0.0, 0.05)
    return "yso", teff, float(np.clip(logg, 3.1, 4.5)), float(np.clip(rng.normal(0.0, 0.06), -0.2, 0.2))


DRAW: dict[str, Callable[[np.random.Generator], tuple[str, float, float, float]]] = {
    "payne": _payne,
    "mstar": _mstar,
    "yso": _yso,
}


def _parameters(
    population: str, teff: float, logg: float, fe_h: float, rng: np.random.Generator
) -> StellarParameters:
    """Draw what shapes a spectrum beside its labels."""
    spin, dust, disc = rng.normal(), rng.random(), rng.exponential()
    broadening, a_v, veiling = 2.0 + 0.5 * spin, -0.7 * np.log1p(-dust), 0.0
    if population == "yso":
        broadening, a_v, veiling = 8.0 + 4.0 * spin, 0.3 + 7.0 * dust, min(0.1 * disc, 0.8)
    elif population == "mstar":
        broadening, a_v = (12.0 if disc > 2.3 else 2.0) + spin, 0.1 * dust
    elif population == "dwarf" and teff > 6000.0:
        broadening = 3.0 + (teff - 6000.0) / 120.0 + 2.0 * spin
    alpha_fe = float(np.clip(-0.25 * fe_h, -0.05, 0.3) + rng.normal(0.0, 0.04))
    return StellarParameters(teff, logg, fe_h, alpha_fe, abs(float(broadening)), float(a_v), float(veiling))


def _magnitudes(one: StellarParameters, h: float, lost: tuple[float, float]) -> tuple[float, float]:
    """Return J and K of a star, rounded as 2MASS gives them; `lost` below a share makes them missing."""
    color = 0.37 + 2.6e-4 * (5777.0 - one.teff)  # J-K without dust
    color = (
        min(color, 0.84) if one.logg > 4.3 else float(np.clip(color, 0.12, 1.1))
    )  # H2O stops that of dwarfs
    a_j, a_h, a_k = (one.a_v * RED_SCALE * micron**RED_POWER for micron in (1.235, 1.662, 2.159))
    j, k = h + 0.8 * color + a_j - a_h, h - 0.2 * color + a_k - a_h
    return (
        MISSING_MAGNITUDE if lost[0] < MISSING_SHARE else round(j, 3),
        MISSING_MAGNITUDE if lost[1] < MISSING_SHARE else round(k, 3),
    )


def draw_star(seed: int, index: int) -> SimulatedStar:
    """Return star `index` of the survey with a seed."""
    rng = np.random.default_rng([seed, index, 0])
    table = data_type_of(index)
    kind = table
    if table == UNLABELLED:
        kind = DATA_TYPES[int(np.searchsorted([0.8, 0.9], rng.random()))]
    population, teff, logg, fe_h = DRAW[kind](rng)
    parameters = _parameters(population, teff, logg, fe_h, rng)
    field = fields()[int(rng.integers(N_YOUNG_FIELDS if kind == "yso" else N_FIELDS))]
    apogee_id, ra, dec = _name(field, seed, index, rng)
    h = round(float(np.clip(rng.normal(11.2, 1.1), 7.5, 14.2)), 3)
    j, k = _magnitudes(parameters, h, (rng.random(), rng.random()))
    snr = SNR_AT_H_11_5 * 10.0 ** (-0.2 * (h - 11.5)) * np.exp(rng.normal(0.0, 0.35))
    noise = rng.normal(size=len(LABEL_NOISE))
    true = {"teff": teff, "logg": logg, "fe_h": fe_h}
    n_visits = int(rng.integers(2, MAX_VISITS + 1)) if rng.random() < MULTI_VISIT_SHARE else 1
    flags = PERSISTENCE_FLAG * (rng.random() < 0.15) + BRIGHT_NEIGHBOUR_FLAG * (rng.random() < 0.01)
    return SimulatedStar(
        index=index,
        apogee_id=apogee_id,
        field=field,
        ra=ra,
        dec=dec,
        data_type=None if table == UNLABELLED else table,
        population=population,
        parameters=parameters,
        labels={name: true[name] + LABEL_NOISE[name] * float(noise[i]) for i, name in enumerate(LABEL_NOISE)},
        j=j,
        h=h,
        k=k,
        snr=float(np.clip(snr, 10.0, 700.0)),
        n_visits=n_visits,
        velocity_km_s=float(np.clip(rng.normal(0.0, 40.0), -95.0, 95.0)),
        starflag=int(flags),
    )
