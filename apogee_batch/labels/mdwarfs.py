"""Labels of M dwarfs from photometry and parallax."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apogee_batch.errors import UsageError
from apogee_batch.labels import mann2015
from apogee_batch.labels.mann2015 import TEFF_RELATIONS, is_inside, mann2015_logg
from apogee_batch.labels.mdwarf_selection import (
    MDwarfReason,
    magnitude_error,
    needed_bands,
    quantity_from,
    screen_stars,
)
from apogee_batch.labels.mdwarf_settings import MDwarfSettings, PolynomialRelation, bands_of
from apogee_batch.labels.monte_carlo import StarDraws, half_interval
from apogee_batch.labels.photometry import Photometry
from apogee_batch.schema import DoubleArray

__all__ = ["QUANTITIES", "MDwarfLabels", "asked_bands", "label_mdwarfs", "mann2015_logg"]

QUANTITIES = (
    "teff",
    "logg",
    "fe_h",
    "radius",
    "mass",
    "m_k",
    "radius_m_k",
    "mass_m_k",
    "logg_m_k",
)
OWN_RELATION = "own"  # in `teff_relation`: the polynomial that the user gave


@dataclass(frozen=True)
class MDwarfLabels:
    """Labels of the stars of a table, in its order.

    Attributes
    ----------
    values, errors : dict of str to ndarray of float64, shape (n_stars,)
        By `QUANTITIES`: K, log10 of cm/s2, dex, solar radii and masses, magnitudes; one-sigma errors. NaN
        where a star has no label; or a value could not be computed.
    teff_relation : tuple of str, length n_stars
        The relation that gave Teff, "" without a label.
    reason : tuple of MDwarfReason or None, length n_stars
        Why there is no label.
    """

    values: dict[str, DoubleArray]
    errors: dict[str, DoubleArray]
    teff_relation: tuple[str, ...]
    reason: tuple[MDwarfReason | None, ...]

    def __post_init__(self) -> None:
        shapes = {array.shape for array in (*self.values.values(), *self.errors.values())}
        if shapes != {(len(self.reason),)} or len(self.teff_relation) != len(self.reason):
            raise ValueError(f"columns of shapes {shapes} for {len(self.reason)} stars")


def asked_bands(settings: MDwarfSettings) -> tuple[str, ...]:
    """Return every band that may be of use: of the cuts, of K, and of the relations."""
    own = (settings.relations.fe_h, settings.relations.teff, settings.relations.logg)
    of_own = [band for relation in own if relation for x in relation.quantities for band in bands_of(x)]
    of_teff = [band for name in teff_candidates(settings) for band in TEFF_RELATIONS[name].bands]
    return tuple(dict.fromkeys((*needed_bands(settings.selection), *of_own, *of_teff)))


def teff_candidates(settings: MDwarfSettings) -> tuple[str, ...]:
    """Return the relations of Mann et al. for Teff that are tried, the preferred first."""
    if settings.relations.teff is not None:
        return ()
    chosen = settings.relations.teff_relation
    return tuple(TEFF_RELATIONS) if chosen is None else (chosen,)


def label_mdwarfs(photometry: Photometry, settings: MDwarfSettings) -> MDwarfLabels:
    """Estimate Teff, log g and [Fe/H] of the M dwarfs of a table, with errors.

    A star's numbers depend on its own row, the settings and the seed.

    Parameters
    ----------
    photometry : Photometry
        With `asked_bands`, the numbers `fe_h` and `e_fe_h` if [Fe/H] has no relation, and the texts
        `field` if fields are left out.
    settings : MDwarfSettings
        Selection, relations and errors.

    Raises
    ------
    UsageError
        If there is no way to an [Fe/H].
    """
    if settings.relations.fe_h is None and "fe_h" not in photometry.numbers:
        raise UsageError(f"{photometry.source}: no [Fe/H]: neither a relation nor a column fe_h")
    reasons = screen_stars(photometry, settings)
    band_errors = {band: magnitude_error(photometry, band, settings) for band in asked_bands(settings)}
    values = {name: np.full(photometry.n_stars, np.nan) for name in QUANTITIES}
    errors = {name: np.full(photometry.n_stars, np.nan) for name in QUANTITIES}
    teff_relation = [""] * photometry.n_stars
    for i in [i for i, reason in enumerate(reasons) if reason is None]:
        star = _Star(photometry, settings, i, band_errors)
        reasons[i] = star.estimate()
        if reasons[i] is None:
            teff_relation[i] = star.teff_relation
            for name, draws in star.draws.items():
                values[name][i], errors[name][i] = draws[0], star.errors[name]
    return MDwarfLabels(values, errors, tuple(teff_relation), tuple(reasons))


class _Star:
    """The estimate of one star; every array of `draws` holds the value without noise, then noisy ones."""

    def __init__(
        self, photometry: Photometry, settings: MDwarfSettings, i: int, band_errors: dict[str, DoubleArray]
    ) -> None:
        self._photometry = photometry
        self._settings = settings
        self._i = i
        self._measured = {
            band: (float(photometry.magnitude[band][i]), float(error[i]))
            for band, error in band_errors.items()
            if np.isfinite(photometry.magnitude[band][i] + error[i])
        }
        self._random = StarDraws(settings.errors.seed, photometry.keys[i], settings.errors.realizations)
        self.teff_relation = ""
        self.draws: dict[str, DoubleArray] = {}
        self.errors: dict[str, float] = {}

    def estimate(self) -> MDwarfReason | None:
        """Fill `draws` and `errors`; return why that is not possible."""
        self.draws["m_k"] = self._quantity("m_k")
        if not _is_valid(self.draws["m_k"], mann2015.VALID_M_K):
            return MDwarfReason.M_K_OUT_OF_RANGE
        reason = self._estimate_fe_h() or self._estimate_teff() or self._estimate_gravity()
        if reason is not None:
            return reason
        self._estimate_from_m_k()
        limit = self._settings.max_logg_difference
        if limit is not None and not abs(self.draws["logg"][0] - self.draws["logg_m_k"][0]) <= limit:
            return MDwarfReason.INCONSISTENT
        self.errors = {name: half_interval(draws) for name, draws in self.draws.items()}
        is_certain = np.isfinite(list(self.errors.values())).all()
        return None if is_certain else MDwarfReason.TOO_UNCERTAIN

    def _estimate_fe_h(self) -> MDwarfReason | None:
        relation = self._settings.relations.fe_h
        if relation is not None:
            if not self._has_bands(relation.quantities):
                return MDwarfReason.NO_FE_H
            if not self._is_in_range(relation):
                return MDwarfReason.FE_H_COLOR_OUT_OF_RANGE
            fe_h = self._by_own("fe_h", relation)
            is_valid = relation.valid_result is None or _is_valid(fe_h, relation.valid_result)
        else:
            value, error = self._known_fe_h()
            if not np.isfinite(value + error):
                return MDwarfReason.NO_FE_H
            fe_h, is_valid = self._random.around(value, error, "fe_h"), True
        self.draws["fe_h"] = fe_h
        is_valid = is_valid and _is_valid(fe_h, mann2015.VALID_FE_H)
        return None if is_valid else MDwarfReason.FE_H_OUT_OF_RANGE

    def _known_fe_h(self) -> tuple[float, float]:
        """Return [Fe/H] and its error as the table has them."""
        numbers = self._photometry.numbers
        error = numbers["e_fe_h"][self._i] if "e_fe_h" in numbers else self._settings.errors.fe_h
        error = float("nan") if error is None or error < 0 else float(error)
        return float(numbers["fe_h"][self._i]), error

    def _estimate_teff(self) -> MDwarfReason | None:
        own = self._settings.relations.teff
        if own is not None:
            if not self._has_bands(own.quantities):
                return MDwarfReason.NO_TEFF_COLOR
            if not self._is_in_range(own):
                return MDwarfReason.TEFF_COLOR_OUT_OF_RANGE
            self.teff_relation, teff = OWN_RELATION, self._by_own("teff", own)
            limits = own.valid_result or mann2015.VALID_TEFF_K
        else:
            usable = [
                n
                for n in teff_candidates(self._settings)
                if self._measured.keys() >= set(TEFF_RELATIONS[n].bands)
            ]
            if not usable:
                return MDwarfReason.NO_TEFF_COLOR
            self.teff_relation = usable[0]
            relation = TEFF_RELATIONS[usable[0]]
            color = self._quantity("-".join(relation.bands))
            if not color[0] < relation.reddest_color:
                return MDwarfReason.TEFF_COLOR_OUT_OF_RANGE
            noise = relation.error_k * self._random.normal("teff")
            teff, limits = relation.temperature(color, self.draws["fe_h"]) + noise, mann2015.VALID_TEFF_K
        self.draws["teff"] = teff
        is_valid = _is_valid(teff, limits) and _is_valid(teff, mann2015.VALID_TEFF_K)
        return None if is_valid else MDwarfReason.TEFF_OUT_OF_RANGE

    def _estimate_gravity(self) -> MDwarfReason | None:
        errors, own = self._settings.errors, self._settings.relations.logg
        radius = mann2015.radius_from_teff(self.draws["teff"], self.draws["fe_h"])
        radius = radius * (1 + errors.radius * self._random.normal("radius"))
        mass = mann2015.mass_from_radius(radius) * (1 + errors.mass * self._random.normal("mass"))
        self.draws["radius"], self.draws["mass"] = radius, mass
        self.draws["logg"] = mann2015.surface_gravity(mass, radius)
        if own is None:
            return None if np.isfinite(self.draws["logg"][0]) else MDwarfReason.LOGG_OUT_OF_RANGE
        if not self._has_bands(own.quantities) or not self._is_in_range(own):
            return MDwarfReason.LOGG_OUT_OF_RANGE
        self.draws["logg"] = self._by_own("logg", own)
        is_valid = own.valid_result is None or _is_valid(self.draws["logg"], own.valid_result)
        return None if is_valid else MDwarfReason.LOGG_OUT_OF_RANGE

    def _estimate_from_m_k(self) -> None:
        """Add radius, mass and log g from the absolute magnitude, for comparison."""
        errors, m_k = self._settings.errors, self.draws["m_k"]
        radius = mann2015.radius_from_m_k(m_k, self.draws["fe_h"])
        self.draws["radius_m_k"] = radius * (1 + errors.radius_m_k * self._random.normal("radius_m_k"))
        mass = mann2015.mass_from_m_k(m_k)
        self.draws["mass_m_k"] = mass * (1 + errors.mass_m_k * self._random.normal("mass_m_k"))
        self.draws["logg_m_k"] = mann2015.surface_gravity(self.draws["mass_m_k"], self.draws["radius_m_k"])

    def _has_bands(self, quantities: Sequence[str]) -> bool:
        return all(band in self._measured for quantity in quantities for band in bands_of(quantity))

    def _is_in_range(self, relation: PolynomialRelation) -> bool:
        pairs = zip(relation.quantities, relation.valid, strict=True)
        return all(_is_valid(self._quantity(quantity), limits) for quantity, limits in pairs)

    def _by_own(self, label: str, relation: PolynomialRelation) -> DoubleArray:
        result = relation.evaluate(*(self._quantity(quantity) for quantity in relation.quantities))
        return result + relation.scatter * self._random.normal(label)

    def _quantity(self, quantity: str) -> DoubleArray:
        """Return a colour, an absolute magnitude, or a label estimated before."""
        if not bands_of(quantity):
            return self.draws[quantity]
        magnitudes = [self._random.around(*self._measured[band], band) for band in bands_of(quantity)]
        parallax = self._random.around(
            float(self._photometry.parallax_mas[self._i]),
            float(self._photometry.parallax_error_mas[self._i]),
            "parallax",
        )
        return quantity_from(quantity, magnitudes, parallax)


def _is_valid(draws: DoubleArray, limits: tuple[float, float]) -> bool:
    """Tell whether the value without noise is inside its range; draws may leave it."""
    return bool(is_inside(draws[:1], limits)[0])
