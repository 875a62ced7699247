"""The stars of a simulated survey are those of a real one."""

import re

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.survey.pixels import N_PIXELS
from apogee_batch.survey.populations import MAX_STARS, SHARES, SimulatedStar, data_type_of, draw_star, fields
from apogee_batch.survey.simulate_exposure import observe
from apogee_batch.survey.simulate_files import apstar_bytes

SEED = 7


def some_stars(n: int) -> list[SimulatedStar]:
    return [draw_star(SEED, index) for index in range(n)]


def test_the_shares_of_the_label_tables_hold_for_small_surveys() -> None:
    for n in (25, 100, 1200):
        kinds = [data_type_of(index) for index in range(n)]
        for name, share in SHARES.items():
            assert kinds.count(name) == pytest.approx(n * share, abs=2.0)


def test_populations_lie_where_real_ones_do() -> None:
    stars = some_stars(1500)
    by_population: dict[str, list[SimulatedStar]] = {}
    for star in stars:
        by_population.setdefault(star.population, []).append(star)
    for star in stars:
        one = star.parameters
        if star.data_type == "payne":
            assert 3540 <= one.teff <= 7000
            assert 0.3 <= one.logg <= 4.9
        if star.data_type == "mstar":
            assert 2850 <= one.teff <= 4100
            assert 4.4 <= one.logg <= 5.3
        if star.data_type == "yso":
            assert 2900 <= one.teff <= 5200
            assert 3.1 <= one.logg <= 4.5
    giants = by_population["giant"]
    teff, logg = (np.array([getattr(star.parameters, name) for star in giants]) for name in ("teff", "logg"))
    assert np.corrcoef(teff, logg)[0, 1] > 0.85  # the giant branch
    clump = np.array([star.parameters.logg for star in by_population["clump"]])
    assert clump.std() < 0.15
    mstars = by_population["mstar"]
    cool = [star.parameters.logg for star in mstars if star.parameters.teff < 3200]
    warm = [star.parameters.logg for star in mstars if star.parameters.teff > 3800]
    assert np.mean(cool) > np.mean(warm) + 0.2
    assert len(by_population["giant"]) > len(by_population["subgiant"])


def test_magnitudes_visits_and_names_are_as_awkward_as_real_ones() -> None:
    stars = some_stars(3000)
    assert len({star.apogee_id for star in stars}) == len(stars)
    assert 5 < sum(star.j == 99.0 for star in stars) < 80
    assert all(7.0 < star.h < 15.0 for star in stars)
    several = sum(star.n_visits > 1 for star in stars) / len(stars)
    assert 0.07 < several < 0.13
    snr = np.array([star.snr for star in stars])
    assert np.mean((snr > 30) & (snr < 300)) > 0.75
    assert np.mean(snr < 20) > 0
    assert len({field.location_id for field in fields()}) == len({field.name for field in fields()})
    for star in stars[:100]:
        assert abs(star.dec - star.field.dec) < 1.3
        hours = int(star.apogee_id[2:4]) + int(star.apogee_id[4:6]) / 60
        assert star.ra / 15 == pytest.approx(hours, abs=1 / 60)
        assert np.sign(star.dec) == (1 if star.apogee_id[10] == "+" else -1)


@given(st.integers(0, 2**62), st.integers(0, MAX_STARS - 1))
@settings(max_examples=30, deadline=None)
def test_any_star_can_be_drawn_and_written(seed: int, index: int) -> None:
    star = draw_star(seed, index)
    assert star == draw_star(seed, index)
    assert re.fullmatch(r"2M\d{8}[+-]\d{7}", star.apogee_id)
    assert len(star.apstar_id) <= 45
    clean = np.ones(N_PIXELS, dtype=np.float32)
    exposure = observe(clean, snr=9.0, n_visits=1, velocity_km_s=0.0, rng=np.random.default_rng(0))
    header = fits.Header.fromstring(apstar_bytes(star, exposure)[:2880].decode("ascii"))
    assert header["OBJID"] == star.apogee_id
    assert header["RA"] == pytest.approx(star.ra, abs=1e-8)
    assert header["J"] == star.j
