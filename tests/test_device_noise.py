import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.inference.device_noise import draw_normals_where_keys_are, key_tensor
from apogee_batch.inference.noise import NoiseKey, derive_noise_key, draw_normals
from apogee_batch.survey.pixels import N_PIXELS

WORDS = st.integers(0, 2**64 - 1)
EXTREMES = [NoiseKey(0, 1), NoiseKey(2**64 - 1, 2**64 - 1), NoiseKey(2**63, 2**63 + 1)]


def _close(device: torch.Tensor, host: np.ndarray) -> None:
    np.testing.assert_allclose(device.numpy(), host, rtol=1e-6, atol=2e-6)


@given(st.lists(st.builds(lambda s, g: NoiseKey(s, g | 1), WORDS, WORDS), min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_the_device_draws_the_numbers_of_the_host(keys: list[NoiseKey]) -> None:
    normals = draw_normals_where_keys_are(key_tensor(keys), 5, 31)
    assert normals.dtype == torch.float32
    for key, of_star in zip(keys, normals, strict=True):
        _close(of_star, draw_normals(key, 5, 31))


@pytest.mark.parametrize("key", [*EXTREMES, derive_noise_key(1, "apo25m/x/2M00000000+0000000")])
def test_whole_realizations_are_those_of_the_host(key: NoiseKey) -> None:
    _close(draw_normals_where_keys_are(key_tensor([key]), 20, N_PIXELS)[0], draw_normals(key, 20, N_PIXELS))


def test_noise_of_a_star_does_not_depend_on_its_neighbours_or_on_the_number_asked_for() -> None:
    together = draw_normals_where_keys_are(key_tensor(EXTREMES), 7, 100)
    for i, key in enumerate(EXTREMES):
        alone = draw_normals_where_keys_are(key_tensor([key]), 3, 100)
        assert torch.equal(alone[0], together[i, :3])


def test_keys_keep_their_bits() -> None:
    bits = key_tensor(EXTREMES).numpy().view(np.uint64)
    assert [tuple(row) for row in bits.tolist()] == [(k.seed, k.gamma) for k in EXTREMES]
    assert key_tensor([]).shape == (0, 2)
