"""How much noise there is: capped, and none where nothing was measured."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.inference.realizations import ErrCap, cap_err
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
    _, err = spectrum(seed)
    capped = cap_err(err)
    gap = err >= 1e9
    assert (capped[gap] == 0).all()
    assert capped.max() <= np.float32(5 * np.median(err[~gap].astype(np.float64)))
    below = ~gap & (err <= 5 * np.median(err[~gap]))
    np.testing.assert_array_equal(capped[below], err[below])


@given(SPECTRUM_SEEDS, st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_the_median_is_numpys_in_every_bit(seed: int, n_pixels: int) -> None:
    err = np.random.default_rng(seed).lognormal(0, 4, n_pixels).astype(np.float32)
    limit = np.float32(5 * np.median(err.astype(np.float64)))
    assert cap_err(err).tobytes() == np.minimum(err, limit).tobytes()


def test_the_mean_as_cap_is_what_the_paper_prints() -> None:
    err = np.array([1, 1, 1, 1, 96, GAP_ERR, np.nan, np.inf], np.float32)
    np.testing.assert_array_equal(cap_err(err), [1, 1, 1, 1, 5, 0, 0, 0])
    np.testing.assert_array_equal(cap_err(err, ErrCap.MEAN), [1, 1, 1, 1, 96, 0, 0, 0])
    assert (cap_err(np.full(3, GAP_ERR, np.float32)) == 0).all()
