"""The relations of Mann et al. (2015): each against a number worked out by hand, and where they end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apogee_batch.labels.mann2015 import (
    TEFF_RELATIONS,
    mass_from_m_k,
    mass_from_radius,
    radius_from_m_k,
    radius_from_teff,
    surface_gravity,
)
from apogee_batch.labels.mdwarfs import mann2015_logg
from apogee_batch.schema import DoubleArray

# Olney et al. 2020, Table 4, the printed rows: Teff label / K, [Fe/H], log g label
PRINTED_STARS = {
    "2M00003379+7940362": (3307.0, -0.05, 4.94),
    "2M00013219+0016012": (3997.0, -0.25, 4.74),
    "2M00024474+6158060": (3787.0, -0.15, 4.74),
    "2M00025988+0148410": (3959.0, -0.19, 4.72),
    "2M00030930+0110025": (3947.0, -0.24, 4.73),
}
TEFF_BY_HAND = {  # colour, [Fe/H], the terms of Teff / 3500 K
    "v-j+fe_h": (4.0, 0.2, (2.515, -4.216, 4.744, -2.656, 0.57472, 0.010524)),
    "bp-rp+fe_h": (2.5, -0.2, (2.835, -4.7325, 4.9125, -2.490625, 0.485546875, -0.008834)),
    "r-j+fe_h": (3.0, 0.1, (2.532, -3.957, 4.0041, -1.93077, 0.350973, 0.005629)),
    "r-z+fe_h": (2.0, -0.5, (1.572, -1.444, 1.424, -0.73768, 0.145136, -0.0261)),
    "bp-rp": (2.5, -0.2, (3.245, -6.07725, 6.51875, -3.3234375, 0.644140625)),
    "r-z": (2.0, 0.3, (1.547, -1.4106, 1.4624, -0.8064, 0.16736)),
    "r-j": (3.0, 0.3, (2.445, -3.7734, 3.906, -1.944, 0.364662)),
}
SCATTER_K = {
    "v-j+fe_h": 42,
    "bp-rp+fe_h": 45,
    "r-j+fe_h": 47,
    "r-z+fe_h": 50,
    "bp-rp": 52,
    "r-z": 58,
    "r-j": 58,
}


def array(*values: float) -> DoubleArray:
    return np.array(values, dtype=np.float64)


@pytest.mark.parametrize("name", PRINTED_STARS)
def test_a_printed_star_has_the_log_g_of_its_label(name: str) -> None:
    teff, fe_h, logg = PRINTED_STARS[name]
    assert mann2015_logg(array(teff), array(fe_h)) == pytest.approx([logg], abs=0.03)


def test_the_printed_stars_agree_to_0_022_dex() -> None:
    teff, fe_h, logg = (np.array(column) for column in zip(*PRINTED_STARS.values(), strict=True))
    assert np.abs(mann2015_logg(teff, fe_h) - logg).max() < 0.022


@pytest.mark.parametrize("name", TEFF_BY_HAND)
def test_a_temperature_is_the_sum_of_its_printed_terms(name: str) -> None:
    color, fe_h, terms = TEFF_BY_HAND[name]
    by_hand = 3500 * sum(terms)
    assert TEFF_RELATIONS[name].temperature(array(color), array(fe_h)) == pytest.approx([by_hand], abs=1e-6)


def test_the_relations_are_preferred_by_their_scatter() -> None:
    assert {name: relation.scatter_k for name, relation in TEFF_RELATIONS.items()} == SCATTER_K
    assert list(TEFF_RELATIONS) == sorted(SCATTER_K, key=lambda name: SCATTER_K[name])


def test_the_temperature_scale_adds_60_k_in_quadrature() -> None:
    assert TEFF_RELATIONS["bp-rp+fe_h"].error_k == pytest.approx(75.0)  # 45, 60, 75: a Pythagorean triple


def test_radius_and_mass_are_what_a_pocket_calculator_gives() -> None:
    # t = 1: 16.7700 - 54.3210 + 57.6627 - 19.6994 = 0.4123; times 1 + 0.4565 * 0.2
    assert radius_from_teff(array(3500), array(0.2)) == pytest.approx([0.4123 * 1.0913], abs=1e-9)
    # t = 0.9: 16.77 - 48.8889 + 46.706787 - 14.3608626
    assert radius_from_teff(array(3150), array(0.0)) == pytest.approx([0.2270244], abs=1e-9)
    # 1.9305 - 2.4262 + 0.80703 = 0.31133; times 1 - 0.3 * 0.04458
    assert radius_from_m_k(array(7.0), array(-0.3)) == pytest.approx([0.31133 * 0.986626], abs=1e-9)
    # 0.585825902 + 2.710057133 - 5.964766913 + 3.619664697 - 0.654550709
    assert mass_from_m_k(array(7.0)) == pytest.approx([0.296230110], abs=1e-8)
    # 0.0078368671 + 0.24349759 + 0.419441575 - 0.155377375
    assert mass_from_radius(array(0.5)) == pytest.approx([0.5153986571], abs=1e-9)


def test_log_g_is_that_of_mass_and_radius() -> None:
    # log10(0.5) = -0.30103; 4.438 - 0.30103 + 2 * 0.30103
    assert surface_gravity(array(1.0, 0.5), array(1.0, 0.5)) == pytest.approx([4.438, 4.73903], abs=1e-5)
    assert np.isnan(surface_gravity(array(-1.0, 1.0), array(1.0, 0.0))).all()


@pytest.mark.parametrize(
    ("teff", "fe_h", "is_valid"),
    [
        (2700.0, 0.0, False),
        (2700.1, 0.0, True),
        (4099.9, 0.0, True),
        (4100.0, 0.0, False),
        (3500.0, -0.6, False),
        (3500.0, -0.599, True),
        (3500.0, 0.499, True),
        (3500.0, 0.5, False),
        (float("nan"), 0.0, False),
        (3500.0, float("nan"), False),
        (float("inf"), 0.0, False),
    ],
)
def test_there_is_no_log_g_outside_the_calibration(teff: float, fe_h: float, is_valid: bool) -> None:
    assert np.isfinite(mann2015_logg(array(teff), array(fe_h))).all() == is_valid


def test_temperatures_and_metallicities_broadcast() -> None:
    assert mann2015_logg(np.full((3, 1), 3500.0), array(0.0, 0.1)).shape == (3, 2)


@given(st.floats(2790, 4040), st.floats(2790, 4040), st.floats(-0.59, 0.49))
def test_a_hotter_dwarf_has_no_higher_log_g(teff: float, other: float, fe_h: float) -> None:
    cool, hot = mann2015_logg(array(*sorted((teff, other))), array(fe_h))
    assert hot <= cool


@given(st.floats(2701, 4099), st.floats(-0.59, 0.49), st.floats(-0.59, 0.49))
def test_a_dwarf_richer_in_metals_has_no_higher_log_g(teff: float, fe_h: float, other: float) -> None:
    poor, rich = mann2015_logg(array(teff), array(*sorted((fe_h, other))))
    assert rich <= poor


@pytest.mark.parametrize("name", TEFF_RELATIONS)
@given(st.floats(0, 1), st.floats(0, 1))
def test_redder_is_cooler_as_far_as_a_relation_goes(name: str, one: float, other: float) -> None:
    relation = TEFF_RELATIONS[name]
    blue, red = relation.temperature(relation.reddest_color * array(*sorted((one, other))), array(0.0))
    assert red <= blue + 1e-6


@pytest.mark.parametrize("name", TEFF_RELATIONS)
def test_a_relation_turns_within_the_valid_temperatures(name: str) -> None:
    relation = TEFF_RELATIONS[name]
    at_end, beyond = relation.temperature(relation.reddest_color + array(0.0, 0.1), array(0.0))
    assert 2700 < at_end < 2850  # so that without a limit of colour a star could come out twice
    assert beyond > at_end
