import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_sets import make_training_set, tiny_recipe

from apogee_batch.errors import ApogeeBatchError, UsageError
from apogee_batch.network.augmentation import add_noise
from apogee_batch.network.draws import derive_generator
from apogee_batch.network.recipe import Recipe, load_recipe
from apogee_batch.network.state import EpochMetrics, Progress, TrainingState
from apogee_batch.network.stopping import begin_next_round, can_adapt, is_round_over, judge, mean_loss
from apogee_batch.network.training import TrainedNetwork, train
from apogee_batch.network.training_set import TrainingSet
from apogee_batch.schema import LABEL_NAMES

History = list[tuple[EpochMetrics, TrainingState]]
N_DEV = {"payne": 10, "mstar": 3, "yso": 1}


@pytest.fixture(scope="module")
def training_set() -> TrainingSet:
    return make_training_set()


def _train(
    training_set: TrainingSet, recipe: Recipe, *, seed: int = 1, resume: TrainingState | None = None
) -> tuple[TrainedNetwork, History]:
    history: History = []
    trained = train(
        training_set,
        recipe,
        seed=seed,
        n_threads=1,
        resume=resume,
        on_epoch=lambda metrics, state: history.append((metrics, state)),
    )
    return trained, history


@pytest.fixture(scope="module")
def whole_run(training_set: TrainingSet) -> tuple[TrainedNetwork, History]:
    return _train(training_set, tiny_recipe())


def test_an_epoch_reports_what_it_did(whole_run: tuple[TrainedNetwork, History]) -> None:
    _, history = whole_run
    metrics = [m for m, _ in history]
    assert [m.epoch for m in metrics] == list(range(1, len(metrics) + 1))
    assert [m.phase for m in metrics[:2]] == ["main"] * 2
    assert {m.phase for m in metrics[2:]} == {"adaptation"}
    assert (metrics[0].n_spectra, metrics[0].n_steps) == (24, 3)
    assert metrics[2].n_spectra == 12 + 6  # all M dwarfs and YSOs, half of the Payne stars
    assert set(metrics[0].dev_loss_by_type) == {"payne", "mstar", "yso"}
    assert metrics[0].is_best


class _KilledError(Exception):
    """Stands for a kill after an epoch."""


def _train_one_epoch(
    training_set: TrainingSet, recipe: Recipe, resume: TrainingState | None
) -> tuple[EpochMetrics, TrainingState]:
    seen: History = []

    def die(metrics: EpochMetrics, state: TrainingState) -> None:
        seen.append((metrics, state))
        raise _KilledError

    with pytest.raises(_KilledError):
        train(training_set, recipe, seed=1, n_threads=1, resume=resume, on_epoch=die)
    return seen[0]


SGD = {"optimiser": "sgd", "momentum": 0.9, "average_decay": 0.0, "dropout": 0.0, "max_epochs": 1}


@pytest.mark.parametrize("changes", [{}, SGD, {"autocast": "bfloat16"}])
def test_a_training_killed_after_every_epoch_equals_an_uninterrupted_one(
    training_set: TrainingSet, changes: dict[str, object]
) -> None:
    recipe = tiny_recipe(**changes)
    whole, history = _train(training_set, recipe)
    state: TrainingState | None = None
    for metrics, expected in history:
        seen, state = _train_one_epoch(training_set, recipe, state)
        assert seen == metrics
        assert state.progress == expected.progress
        assert state.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(state.tensors[name], t) for name, t in expected.tensors.items())
    resumed, _ = _train(training_set, recipe, resume=state)
    assert resumed.header == whole.header
    assert all(torch.equal(resumed.weights[name], t) for name, t in whole.weights.items())


def test_a_training_does_not_depend_on_the_global_generator(
    training_set: TrainingSet, whole_run: tuple[TrainedNetwork, History]
) -> None:
    torch.manual_seed(99)
    _, again = _train_one_epoch(training_set, tiny_recipe(), None)
    first = whole_run[1][0][1]
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in first.tensors.items())


def test_the_number_of_threads_is_put_back(training_set: TrainingSet) -> None:
    before = torch.get_num_threads()
    train(training_set, tiny_recipe(max_epochs=1, adaptation_max_rounds=0), seed=1, n_threads=before + 1)
    assert torch.get_num_threads() == before


def test_the_header_says_what_the_network_was_trained_on(
    training_set: TrainingSet, whole_run: tuple[TrainedNetwork, History]
) -> None:
    header = whole_run[0].header
    labels = training_set.labels[training_set.data_set == "train"]
    assert header.n_train == {"payne": 12, "mstar": 6, "yso": 6}
    assert header.label_range is not None
    assert header.label_range["teff"] == (labels[:, 1].min(), labels[:, 1].max())
    assert header.scaler.mean == pytest.approx(labels.mean(axis=0).tolist())
    assert header.training_set_hash == training_set.check()
    assert header.recipe == tiny_recipe().to_json()
    assert header.dev_loss == pytest.approx(
        mean_loss(header.dev_loss_by_type, training_set.counts("dev"), header.dev_loss_by_type)
    )


def test_the_kept_model_is_that_of_the_best_epoch(whole_run: tuple[TrainedNetwork, History]) -> None:
    trained, history = whole_run
    best = max(m.epoch for m, _ in history if m.is_best)
    assert trained.header.dev_loss_by_type == history[best - 1][0].dev_loss_by_type
    kept = history[best - 1][1].part("best")
    assert all(torch.equal(kept[name], tensor) for name, tensor in trained.weights.items())


def test_test_stars_are_never_read(training_set: TrainingSet) -> None:
    is_test = training_set.data_set == "test"
    flux = np.where(is_test[:, None], np.float32(np.nan), training_set.flux)
    labels = np.where(is_test[:, None], np.nan, training_set.labels)
    blind = replace(training_set, flux=flux, labels=labels)
    recipe = tiny_recipe(max_epochs=1, adaptation_max_rounds=0)
    one, other = _train(training_set, recipe)[0], _train(blind, recipe)[0]
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


@pytest.mark.parametrize("autocast", ["off", "bfloat16"])
def test_it_learns_a_small_set(autocast: str) -> None:
    training_set = make_training_set(100, seed=3)
    recipe = tiny_recipe(max_epochs=5, adaptation_max_rounds=0, noise=0.0, autocast=autocast)
    trained, history = _train(training_set, recipe)
    assert trained.header.dev_loss is not None
    assert trained.header.dev_loss < 0.5
    assert trained.header.warnings == ()
    assert all(m.warning is None for m, _ in history)


def test_a_training_that_learns_nothing_says_so_and_why(
    training_set: TrainingSet, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = Recipe.model_validate(
        load_recipe("paper").to_json() | {"max_epochs": 3, "adaptation_max_rounds": 0}
    )
    with caplog.at_level(logging.WARNING):
        trained, history = _train(training_set, recipe)
    warnings = [m.warning for m, _ in history]
    assert warnings[:2] == [None, None]
    assert warnings[2] is not None
    for words in ("learned nothing", "raw flux", "initialisation", "recipe `robust`"):
        assert words in warnings[2]
    assert trained.header.warnings
    assert "learned nothing" in caplog.text


def test_labels_of_other_stars_are_suspected_where_the_recipe_is_not(training_set: TrainingSet) -> None:
    shuffled = replace(training_set, labels=np.random.default_rng(0).permutation(training_set.labels))
    recipe = tiny_recipe(learning_rate=1e-9, plateau_epochs=1, plateau_loss=0.1, max_epochs=1)
    trained, _ = _train(shuffled, recipe)
    assert "do the labels belong to these spectra" in trained.header.warnings[0]


def test_a_diverging_training_ends_with_an_error(training_set: TrainingSet) -> None:
    recipe = tiny_recipe(input="raw", optimiser="sgd", learning_rate=1e6, max_gradient_norm=0.0)
    with pytest.raises(ApogeeBatchError, match="diverged"):
        _train(training_set, recipe)


def test_without_m_dwarfs_and_ysos_there_is_no_adaptation() -> None:
    training_set = make_training_set(types=("payne",))
    _, history = _train(training_set, tiny_recipe(max_epochs=1))
    assert [m.phase for m, _ in history] == ["main"]


def test_a_state_of_another_training_is_refused(
    training_set: TrainingSet, whole_run: tuple[TrainedNetwork, History]
) -> None:
    state = whole_run[1][0][1]
    with pytest.raises(UsageError, match="another recipe, seed or training set"):
        train(training_set, tiny_recipe(), seed=2, resume=state)
    with pytest.raises(UsageError, match="another recipe, seed or training set"):
        train(make_training_set(seed=2), tiny_recipe(), seed=1, resume=state)


@pytest.mark.parametrize("column", ["flux", "labels"])
def test_a_training_star_without_numbers_is_named(training_set: TrainingSet, column: str) -> None:
    values = getattr(training_set, column).copy()
    values[2, 1] = np.nan
    with pytest.raises(UsageError, match="row 2"):
        replace(training_set, **{column: values}).check()


@pytest.mark.parametrize("data_set", ["train", "dev"])
def test_an_empty_split_is_refused(training_set: TrainingSet, data_set: str) -> None:
    sets = np.where(training_set.data_set == data_set, "test", training_set.data_set)
    with pytest.raises(UsageError, match=f"{data_set} set"):
        train(replace(training_set, data_set=sets), tiny_recipe(), seed=1)


def test_a_training_set_of_wrong_shapes_cannot_be_built(training_set: TrainingSet) -> None:
    for changes in (
        {"flux": training_set.flux[:, :100]},
        {"labels": training_set.labels[:, :2]},
        {"data_type": training_set.data_type[:-1]},
        {"data_set": np.full(len(training_set.flux), "holdout")},
    ):
        with pytest.raises(ValueError, match=r"flux|labels|data_type|data_set"):
            replace(training_set, **changes)


# --- early stopping and adaptation, without a network


def _run_judge(losses: list[dict[str, float]], recipe: Recipe, *, adapts: bool = True) -> Iterator[Progress]:
    """Go through epochs with these dev losses, as a training does."""
    progress = Progress(seed=1)
    for by_type in losses:
        progress = judge(progress, by_type, N_DEV, n_steps=2, recipe=recipe)
        if is_round_over(progress, recipe):
            progress = begin_next_round(progress, N_DEV, adapts=adapts, recipe=recipe)
        yield progress
        if progress.phase == "done":
            return


def _losses(payne: float, focus: float) -> dict[str, float]:
    return {"payne": payne, "mstar": focus, "yso": focus}


def test_the_main_phase_ends_after_five_evaluations_without_improvement() -> None:
    recipe = load_recipe("paper")
    falling = [_losses(1 - i / 10, 1 - i / 10) for i in range(4)]
    progress = list(_run_judge(falling + [_losses(0.8, 0.8)] * 5, recipe, adapts=False))
    assert [p.phase for p in progress] == ["main"] * 8 + ["done"]
    assert progress[-1].best_epoch == 4
    assert [p.n_stale for p in progress[:8]] == [0, 0, 0, 0, 1, 2, 3, 4]


def test_an_improvement_resets_the_patience() -> None:
    losses = [0.9, *[1.0] * 4, 0.8, *[1.0] * 5]
    progress = list(_run_judge([_losses(x, x) for x in losses], load_recipe("paper"), adapts=False))
    assert progress[-1].phase == "done"
    assert (len(progress), progress[-1].best_epoch) == (11, 6)


def test_adaptation_looks_at_m_dwarfs_and_ysos_and_guards_the_payne_stars() -> None:
    recipe = tiny_recipe(max_epochs=1, adaptation_payne_tolerance=0.1)
    *_, began = _run_judge([_losses(0.10, 0.30)], recipe)
    assert (began.phase, began.round) == ("adaptation", 1)
    assert began.best_loss == pytest.approx(0.30)
    assert began.payne_limit == pytest.approx(0.11)
    after = [judge(began, _losses(*x), N_DEV, n_steps=1, recipe=recipe) for x in ((0.105, 0.2), (0.12, 0.1))]
    assert [p.best_epoch for p in after] == [2, 1]


def test_adaptation_goes_on_while_rounds_gain_and_ends_when_one_does_not() -> None:
    recipe = tiny_recipe(max_epochs=1, patience=2, adaptation_max_rounds=9, adaptation_max_epochs=99)
    focus = [0.5, 0.4, 0.45, 0.45, 0.3, 0.4, 0.4, 0.35, 0.35]
    progress = list(_run_judge([_losses(0.1, f) for f in focus], recipe))
    assert [p.round for p in progress] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [p.phase for p in progress[-2:]] == ["adaptation", "done"]
    assert progress[-1].best_epoch == 5


def test_adaptation_ends_at_its_last_round_though_it_gains() -> None:
    recipe = tiny_recipe(max_epochs=1, adaptation_max_rounds=2, adaptation_max_epochs=1)
    progress = list(_run_judge([_losses(0.1, 0.5 - i / 10) for i in range(5)], recipe))
    assert [p.phase for p in progress] == ["adaptation", "adaptation", "done"]


def test_adaptation_needs_stars_in_the_training_and_in_the_dev_set() -> None:
    recipe = load_recipe("paper")
    assert can_adapt({"payne": 5, "yso": 1}, {"payne": 1, "mstar": 1}, recipe)
    assert not can_adapt({"payne": 5}, {"mstar": 1}, recipe)
    assert not can_adapt({"yso": 5}, {"payne": 1}, recipe)
    assert not can_adapt({"yso": 5}, {"yso": 1}, recipe.model_copy(update={"adaptation_max_rounds": 0}))


def test_a_loss_that_is_not_a_number_is_never_the_best() -> None:
    progress = judge(Progress(1), _losses(float("nan"), 0.1), N_DEV, n_steps=1, recipe=load_recipe("paper"))
    assert progress.best_loss is None
    assert progress.n_stale == 1


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_every_star_counts_the_same_in_a_loss(n_payne: int, n_mstar: int, n_yso: int) -> None:
    n_dev = {"payne": n_payne, "mstar": n_mstar, "yso": n_yso + 1}
    by_type = {"payne": 1.0, "mstar": 2.0, "yso": 3.0}
    stars = [by_type[t] for t, n in n_dev.items() for _ in range(n)]
    assert mean_loss(by_type, n_dev, by_type) == pytest.approx(np.mean(stars))


def test_the_progress_survives_json() -> None:
    progress = Progress(3, "adaptation", 2, best_by_type={"payne": 0.1}, first_losses=(1.0, 0.9))
    assert Progress.from_json(progress.to_json()) == progress


# --- noisy copies of spectra


def test_noisy_copies_keep_their_gaps_and_follow_from_the_generator(training_set: TrainingSet) -> None:
    flux = torch.from_numpy(training_set.flux[:4])
    noisy, same, other = (add_noise(flux, 0.1, derive_generator(1, purpose)) for purpose in "aab")
    assert bool((noisy[flux == 0] == 0).all())
    assert bool((noisy[flux != 0] != flux[flux != 0]).any())
    assert torch.equal(noisy, same)
    assert not torch.equal(noisy, other)


def test_noise_is_of_the_asked_size() -> None:
    flux = torch.full((2000, 500), 40.0)
    sigma = (add_noise(flux, 0.1, derive_generator(1, "a")) - flux).std(dim=1) / 40.0
    assert 0.0009 < sigma.min() < 0.0012
    assert 0.09 < sigma.max() < 0.115
    assert sigma.log10().median().item() == pytest.approx(-2.0, abs=0.1)  # uniform in the logarithm


def test_label_names_are_in_the_order_of_the_official_weights() -> None:
    assert LABEL_NAMES == ("logg", "teff", "fe_h")
