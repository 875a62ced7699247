"""A physical sketch of a spectrum: from the labels of a star to its flux on the apStar grid.

Lines are kept as templates on a grid three times finer than the pixels: the sum of a species'
lines, each with the same narrow profile. For a star the templates are weighted and added, which
gives the opacity of lines over that of the continuum; a curve of growth turns it into depth; the
instrument blurs it.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from apogee_batch.schema import DoubleArray, FloatArray
from apogee_batch.survey.pixels import LOG10_WAVELENGTH_0, LOG10_WAVELENGTH_STEP, N_PIXELS
from apogee_batch.survey.sketch_atmosphere import (
    StellarParameters,
    continuum,
    deepest_line,
    line_strength,
    log_hydrogen_strength,
    molecules,
    theta,
)
from apogee_batch.survey.sketch_atoms import SPECIES, lines_of
from apogee_batch.survey.sketch_molecules import REFERENCE_THETA

OVERSAMPLING = 3
MARGIN = 200  # fine pixels beyond each end, for the widest blur
N_FINE = OVERSAMPLING * N_PIXELS + 2 * MARGIN
SPEED_OF_LIGHT_KM_S = 299792.458
RESOLVING_POWER = 22500.0
INSTRUMENT_KM_S = SPEED_OF_LIGHT_KM_S / RESOLVING_POWER / 2.3548  # Gaussian sigma
FINE_STEP_KM_S = SPEED_OF_LIGHT_KM_S * np.log(10.0) * LOG10_WAVELENGTH_STEP / OVERSAMPLING
LINE_WIDTH_KM_S = 2.8  # Gaussian sigma of every line: thermal motion and turbulence
MAX_BROADENING_KM_S = 60.0

EXCITATION_EDGES_EV = np.array(
    [0.0, 0.4, 0.8, 1.2, 1.6, 2.2, 9.0]
)  # lines of a molecule are grouped by lower level
WING_REACH = 400  # fine pixels to each side of a line
WING_STRENGTH = 0.35  # of a wing over its core in the Sun, at one line width, extrapolated
WING_GRAVITY_SLOPE = 0.40  # collisions: log10 of the wing's strength a dex of log g

RYDBERG_PER_ANGSTROM = 1.0973731568e-3 / (1.0 + 1.0 / 1836.152673)  # of hydrogen
BRACKETT_UPPER_LEVELS = range(10, 27)
BRACKETT_STRENGTH = 0.055  # of Br 11 in the Sun
BRACKETT_WIDTHS = (5.0, 22.0)  # half width at half maximum in Angstrom, at log g 0 and 5


@dataclass(frozen=True)
class Templates:
    """Opacity of groups of lines on the fine grid.

    Attributes
    ----------
    cores : ndarray of float32, shape (n_groups, n_fine)
        Groups of lines with narrow profiles: first `SPECIES`, then the molecules' by excitation.
    wings : ndarray of float32, shape (n_species, n_fine)
        The far wings of the atomic lines, for a damping of one.
    brackett : ndarray of float32, shape (2, n_fine)
        The Brackett lines, narrow and wide.
    molecule : ndarray of int, shape (n_groups - n_species,)
        Which molecule each group belongs to.
    excitation_ev : ndarray of float64, shape (n_groups - n_species,)
        Mean energy of the lower levels of the group.
    """

    cores: FloatArray
    wings: FloatArray
    brackett: FloatArray
    molecule: npt.NDArray[np.int64]
    excitation_ev: DoubleArray


def brackett_wavelength(upper_level: int) -> float:
    """Return the vacuum wavelength (Angstrom) of the hydrogen line from a level to level 4 (Rydberg)."""
    return 1.0 / (RYDBERG_PER_ANGSTROM * (1.0 / 16.0 - 1.0 / upper_level**2))


def _fine_index(angstrom: DoubleArray) -> DoubleArray:
    """Return where wavelengths lie on the fine grid; pixel i is centred on MARGIN + OVERSAMPLING i + 1."""
    pixel = (np.log10(angstrom) - LOG10_WAVELENGTH_0) / LOG10_WAVELENGTH_STEP
    index: DoubleArray = MARGIN + OVERSAMPLING * pixel + 1.0
    return index


def _place(angstrom: DoubleArray, strength: DoubleArray) -> DoubleArray:
    """Return the sum of narrow lines on the fine grid; `strength` is that of the line's centre."""
    sigma = LINE_WIDTH_KM_S / FINE_STEP_KM_S
    reach = int(np.ceil(5 * sigma))
    centre = _fine_index(angstrom)
    index = np.rint(centre).astype(int)[:, None] + np.arange(-reach, reach + 1)
    profile = strength[:, None] * np.exp(-0.5 * ((index - centre[:, None]) / sigma) ** 2)
    inside = (index >= 0) & (index < N_FINE)
    summed = np.bincount(index[inside], profile[inside], minlength=N_FINE)
    placed: DoubleArray = summed.astype(np.float64)
    return placed


def _wings(core: DoubleArray) -> DoubleArray:
    """Return the damping wings of the lines in `core`: they fall with the square of the distance."""
    sigma = LINE_WIDTH_KM_S / FINE_STEP_KM_S
    distance = np.arange(-WING_REACH, WING_REACH + 1) / sigma
    kernel = 1.0 / (distance**2 + 9.0)  # nearer than three widths the core outshines its wings
    wings: DoubleArray = np.convolve(core, kernel, mode="same") / (sigma * np.sqrt(2.0 * np.pi))
    return wings


def _brackett(half_width: float) -> DoubleArray:
    """Return the Brackett lines with one half width (Angstrom); wider lines are shallower."""
    fine = 10.0 ** (
        LOG10_WAVELENGTH_0 + LOG10_WAVELENGTH_STEP * (np.arange(N_FINE) - MARGIN - 1.0) / OVERSAMPLING
    )
    opacity = np.zeros(N_FINE)
    for level in BRACKETT_UPPER_LEVELS:
        strength = (11.0 / level) ** 3  # oscillator strengths of a series fall so
        offset = (fine - brackett_wavelength(level)) / half_width
        opacity += strength / (1.0 + np.abs(offset) ** 2.5)  # Holtsmark wings
    scaled: DoubleArray = BRACKETT_STRENGTH * opacity * (12.0 / half_width) ** 0.5
    return scaled


@cache
def templates() -> Templates:
    """Return the line templates; made once in a process."""
    cores = [_place(*lines_of(species, index)) for index, species in enumerate(SPECIES)]
    wings = [_wings(core) for core in cores]
    owner, excitation = [], []
    for number, molecule in enumerate(molecules().values()):
        lines = molecule.lines
        group = np.digitize(lines.excitation_ev, EXCITATION_EDGES_EV)
        for one in np.unique(group):
            chosen = group == one
            strength = molecule.strength * lines.strength[chosen]
            cores.append(_place(lines.wavelength[chosen], strength))
            owner.append(number)
            excitation.append(float(np.average(lines.excitation_ev[chosen], weights=strength)))
    return Templates(
        cores=np.array(cores, dtype=np.float32),
        wings=np.array(wings, dtype=np.float32),
        brackett=np.array([_brackett(width) for width in BRACKETT_WIDTHS], dtype=np.float32),
        molecule=np.array(owner, dtype=np.int64),
        excitation_ev=np.array(excitation),
    )


def line_opacity(star: StellarParameters) -> FloatArray:
    """Return the opacity of all lines over that of the continuum.

    Returns
    -------
    ndarray of float32, shape (n_fine,)
    """
    made = templates()
    atoms, bands = line_strength(star)
    excitation = 10.0 ** (-made.excitation_ev * (theta(star.teff) - REFERENCE_THETA))
    weight = np.concatenate([atoms, bands[made.molecule] * excitation]).astype(np.float32)
    damping = WING_STRENGTH * 10.0 ** (WING_GRAVITY_SLOPE * (star.logg - 4.44))
    wide = np.clip(star.logg / 5.0, 0.0, 1.0)
    hydrogen = 10.0 ** log_hydrogen_strength(star) * np.array([1.0 - wide, wide])
    # einsum, not matmul: its sums do not depend on how many threads a linear algebra library has
    opacity: FloatArray = np.einsum("g,gp->p", weight, made.cores)
    opacity += np.einsum("g,gp->p", (damping * atoms).astype(np.float32), made.wings)
    opacity += np.einsum("g,gp->p", hydrogen.astype(np.float32), made.brackett)
    return opacity


def line_depth(opacity: FloatArray, deepest: float) -> FloatArray:
    """Turn opacity into depth: in proportion for weak lines, never beyond `deepest` (Minnaert 1935)."""
    limit = np.float32(deepest)
    depth: FloatArray = limit * opacity / (limit + opacity)
    return depth


def blur(depth: FloatArray, sigma_km_s: float) -> FloatArray:
    """Blur by a Gaussian and sample the pixels.

    Parameters
    ----------
    depth : ndarray of float32, shape (n_fine,)
        On the fine grid.
    sigma_km_s : float
        Width of the Gaussian.

    Returns
    -------
    ndarray of float32, shape (n_pixels,)
    """
    sigma = sigma_km_s / FINE_STEP_KM_S
    reach = min(int(np.ceil(3.5 * sigma)), MARGIN)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    blurred = np.zeros(N_PIXELS, dtype=np.float32)
    for offset, weight in zip(range(-reach, reach + 1), kernel, strict=True):
        start = MARGIN + 1 + offset
        blurred += weight * depth[start : start + OVERSAMPLING * N_PIXELS : OVERSAMPLING]
    return blurred


def sketch_spectrum(star: StellarParameters) -> FloatArray:
    """Return the spectrum of a star without noise.

    Parameters
    ----------
    star : StellarParameters
        The star.

    Returns
    -------
    ndarray of float32, shape (n_pixels,)
        Flux on the apStar grid, with a median of one. It depends on `star` only.
    """
    total = np.hypot(INSTRUMENT_KM_S, min(star.broadening_km_s, MAX_BROADENING_KM_S))
    depth = blur(line_depth(line_opacity(star), deepest_line(star)), float(total))
    flux = continuum(star) * (1.0 - depth)
    flux = (flux / np.median(flux) + star.veiling) / (1.0 + star.veiling)
    spectrum: FloatArray = flux.astype(np.float32)
    return spectrum
