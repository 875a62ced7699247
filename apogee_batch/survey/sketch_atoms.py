"""Atomic lines of the H band for the sketch of a spectrum: well-known lines, and a made-up forest.

Wavelengths are in vacuum: laboratory or solar air wavelengths of the literature, turned into vacuum by the
dispersion formula of Ciddor (1996, Applied Optics 35, 1566). Strengths are ours, rounded, set by eye.
"""

from dataclasses import dataclass

import numpy as np

from apogee_batch.schema import DoubleArray

FOREST_SEED = 20200416  # of the made-up lines; another one is another, equally plausible H band
FOREST_RANGE = (
    15085.0,
    17015.0,
)  # Angstrom: a little more than the grid, so that its ends look like its middle
FAINTEST_OVER_STRONGEST = 0.02  # of the made-up lines of one species


@dataclass(frozen=True)
class AtomicSpecies:
    """One ionisation stage of an element, with lines that start from levels of about one energy.

    Attributes
    ----------
    name : str
        Element and stage, for example "Fe I".
    ionisation_ev : float
        Energy that separates the neutral atom from the ion.
    excitation_ev : float
        Energy of the lower levels of the lines.
    is_alpha : bool
        Whether the element is enriched with the alpha elements.
    lines : tuple of (float, float)
        Vacuum wavelength in Angstrom, and opacity of the line's centre in the Sun over that of the continuum.
    n_forest : int
        Number of made-up lines.
    forest_strength : float
        Strength of the strongest of them.
    """

    name: str
    ionisation_ev: float
    excitation_ev: float
    is_alpha: bool = False
    lines: tuple[tuple[float, float], ...] = ()
    n_forest: int = 0
    forest_strength: float = 0.0

    @property
    def is_ion(self) -> bool:
        """Whether the lines are those of the ion."""
        return self.name.endswith(" II")


IRON_LINES = (
    (15198.64, 0.25),
    (15211.68, 1.2),
    (15298.74, 3.0),
    (15347.98, 0.25),
    (15399.92, 0.6),
    (15494.57, 0.3),
    (15625.92, 1.6),
    (15636.22, 1.5),
    (15652.79, 0.4),
    (15666.29, 0.8),
    (15696.14, 0.6),
    (15727.88, 0.7),
    (15773.73, 1.5),
    (15822.46, 1.0),
    (15827.14, 0.8),
    (15969.23, 0.5),
    (15985.09, 1.4),
    (16013.99, 0.5),
    (16045.04, 0.7),
    (16047.10, 0.5),
    (16075.79, 0.4),
    (16130.31, 0.9),
    (16157.66, 0.6),
    (16169.45, 1.0),
    (16184.00, 0.4),
    (16199.48, 0.6),
    (16289.22, 0.4),
    (16320.78, 1.5),
    (16328.91, 0.5),
    (16402.65, 1.0),
    (16491.17, 1.2),
    (16510.80, 0.4),
    (16521.73, 0.8),
    (16523.65, 0.3),
    (16528.98, 0.8),
    (16545.95, 0.4),
    (16566.29, 0.6),
    (16650.42, 0.4),
)
SILICON_LINES = (
    (15365.36, 0.1),
    (15381.03, 0.5),
    (15837.93, 1.5),
    (15888.79, 0.5),
    (15892.75, 4.5),
    (15964.42, 2.5),
    (16064.40, 1.0),
    (16099.18, 1.5),
    (16168.11, 0.7),
    (16220.10, 0.9),
    (16246.27, 0.7),
    (16685.33, 1.4),
    (16832.76, 0.5),
)
MAGNESIUM_LINES = (
    (15745.02, 2.2),
    (15753.29, 4.0),
    (15770.15, 6.0),
    (15883.91, 0.7),
    (15890.52, 0.5),
    (15958.84, 0.9),
)
TITANIUM_LINES = (
    (15339.04, 0.05),
    (15548.00, 0.04),
    (15607.11, 0.02),
    (15703.27, 0.02),
    (15719.87, 0.03),
    (16639.71, 0.02),
)
NICKEL_LINES = (
    (15559.63, 0.3),
    (15609.94, 0.15),
    (16314.96, 0.3),
    (16588.97, 0.15),
    (16678.27, 0.25),
    (16823.35, 0.25),
)
SPECIES = (
    AtomicSpecies("Fe I", 7.90, 5.6, lines=IRON_LINES),
    AtomicSpecies("Fe I", 7.90, 6.3, n_forest=500, forest_strength=0.45),
    AtomicSpecies("Fe I", 7.90, 4.0, n_forest=120, forest_strength=0.12),
    AtomicSpecies(
        "Mg I",
        7.65,
        5.93,
        is_alpha=True,
        lines=MAGNESIUM_LINES,
    ),
    AtomicSpecies(
        "Al I",
        5.99,
        4.09,
        lines=((16723.52, 2.0), (16755.11, 3.5), (16767.94, 1.0)),
        n_forest=3,
        forest_strength=0.1,
    ),
    AtomicSpecies("Si I", 8.15, 6.0, is_alpha=True, lines=SILICON_LINES),
    AtomicSpecies("Si I", 8.15, 7.0, is_alpha=True, n_forest=120, forest_strength=0.35),
    AtomicSpecies(
        "Ca I",
        6.11,
        4.53,
        is_alpha=True,
        lines=((16141.23, 0.15), (16155.17, 0.25), (16159.65, 0.12), (16161.78, 0.30), (16201.50, 0.35)),
        n_forest=8,
        forest_strength=0.06,
    ),
    AtomicSpecies("K I", 4.34, 2.67, lines=((15167.21, 0.12), (15172.52, 0.15))),
    AtomicSpecies("Na I", 5.14, 3.75, lines=((16378.33, 0.03), (16393.34, 0.05))),
    AtomicSpecies(
        "Ti I",
        6.83,
        2.0,
        is_alpha=True,
        lines=TITANIUM_LINES,
        n_forest=60,
        forest_strength=0.02,
    ),
    AtomicSpecies("V I", 6.75, 2.1, lines=((15928.35, 0.01),), n_forest=20, forest_strength=0.006),
    AtomicSpecies(
        "Cr I", 6.77, 4.70, lines=((15684.35, 0.15), (15864.55, 0.3)), n_forest=20, forest_strength=0.1
    ),
    AtomicSpecies("Mn I", 7.43, 4.89, lines=((15163.34, 0.35), (15221.95, 0.30), (15266.87, 0.25))),
    AtomicSpecies("Co I", 7.88, 3.41, lines=((16762.28, 0.06),), n_forest=12, forest_strength=0.03),
    AtomicSpecies(
        "Ni I",
        7.64,
        5.4,
        lines=NICKEL_LINES,
        n_forest=70,
        forest_strength=0.25,
    ),
    AtomicSpecies(
        "S I",
        10.36,
        8.0,
        is_alpha=True,
        lines=((15426.48, 0.25), (15474.04, 0.12), (15482.71, 0.3)),
        n_forest=10,
        forest_strength=0.1,
    ),
    AtomicSpecies(
        "C I",
        11.26,
        9.3,
        lines=((16009.27, 0.35), (16026.08, 0.30), (16894.99, 0.8)),
        n_forest=40,
        forest_strength=0.25,
    ),
    AtomicSpecies(
        "Ce II",
        5.54,
        0.4,
        lines=((15789.06, 0.012), (16331.78, 0.006), (16599.71, 0.010)),
        n_forest=20,
        forest_strength=0.008,
    ),
    AtomicSpecies("Fe II", 7.90, 6.5, n_forest=25, forest_strength=0.15),
)


def lines_of(species: AtomicSpecies, index: int) -> tuple[DoubleArray, DoubleArray]:
    """Return the known and the made-up lines of one species.

    Parameters
    ----------
    species : AtomicSpecies
        The species.
    index : int
        Its place in `SPECIES`: it has a random stream of its own, so adding lines to one species moves no
        line of another.

    Returns
    -------
    wavelength, strength : ndarray of float64, shape (n_lines,)
        Vacuum Angstrom; central opacity in the Sun over that of the continuum.
    """
    generator = np.random.default_rng([FOREST_SEED, index])
    made_up = generator.uniform(*FOREST_RANGE, species.n_forest)
    # log-uniform: as in real line lists, ten times weaker lines are as many as strong ones
    strength = species.forest_strength * FAINTEST_OVER_STRONGEST ** generator.random(species.n_forest)
    known = np.array(species.lines, dtype=np.float64).reshape(-1, 2)
    return np.concatenate([known[:, 0], made_up]), np.concatenate([known[:, 1], strength])
