"""One definition of the noise: any number by itself, normal, and another sequence for every star."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.inference.noise import NoiseKey, derive_noise_key, draw_normals

WORD = 2**64
KEYS = st.builds(lambda seed, gamma: NoiseKey(seed, gamma | 1), *[st.integers(0, WORD - 1)] * 2)


def by_hand(key: NoiseKey, realization: int, pixel: int, n_pixels: int) -> float:
    """One number in Python's whole numbers and doubles, from the published definition of SplitMix64."""
    count = realization * math.ceil(n_pixels / 2) + pixel // 2 + 1
    z = (key.seed + count * key.gamma) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    z ^= z >> 31
    upper, lower = divmod(z, 2**32)
    radius = math.sqrt(-2 * math.log((upper + 0.5) / 2**32))
    angle = 2 * math.pi * (lower - 2**32 if lower >= 2**31 else lower) / 2**32
    return radius * (math.sin(angle) if pixel % 2 else math.cos(angle))


@given(KEYS, st.integers(1, 19), st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_each_number_follows_from_its_place_alone(key: NoiseKey, n: int, n_pixels: int) -> None:
    found = draw_normals(key, n, n_pixels)
    expected = [[by_hand(key, r, p, n_pixels) for p in range(n_pixels)] for r in range(n)]
    assert found.shape == (n, n_pixels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_the_words_are_those_of_splitmix64() -> None:
    # The first words of the generator with seed 1234567 and its golden gamma, as its tests print them.
    words = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    key = NoiseKey(1234567, 0x9E3779B97F4A7C15)
    for i, word in enumerate(words):
        radius = math.sqrt(-2 * math.log(((word >> 32) + 0.5) / 2**32))
        pair = draw_normals(key, 1, 6)[0, 2 * i : 2 * i + 2]
        assert np.hypot(*pair) == pytest.approx(radius, rel=1e-5)


def test_more_realizations_begin_with_the_same_ones() -> None:
    key = derive_noise_key(3, "star")
    np.testing.assert_array_equal(draw_normals(key, 21, 99)[:5], draw_normals(key, 5, 99))


def test_the_numbers_are_standard_normal_in_moments_and_tails() -> None:
    normals = np.concatenate([draw_normals(derive_noise_key(0, f"star {i}"), 100, 8575) for i in range(4)])
    n = normals.size
    assert abs(normals.mean()) < 4 / math.sqrt(n)
    assert abs((normals.astype(float) ** 2).mean() - 1) < 4 * math.sqrt(2 / n)
    assert abs((normals.astype(float) ** 3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((normals.astype(float) ** 4).mean() - 3) < 4 * math.sqrt(96 / n)
    for limit in (0.5, 1, 2, 3, 4):
        share = math.erfc(limit / math.sqrt(2))
        assert abs((np.abs(normals) > limit).mean() - share) < 4 * math.sqrt(share / n)


def test_neighbours_realizations_and_stars_are_independent() -> None:
    one, other = (draw_normals(derive_noise_key(0, name), 100, 8575).astype(float) for name in ("a", "b"))
    limit = 4 / math.sqrt(one.size)
    for first, second in ((one[:, :-1], one[:, 1:]), (one[:, :-2], one[:, 2:]), (one[:-1], one[1:])):
        assert abs((first * second).mean()) < 1.1 * limit
        assert abs(((first**2 - 1) * (second**2 - 1)).mean()) < 2.2 * limit
    assert abs((one * other).mean()) < limit


@given(st.integers(0, 2**63 - 1), st.text(max_size=40), st.text(max_size=40))
def test_the_key_of_a_star_depends_on_run_and_star_alone(run_seed: int, one: str, other: str) -> None:
    assert derive_noise_key(run_seed, one) == derive_noise_key(run_seed, one)
    assert derive_noise_key(run_seed, one) != derive_noise_key(run_seed + 1, one)
    assert (derive_noise_key(run_seed, one) == derive_noise_key(run_seed, other)) == (one == other)


@given(st.integers(0, 1000), st.text(max_size=5))
def test_no_star_walks_in_steps_that_mix_badly(run_seed: int, star: str) -> None:
    gamma = derive_noise_key(run_seed, star).gamma
    assert gamma % 2 == 1
    assert (gamma ^ gamma >> 1).bit_count() >= 24


def test_the_key_and_the_noise_of_a_star_are_the_same_for_ever() -> None:
    key = derive_noise_key(1, "2M00000000+0000000")
    assert key == NoiseKey(12462320414217931651, 17457002708070144059)
    normals = [
        [0.43116732, 0.70712507, 0.60932994, 0.78777421],
        [1.24763656, 1.81561387, 1.07585812, -0.29234025],
    ]
    np.testing.assert_allclose(draw_normals(key, 2, 4), normals, rtol=1e-6)


@pytest.mark.parametrize(("seed", "gamma"), [(-1, 1), (0, 2), (WORD, 1), (0, WORD + 1)])
def test_what_is_no_key_is_refused(seed: int, gamma: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        NoiseKey(seed, gamma)
