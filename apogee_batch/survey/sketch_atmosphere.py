"""How strong the lines of a star are: a one-layer atmosphere in a few formulas.

A sketch, not a model atmosphere: one temperature for the lines, a power law for the electron
pressure. What it keeps are the directions that make labels readable from a spectrum. The opacity of
the H band is that of H-, in proportion to the electron pressure, so lines of neutral metals grow
towards giants where the metal is neutral, and do not care where it is ionised; ions grow towards
giants; molecules bind towards cool stars.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from apogee_batch.schema import DoubleArray
from apogee_batch.survey import sketch_molecules
from apogee_batch.survey.pixels import wavelength
from apogee_batch.survey.sketch_atoms import SPECIES, AtomicSpecies

LINE_TEMPERATURE = 0.93  # of the layer where lines form, over the effective temperature
SUN_TEFF, SUN_LOGG = 5777.0, 4.44
HYDROGEN_EXCITATION_EV = 6.5  # of level 4, 12.75, halved: Brackett lines form deep, where stars differ less
HC_OVER_K = 1.438777e8  # Angstrom K
RED_SCALE, RED_POWER = (
    0.404,
    -1.61,
)  # extinction over A_V at one micron (R_V = 3.1), and its power of wavelength


@dataclass(frozen=True)
class StellarParameters:
    """What a spectrum is made from.

    Attributes
    ----------
    teff, logg, fe_h : float
        The labels: K, log10 of cm/s2, dex.
    alpha_fe : float
        Enrichment of the alpha elements over iron, dex.
    broadening_km_s : float
        Gaussian sigma of the star's rotation and turbulence, beyond what each line has.
    a_v : float
        Extinction in V, mag.
    veiling : float
        Flux of a disc over that of the star, the same at each wavelength.
    """

    teff: float
    logg: float
    fe_h: float
    alpha_fe: float = 0.0
    broadening_km_s: float = 0.0
    a_v: float = 0.0
    veiling: float = 0.0


@dataclass(frozen=True)
class Molecule:
    """How the abundance of a molecule follows the labels.

    Attributes
    ----------
    lines : Lines
        Its lines.
    dissociation_ev : float
        How steeply it forms as the temperature falls.
    half_theta : float
        5040 K over the temperature at which half of what can be bound is.
    metal_slope, alpha_slope, gravity_slope : float
        Change of log10 of line over continuous opacity with [Fe/H], [alpha/Fe] and log g.
    strength : float
        Opacity of the strongest line over that of the continuum in the reference giant (4000 K, log g 1.5,
        solar).
    """

    lines: sketch_molecules.Lines
    dissociation_ev: float
    half_theta: float
    metal_slope: float
    alpha_slope: float
    gravity_slope: float
    strength: float


@cache
def molecules() -> dict[str, Molecule]:
    """Return the molecules by name; slopes and strengths are ours, set by eye."""
    return {
        "CO": Molecule(sketch_molecules.carbon_monoxide(), 11.1, 1.24, 0.9, 0.5, -0.40, 1.2),
        "OH": Molecule(sketch_molecules.hydroxyl(), 4.4, 1.60, 0.7, 0.9, -0.28, 2.2),
        "CN": Molecule(sketch_molecules.cyanogen(), 7.7, 1.24, 1.2, 0.0, -0.40, 0.4),
        "H2O": Molecule(sketch_molecules.water(), 5.1, 1.72, 0.5, 0.8, 0.03, 0.09),
        "FeH": Molecule(sketch_molecules.iron_hydride(), 3.0, 1.70, 1.0, 0.0, 0.30, 0.07),
    }


def theta(teff: float) -> float:
    """Return 5040 K over the temperature of the line-forming layer."""
    return 5040.0 / (LINE_TEMPERATURE * teff)


def log_electron_pressure(star: StellarParameters) -> float:
    """Return log10 of the electron pressure (dyn/cm2): grows with gravity, temperature and metals."""
    return 1.0 + 0.30 * (star.logg - SUN_LOGG) + 7e-4 * (star.teff - SUN_TEFF) + 0.25 * star.fe_h


def log_continuous_opacity(star: StellarParameters) -> float:
    """Return log10 of the H- opacity per hydrogen atom, but for a constant."""
    return log_electron_pressure(star) + 0.5 * theta(star.teff)


def neutral_fraction(star: StellarParameters, ionisation_ev: float) -> float:
    """Return the part of an element's atoms that is neutral (Saha)."""
    line_theta = theta(star.teff)
    phi = 2.5 * math.log10(5040.0 / line_theta) - ionisation_ev * line_theta - 0.1
    ion_over_neutral = phi - log_electron_pressure(star)
    return float(1.0 / (1.0 + 10.0**ion_over_neutral))


SUN = StellarParameters(SUN_TEFF, SUN_LOGG, 0.0)
REFERENCE_GIANT = StellarParameters(4000.0, 1.5, 0.0)


def _log_atomic_strength(star: StellarParameters, species: AtomicSpecies) -> float:
    """Return log10 of the line over continuous opacity of an atomic species, but for a constant."""
    neutral = neutral_fraction(star, species.ionisation_ev)
    abundance = star.fe_h + (star.alpha_fe if species.is_alpha else 0.0)
    population = math.log10(1.0 - neutral if species.is_ion else neutral)
    # an ion's levels are counted from its own ground state
    excitation = -species.excitation_ev * theta(star.teff)
    return float(abundance + population + excitation - log_continuous_opacity(star))


def _bound_fraction(name: str, line_theta: float) -> float:
    """Return how much of the scarcest atom is bound in a molecule."""
    molecule = molecules()[name]
    free_over_bound: float = 10.0 ** (molecule.dissociation_ev * (molecule.half_theta - line_theta))
    return 1.0 / (1.0 + free_over_bound)


def _log_molecular_strength(star: StellarParameters, name: str) -> float:
    """Return log10 of the abundance of a molecule over the continuous opacity, but for a constant."""
    molecule = molecules()[name]
    line_theta = theta(star.teff)
    fraction = _bound_fraction(name, line_theta)
    if name == "CN":  # CO takes the carbon
        fraction *= 1.0 - 0.9 * _bound_fraction("CO", line_theta)
    if name == "OH":  # H2O takes the oxygen
        fraction *= 1.0 - 0.9 * _bound_fraction("H2O", line_theta)
    return float(
        math.log10(fraction)
        + molecule.metal_slope * star.fe_h
        + molecule.alpha_slope * star.alpha_fe
        + molecule.gravity_slope * (star.logg - REFERENCE_GIANT.logg)
    )


def line_strength(star: StellarParameters) -> tuple[DoubleArray, DoubleArray]:
    """Return how strong the lines of a star are, against the stars that their strengths are given for.

    Parameters
    ----------
    star : StellarParameters
        The star.

    Returns
    -------
    atoms : ndarray of float64, shape (n_species,)
        Factor on the strength of each of `SPECIES` in the Sun.
    molecules : ndarray of float64, shape (n_molecules,)
        Factor on the strength of each of `molecules()` in the reference giant, for lines that start from the
        ground state; the others follow their excitation.
    """
    atoms = [_log_atomic_strength(star, s) - _log_atomic_strength(SUN, s) for s in SPECIES]
    bands = [
        _log_molecular_strength(star, m) - _log_molecular_strength(REFERENCE_GIANT, m) for m in molecules()
    ]
    return 10.0 ** np.array(atoms), 10.0 ** np.array(bands)


def log_hydrogen_strength(star: StellarParameters) -> float:
    """Return log10 of the factor on the Brackett lines in the Sun: they start 12.75 eV above the ground."""

    def strength(one: StellarParameters) -> float:
        return -HYDROGEN_EXCITATION_EV * 5040.0 / one.teff - log_electron_pressure(one)

    return strength(star) - strength(SUN)


def deepest_line(star: StellarParameters) -> float:
    """Return the depth of a line of endless strength.

    One minus the flux of the coolest layer over that of the layer that the continuum comes from.
    Convection reaches so high in cool dwarfs that their layers differ less.
    """
    cool = np.clip((4200.0 - star.teff) / 1200.0, 0.0, 1.0) * np.clip((star.logg - 1.5) / 3.0, 0.0, 1.0)
    surface = star.teff * (0.75 + 0.09 * cool)
    energy = HC_OVER_K / 16000.0
    return float(1.0 - np.expm1(energy / (1.05 * star.teff)) / np.expm1(energy / surface))


@cache
def _continuum_curves() -> tuple[DoubleArray, DoubleArray, DoubleArray, DoubleArray]:
    """Return what `continuum` needs of the pixels: hc/k over wavelength, its power, bump, extinction."""
    grid = wavelength()
    bump = np.exp(-0.5 * ((grid - 16500.0) / 900.0) ** 2)
    return HC_OVER_K / grid, (grid / 16000.0) ** -5.0, bump, RED_SCALE * (grid / 1e4) ** RED_POWER


def continuum(star: StellarParameters) -> DoubleArray:
    """Return the flux between the lines, in arbitrary units.

    A black body, lifted where H- lets one look deepest (1.65 micron, where its bound-free opacity ends) and
    reddened as Cardelli, Clayton & Mathis (1989, ApJ 345, 245) say for R_V = 3.1.

    Parameters
    ----------
    star : StellarParameters
        The star.

    Returns
    -------
    ndarray of float64, shape (n_pixels,)
    """
    energy, fifth_power, bump, extinction = _continuum_curves()
    planck = fifth_power / np.expm1(energy / (1.05 * star.teff))
    lift = 1.0 + 0.16 * (4500.0 / star.teff) ** 1.5 * bump
    flux: DoubleArray = planck * lift * np.exp(-0.4 * np.log(10.0) * star.a_v * extinction)
    return flux
