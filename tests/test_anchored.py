from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from apogee_batch.inference.anchored import (
    INPUT_EXPONENT,
    LARGEST_NORMAL,
    AnchoredNet,
    _next_difference,
    _pairs,
    choose_scales,
)
from apogee_batch.network.features import activate_hidden
from apogee_batch.network.model import SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import InputTransform
from apogee_batch.survey.pixels import N_PIXELS

HALF = 2.0**-11  # relative rounding of float16


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for one another take long where other work is going on."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> SpectrumNet:
    model = SpectrumNet().eval().requires_grad_(False)
    initialise_kaiming(model, torch.Generator().manual_seed(5))
    return model


@given(st.integers(0, 2**31), st.sampled_from([1e-3, 1.0, 1e3]))
@settings(max_examples=20, deadline=None)
def test_the_difference_after_relu_and_pooling_is_that_of_the_activations(seed: int, noise: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn((3, 1, 4, 1, 11), generator=generator).double()
    y = (torch.randn((3, 5, 4, 1, 11), generator=generator) * noise).half()
    scales = torch.ones(3, 1, 1, 1, 1)
    p = z.relu()
    found = _next_difference((y,), (z.float(),), p.float(), scales).double()
    wanted = (z + y.double()).relu() - p
    torch.testing.assert_close(found, wanted, rtol=2 * HALF, atol=1e-6)
    pooled = functional.max_pool2d(p.flatten(0, 1), (1, 2)).unflatten(0, (3, 1))
    found = _next_difference(_pairs(y, 5), _pairs(z.float(), 5), pooled.float(), scales).double()
    noisy = functional.max_pool2d((z + y.double()).relu().flatten(0, 1), (1, 2)).unflatten(0, (3, 5))
    torch.testing.assert_close(found, noisy - pooled, rtol=2 * HALF, atol=1e-6)


@pytest.mark.parametrize("transform", [InputTransform("raw"), InputTransform("contrast")])
@pytest.mark.parametrize("level", [1e-6, 0.3, 4.0, 1e5])
def test_scales_are_powers_of_two_that_bring_the_noise_to_one_size(
    transform: InputTransform, level: float
) -> None:
    err = torch.rand(7, N_PIXELS) * level
    flux_scale = torch.full((7, 1), 300.0 if transform.kind == "contrast" else 1.0)
    scales = choose_scales(transform, err, flux_scale)
    assert (np.frexp(scales.numpy())[0] == 0.5).all()
    largest = LARGEST_NORMAL * err.amax(dim=1, keepdim=True) * scales
    if transform.kind == "contrast":
        gain, clip = transform.gain, transform.clip
        largest = (gain * LARGEST_NORMAL * err.amax(dim=1, keepdim=True) / 300).clamp(
            max=2 * gain * clip
        ) * scales
    assert ((largest >= 2 ** (INPUT_EXPONENT - 1)) & (largest < 2**INPUT_EXPONENT)).all()


def test_a_star_without_noise_has_a_finite_scale() -> None:
    scales = choose_scales(InputTransform("contrast"), torch.zeros(2, N_PIXELS), torch.ones(2, 1))
    assert scales.isfinite().all()
    assert (scales > 0).all()


def test_no_noise_makes_no_difference(model: SpectrumNet) -> None:
    clean = torch.randn(2, N_PIXELS)
    labels, differences, activations = AnchoredNet(model).predict(
        clean, clean[:, None].repeat(1, 3, 1), torch.ones(2, 1)
    )
    assert (differences == 0).all()
    torch.testing.assert_close(labels, model(clean), rtol=1e-5, atol=1e-5)
    wanted = activate_hidden(model, model.extract_features(clean))
    torch.testing.assert_close(activations, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("noise", [0.1, 1e-3, 1e-5])
def test_differences_are_those_of_float32_to_a_fraction_of_the_noise(
    model: SpectrumNet, noise: float
) -> None:
    generator = torch.Generator().manual_seed(3)
    clean = torch.randn((1, N_PIXELS), generator=generator)
    inputs = clean + noise * torch.randn((1, 5, N_PIXELS), generator=generator)
    exact = SpectrumNet().double()
    exact.load_state_dict(model.state_dict())
    wanted = exact(inputs[0].double()) - exact(clean.double())
    scales = choose_scales(InputTransform("raw"), torch.full_like(clean, noise), torch.ones(1, 1))
    _, found, _ = AnchoredNet(model).predict(clean, inputs, scales)
    error = (found[0] - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
    assert error < 5e-3


def test_the_scale_decides_about_the_range_only(model: SpectrumNet) -> None:
    generator = torch.Generator().manual_seed(3)
    clean = torch.randn((1, N_PIXELS), generator=generator)
    inputs = clean + 1e-6 * torch.randn((1, 4, N_PIXELS), generator=generator)
    net = AnchoredNet(model)
    usual, larger, vanishing = (
        net.predict(clean, inputs, torch.full((1, 1), scale))[1] for scale in (2.0**21, 2.0**23, 1.0)
    )
    torch.testing.assert_close(usual, larger, rtol=1e-3, atol=1e-8)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(usual, vanishing, rtol=0.02, atol=1e-8)
