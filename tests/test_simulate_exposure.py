"""A simulated observation has the noise and the faults of a real one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.survey.pixels import BAD_PIXEL_ERR, GAP_ERR, N_PIXELS
from apogee_batch.survey.populations import draw_star
from apogee_batch.survey.simulate import simulate_flux
from apogee_batch.survey.simulate_exposure import observe

SEED = 7


def test_errors_spread_as_on_real_files() -> None:
    percentiles, negative, edge = [], [], []
    for star in (draw_star(SEED, index) for index in range(40)):
        exposure = observe(
            simulate_flux(star),
            snr=star.snr,
            n_visits=1,
            velocity_km_s=0.0,
            rng=np.random.default_rng(star.index),
        )
        good = exposure.err < BAD_PIXEL_ERR
        relative = exposure.err[good] / np.median(exposure.err)
        percentiles.append(np.percentile(relative, [5, 75, 95, 99]))
        negative.append(np.count_nonzero(exposure.flux < 0))
        edge.append(relative.max())
        assert exposure.snr == pytest.approx(star.snr, rel=0.3)
    five, upper, high, highest = np.median(percentiles, axis=0)
    assert 0.65 < five < 0.85
    assert 1.1 < upper < 1.4
    assert 2.0 < high < 4.0
    assert 10.0 < highest < 40.0
    assert max(edge) > 1e5
    assert max(negative) < 200


def test_flux_scatters_as_its_error_says() -> None:
    star = draw_star(SEED, 0)
    clean = simulate_flux(star)
    exposure = observe(clean, snr=100.0, n_visits=1, velocity_km_s=10.0, rng=np.random.default_rng(1))
    usual = exposure.err < 5 * np.median(exposure.err)
    pull = (exposure.flux - clean)[usual] / exposure.err[usual]
    inner = pull[np.abs(pull) < 4]
    assert inner.std() == pytest.approx(1.0, abs=0.05)
    spikes = np.count_nonzero(np.abs(pull) > 4)
    assert 3 < spikes < 40


def test_visits_average_to_the_combined_spectrum() -> None:
    star = draw_star(SEED, 0)
    clean = simulate_flux(star)
    exposure = observe(clean, snr=90.0, n_visits=3, velocity_km_s=-60.0, rng=np.random.default_rng(2))
    assert exposure.flux.shape == exposure.err.shape == exposure.mask.shape == (5, N_PIXELS)
    flux, err = exposure.flux.astype(np.float64), exposure.err.astype(np.float64)
    weight = np.where(err[2:] < GAP_ERR, err[2:] ** -2, 0.0)
    seen = weight.sum(axis=0) > 0
    mean = (weight * flux[2:]).sum(axis=0)[seen] / weight.sum(axis=0)[seen]
    np.testing.assert_allclose(flux[0][seen], mean, rtol=1e-4, atol=1e-2)
    np.testing.assert_array_equal(seen, err[0] < GAP_ERR)
    np.testing.assert_allclose(err[0][seen], weight.sum(axis=0)[seen] ** -0.5, rtol=1e-4)
    assert exposure.snr == pytest.approx(90.0, rel=0.3)
    assert not np.array_equal(err[2] == GAP_ERR, err[3] == GAP_ERR) or not np.array_equal(
        err[2] == GAP_ERR, err[4] == GAP_ERR
    )


@given(st.floats(-300, 300), st.integers(1, 4), st.floats(5, 900), st.floats(1, 1e5), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_any_observation_keeps_to_the_rules(
    velocity: float, n_visits: int, snr: float, level: float, seed: int
) -> None:
    clean = np.full(N_PIXELS, level, dtype=np.float32)
    rng = np.random.default_rng(seed)
    exposure = observe(clean, snr=snr, n_visits=n_visits, velocity_km_s=velocity, rng=rng)
    gap = exposure.err == np.float32(GAP_ERR)
    np.testing.assert_array_equal(gap, exposure.flux == 0)
    assert exposure.err[~gap].max() < BAD_PIXEL_ERR
    assert exposure.mask.max() < 2**15
    assert exposure.flux.dtype == exposure.err.dtype == np.float32
