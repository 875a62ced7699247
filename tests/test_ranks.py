"""Ranks that share a training go through the training of one, and hold the same weights at any time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rank_threads import ThreadRank, run_ranks
from training_sets import make_training_set, tiny_recipe

from apogee_batch.network.draws import make_dropout
from apogee_batch.network.ranks import ALONE, Ranks, RanksDisagreeError, Share
from apogee_batch.network.recipe import Recipe
from apogee_batch.network.state import EpochMetrics, TrainingState
from apogee_batch.network.training import train
from apogee_batch.network.training_folder import train_in_folder

STARS = make_training_set()
SHORT = {"max_epochs": 1, "adaptation_max_rounds": 0}


class RankOf:
    """Only the number of a rank."""

    def __init__(self, rank: int, n_ranks: int) -> None:
        self.rank, self.n_ranks = rank, n_ranks


def weights(
    n_ranks: int, recipe: Recipe, *, resume: TrainingState | None = None
) -> tuple[list[dict[str, torch.Tensor]], list[EpochMetrics], list[TrainingState]]:
    """Train with some ranks; return the weights of each, and what the first one reports."""
    seen: list[EpochMetrics] = []
    states: list[TrainingState] = []

    def call(ranks: Ranks) -> dict[str, torch.Tensor]:
        def keep(metrics: EpochMetrics, state: TrainingState) -> None:
            if ranks.rank == 0:
                seen.append(metrics)
                states.append(state)

        ranks = ALONE if n_ranks == 1 else ranks
        trained = train(STARS, recipe, seed=1, resume=resume, on_epoch=keep, ranks=ranks)
        return trained.weights

    return run_ranks(n_ranks, call), seen, states


@given(st.integers(0, 100), st.integers(1, 9))
def test_the_shares_of_all_ranks_are_the_whole(n_items: int, n_ranks: int) -> None:
    shares = [Share.of(n_items, RankOf(rank, n_ranks)) for rank in range(n_ranks)]  # type: ignore[arg-type]
    items = [i for share in shares for i in range(n_items)[share.slice]]
    assert items == list(range(n_items))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_several_ranks_train_as_one_but_for_rounding(n_ranks: int) -> None:
    recipe = tiny_recipe(**SHORT)
    (one,), alone, _ = weights(1, recipe)
    shared, together, _ = weights(n_ranks, recipe)
    assert together[0].train_loss == pytest.approx(alone[0].train_loss, rel=1e-4)
    assert together[0].dev_loss == pytest.approx(alone[0].dev_loss, rel=1e-3)
    for name, tensor in one.items():
        torch.testing.assert_close(shared[0][name], tensor, rtol=1e-2, atol=5e-5)


@pytest.mark.long
def test_all_ranks_hold_the_same_weights_and_repeat_them() -> None:
    recipe = tiny_recipe(adaptation_max_epochs=1)
    (first, second), _, _ = weights(2, recipe)
    (again, _), _, _ = weights(2, recipe)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])
        assert torch.equal(tensor, again[name])


def test_ranks_that_go_on_from_a_state_end_with_the_same_weights() -> None:
    recipe = tiny_recipe(adaptation_max_epochs=1, adaptation_max_rounds=1)
    (whole, _), _, states = weights(2, recipe)
    (resumed, _), _, _ = weights(2, recipe, resume=states[0])
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_a_rank_without_a_row_of_a_batch_helps_all_the_same() -> None:
    recipe = tiny_recipe(**SHORT, batch_size=2)
    (one,), _, _ = weights(1, recipe)
    shared, _, _ = weights(3, recipe)
    assert all(torch.isfinite(tensor).all() for tensor in shared[0].values())
    assert all(torch.equal(tensor, shared[2][name]) for name, tensor in shared[0].items())
    assert one.keys() == shared[0].keys()


def test_dropout_is_that_of_the_whole_batch() -> None:
    outputs = torch.ones(5, 7)

    def draw(rank: int, n_ranks: int) -> torch.Tensor:
        drop = make_dropout(tiny_recipe(dropout=0.5), seed=1, epoch=0, device="cpu")
        assert drop is not None
        share = Share.of(5, RankOf(rank, n_ranks))  # type: ignore[arg-type]
        return drop(share)(outputs[share.slice])

    assert torch.equal(torch.cat([draw(0, 2), draw(1, 2)]), draw(0, 1))


def test_a_rank_with_another_state_is_refused() -> None:
    recipe = tiny_recipe(**SHORT | {"max_epochs": 2})
    _, _, states = weights(1, recipe)

    def call(ranks: Ranks) -> None:
        train(STARS, recipe, seed=1, resume=states[0] if ranks.rank else None, ranks=ranks)

    with pytest.raises(RanksDisagreeError, match="state of the training"):
        run_ranks(2, call)


def test_only_the_first_rank_writes(tmp_path_factory: pytest.TempPathFactory) -> None:
    folders = [tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("other")]
    recipe = tiny_recipe(**SHORT)
    headers = run_ranks(
        2,
        lambda ranks: train_in_folder(folders[ranks.rank], STARS, recipe, seed=1, ranks=ranks).to_json(),
    )
    assert headers[0] == headers[1]
    assert (folders[0] / "model.safetensors").is_file()
    assert not list(folders[1].iterdir())


def test_nothing_is_written_once_the_training_was_given_up(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("model")

    class GivenUpError(Exception):
        pass

    def refuse() -> None:
        raise GivenUpError

    def call(ranks: Ranks) -> None:
        assert isinstance(ranks, ThreadRank)
        ranks.check = refuse  # type: ignore[method-assign]
        train_in_folder(folder, STARS, tiny_recipe(**SHORT), seed=1, ranks=ranks)

    with pytest.raises(GivenUpError):
        run_ranks(2, call)
    assert [path.name for path in folder.iterdir()] == ["metrics.jsonl"]
    assert (folder / "metrics.jsonl").read_bytes() == b""


def test_gathered_losses_come_in_the_order_of_the_ranks() -> None:
    found = run_ranks(3, lambda ranks: ranks.gather(np.full(ranks.rank, float(ranks.rank))))
    assert [array.tolist() for array in found[2]] == [[], [1.0], [2.0, 2.0]]
