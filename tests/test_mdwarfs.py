"""Labels of M dwarfs: who gets one, who does not and why, and how large their errors are."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mdwarf_stars import NAN, photometry_of, relation, settings_of
from pydantic import ValidationError

from apogee_batch.errors import UsageError
from apogee_batch.labels.mann2015 import TEFF_RELATIONS
from apogee_batch.labels.mdwarf_selection import MDwarfReason, young_field_of
from apogee_batch.labels.mdwarf_settings import MDwarfSettings, PolynomialRelation
from apogee_batch.labels.mdwarfs import MDwarfLabels, label_mdwarfs, mann2015_logg
from apogee_batch.labels.monte_carlo import StarDraws, half_interval

MANY = {"realizations": 20_000}


def label_one(star: dict[str, float], **sections: Any) -> MDwarfLabels:
    return label_mdwarfs(photometry_of([star]), settings_of(**sections))


def test_a_field_dwarf_gets_the_labels_of_the_relations() -> None:
    labels = label_one({}, relations={"teff_relation": "bp-rp"})
    teff = 3500 * (3.245 - 6.07725 + 6.51875 - 3.3234375 + 0.644140625)
    assert labels.reason == (None,)
    assert labels.values["teff"] == pytest.approx([teff])
    assert labels.values["fe_h"] == pytest.approx([0.1])
    assert labels.values["logg"] == pytest.approx(mann2015_logg(np.array([teff]), np.array([0.1])))
    assert labels.values["m_k"] == pytest.approx([8 + 5 * np.log10(50) - 10])


def test_both_ways_to_radius_and_mass_are_told() -> None:
    labels = label_one({"parallax": 10 ** ((7.0 - 8.0 + 10) / 5), "fe_h": -0.3})  # M_K = 7
    assert labels.values["radius_m_k"] == pytest.approx([0.31133 * 0.986626])
    assert labels.values["mass_m_k"] == pytest.approx([0.29623011], abs=1e-7)
    logg = 4.438 + np.log10(0.29623011) - 2 * np.log10(0.31133 * 0.986626)
    assert labels.values["logg_m_k"] == pytest.approx([logg], abs=1e-6)


@pytest.mark.parametrize(
    ("star", "reason"),
    [
        ({"k": NAN}, MDwarfReason.MISSING_BAND),
        ({"e_k": NAN}, MDwarfReason.MISSING_BAND),
        ({"g": NAN}, MDwarfReason.MISSING_BAND),
        ({"parallax": NAN}, MDwarfReason.NO_PARALLAX),
        ({"parallax_error": NAN}, MDwarfReason.NO_PARALLAX),
        ({"parallax": -50.0}, MDwarfReason.WEAK_PARALLAX),
        ({"parallax": 0.0, "parallax_error": 0.0}, MDwarfReason.WEAK_PARALLAX),
        ({"parallax_error": 5.01}, MDwarfReason.WEAK_PARALLAX),
        ({"j": 9.06}, MDwarfReason.OUTSIDE_CUTS),
        ({"j": 8.69}, MDwarfReason.OUTSIDE_CUTS),
        ({"g": 16.47}, MDwarfReason.OUTSIDE_CUTS),
        ({"g": 11.36}, MDwarfReason.OUTSIDE_CUTS),
        ({"parallax": 25.0}, MDwarfReason.OUTSIDE_CUTS),  # M_K = 4.99
        ({"parallax": 252.0}, MDwarfReason.OUTSIDE_CUTS),  # M_K = 10.007
        ({"parallax": 240.0}, MDwarfReason.M_K_OUT_OF_RANGE),  # M_K = 9.901
        ({"fe_h": NAN}, MDwarfReason.NO_FE_H),
        ({"e_fe_h": NAN}, MDwarfReason.NO_FE_H),
        ({"e_fe_h": -1.0}, MDwarfReason.NO_FE_H),
        ({"fe_h": 0.5}, MDwarfReason.FE_H_OUT_OF_RANGE),
        ({"fe_h": -0.6}, MDwarfReason.FE_H_OUT_OF_RANGE),
        ({"bp": NAN, "r": NAN, "v": NAN}, MDwarfReason.NO_TEFF_COLOR),
        ({"v": 15.5}, MDwarfReason.TEFF_COLOR_OUT_OF_RANGE),  # V-J = 6.65; comes out at 2807 K again
        ({"v": 11.3}, MDwarfReason.TEFF_OUT_OF_RANGE),  # V-J = 2.45: 4150 K
        ({"parallax_error": 0.0, "e_v": 4.0}, MDwarfReason.TOO_UNCERTAIN),
    ],
)
def test_a_star_of_no_use_says_why(star: dict[str, float], reason: MDwarfReason) -> None:
    labels = label_one(star)
    assert labels.reason == (reason,)
    assert labels.teff_relation == ("",)
    assert all(np.isnan(column).all() for column in (*labels.values.values(), *labels.errors.values()))


@pytest.mark.parametrize(
    "star",
    [
        {"parallax_error": 4.99},
        {"j": 9.04},
        {"j": 8.71},
        {"g": 16.45},
        {"g": 11.38},
        {"parallax": 25.5},  # M_K = 5.03
        {"parallax": 228.0},  # M_K = 9.79
        {"fe_h": 0.49},
        {"fe_h": -0.59},
    ],
)
def test_a_star_just_inside_the_limits_gets_a_label(star: dict[str, float]) -> None:
    assert label_one(star).reason == (None,)


def test_stars_without_a_name_and_repeated_stars_get_no_label() -> None:
    labels = label_mdwarfs(photometry_of([{}] * 4, names=["2M1", "", "2M1", ""]), settings_of())
    assert labels.reason == (None, MDwarfReason.NO_NAME, MDwarfReason.DUPLICATE, MDwarfReason.NO_NAME)


def test_stars_of_young_fields_are_left_out_by_name() -> None:
    fields = ["ORIONA", "M67", "", "IC348_RV1", "lambda-Ori B", "NGC 2264", "Pleiades-W", "N1333", "348+00"]
    labels = label_mdwarfs(photometry_of([{}] * len(fields), fields=fields), settings_of())
    young = [reason is MDwarfReason.YOUNG_FIELD for reason in labels.reason]
    assert young == [True, False, False, True, True, True, True, True, False]


def test_the_list_of_young_fields_is_a_setting() -> None:
    stars = photometry_of([{}, {}], fields=["ORIONA", "TAUL1536"])
    labels = label_mdwarfs(stars, settings_of(selection={"young_fields": ["Taul*"]}))
    assert labels.reason == (None, MDwarfReason.YOUNG_FIELD)
    assert label_mdwarfs(stars, settings_of(selection={"young_fields": []})).reason == (None, None)
    assert not young_field_of("A.B", ["A?C", "AxB"])


def test_other_cuts_take_the_place_of_the_papers() -> None:
    star = {"g": NAN, "j": 9.2, "parallax": 21.0}
    cuts = {"cuts": {"j-k": [0.0, 2.0], "m_k": [4.5, 11.0]}}
    assert label_one(star, selection=cuts).reason == (None,)


def test_without_cuts_the_absolute_magnitude_still_needs_its_band() -> None:
    labels = label_mdwarfs(photometry_of([{"k": NAN}, {"g": NAN}]), settings_of(selection={"cuts": {}}))
    assert labels.reason == (MDwarfReason.MISSING_BAND, None)


def test_a_stated_error_does_not_make_a_measurement_of_an_upper_limit() -> None:
    assert label_one({"e_k": NAN}, errors={"magnitude": 0.03}).reason == (MDwarfReason.MISSING_BAND,)


def test_the_relation_of_the_smallest_scatter_is_taken_that_a_star_has_the_bands_for() -> None:
    stars: list[dict[str, float]] = [{}, {"v": NAN}, {"v": NAN, "e_bp": NAN}, {"v": NAN, "bp": NAN, "r": NAN}]
    labels = label_mdwarfs(photometry_of(stars), settings_of())
    assert labels.teff_relation == ("v-j+fe_h", "bp-rp+fe_h", "r-j+fe_h", "")


@pytest.mark.parametrize("name", TEFF_RELATIONS)
def test_every_relation_can_be_asked_for_by_name(name: str) -> None:
    labels = label_one({}, relations={"teff_relation": name})
    blue, red = (photometry_of().magnitude[band] for band in TEFF_RELATIONS[name].bands)
    assert labels.teff_relation == (name,)
    assert labels.values["teff"] == pytest.approx(
        TEFF_RELATIONS[name].temperature(blue - red, np.array([0.1]))
    )


@pytest.mark.parametrize(("parallax", "is_fainter"), [(30.0, False), (100.0, True)])
def test_a_star_that_two_relations_place_apart_can_be_refused(parallax: float, is_fainter: bool) -> None:
    star = {"parallax": parallax}
    labels = label_one(star)
    difference = (labels.values["logg_m_k"] - labels.values["logg"])[0]
    assert (difference > 0) == is_fainter
    assert label_one(star, max_logg_difference=abs(difference) * 1.01).reason == (None,)
    assert label_one(star, max_logg_difference=abs(difference) * 0.99).reason == (MDwarfReason.INCONSISTENT,)


def test_without_a_way_to_metallicity_there_are_no_labels() -> None:
    stars = photometry_of()
    stars.numbers.clear()
    with pytest.raises(UsageError, match=r"neither a relation nor a column fe_h"):
        label_mdwarfs(stars, settings_of())


def test_the_users_relation_gives_the_metallicity() -> None:
    labels = label_one({"g": 13.9, "j": 8.75, "fe_h": NAN}, relations={"fe_h": relation()})
    assert labels.values["fe_h"] == pytest.approx([0.1 + 0.5 * 0.4 - 0.3 * -0.1])


@pytest.mark.parametrize(
    ("star", "changed", "reason"),
    [
        ({}, {"valid_x": [5.6, 8.0]}, MDwarfReason.FE_H_COLOR_OUT_OF_RANGE),
        ({}, {"valid_y": [0.9, 1.0]}, MDwarfReason.FE_H_COLOR_OUT_OF_RANGE),
        ({}, {"valid_result": [0.2, 0.4]}, MDwarfReason.FE_H_OUT_OF_RANGE),
        ({}, {"coefficients": [[0.6, 0.0]]}, MDwarfReason.FE_H_OUT_OF_RANGE),
        ({"r": NAN}, {"x": "g-r", "valid_x": [1.0, 2.0]}, MDwarfReason.NO_FE_H),
    ],
)
def test_the_users_relation_holds_in_its_range_only(
    star: dict[str, float], changed: dict[str, Any], reason: MDwarfReason
) -> None:
    assert label_one(star, relations={"fe_h": relation(**changed)}).reason == (reason,)


def test_the_users_relations_may_give_temperature_and_gravity() -> None:
    teff = {"source": "s", "x": "r-j", "coefficients": [[3500.0], [100.0]], "x_origin": 3.15, "scatter": 10.0}
    logg = {"source": "s", "x": "teff", "y": "fe_h", "coefficients": [[4.8, 1.0]], "scatter": 0.0}
    logg |= {"valid_x": [3200, 4100], "valid_y": [-0.7, 0.3]}
    labels = label_one({}, relations={"teff": teff | {"valid_x": [2.0, 5.0]}, "logg": logg})
    assert labels.teff_relation == ("own",)
    assert labels.values["teff"] == pytest.approx([3500.0])
    assert labels.values["logg"] == pytest.approx([4.9])
    cold = label_one({"r": 11.0}, relations={"teff": teff | {"valid_x": [2.5, 5.0]}, "logg": logg})
    assert cold.reason == (MDwarfReason.TEFF_COLOR_OUT_OF_RANGE,)
    rich = label_one({"fe_h": 0.31}, relations={"logg": logg})
    assert rich.reason == (MDwarfReason.LOGG_OUT_OF_RANGE,)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": "g-q"}, "no colour and no absolute magnitude"),
        ({"x": "k"}, "no colour and no absolute magnitude"),
        ({"x": "g-j-k"}, "no colour and no absolute magnitude"),
        ({"x": "teff"}, "fe_h cannot be a relation of teff"),
        ({"coefficients": [[1.0, 2.0], [3.0]]}, "differ in length"),
        ({"valid_y": None}, "come together"),
        ({"y": None, "valid_y": None}, "one number"),
        ({"valid_x": [8.0, 3.0]}, "is no range"),
        ({"coefficients": [[float("nan")]]}, "finite"),
        ({"colour": 1}, "not permitted"),
    ],
)
def test_a_relation_that_makes_no_sense_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings_of(relations={"fe_h": relation(**changed)})


@pytest.mark.parametrize("missing", ["source", "scatter", "valid_x", "coefficients"])
def test_a_relation_has_no_defaults_for_what_its_authors_say(missing: str) -> None:
    with pytest.raises(ValidationError, match="Field required"):
        PolynomialRelation.model_validate({k: v for k, v in relation().items() if k != missing})


def test_no_relation_for_the_metallicity_is_built_in() -> None:
    assert MDwarfSettings().relations.fe_h is None


def test_a_polynomial_in_two_quantities_is_the_sum_of_its_terms() -> None:
    given_relation = PolynomialRelation.model_validate(
        relation(coefficients=[[1, 2, 3], [4, 5, 6]], x_origin=1, x_scale=2, y_origin=-1, y_scale=3)
    )
    # x = (5 - 1) / 2 = 2, y = (8 + 1) / 3 = 3: 1 + 2*3 + 3*9 + 2*(4 + 5*3 + 6*9)
    assert given_relation.evaluate(np.array([5.0]), np.array([8.0])) == pytest.approx([180.0])


def test_errors_of_a_linear_relation_are_those_of_error_propagation() -> None:
    star = {"e_g": 0.02, "e_j": 0.04, "e_k": 0.1}  # K is in both colours: its weight is -0.5 + 0.3
    labels = label_one(star, relations={"fe_h": relation()}, errors=MANY)
    expected = np.sqrt((0.5 * 0.02) ** 2 + (0.3 * 0.04) ** 2 + (0.2 * 0.1) ** 2 + 0.05**2)
    assert labels.errors["fe_h"] == pytest.approx([expected], rel=0.03)


def test_the_error_of_the_absolute_magnitude_is_that_of_magnitude_and_parallax() -> None:
    labels = label_one({"e_k": 0.03, "parallax_error": 1.0}, errors=MANY)
    assert labels.errors["m_k"] == pytest.approx([np.hypot(0.03, 5 / np.log(10) / 50)], rel=0.03)


def test_the_errors_of_temperature_and_gravity_hold_their_shares() -> None:
    quiet = {f"e_{band}": 0.0 for band in ("v", "g", "r", "z", "bp", "rp", "j", "k")} | {"e_fe_h": 0.0}
    labels = label_one(quiet, relations={"teff_relation": "bp-rp+fe_h"}, errors=MANY)
    assert labels.errors["teff"] == pytest.approx([75.0], rel=0.03)
    assert labels.errors["fe_h"] == [0.0]
    teff, fe_h = labels.values["teff"], labels.values["fe_h"]
    by_teff = (mann2015_logg(teff + 1, fe_h) - mann2015_logg(teff - 1, fe_h)) / 2 * 75
    radius = labels.values["radius"]
    mass = labels.values["mass"]
    slope = radius * (0.48699518 + 2 * 1.6777663 * radius - 3 * 1.2430190 * radius**2) / mass - 2
    by_radius = slope / np.log(10) * 0.093
    assert labels.errors["logg"] == pytest.approx(np.hypot(by_teff, by_radius), rel=0.05)


def test_the_relations_of_the_absolute_magnitude_have_their_own_scatter() -> None:
    quiet = {"e_k": 0.0, "parallax_error": 0.0, "e_fe_h": 0.0}
    labels = label_one(quiet, errors=MANY)
    assert labels.errors["radius_m_k"] == pytest.approx(0.03 * labels.values["radius_m_k"], rel=0.03)
    assert labels.errors["mass_m_k"] == pytest.approx(0.02 * labels.values["mass_m_k"], rel=0.03)
    other = label_one(quiet, errors=MANY | {"radius_m_k": 0.0, "radius": 0.0, "mass": 0.5})
    assert other.errors["radius_m_k"] == [0.0]
    assert other.errors["mass"] == pytest.approx(0.5 * labels.values["mass"], rel=0.05)


def test_without_any_error_there_is_no_scatter() -> None:
    quiet = {f"e_{band}": 0.0 for band in ("v", "g", "j", "k")} | {"e_fe_h": 0.0, "parallax_error": 0.0}
    nothing = {"radius": 0, "mass": 0, "radius_m_k": 0, "mass_m_k": 0}
    labels = label_one(quiet, errors=nothing)
    assert {name: error[0] for name, error in labels.errors.items() if name.endswith("_m_k")} == {
        "radius_m_k": 0.0,
        "mass_m_k": 0.0,
        "logg_m_k": 0.0,
    }
    assert labels.errors["m_k"] == [0.0]


def assert_rows_equal(one: MDwarfLabels, rows: list[int], other: MDwarfLabels) -> None:
    assert tuple(one.reason[i] for i in rows) == other.reason
    for name in one.values:
        np.testing.assert_array_equal(one.values[name][rows], other.values[name])
        np.testing.assert_array_equal(one.errors[name][rows], other.errors[name])


@given(st.permutations(range(5)), st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_a_star_does_not_depend_on_its_neighbours_or_their_order(order: list[int], n_kept: int) -> None:
    stars = [{"k": 8.0 + 0.02 * i, "fe_h": 0.1 - 0.05 * i} for i in range(5)]
    names = [f"2M{i}" for i in range(5)]
    kept = order[:n_kept]
    together = label_mdwarfs(photometry_of(stars, names=names), settings_of())
    apart = label_mdwarfs(
        photometry_of([stars[i] for i in kept], names=[names[i] for i in kept]), settings_of()
    )
    assert_rows_equal(together, kept, apart)


@given(st.floats(2.0, 4.0), st.floats(2.0, 4.0))
@settings(max_examples=20, deadline=None)
def test_of_two_stars_the_redder_is_cooler(one: float, other: float) -> None:
    stars = [{"bp": 10.0 + color} for color in sorted((one, other))]
    labels = label_mdwarfs(photometry_of(stars), settings_of(relations={"teff_relation": "bp-rp"}))
    assert labels.values["teff"][1] <= labels.values["teff"][0]


def test_another_seed_gives_other_errors_and_the_same_labels() -> None:
    one, other = label_one({}), label_one({}, errors={"seed": 1})
    assert one.values["logg"] == other.values["logg"]
    assert one.errors["logg"] != other.errors["logg"]


def test_stars_and_sources_of_error_have_their_own_numbers() -> None:
    draws = StarDraws(0, "2M1", 1000)
    others = [
        draws.normal("k"),
        StarDraws(0, "2M2", 1000).normal("j"),
        StarDraws(1, "2M1", 1000).normal("j"),
    ]
    first = draws.normal("j")
    assert first[0] == 0
    assert all(abs(np.corrcoef(first[1:], other[1:])[0, 1]) < 0.15 for other in others)
    np.testing.assert_array_equal(draws.normal("j"), first)


def test_half_an_interval_of_normal_draws_is_their_standard_deviation() -> None:
    assert half_interval(StarDraws(0, "a", 50_000).around(7.0, 2.0, "x")) == pytest.approx(2.0, rel=0.02)


def test_draws_without_a_value_count_as_far_away() -> None:
    noise = StarDraws(0, "a", 1000).normal("x")
    few, many = noise.copy(), noise.copy()
    few[-50:], many[-200:] = np.nan, np.nan
    assert half_interval(noise) < half_interval(few) < 2
    assert np.isnan(half_interval(many))
