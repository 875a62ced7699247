"""Synthetic young stars: how they are drawn, and what is told of them."""

from pathlib import Path

import numpy as np
import pytest
from young_isochrones import true_star, write_bhac15, write_parsec

from apogee_batch.errors import UsageError
from apogee_batch.labels.extinction import band_extinction
from apogee_batch.labels.isochrones import Isochrones, read_isochrones
from apogee_batch.labels.synthetic_stars import (
    LIMITS_MAG,
    OUTPUTS,
    SyntheticSettings,
    SyntheticStars,
    arrange_inputs,
    draw_synthetic_stars,
    drawable_ages,
)

BANDS = {"g_gaia": "G", "bp": "G_BP", "rp": "G_RP", "j": "J", "h": "H", "k": "Ks"}
RICH = SyntheticSettings(uses_radius_luminosity=True)


@pytest.fixture(scope="module")
def isochrones(tmp_path_factory: pytest.TempPathFactory) -> Isochrones:
    path = tmp_path_factory.mktemp("parsec") / "parsec.dat"
    return read_isochrones([write_parsec(path, (1.0, 3.0, 10.0, 30.0, 100.0))])


@pytest.fixture(scope="module")
def stars(isochrones: Isochrones) -> SyntheticStars:
    return draw_synthetic_stars(isochrones, RICH, n_stars=5000, seed=3, purpose="train")


def _input(stars: SyntheticStars, name: str) -> np.ndarray:
    return stars.inputs.values[:, RICH.inputs.index(name)]


def _given(stars: SyntheticStars, name: str) -> np.ndarray:
    return stars.inputs.is_given[:, RICH.inputs.index(name)]


def _output(stars: SyntheticStars, name: str) -> np.ndarray:
    return stars.outputs[:, OUTPUTS.index(name)]


def test_what_is_drawn_fills_the_ranges_of_the_paper(isochrones: Isochrones) -> None:
    deep = SyntheticSettings(limits_mag=dict.fromkeys(BANDS, 60.0))  # nothing is too faint: drawn as asked
    stars = draw_synthetic_stars(isochrones, deep, n_stars=20_000, seed=0, purpose="train")
    distance = 10 ** stars.inputs.values[:, -1]
    age = 10 ** (_output(stars, "log_age") - 6)
    drawn = {"mass": (_output(stars, "mass"), 0.1, 3.0), "a_v": (_output(stars, "a_v"), 0.0, 20.0)}
    drawn |= {"distance": (distance, 50.0, 1000.0), "age": (age, 1.0, 100.0)}
    for values, low, high in drawn.values():
        assert low <= values.min()
        assert values.max() <= high
        counts = np.histogram(values, bins=10, range=(low, high))[0]
        assert np.all(np.abs(counts - 2000) < 250)  # evenly: 42 is one sigma


def test_log_ages_may_be_drawn_evenly_instead(isochrones: Isochrones) -> None:
    deep = SyntheticSettings(limits_mag=dict.fromkeys(BANDS, 60.0), draws_log_age=True)
    stars = draw_synthetic_stars(isochrones, deep, n_stars=20_000, seed=0, purpose="train")
    counts = np.histogram(_output(stars, "log_age"), bins=10, range=(6.0, 8.0))[0]
    assert np.all(np.abs(counts - 2000) < 250)


def test_a_star_looks_as_its_model_does_behind_dust_at_its_distance(stars: SyntheticStars) -> None:
    model = true_star(_output(stars, "mass"), _output(stars, "log_age"))
    np.testing.assert_allclose(_output(stars, "logg"), model["logg"], atol=1e-6)
    np.testing.assert_allclose(_output(stars, "log_teff"), model["log_teff"], atol=1e-6)
    for ours, theirs in BANDS.items():
        dust = band_extinction(ours, _output(stars, "a_v"), _output(stars, "log_teff"))
        expected = model[theirs] + 5 * _input(stars, "log_distance") - 5 + dust
        is_given = _given(stars, ours)
        np.testing.assert_allclose(_input(stars, ours)[is_given], expected[is_given], atol=1e-5)
        np.testing.assert_array_equal(is_given, expected < LIMITS_MAG[ours])


def test_magnitudes_may_be_given_errors(isochrones: Isochrones) -> None:
    exact, noisy = (
        draw_synthetic_stars(
            isochrones,
            SyntheticSettings(limits_mag=dict.fromkeys(BANDS, 60.0), scatter_mag=scatter),
            n_stars=4000,
            seed=2,
            purpose="train",
        )
        for scatter in (0.0, 0.05)
    )
    first = slice(3900)  # of one round of drawing
    np.testing.assert_array_equal(exact.outputs[first], noisy.outputs[first])
    difference = (noisy.inputs.values - exact.inputs.values)[first, :6]
    np.testing.assert_allclose(difference.std(axis=0), 0.05, rtol=0.05)
    assert abs(np.corrcoef(difference[:, 0], difference[:, 5])[0, 1]) < 0.06


def test_a_band_too_faint_is_set_to_its_limit_and_h_never_is(stars: SyntheticStars) -> None:
    assert _given(stars, "h").all()
    for band in ("g_gaia", "bp", "rp", "j", "k"):
        too_faint = ~_given(stars, band)
        assert np.all(_input(stars, band)[too_faint] == LIMITS_MAG[band])
    assert 0.1 < (~_given(stars, "bp")).mean() < 0.9


def test_radius_and_luminosity_are_given_where_gaia_gives_them(stars: SyntheticStars) -> None:
    radius = true_star(_output(stars, "mass"), _output(stars, "log_age"))["log_radius"]
    teff = 10 ** _output(stars, "log_teff")
    may = (
        (_input(stars, "g_gaia") <= 17.0) & (teff >= 3300.0) & (teff <= 10_000.0) & (radius >= np.log10(0.5))
    )
    has = _given(stars, "log_radius")
    assert not np.any(has & ~may)
    assert has[may].mean() == pytest.approx(0.8, abs=0.05)
    np.testing.assert_array_equal(has, _given(stars, "log_luminosity"))
    np.testing.assert_allclose(_input(stars, "log_radius")[has], radius[has], atol=1e-6)
    assert np.all(_input(stars, "log_radius")[~has] == 0.0)


def test_the_same_seed_draws_the_same_stars_and_another_purpose_others(isochrones: Isochrones) -> None:
    first, again, other, test = (
        draw_synthetic_stars(isochrones, RICH, n_stars=50, seed=seed, purpose=purpose)
        for seed, purpose in ((1, "train"), (1, "train"), (2, "train"), (1, "test"))
    )
    np.testing.assert_array_equal(first.inputs.values, again.inputs.values)
    for some in (other, test):
        assert not np.isin(some.outputs[:, 1], first.outputs[:, 1]).any()


def test_ages_are_restricted_to_what_the_tables_cover(tmp_path: Path) -> None:
    read = read_isochrones([write_parsec(tmp_path / "p.dat", (4.0, 15.0, 50.0, 1000.0))])
    spans = [(10 ** (a - 6), 10 ** (b - 6)) for a, b in drawable_ages(read, SyntheticSettings())]
    assert spans == [pytest.approx((4.0, 50.0))]
    two = read_isochrones([write_parsec(tmp_path / "q.dat", (1.0, 2.0, 40.0, 80.0))])
    assert len(drawable_ages(two, SyntheticSettings())) == 2
    drawn = draw_synthetic_stars(two, SyntheticSettings(), n_stars=2000, seed=0, purpose="train")
    age = 10 ** (_output(drawn, "log_age") - 6)
    assert not np.any((age > 2.0001) & (age < 39.999))
    assert np.any(age < 2)
    assert np.any(age > 40)


def test_isochrones_that_cover_nothing_are_refused_with_a_remedy(tmp_path: Path) -> None:
    apart = read_isochrones([write_parsec(tmp_path / "p.dat", (4.0, 1000.0))])
    with pytest.raises(UsageError, match=r"4, 1e\+03\).*--max-age-gap"):
        drawable_ages(apart, SyntheticSettings())
    only_2mass = read_isochrones([write_bhac15(tmp_path / "b.txt", (4.0, 8.0))])
    with pytest.raises(UsageError, match=r"no band g_gaia, bp, rp \(they have j, h, k\)"):
        drawable_ages(only_2mass, SyntheticSettings())
    drawn = draw_synthetic_stars(
        only_2mass, SyntheticSettings(bands=("j", "h", "k")), n_stars=20, seed=0, purpose="test"
    )
    assert drawn.inputs.values.shape == (20, 4)


def test_stars_that_are_never_bright_enough_end_the_search(isochrones: Isochrones) -> None:
    blind = SyntheticSettings(limits_mag={"h": -30.0})
    with pytest.raises(UsageError, match="limiting magnitudes"):
        draw_synthetic_stars(isochrones, blind, n_stars=5, seed=0, purpose="train")


def test_a_band_without_a_known_limit_asks_for_one() -> None:
    with pytest.raises(UsageError, match="--limit w1=MAG"):
        SyntheticSettings(bands=("h", "w1"))
    assert SyntheticSettings(bands=("h", "w1"), limits_mag={"w1": 16.0}).limits["w1"] == 16.0
    with pytest.raises(UsageError, match="band h must be among"):
        SyntheticSettings(bands=("j", "k"))


def test_missing_and_faint_measurements_are_told_alike() -> None:
    settings = SyntheticSettings(bands=("j", "h"))
    magnitude = {"j": np.array([np.nan, 15.9, 15.7]), "h": np.array([12.0, 12.0, 12.0])}
    inputs = arrange_inputs(settings, magnitude, {"log_distance": np.full(3, 2.0)})
    assert inputs.values[:, 0].tolist() == [15.8, 15.8, 15.7]
    assert inputs.is_given[:, 0].tolist() == [False, False, True]


def test_settings_survive_json() -> None:
    assert SyntheticSettings.from_json(RICH.to_json()) == RICH
