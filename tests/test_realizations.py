"""Noise: derived from run and star alone, capped, and absent where nothing was measured."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.inference.realizations import ErrCap, cap_err, draw_realizations, star_seed
from apogee_batch.survey.pixels import GAP_ERR

SPECTRUM_SEEDS = st.integers(0, 2**32 - 1)


def spectrum(seed: int, n_pixels: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """A spectrum with gaps, huge errors at their edges and ordinary ones elsewhere."""
    rng = np.random.default_rng(seed)
    flux = rng.normal(800, 50, n_pixels).astype(np.float32)
    err = np.exp(rng.normal(2, 0.3, n_pixels)).astype(np.float32)
    gap = slice(int(rng.integers(0, n_pixels // 2)), int(rng.integers(n_pixels // 2, n_pixels)))
    flux[gap], err[gap] = 0, GAP_ERR
    err[max(gap.start - 3, 0) : gap.start] = 1e6
    return flux, err


@given(SPECTRUM_SEEDS)
@settings(max_examples=30, deadline=None)
def test_gaps_get_no_noise_and_errors_are_at_most_five_medians(seed: int) -> None:
    flux, err = spectrum(seed)
    capped = cap_err(err)
    gap = err >= 1e9
    assert (capped[gap] == 0).all()
    assert capped.max() <= np.float32(5 * np.median(err[~gap].astype(np.float64)))
    below = ~gap & (err <= 5 * np.median(err[~gap]))
    np.testing.assert_array_equal(capped[below], err[below])
    copies = draw_realizations(flux, err, n_realizations=4, seed=seed)
    assert (copies[:, gap] == 0).all()


def test_the_mean_as_cap_is_what_the_paper_prints() -> None:
    err = np.array([1, 1, 1, 1, 96, GAP_ERR, np.nan, np.inf], np.float32)
    np.testing.assert_array_equal(cap_err(err), [1, 1, 1, 1, 5, 0, 0, 0])
    np.testing.assert_array_equal(cap_err(err, ErrCap.MEAN), [1, 1, 1, 1, 96, 0, 0, 0])
    assert (cap_err(np.full(3, GAP_ERR, np.float32)) == 0).all()


@given(SPECTRUM_SEEDS, st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_more_realizations_begin_with_the_same_ones(seed: int, n: int) -> None:
    flux, err = spectrum(seed)
    few = draw_realizations(flux, err, n_realizations=n, seed=seed)
    many = draw_realizations(flux, err, n_realizations=n + 3, seed=seed)
    np.testing.assert_array_equal(many[:n], few)


@given(SPECTRUM_SEEDS)
@settings(max_examples=20, deadline=None)
def test_without_errors_there_is_no_scatter(seed: int) -> None:
    flux, err = spectrum(seed)
    copies = draw_realizations(flux, np.zeros_like(err), n_realizations=3, seed=seed)
    np.testing.assert_array_equal(copies, np.broadcast_to(flux, copies.shape))


def test_noise_is_standard_normal_times_the_error() -> None:
    flux, err = np.full(4000, 100, np.float32), np.full(4000, 3, np.float32)
    noise = (draw_realizations(flux, err, n_realizations=50, seed=1) - flux) / 3
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert (np.abs(noise) > 2).mean() == pytest.approx(0.0455, abs=0.003)


@given(st.integers(0, 2**63 - 1), st.text(max_size=40), st.text(max_size=40))
def test_the_seed_of_a_star_depends_on_run_and_star_alone(run_seed: int, one: str, other: str) -> None:
    assert star_seed(run_seed, one) == star_seed(run_seed, one)
    assert star_seed(run_seed, one) != star_seed(run_seed + 1, one)
    assert (star_seed(run_seed, one) == star_seed(run_seed, other)) == (one == other)
    assert 0 <= star_seed(run_seed, one) < 2**128


def test_the_seed_of_a_star_is_the_same_for_ever() -> None:
    assert star_seed(1, "2M00000000+0000000") == 322024861249824523664657535605924629379
