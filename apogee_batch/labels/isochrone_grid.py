"""Isochrones in memory: the models of stars of one age, and of any age between."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from apogee_batch.schema import BoolArray, DoubleArray, IntArray

SUN_TEFF = 5772.0  # K, nominal value of IAU resolution B3 (2015)
STAGE_UNKNOWN = -1  # BHAC15 tables have no stages; none of their models has left the main sequence
PRE_MAIN_SEQUENCE = 0
MAIN_SEQUENCE = 1
MAX_AGE_GAP_DEX = 0.7
"""Largest step in log10 age that is interpolated over by default: 4 to 15 Myr is 0.57, 15 Myr to 1 Gyr 1.82.
Over the former a star contracts along its Hayashi track, nearly a power law of age; within the latter
it ends its contraction at an age that depends on its mass, and the mean of both ends is no star."""


@dataclass(frozen=True)
class Isochrone:
    """Models of stars of one age, by rising mass.

    Attributes
    ----------
    log_age : float
        log10 of the age in years.
    mass : ndarray, shape (n_points,)
        Initial mass in solar masses, never falling.
    log_teff, logg, log_luminosity, log_radius : ndarray, shape (n_points,)
        log10 of K; log10 of cm/s2; log10 of solar luminosities; log10 of solar radii.
    magnitude : mapping of str to ndarray, shape (n_points,)
        Absolute Vega magnitude in each band, by our names of bands.
    stage : ndarray of int, shape (n_points,)
        PARSEC's label: 0 pre-main sequence, 1 main sequence, 2 and more evolved; -1 where not given.
    source : str
        File that it was read from.
    fe_h : float
        Metallicity in dex.
    """

    log_age: float
    mass: DoubleArray
    log_teff: DoubleArray
    logg: DoubleArray
    log_luminosity: DoubleArray
    log_radius: DoubleArray
    magnitude: Mapping[str, DoubleArray]
    stage: IntArray
    source: str
    fe_h: float = 0.0

    def __post_init__(self) -> None:
        shapes = {self.stage.shape, *(values.shape for values in self.quantities().values())}
        if shapes != {self.mass.shape}:
            raise ValueError("the columns of an isochrone have different lengths")
        if self.mass.size < 2 or np.any(np.diff(self.mass) < 0):
            raise ValueError("an isochrone needs two masses or more, never falling")

    @property
    def age_myr(self) -> float:
        """Age in Myr."""
        return float(10 ** (self.log_age - 6))

    def quantities(self) -> dict[str, DoubleArray]:
        """Return what varies along it: log_teff, logg, log_luminosity, log_radius and each band."""
        own = {name: getattr(self, name) for name in ("log_teff", "logg", "log_luminosity", "log_radius")}
        return own | dict(self.magnitude)

    def mass_range(self, last_stage: int) -> tuple[float, float]:
        """Return the least and the largest mass before the first point that is beyond `last_stage`."""
        beyond = np.flatnonzero(self.stage > last_stage)
        largest = float(self.mass[beyond[0] - 1]) if beyond.size and beyond[0] else float(self.mass[-1])
        return float(self.mass[0]), -np.inf if beyond.size and not beyond[0] else largest


@dataclass(frozen=True)
class StarModels:
    """Models of single stars: one of each mass and age that was asked for, NaN where there is none.

    Attributes
    ----------
    log_age, mass, log_teff, logg, log_luminosity, log_radius : ndarray, shape (n_stars,)
        As in `Isochrone`.
    magnitude : mapping of str to ndarray, shape (n_stars,)
        Absolute magnitude in each band.
    """

    log_age: DoubleArray
    mass: DoubleArray
    log_teff: DoubleArray
    logg: DoubleArray
    log_luminosity: DoubleArray
    log_radius: DoubleArray
    magnitude: Mapping[str, DoubleArray]

    @property
    def is_covered(self) -> BoolArray:
        """Whether the isochrones have a model of each star, shape (n_stars,)."""
        return np.isfinite(self.log_teff)


@dataclass(frozen=True)
class Isochrones:
    """Isochrones of one family of models, by rising age.

    Attributes
    ----------
    isochrones : tuple of Isochrone
        No two of one age.
    notes : tuple of str
        What a user should know about the tables.
    """

    isochrones: tuple[Isochrone, ...]
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.isochrones or np.any(np.diff(self.log_ages) <= 0):
            raise ValueError("isochrones must be given by rising age, one of each age")

    @property
    def log_ages(self) -> DoubleArray:
        """log10 of the ages in years, shape (n_ages,)."""
        return np.array([isochrone.log_age for isochrone in self.isochrones])

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands that every isochrone has."""
        first, *others = (isochrone.magnitude for isochrone in self.isochrones)
        return tuple(band for band in first if all(band in other for other in others))

    @property
    def age_range(self) -> tuple[float, float]:
        """The youngest and the oldest: log10 of the ages in years. There may be gaps between."""
        return self.isochrones[0].log_age, self.isochrones[-1].log_age

    def covered_ages(self, *, max_age_gap_dex: float = MAX_AGE_GAP_DEX) -> tuple[tuple[float, float], ...]:
        """Return the intervals of log10 age without a step larger than `max_age_gap_dex`.

        An age without a neighbour that near is an interval of no length.
        """
        intervals = [(self.isochrones[0].log_age, self.isochrones[0].log_age)]
        for log_age in self.log_ages[1:].tolist():
            start, end = intervals[-1]
            if log_age - end <= max_age_gap_dex:
                intervals[-1] = (start, log_age)
            else:
                intervals.append((log_age, log_age))
        return tuple(intervals)

    def at(
        self,
        mass: DoubleArray,
        log_age: DoubleArray,
        *,
        last_stage: int = MAIN_SEQUENCE,
        max_age_gap_dex: float = MAX_AGE_GAP_DEX,
    ) -> StarModels:
        """Return models of stars by interpolation: in log mass along an isochrone, then in log age.

        Stars are interpolated at equal mass, and only between points that are both not beyond
        `last_stage`: between a star on the main sequence and a giant of the same mass there is no mean.
        Nothing is extrapolated.

        Parameters
        ----------
        mass : ndarray, shape (n_stars,)
            Initial mass in solar masses.
        log_age : ndarray, shape (n_stars,)
            log10 of the age in years.
        last_stage : int
            Last evolutionary stage, as in `Isochrone.stage`.
        max_age_gap_dex : float
            Largest step between two isochrones that is interpolated over.

        Returns
        -------
        StarModels
            NaN where the isochrones do not reach.
        """
        names = ("log_teff", "logg", "log_luminosity", "log_radius", *self.bands)
        values = {name: np.full(mass.shape, np.nan) for name in names}
        for newer, older, star in self._pairs(log_age, max_age_gap_dex):
            start, end = self.isochrones[newer], self.isochrones[older]
            span = end.log_age - start.log_age
            weight = (log_age[star] - start.log_age) / span if span else np.zeros(star.size)
            first, last = _along(start, mass[star], last_stage), _along(end, mass[star], last_stage)
            for name in names:
                values[name][star] = (1 - weight) * first[name] + weight * last[name]
        own = {name: values[name] for name in names[:4]}
        return StarModels(log_age, mass, **own, magnitude={band: values[band] for band in self.bands})

    def _pairs(self, log_age: DoubleArray, max_age_gap_dex: float) -> Sequence[tuple[int, int, IntArray]]:
        """Return which stars lie between which two isochrones, or on one: its index twice."""
        ages = self.log_ages
        older = np.searchsorted(ages, log_age)  # ages[older - 1] < log_age <= ages[older]
        pairs = []
        for k, age in enumerate(ages.tolist()):
            pairs.append((k, k, log_age == age))
            if k and age - ages[k - 1] <= max_age_gap_dex:
                pairs.append((k - 1, k, (older == k) & (log_age < age)))
        found = [(i, k, np.flatnonzero(is_between).astype(np.int32)) for i, k, is_between in pairs]
        return [pair for pair in found if pair[2].size]


def _along(isochrone: Isochrone, mass: DoubleArray, last_stage: int) -> dict[str, DoubleArray]:
    """Return the quantities of an isochrone at some masses, NaN where it has none of the stages wanted."""
    least, largest = isochrone.mass_range(last_stage)
    is_outside = (mass < least) | (mass > largest)
    log_mass, known = np.log10(mass), np.log10(isochrone.mass)
    return {
        name: np.where(is_outside, np.nan, np.interp(log_mass, known, values))
        for name, values in isochrone.quantities().items()
    }
