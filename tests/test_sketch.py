"""The sketch of a spectrum follows its labels as spectra do."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.schema import FloatArray
from apogee_batch.survey import sketch, sketch_molecules
from apogee_batch.survey.pixels import N_PIXELS, wavelength
from apogee_batch.survey.sketch import (
    blur,
    brackett_wavelength,
    line_depth,
    line_opacity,
    sketch_spectrum,
)
from apogee_batch.survey.sketch_atmosphere import (
    StellarParameters,
    continuum,
    deepest_line,
    line_strength,
    molecules,
    neutral_fraction,
)
from apogee_batch.survey.sketch_atoms import IRON_LINES, MAGNESIUM_LINES, SPECIES

GRID = wavelength()
GIANT = StellarParameters(4500.0, 2.2, 0.0)
DWARF = StellarParameters(5600.0, 4.4, 0.0)
LABEL_STEPS = {"logg": 0.05, "teff": 20.0, "fe_h": 0.03}
NUISANCE_STEPS = {"alpha_fe": 0.03, "broadening_km_s": 0.5, "a_v": 0.2, "veiling": 0.01}


def stars() -> st.SearchStrategy[StellarParameters]:
    """Any star that a survey could hold, and some that it could not."""
    return st.builds(
        StellarParameters,
        teff=st.floats(2700.0, 7200.0),
        logg=st.floats(0.0, 5.4),
        fe_h=st.floats(-1.5, 0.5),
        alpha_fe=st.floats(-0.1, 0.4),
        broadening_km_s=st.floats(0.0, 80.0),
        a_v=st.floats(0.0, 15.0),
        veiling=st.floats(0.0, 2.0),
    )


def band_depth(star: StellarParameters, centre: float, half_width: float) -> float:
    """Mean depth of the lines, before the instrument, in a window (Angstrom)."""
    depth = line_depth(line_opacity(star), deepest_line(star))
    window = np.abs(GRID - centre) < half_width
    return float(blur(depth, sketch.INSTRUMENT_KM_S)[window].mean())


def iron_depth(star: StellarParameters) -> float:
    """Mean depth of the well-known iron lines."""
    depth = blur(line_depth(line_opacity(star), deepest_line(star)), sketch.INSTRUMENT_KM_S)
    return float(depth[[int(np.argmin(np.abs(GRID - at))) for at, _ in IRON_LINES]].mean())


def information(star: StellarParameters, snr: float) -> FloatArray:
    """One-sigma limit on logg, teff, fe_h when the nuisances and a cubic continuum are free as well."""
    flux = sketch_spectrum(star).astype(np.float64)
    gradients = []
    for name, step in (LABEL_STEPS | NUISANCE_STEPS).items():
        value = getattr(star, name)
        up, down = (sketch_spectrum(replace(star, **{name: value + s * step})) for s in (1, -1))
        gradients.append((up.astype(np.float64) - down) / (2 * step))
    x = np.linspace(-1, 1, N_PIXELS)
    gradients += [flux * x**power for power in range(4)]
    matrix = np.array(gradients)
    return np.sqrt(np.diag(np.linalg.inv(matrix @ matrix.T * snr**2)))[:3].astype(np.float32)


@given(stars())
@settings(max_examples=25, deadline=None)
def test_a_spectrum_is_finite_positive_and_has_a_median_of_one(star: StellarParameters) -> None:
    flux = sketch_spectrum(star)
    assert flux.shape == (N_PIXELS,)
    assert flux.dtype == np.float32
    assert np.isfinite(flux).all()
    assert (flux > 0).all()
    assert np.median(flux) == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_array_equal(flux, sketch_spectrum(star))


@given(stars())
@settings(max_examples=20, deadline=None)
def test_metals_strengthen_every_line_but_those_of_hydrogen(star: StellarParameters) -> None:
    rich = replace(star, fe_h=star.fe_h + 0.2)
    for poorer, richer in zip(line_strength(star), line_strength(rich), strict=True):
        assert (richer > poorer).all()


@given(st.floats(3000.0, 5800.0), st.floats(0.5, 5.0), st.floats(-1.2, 0.2))
@settings(max_examples=15, deadline=None)
def test_iron_lines_deepen_with_metallicity(teff: float, logg: float, fe_h: float) -> None:
    poor, rich = (StellarParameters(teff, logg, value) for value in (fe_h, fe_h + 0.2))
    assert iron_depth(rich) > iron_depth(poor)


@given(st.floats(3600.0, 5200.0), st.floats(0.5, 4.4))
@settings(max_examples=15, deadline=None)
def test_carbon_monoxide_weakens_with_gravity(teff: float, logg: float) -> None:
    co = list(molecules()).index("CO")
    strong, weak = (line_strength(StellarParameters(teff, g, 0.0))[1][co] for g in (logg, logg + 0.5))
    assert weak < 0.8 * strong


def test_molecular_bands_grow_towards_cool_stars() -> None:
    heads = (15590.0, 15990.0, 16197.0)  # of CO
    for warm, cool in ((5500.0, 5000.0), (5000.0, 4500.0), (4500.0, 4000.0)):
        for head in heads:
            assert band_depth(replace(GIANT, teff=cool), head, 8.0) > band_depth(
                replace(GIANT, teff=warm), head, 8.0
            )
    dwarf = StellarParameters(3900.0, 4.7, 0.0)
    water = [band_depth(replace(dwarf, teff=teff), 15200.0, 40.0) for teff in (4100.0, 3600.0, 3100.0)]
    assert water == sorted(water)


def test_iron_hydride_marks_dwarfs_and_cyanogen_giants() -> None:
    names = list(molecules())
    low, high = (line_strength(StellarParameters(3400.0, logg, 0.0))[1] for logg in (3.8, 4.8))
    assert high[names.index("FeH")] > low[names.index("FeH")]
    assert high[names.index("CN")] < low[names.index("CN")]


def test_brackett_lines_grow_with_temperature() -> None:
    depths = [
        band_depth(replace(DWARF, teff=teff, fe_h=-1.4), brackett_wavelength(11), 4.0)
        for teff in (5000.0, 5600.0, 6200.0, 6800.0)
    ]
    assert depths == sorted(depths)
    assert depths[-1] > 2 * depths[0]


def test_brackett_lines_broaden_with_gravity() -> None:
    centre = brackett_wavelength(11)

    def width(logg: float) -> float:
        star = StellarParameters(6600.0, logg, -1.4)
        return band_depth(star, centre + 22.0, 6.0) / band_depth(star, centre, 4.0)

    widths = [width(logg) for logg in (1.0, 2.5, 4.0)]
    assert widths == sorted(widths)


def test_lines_of_ions_grow_towards_giants_and_those_of_ionised_metals_do_not_care() -> None:
    names = [species.name for species in SPECIES]
    giant, dwarf = (line_strength(StellarParameters(6400.0, logg, 0.0))[0] for logg in (2.0, 4.0))
    ratio = giant / dwarf
    assert ratio[names.index("Ce II")] > 2.0
    assert 0.7 < ratio[names.index("K I")] < 1.4
    assert ratio[names.index("S I")] > 1.5


def test_metals_ionise_with_temperature() -> None:
    cool, warm = (neutral_fraction(StellarParameters(teff, 4.4, 0.0), 7.9) for teff in (4000.0, 6500.0))
    assert cool > 0.5 > warm


def test_strong_lines_have_wings_in_dwarfs() -> None:
    aluminium = 16755.11
    wing_over_core = []
    for logg in (4.6, 1.5):
        opacity = line_opacity(StellarParameters(5200.0, logg, -0.5))
        at = {
            offset: blur(opacity, sketch.LINE_WIDTH_KM_S)[int(np.argmin(np.abs(GRID - aluminium - offset)))]
            for offset in (0.0, 1.2)
        }
        wing_over_core.append(at[1.2] / at[0.0])
    assert wing_over_core[0] > 1.4 * wing_over_core[1]


@given(st.floats(1e-4, 1e4), st.floats(1.1, 50.0), st.floats(0.2, 0.8))
def test_the_curve_of_growth_rises_ever_slower_to_its_limit(x: float, factor: float, deepest: float) -> None:
    weak, strong = line_depth(np.array([x, x * factor], dtype=np.float32), deepest)
    assert weak <= strong <= weak * factor * (1 + 1e-5)
    assert strong <= deepest * (1 + 1e-6)


def test_a_narrow_line_is_blurred_to_the_resolving_power() -> None:
    depth = np.zeros(sketch.N_FINE, dtype=np.float32)
    middle = 4000
    depth[sketch.MARGIN + sketch.OVERSAMPLING * middle + 1] = 1.0
    blurred = blur(depth, sketch.INSTRUMENT_KM_S)
    assert blurred.argmax() == middle
    assert blurred.sum() == pytest.approx(1 / sketch.OVERSAMPLING, rel=1e-3)
    sigma_pixels = np.sqrt(np.average((np.arange(N_PIXELS) - middle) ** 2.0, weights=blurred))
    fwhm = 2.3548 * sigma_pixels * (GRID[middle + 1] - GRID[middle])
    assert GRID[middle] / fwhm == pytest.approx(22500.0, rel=0.02)


def test_a_fast_rotator_has_shallower_lines() -> None:
    slow, fast = (sketch_spectrum(replace(GIANT, broadening_km_s=sigma)) for sigma in (1.0, 25.0))
    assert np.diff(fast).std() < 0.5 * np.diff(slow).std()


def test_a_disc_fills_the_lines() -> None:
    bare, veiled = (sketch_spectrum(replace(GIANT, veiling=veiling)) for veiling in (0.0, 1.0))
    np.testing.assert_allclose(veiled - 1.0, (bare - 1.0) / 2.0, atol=1e-5)


@given(st.floats(2800.0, 7000.0), st.floats(0.1, 10.0))
@settings(max_examples=10, deadline=None)
def test_dust_reddens(teff: float, a_v: float) -> None:
    bare, dusty = (continuum(StellarParameters(teff, 4.0, 0.0, a_v=a)) for a in (0.0, a_v))
    assert (np.diff(dusty / bare) > 0).all()


def test_known_wavelengths_are_where_they_should_be() -> None:
    assert brackett_wavelength(11) == pytest.approx(16811.1, abs=0.1)
    assert brackett_wavelength(20) == pytest.approx(15196.0, abs=0.1)
    co = sketch_molecules.carbon_monoxide()
    for head in (15581.7, 15779.6, 15982.1, 16189.3):  # nothing of a band lies blueward of its head
        beyond = co.wavelength - head
        assert beyond[beyond > -0.1].min() < 0.1
        pile_up = np.count_nonzero((beyond > -0.1) & (beyond < 8.0))
        assert pile_up > 2 * np.count_nonzero((beyond > -8.1) & (beyond < -0.1))
    flux = sketch_spectrum(StellarParameters(5777.0, 4.44, 0.0))
    for at, _ in MAGNESIUM_LINES[:3]:
        pixel = int(np.argmin(np.abs(GRID - at)))
        assert flux[pixel - 6 : pixel + 7].argmin() in (5, 6, 7)


@pytest.mark.parametrize(
    "star",
    [
        StellarParameters(6500.0, 4.2, 0.0),
        StellarParameters(4700.0, 2.4, -0.8),
        StellarParameters(4000.0, 1.2, 0.0),
        StellarParameters(4700.0, 4.6, 0.0),
        StellarParameters(3800.0, 4.7, 0.0),
        StellarParameters(3000.0, 5.1, 0.0),
        StellarParameters(3400.0, 3.7, 0.0),
    ],
)
def test_labels_can_be_told_apart_at_a_signal_to_noise_of_fifty(star: StellarParameters) -> None:
    nuisances = {"broadening_km_s": 4.0, "a_v": 1.0, "veiling": 0.02}
    logg, teff, fe_h = information(replace(star, **nuisances), 50.0)
    assert logg < 0.08  # the noise of label tables
    assert teff < 60.0
    assert fe_h < 0.03


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "star"),
    [
        ("apStar-r6-2M00005143+5615568.fits", StellarParameters(4700.0, 2.7, 0.0, broadening_km_s=2.0)),
        ("apStar-r6-2M17334253-1654573.fits", StellarParameters(3800.0, 1.0, 0.0, broadening_km_s=2.0)),
    ],
)
def test_lines_lie_where_real_giants_have_them(name: str, star: StellarParameters, shared_data: Path) -> None:
    with fits.open(shared_data / "apstar" / name) as hdus:
        flux, err = (hdus[number].data[0].astype(np.float64) for number in (1, 2))
    good = err < 3 * np.median(err)

    def lines(spectrum: FloatArray) -> FloatArray:
        """Take out all that is broader than lines."""
        filled = np.where(good, spectrum / np.median(spectrum[good]), 1.0)
        smooth = np.convolve(filled, np.full(101, 1 / 101), mode="same")
        return np.where(good, np.clip(filled / smooth, 0.4, 1.3) - 1.0, 0.0)

    real, ours = lines(flux), lines(sketch_spectrum(star))
    likeness = [np.corrcoef(np.roll(real, shift), ours)[0, 1] for shift in range(-20, 21)]
    assert abs(int(np.argmax(likeness)) - 20) <= 1
    assert max(likeness) > 0.3
    assert np.std(likeness[:17]) < 0.1
