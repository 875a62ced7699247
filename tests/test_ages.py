"""Ages by interpolation on isochrones: laws on a family whose ages are known, then the published tables."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.catalog.selection import YSO_VERTICES, Polygon
from apogee_batch.errors import UsageError
from apogee_batch.labels.age_mesh import AgeMesh, build_mesh
from apogee_batch.labels.ages import AGE_FLAGS, AgeEstimates, estimate_ages
from apogee_batch.labels.isochrones import Isochrone, Isochrones, read_isochrones
from apogee_batch.schema import DoubleArray

MASSES = np.geomspace(0.1, 1.5, 30)
LOG_AGES = np.log10([0.5e6, 1e6, 2e6, 4e6, 8e6, 15e6, 30e6])
UNKNOWN = math.nan


def log_teff_of(log_mass: DoubleArray, log_age: DoubleArray) -> DoubleArray:
    """Stars that contract at a Teff which depends on their mass, and hardly on their age."""
    return 3.62 + 0.13 * log_mass + 0.01 * (log_age - 6)


def logg_of(log_mass: DoubleArray, log_age: DoubleArray) -> DoubleArray:
    return 3.5 - 0.1 * log_mass + 0.6 * (log_age - 6)


def isochrone(log_age: float, mass: DoubleArray = MASSES, stage: int = 0) -> Isochrone:
    age, nothing = np.full(mass.size, log_age), np.zeros(mass.size)
    log_teff, logg = log_teff_of(np.log10(mass), age), logg_of(np.log10(mass), age)
    return Isochrone(
        log_age, mass, log_teff, logg, nothing, nothing, {}, np.full(mass.size, stage, np.int32), "analytic"
    )


def family(log_ages: DoubleArray = LOG_AGES) -> Isochrones:
    return Isochrones(tuple(isochrone(float(log_age)) for log_age in log_ages))


MESH = build_mesh(family())


def ages_of(
    mesh: AgeMesh, log_teff: DoubleArray, logg: DoubleArray, e_teff: float = UNKNOWN, e_logg: float = UNKNOWN
) -> AgeEstimates:
    n = len(log_teff)
    return estimate_ages(mesh, 10**log_teff, logg, np.full(n, e_teff), np.full(n, e_logg))


def has_flag(ages: AgeEstimates, name: str) -> list[bool]:
    return (ages.flags & (1 << AGE_FLAGS[name][0]) != 0).tolist()


inside = st.tuples(st.floats(math.log10(0.1), math.log10(1.5)), st.floats(LOG_AGES[0], LOG_AGES[-1]))


@settings(max_examples=50, deadline=None)
@given(st.lists(inside, min_size=1, max_size=20))
def test_a_star_gets_the_age_and_mass_that_it_was_made_with(stars: list[tuple[float, float]]) -> None:
    log_mass, log_age = np.array(stars).T
    ages = ages_of(MESH, log_teff_of(log_mass, log_age), logg_of(log_mass, log_age))
    np.testing.assert_allclose(ages.log_age, log_age, atol=1e-9)
    np.testing.assert_allclose(np.log10(ages.mass), log_mass, atol=1e-9)
    assert not ages.flags.any()


def test_a_star_on_an_isochrone_gets_its_age_also_when_it_was_rounded_to_float32() -> None:
    for one in family().isochrones:
        teff, logg = (10**one.log_teff).astype(np.float32), one.logg.astype(np.float32)
        nothing = np.full(teff.size, UNKNOWN)
        ages = estimate_ages(MESH, teff, logg, nothing, nothing)
        np.testing.assert_allclose(ages.log_age, one.log_age, atol=1e-4)
        np.testing.assert_allclose(ages.mass, one.mass, rtol=1e-4)
        assert not ages.flags.any()


@settings(max_examples=20, deadline=None)
@given(st.lists(inside, min_size=2, max_size=20), st.randoms(use_true_random=False))
def test_a_star_does_not_depend_on_its_neighbours(stars: list[tuple[float, float]], random: object) -> None:
    log_mass, log_age = np.array(stars).T
    x, y = log_teff_of(log_mass, log_age), logg_of(log_mass, log_age)
    order = list(range(len(stars)))
    random.shuffle(order)  # type: ignore[attr-defined]
    together, other = ages_of(MESH, x, y, 60, 0.1), ages_of(MESH, x[order], y[order], 60, 0.1)
    alone = ages_of(MESH, x[:1], y[:1], 60, 0.1)
    for name in ("log_age", "e_log_age", "mass", "e_mass", "flags"):
        np.testing.assert_array_equal(getattr(together, name)[order], getattr(other, name))
        np.testing.assert_array_equal(getattr(together, name)[:1], getattr(alone, name))


@given(st.floats(-0.5, 0.5), st.floats(-2, 2))
@settings(max_examples=20, deadline=None)
def test_what_shifts_isochrones_and_stars_alike_changes_no_age(by_x: float, by_y: float) -> None:
    shifted = Isochrones(
        tuple(
            Isochrone(
                o.log_age,
                o.mass,
                o.log_teff + by_x,
                o.logg + by_y,
                o.log_luminosity,
                o.log_radius,
                {},
                o.stage,
                "",
            )
            for o in family().isochrones
        )
    )
    log_mass, log_age = np.array([-0.5, -0.1, 0.0]), np.array([6.1, 6.5, 7.2])
    x, y = log_teff_of(log_mass, log_age), logg_of(log_mass, log_age)
    ages = ages_of(build_mesh(shifted), x + by_x, y + by_y)
    np.testing.assert_allclose(ages.log_age, log_age, atol=1e-8)


def test_more_masses_along_a_straight_isochrone_change_nothing() -> None:
    finer = Isochrones(
        tuple(isochrone(float(age), np.geomspace(0.1, 1.5, 7 + 13 * i)) for i, age in enumerate(LOG_AGES))
    )
    log_mass, log_age = np.array([-0.9, -0.5, 0.1]), np.array([5.8, 6.5, 7.4])
    x, y = log_teff_of(log_mass, log_age), logg_of(log_mass, log_age)
    np.testing.assert_allclose(ages_of(build_mesh(finer), x, y).log_age, log_age, atol=1e-9)


@pytest.mark.parametrize(("e_teff", "e_logg"), [(0.0, 0.05), (60.0, 0.0), (60.0, 0.05), (0.0, 0.0)])
def test_errors_of_the_age_follow_from_those_of_teff_and_logg(e_teff: float, e_logg: float) -> None:
    log_mass, log_age = np.array([-0.4]), np.array([6.6])
    x, y = log_teff_of(log_mass, log_age), logg_of(log_mass, log_age)
    ages = ages_of(MESH, x, y, e_teff, e_logg)
    e_x = e_teff / 10 ** x[0] / math.log(10)
    inverse = np.linalg.inv([[0.13, 0.01], [-0.1, 0.6]])  # of (log Teff, log g) by (log mass, log age)
    e_log_mass, e_log_age = np.hypot(inverse[:, 0] * e_x, inverse[:, 1] * e_logg)
    assert ages.e_log_age[0] == pytest.approx(e_log_age, rel=0.01, abs=1e-9)
    assert ages.e_mass[0] == pytest.approx(10 ** log_mass[0] * math.log(10) * e_log_mass, rel=0.02, abs=1e-9)


@pytest.mark.parametrize(("e_teff", "e_logg"), [(UNKNOWN, 0.1), (60, UNKNOWN), (math.inf, 0.1), (-1, 0.1)])
def test_without_errors_of_its_labels_an_age_has_none(e_teff: float, e_logg: float) -> None:
    ages = ages_of(MESH, np.array([3.6]), np.array([3.8]), e_teff, e_logg)
    assert np.isfinite(ages.log_age[0])
    assert np.isnan([ages.e_log_age[0], ages.e_mass[0]]).all()
    assert not ages.flags[0]


def test_outside_the_isochrones_there_is_no_age_and_a_flag() -> None:
    x = np.array([3.60, 3.60, 3.30, 3.90, 3.6])
    y = np.array([3.00, 4.90, 3.80, 3.80, 3.8])
    ages = ages_of(MESH, x, y, 60, 0.1)
    assert has_flag(ages, "AGE_OUTSIDE_GRID") == [True] * 4 + [False]
    assert has_flag(ages, "AGE_YOUNGER_THAN_GRID") == [True] + [False] * 4
    for values in (ages.log_age, ages.e_log_age, ages.mass, ages.e_mass):
        assert np.isnan(values[:4]).all()
        assert np.isfinite(values[4])


def test_without_a_prediction_there_is_no_age_and_a_flag() -> None:
    nothing = np.array([UNKNOWN])
    for teff, logg in [(UNKNOWN, 3.8), (4000, UNKNOWN), (-5, 3.8), (0, 3.8)]:
        ages = estimate_ages(MESH, np.array([teff], float), np.array([logg]), nothing, nothing)
        assert np.isnan(ages.log_age[0])
        assert has_flag(ages, "AGE_OUTSIDE_GRID") == [True]
        assert has_flag(ages, "AGE_YOUNGER_THAN_GRID") == [False]


def test_no_stars_have_no_ages() -> None:
    nothing = np.array([], float)
    assert estimate_ages(MESH, nothing, nothing, nothing, nothing).log_age.shape == (0,)


def test_an_error_that_reaches_beyond_the_isochrones_is_flagged() -> None:
    log_mass, log_age = np.full(2, -0.4), np.array([LOG_AGES[0] + 0.01, 6.6])
    ages = ages_of(MESH, log_teff_of(log_mass, log_age), logg_of(log_mass, log_age), 30, 0.1)
    assert has_flag(ages, "AGE_ERROR_TRUNCATED") == [True, False]


def folded(n_back: int = 2) -> Isochrones:
    """Isochrones that cover one strip twice: log g rises with age, then falls again."""
    grid = [1e6, 2e6, 4e6, 8e6, 16e6][: 3 + n_back]
    logg = [3.5, 3.8, 4.1, 3.8, 3.5]
    ones = [isochrone(math.log10(age)) for age in grid]
    return Isochrones(
        tuple(
            Isochrone(
                o.log_age,
                o.mass,
                3.62 + 0.13 * np.log10(o.mass),
                np.full(o.mass.size, value),
                o.logg,
                o.logg,
                {},
                o.stage,
                "",
            )
            for o, value in zip(ones, logg, strict=False)
        )
    )


def test_where_isochrones_fold_a_star_gets_the_youngest_age_and_a_flag() -> None:
    x, y = np.array([3.6, 3.58]), np.array([3.65, 3.95])
    for isochrones, is_ambiguous in ((folded(), True), (folded(0), False)):
        ages = ages_of(build_mesh(isochrones), x, y)
        np.testing.assert_allclose(ages.log_age, np.log10([2**0.5 * 1e6, 2**1.5 * 1e6]), atol=1e-9)
        assert has_flag(ages, "AGE_AMBIGUOUS") == [is_ambiguous] * 2


def test_where_a_cell_itself_is_folded_a_star_gets_the_younger_of_its_ages() -> None:
    mass = np.array([0.5, 1.0])
    ends = [
        ([3.5, 3.7], [3.0, 3.0]),
        ([3.7, 3.5], [4.0, 4.0]),
    ]  # the heavier star of one age, the lighter of the other
    made = [
        Isochrone(age, mass, np.array(x), np.array(y), mass, mass, {}, np.zeros(2, np.int32), "")
        for age, (x, y) in zip((6.0, 6.5), ends, strict=True)
    ]
    mesh = build_mesh(Isochrones(tuple(made)))
    ages = ages_of(mesh, np.array([3.55, 3.65, 3.6]), np.array([3.2, 3.2, 3.1]))
    np.testing.assert_allclose(ages.log_age, [6.1, 6.1, 6.05], atol=1e-9)


def test_of_isochrones_older_than_the_limit_nothing_is_known() -> None:
    mesh = build_mesh(family(), max_age_myr=4)
    np.testing.assert_allclose(mesh.age_intervals_myr, [(0.5, 4)])
    ages = ages_of(mesh, *(f(np.array([-0.4, -0.4]), np.array([6.5, 6.8])) for f in (log_teff_of, logg_of)))
    assert has_flag(ages, "AGE_OUTSIDE_GRID") == [False, True]


def test_a_wide_step_between_isochrones_is_a_gap() -> None:
    mesh = build_mesh(family(np.array([6.0, 6.3, 7.5, 7.7])))
    np.testing.assert_allclose(mesh.age_intervals_myr, [(1, 10**0.3), (10**1.5, 10**1.7)])
    ages = ages_of(mesh, *(f(np.full(3, -0.4), np.array([6.2, 7.0, 7.6])) for f in (log_teff_of, logg_of)))
    assert has_flag(ages, "AGE_OUTSIDE_GRID") == [False, True, False]


def test_stars_beyond_the_main_sequence_are_no_corners_of_cells() -> None:
    stage = np.where(MASSES > 0.8, 2, 1).astype(np.int32)
    made = [
        Isochrone(o.log_age, o.mass, o.log_teff, o.logg, o.log_luminosity, o.log_radius, {}, stage, "")
        for o in family().isochrones
    ]
    mesh = build_mesh(Isochrones(tuple(made)))
    assert 10 ** mesh.log_mass.max() <= 0.8


@pytest.mark.parametrize("log_ages", [[6.0], [6.0, 7.5], [8.5, 8.7]])
def test_isochrones_that_span_no_young_age_are_refused(log_ages: list[float]) -> None:
    with pytest.raises(UsageError, match=r"no ages can be interpolated.*--max-age"):
        build_mesh(family(np.array(log_ages)))


def test_isochrones_without_masses_in_common_are_refused() -> None:
    apart = Isochrones((isochrone(6.0, np.array([0.1, 0.2])), isochrone(6.3, np.array([0.5, 0.9]))))
    with pytest.raises(UsageError, match="masses in common"):
        build_mesh(apart)


def check_published(isochrones: Isochrones, *, max_mass: float) -> None:
    """Up to a mass all stars still contract, and get their ages; beyond it some get a younger one."""
    mesh = build_mesh(isochrones)
    for one in isochrones.isochrones:
        if one.log_age in mesh.log_age:
            is_known = (one.mass <= one.mass_range(1)[1]) & (one.mass >= 0.1)
            ages = ages_of(mesh, one.log_teff[is_known], one.logg[is_known])
            is_light = one.mass[is_known] <= max_mass
            np.testing.assert_allclose(ages.log_age[is_light], one.log_age, atol=1e-6)
            np.testing.assert_allclose(ages.mass[is_light], one.mass[is_known][is_light], rtol=1e-4)
            assert not ages.flags[is_light].any()
            difference = one.log_age - ages.log_age[np.isfinite(ages.log_age)]
            assert (difference >= -1e-6).all()


@pytest.mark.data
def test_stars_on_the_isochrones_of_bhac15_get_their_ages(shared_data: Path) -> None:
    isochrones = read_isochrones([shared_data / "isochrones" / "BHAC15_iso.2mass.txt"])
    check_published(isochrones, max_mass=0.7)
    [(first, last)] = build_mesh(isochrones).age_intervals_myr
    assert (first, last) == pytest.approx((0.5, 100))


@pytest.mark.data
def test_stars_on_the_isochrones_of_parsec_get_their_ages(shared_data: Path) -> None:
    files = sorted((shared_data / "isochrones").glob("parsec*.dat"))
    isochrones = read_isochrones(files)
    check_published(isochrones, max_mass=1.2)
    assert len(isochrones.isochrones) == 3
    [(first, last)] = build_mesh(isochrones).age_intervals_myr  # that of 1 Gyr is left out
    assert (first, last) == pytest.approx((4, 15), rel=1e-3)


@pytest.mark.data
def test_both_families_of_isochrones_agree_on_a_young_star(shared_data: Path) -> None:
    folder, nothing = shared_data / "isochrones", np.full(2, UNKNOWN)
    teff, logg = np.array([3400.0, 3900.0]), np.array([4.0, 4.15])
    found = [
        estimate_ages(build_mesh(read_isochrones(files)), teff, logg, nothing, nothing)
        for files in ([folder / "BHAC15_iso.2mass.txt"], sorted(folder.glob("parsec*.dat")))
    ]
    np.testing.assert_allclose(found[0].log_age, found[1].log_age, atol=0.3)


@pytest.mark.data
def test_what_the_documents_say_of_ages_in_the_polygon_holds(shared_data: Path) -> None:
    teff, logg = (
        axis.ravel() for axis in np.meshgrid(np.linspace(2200, 4500, 120), np.linspace(1.7, 4.4, 120))
    )
    is_inside = Polygon(YSO_VERTICES).contains(teff, logg)
    teff, logg, sigma = teff[is_inside], logg[is_inside], np.full(is_inside.sum(), 1.0)
    folder = shared_data / "isochrones"
    found = [
        estimate_ages(build_mesh(read_isochrones(files)), teff, logg, 60 * sigma, 0.08 * sigma)
        for files in ([folder / "BHAC15_iso.2mass.txt"], sorted(folder.glob("parsec*.dat")))
    ]
    assert not any(has_flag(found[0], "AGE_AMBIGUOUS") + has_flag(found[1], "AGE_AMBIGUOUS"))
    shares = [np.isfinite(ages.log_age).mean() for ages in found]
    assert shares == pytest.approx([0.55, 0.12], abs=0.02)
    assert np.mean(has_flag(found[0], "AGE_YOUNGER_THAN_GRID")) == pytest.approx(0.43, abs=0.02)
    assert np.nanmedian(found[0].e_log_age) == pytest.approx(0.11, abs=0.01)
