import pytest
import torch
from torch import Tensor
from torch.nn import functional

from apogee_batch.network.learner import Learner
from apogee_batch.network.model import (
    N_FEATURES,
    SpectrumNet,
    initialise_kaiming,
    initialise_torch_default,
)
from apogee_batch.network.recipe import load_recipe
from apogee_batch.survey.pixels import N_PIXELS


@pytest.fixture(scope="module")
def model() -> SpectrumNet:
    net = SpectrumNet().requires_grad_(False)
    initialise_kaiming(net, torch.Generator().manual_seed(1))
    return net


def _as_published(model: SpectrumNet, inputs: Tensor) -> Tensor:
    """The network as the paper's Appendix B says it: convolutions of one dimension."""
    x = inputs[:, None, :]
    for i in range(1, 13):
        x = functional.relu(getattr(model, f"conv{i}")(x))
        if i % 2 == 0:
            x = functional.max_pool1d(x, 2)
    x = functional.relu(model.fc1(x.flatten(1)))
    return model.fc3(functional.relu(model.fc2(x)))


def test_it_has_the_parameters_of_the_authors_network(model: SpectrumNet) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == 4_655_275
    assert list(shapes) == [f"{layer}.{kind}" for layer in _layers() for kind in ("weight", "bias")]
    assert shapes["conv1.weight"] == (8, 1, 3)
    assert shapes["conv12.weight"] == (64, 64, 3)
    assert shapes["fc1.weight"] == (512, 8512)
    assert shapes["fc3.bias"] == (3,)


def _layers() -> list[str]:
    return [f"conv{i}" for i in range(1, 13)] + ["fc1", "fc2", "fc3"]


def test_convolutions_of_height_one_give_what_those_of_one_dimension_give(model: SpectrumNet) -> None:
    inputs = torch.randn(3, N_PIXELS, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(model(inputs), _as_published(model, inputs), rtol=1e-4, atol=1e-5)


def test_features_and_predictions_are_two_halves_of_the_network(model: SpectrumNet) -> None:
    inputs = torch.randn(2, N_PIXELS, generator=torch.Generator().manual_seed(3))
    features = model.extract_features(inputs)
    assert features.shape == (2, N_FEATURES)
    assert torch.equal(model.predict_from_features(features), model(inputs))


def test_dropout_acts_on_both_hidden_layers_before_their_relu(model: SpectrumNet) -> None:
    seen: list[Tensor] = []

    def drop(outputs: Tensor) -> Tensor:
        seen.append(outputs)
        return torch.zeros_like(outputs)

    inputs = torch.randn(2, N_PIXELS, generator=torch.Generator().manual_seed(4))
    prediction = model(inputs, drop=drop)
    assert [tuple(outputs.shape) for outputs in seen] == [(2, 512), (2, 512)]
    assert all((outputs < 0).any() for outputs in seen[:1])
    torch.testing.assert_close(prediction, model.fc3.bias.expand(2, 3))


def test_gradients_reach_every_parameter() -> None:
    net = SpectrumNet()
    initialise_kaiming(net, torch.Generator().manual_seed(5))
    net(torch.randn(4, N_PIXELS, generator=torch.Generator().manual_seed(6))).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


def test_kaiming_weights_keep_the_size_of_the_signal() -> None:
    net = SpectrumNet()
    initialise_kaiming(net, torch.Generator().manual_seed(7))
    assert net.conv12.weight.std().item() == pytest.approx((2 / (64 * 3)) ** 0.5, rel=0.05)
    assert net.fc2.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.05)
    assert not net.fc2.bias.any()


def test_default_weights_have_the_bounds_of_torch() -> None:
    net, reference = SpectrumNet(), SpectrumNet()
    initialise_torch_default(net, torch.Generator().manual_seed(8))
    for name, tensor in net.state_dict().items():
        bound = reference.state_dict()[name].abs().max().item()
        if tensor.numel() > 1000:
            assert tensor.abs().max().item() == pytest.approx(bound, rel=0.01)


def test_the_same_seed_gives_the_same_first_weights_and_leaves_the_global_generator_alone() -> None:
    recipe = load_recipe("robust")
    before = torch.random.get_rng_state()
    one, same, other = (Learner(recipe, seed=seed, device="cpu").model.state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["fc1.weight"], other["fc1.weight"])
