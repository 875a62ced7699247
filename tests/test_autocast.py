"""Passes in 16 bits, where a recipe asks for them: what they change, and what they leave alone."""

import logging
from collections.abc import Callable

import pytest
import torch
from rank_threads import run_ranks
from torch import Tensor
from training_sets import make_training_set, tiny_recipe

from apogee_batch.errors import UsageError
from apogee_batch.files import canonical_json, sha256_of_text
from apogee_batch.network.card import render_model_card
from apogee_batch.network.draws import make_dropout
from apogee_batch.network.learner import Learner
from apogee_batch.network.ranks import ALONE, Ranks, Share
from apogee_batch.network.recipe import RECIPE_NAMES, Recipe, load_recipe
from apogee_batch.network.state import TrainingState
from apogee_batch.network.training import TrainedNetwork, train
from apogee_batch.run import train_task
from apogee_batch.survey.pixels import N_PIXELS

STARS = make_training_set()
ON = {"autocast": "bfloat16"}
SHORT = {"max_epochs": 1, "adaptation_max_rounds": 0}
N_SPECTRA = 8
HASHES = {  # of the recipes before there was such a setting: states, plans and models name them
    "paper": "3d99666802bbd2a6a05a34e516f90a0c794c9298a9de850c71a794eb13bc6981",
    "robust": "ee3e69d2d7620299a8b28b7a71ec97e0401027399ffc4914a598088a336732b0",
}


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn((N_SPECTRA, N_PIXELS), generator=generator),
        torch.randn((N_SPECTRA, 3), generator=generator),
    )


def _gradient(learner: Learner) -> Tensor:
    return torch.cat([p.grad.flatten() for p in learner.model.parameters() if p.grad is not None])


def _descend(recipe: Recipe, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Learner]:
    """Compute loss and gradient of the first batch of a training."""
    learner = Learner(recipe, seed=1, device="cpu")
    share = Share.of(N_SPECTRA, ALONE)
    drop = make_dropout(recipe, seed=1, epoch=0, device="cpu")
    assert drop is not None
    return learner._descend(*batch, share, drop(share)), learner


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_a_recipe_without_autocast_is_written_as_if_there_were_no_such_setting(name: str) -> None:
    recipe = load_recipe(name)
    assert sha256_of_text(canonical_json(recipe.to_json())) == HASHES[name]
    said = Recipe.model_validate(recipe.to_json() | {"autocast": "off"})
    assert said.to_json() == recipe.to_json()
    on = Recipe.model_validate(recipe.to_json() | ON)
    assert on.to_json() == recipe.to_json() | ON


def test_without_autocast_a_step_is_that_of_plain_float32_to_the_bit(batch: tuple[Tensor, Tensor]) -> None:
    loss, learner = _descend(tiny_recipe(), batch)
    plain = Learner(tiny_recipe(), seed=1, device="cpu")
    drop = make_dropout(tiny_recipe(), seed=1, epoch=0, device="cpu")
    assert drop is not None
    inputs, labels = batch
    expected = (plain.model(inputs, drop=drop(Share.of(N_SPECTRA, ALONE))) - labels).square().mean()
    expected.backward()  # type: ignore[no-untyped-call]
    assert torch.equal(loss, expected)
    assert torch.equal(_gradient(learner), _gradient(plain))


def test_with_autocast_only_the_passes_are_in_16_bits(batch: tuple[Tensor, Tensor]) -> None:
    seen: set[torch.dtype] = set()

    def watch(_module: object, _inputs: object, outputs: Tensor) -> None:
        seen.add(outputs.dtype)

    learner = Learner(tiny_recipe(**ON), seed=1, device="cpu")
    learner.model.fc3.register_forward_hook(watch)
    share = Share.of(N_SPECTRA, ALONE)
    loss = learner.step(*batch, share=share, number=0, learning_rate=1e-3, drop=None)
    assert seen == {torch.bfloat16}
    assert loss.dtype == torch.float32
    assert {tensor.dtype for tensor in learner.tensors().values()} == {torch.float32}
    assert _gradient(learner).dtype == torch.float32


def test_the_gradient_in_16_bits_points_where_that_in_float32_does(batch: tuple[Tensor, Tensor]) -> None:
    (exact, full), (rounded, short) = (_descend(tiny_recipe(**changes), batch) for changes in ({}, ON))
    assert rounded.item() != exact.item()
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02)
    one, other = _gradient(full), _gradient(short)
    assert torch.nn.functional.cosine_similarity(one, other, dim=0).item() > 0.99
    assert other.norm().item() == pytest.approx(one.norm().item(), rel=0.05)


def test_dev_losses_are_those_of_float32_in_either_case(batch: tuple[Tensor, Tensor]) -> None:
    exact, rounded = (Learner(tiny_recipe(**changes), seed=1, device="cpu") for changes in ({}, ON))
    assert torch.equal(exact.losses([batch]), rounded.losses([batch]))


def test_a_state_of_float32_does_not_go_on_in_16_bits() -> None:
    states: list[TrainingState] = []
    trained = train(STARS, tiny_recipe(**SHORT), seed=1, on_epoch=lambda _, state: states.append(state))
    with pytest.raises(UsageError, match="another recipe"):
        train(STARS, tiny_recipe(**SHORT, **ON), seed=1, resume=states[0])
    assert "autocast" not in render_model_card(trained.header, "0" * 64)


def _train_in_16_bits(
    n_ranks: int, recipe: Recipe, resume: TrainingState | None = None
) -> tuple[list[TrainedNetwork], list[TrainingState]]:
    """Train with some ranks; return what each of them gets, and the first one's states."""
    states: list[TrainingState] = []

    def call(ranks: Ranks) -> TrainedNetwork:
        keep: Callable[[object, TrainingState], None] = lambda _, state: (  # noqa: E731
            states.append(state) if ranks.rank == 0 else None
        )
        return train(STARS, recipe, seed=1, n_threads=1, resume=resume, on_epoch=keep, ranks=ranks)

    return run_ranks(n_ranks, call), states


def test_ranks_in_16_bits_agree_and_go_on_to_the_bit() -> None:
    recipe = tiny_recipe(**ON, max_epochs=2, adaptation_max_rounds=0)
    (first, second), states = _train_in_16_bits(2, recipe)
    (again, _), _ = _train_in_16_bits(2, recipe, states[0])
    for name, tensor in first.weights.items():
        assert torch.equal(tensor, second.weights[name])
        assert torch.equal(tensor, again.weights[name])
    alone = train(STARS, recipe, seed=1, n_threads=1)
    assert first.header.dev_loss == pytest.approx(alone.header.dev_loss, rel=0.02)
    assert "autocast = 'bfloat16'" in render_model_card(first.header, "0" * 64)


@pytest.mark.parametrize(
    ("autocast", "features", "is_told"),
    [
        ("off", ["avx2"], False),
        ("bfloat16", ["avx2", "avx512f", "avx512_bf16"], False),
        ("bfloat16", ["asimd", "bf16"], False),
        ("bfloat16", ["avx2", "avx512f"], True),
        ("bfloat16", ["default"], True),
    ],
)
def test_a_processor_that_has_no_16_bits_is_told_of(
    autocast: str,
    features: list[str],
    is_told: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(train_task, "cpu_features", lambda: features)
    with caplog.at_level(logging.WARNING):
        train_task.warn_of_slow_autocast(tiny_recipe(autocast=autocast), "cpu")
    assert ("slower" in caplog.text) == is_told
