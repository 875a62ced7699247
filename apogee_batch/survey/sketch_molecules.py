"""Molecular lines of the H band for the sketch of a spectrum.

CO, OH and CN come from the spectroscopic constants of Huber & Herzberg (1979, Constants of Diatomic
Molecules): term values, so that CO and OH lie within a pixel or two of where they should, and CN has the
right heads and spacing. H2O and FeH have too many lines for that: theirs are made up around the known shape
of their bands.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from apogee_batch.schema import DoubleArray
from apogee_batch.survey.sketch_atoms import FOREST_RANGE, FOREST_SEED

EV_PER_CM = 1.0 / 8065.544
REFERENCE_THETA = (
    5040.0 / 3720.0
)  # 5040 K over the temperature that strengths are given for: a giant of 4000 K

FEH_HEADS = (
    (15820.9, 1.0),
    (15909.6, 1.0),
    (16246.7, 0.8),
)  # Cushing et al. 2003, ApJ 582, 1066: Angstrom, weight


@dataclass(frozen=True)
class Lines:
    """Lines of one molecule.

    Attributes
    ----------
    wavelength : ndarray of float64, shape (n_lines,)
        Vacuum Angstrom.
    excitation_ev : ndarray of float64, shape (n_lines,)
        Energy of the lower level.
    strength : ndarray of float64, shape (n_lines,)
        Relative strength at `REFERENCE_THETA`; that of the strongest line is one.
    """

    wavelength: DoubleArray
    excitation_ev: DoubleArray
    strength: DoubleArray


def _lines(wavenumber: DoubleArray, lower_cm: DoubleArray, weight: DoubleArray) -> Lines:
    """Gather lines given in 1/cm; keep those inside the band."""
    wavelength = 1e8 / np.maximum(wavenumber, 1.0)
    inside = (wavelength > FOREST_RANGE[0]) & (wavelength < FOREST_RANGE[1])
    excitation = lower_cm[inside] * EV_PER_CM
    strength = weight[inside] * 10.0 ** (-REFERENCE_THETA * excitation)
    return Lines(wavelength[inside], excitation, strength / strength.max())


def _joined(series: list[tuple[DoubleArray, DoubleArray, DoubleArray]]) -> Lines:
    wavenumber, lower, weight = (np.concatenate(part) for part in zip(*series, strict=True))
    return _lines(wavenumber, lower, weight)


def carbon_monoxide() -> Lines:
    """Return the second overtone of CO: bands 3-0 to 10-7, whose heads step from 1.5582 to 1.7069 micron."""

    def term(v: int, j: DoubleArray) -> DoubleArray:
        vibration = 2169.81358 * (v + 0.5) - 13.28831 * (v + 0.5) ** 2 + 0.010511 * (v + 0.5) ** 3
        square = j * (j + 1.0)
        energy: DoubleArray = (
            vibration + (1.93128087 - 0.01750441 * (v + 0.5)) * square - 6.12147e-6 * square**2
        )
        return energy

    j = np.arange(0.0, 121.0)
    zero = float(term(0, np.zeros(1))[0])
    series = []
    for v in range(8):
        lower = term(v, j)
        overtone = (v + 1) * (v + 2) * (v + 3) / 6.0  # harmonic oscillator
        series.append((term(v + 3, j + 1) - lower, lower - zero, overtone * (j + 1)))  # R branch
        series.append((term(v + 3, j[1:] - 1) - lower[1:], lower[1:] - zero, overtone * j[1:]))  # P branch
    return _joined(series)


def hydroxyl() -> Lines:
    """Return the first overtone of OH: pairs of lines of the bands 2-0 to 6-4."""

    def term(v: int, n: DoubleArray, component: int) -> DoubleArray:
        x = v + 0.5
        # the last terms make the known lines of 2-0, 3-1, 4-2 and 5-3 fall into place
        vibration = 3737.761 * x - 84.8813 * x**2 + 0.5409 * x**3 - 0.0260 * x**4
        rotation = 18.9108 - 0.7242 * x + 0.00764 * x**2
        coupling = -139.21 / rotation
        j_half = n + 1.0 if component == 1 else n  # J + 1/2; J = N + 1/2 for F1, N - 1/2 for F2
        root = 0.5 * np.sqrt(4.0 * j_half**2 + coupling * (coupling - 4.0))  # Hill & Van Vleck 1928
        energy: DoubleArray = vibration + rotation * (j_half**2 - 1.0 + (-root if component == 1 else root))
        return energy - 1.938e-3 * (n * (n + 1.0)) ** 2

    n = np.arange(2.0, 34.0)
    zero = float(term(0, np.ones(1), 1)[0])
    series = []
    for v in range(5):
        for component in (1, 2):
            lower = term(v, n, component)
            for step, weight in ((1.0, n + 1.0), (-1.0, n)):
                centre = term(v + 2, n + step, component) - lower
                split = (
                    0.119 if component == 1 else 0.075
                ) * n  # Lambda doubling: pairs an Angstrom or three apart
                overtone = (v + 1) * (v + 2) / 2.0
                series += [(centre + sign * split, lower - zero, overtone * weight) for sign in (-0.5, 0.5)]
    return _joined(series)


def cyanogen() -> Lines:
    """Return the red system of CN, bands 0-1 to 4-5: lines all over, heads at 1.511 and 1.564 micron."""
    j = np.arange(1.0, 100.0)

    def lower_term(v: int, j: DoubleArray) -> DoubleArray:
        vibration = 2068.59 * (v + 0.5) - 13.087 * (v + 0.5) ** 2
        energy: DoubleArray = (
            vibration + (1.8997 - 0.01736 * (v + 0.5)) * j * (j + 1) - 6.4e-6 * (j * (j + 1)) ** 2
        )
        return energy

    def upper_term(v: int, j: DoubleArray, spin: float) -> DoubleArray:
        vibration = 9245.28 + spin + 1812.56 * (v + 0.5) - 12.609 * (v + 0.5) ** 2
        energy: DoubleArray = (
            vibration + (1.7151 - 0.01708 * (v + 0.5)) * j * (j + 1) - 5.9e-6 * (j * (j + 1)) ** 2
        )
        return energy

    zero = float(lower_term(0, np.zeros(1))[0])
    series = []
    for v in range(5):
        lower = lower_term(v + 1, j)
        for spin in (-26.3, 26.3):  # the two components of the upper state
            for step in (-1.0, 0.0, 1.0):
                weight = 2.0 * j if step == 0.0 else j
                series.append((upper_term(v, j + step, spin) - lower, lower - zero, weight))
    return _joined(series)


def _made_up(
    n_lines: int, stream: int, envelope: Callable[[DoubleArray], DoubleArray], max_ev: float
) -> Lines:
    """Draw lines whose strength follows `envelope` (of wavelength in Angstrom) times an exponential law."""
    generator = np.random.default_rng([FOREST_SEED, 1000 + stream])
    wavelength = generator.uniform(*FOREST_RANGE, n_lines)
    strength = envelope(wavelength) * generator.exponential(1.0, n_lines)
    excitation = generator.uniform(0.1, max_ev, n_lines)
    return Lines(wavelength, excitation, strength / strength.max())


def water() -> Lines:
    """Return made-up lines of H2O: dense, strongest at the ends of the band, next to 1.4 and 1.9 micron."""

    def envelope(wavelength: DoubleArray) -> DoubleArray:
        shape: DoubleArray = (
            0.30 + np.exp((15100.0 - wavelength) / 330.0) + 0.4 * np.exp((wavelength - 17050.0) / 180.0)
        )
        return shape

    return _made_up(6000, 0, envelope, 1.6)


def iron_hydride() -> Lines:
    """Return made-up lines of FeH redward of its three heads."""

    def envelope(wavelength: DoubleArray) -> DoubleArray:
        shape = np.full(wavelength.shape, 0.02)
        for head, weight in FEH_HEADS:
            beyond = wavelength - head
            shape = shape + weight * (beyond > 0) * np.exp(-np.maximum(beyond, 0.0) / 120.0)
        return shape

    return _made_up(1500, 1, envelope, 0.6)
