"""A training that lives in a folder: a kill costs one epoch, and repeating the call goes on."""

import time
from collections.abc import Callable
from pathlib import Path

from apogee_batch.errors import UsageError
from apogee_batch.files import remove_leftovers
from apogee_batch.network.card import write_model_card
from apogee_batch.network.checkpoint import (
    HEADER_FILE,
    load_checkpoint,
    load_state,
    remove_state,
    save_checkpoint,
    save_state,
)
from apogee_batch.network.header import CheckpointHeader
from apogee_batch.network.metrics import METRICS_FILE, append_metrics, keep_metrics
from apogee_batch.network.ranks import ALONE, Ranks
from apogee_batch.network.recipe import Recipe
from apogee_batch.network.state import EpochMetrics, TrainingState
from apogee_batch.network.training import train
from apogee_batch.network.training_set import TrainingSet


def train_in_folder(
    folder: Path,
    training_set: TrainingSet,
    recipe: Recipe,
    *,
    seed: int,
    device: str = "cpu",
    n_threads: int | None = None,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    ranks: Ranks = ALONE,
) -> CheckpointHeader:
    """Train, or go on training, and leave the checkpoint, its card and `metrics.jsonl` in a folder.

    Parameters
    ----------
    folder : Path
        Made if it is not there. Where a training in it was killed, this one goes on from its last epoch;
        where the same training has ended, nothing is done.
    training_set, recipe, seed, device, n_threads
        As for `train`.
    on_epoch : callable, optional
        Called after each epoch, when its state is on the disk.
    on_step, ranks : optional
        As for `train`. The first rank alone writes; the others read the state that it goes on from.

    Returns
    -------
    CheckpointHeader
        Of the finished model.

    Raises
    ------
    UsageError
        If the folder holds another model or another training, or as for `train`.
    IntegrityError
        If what the folder holds is damaged.
    """
    if ranks.rank > 0:
        return train(
            training_set,
            recipe,
            seed=seed,
            device=device,
            n_threads=n_threads,
            resume=load_state(folder),
            on_step=on_step,
            ranks=ranks,
        ).header
    remove_leftovers(folder)  # of a training that was killed in here: 90 MB each
    if (folder / HEADER_FILE).exists():
        return _finished(folder, training_set, recipe, seed)
    folder.mkdir(parents=True, exist_ok=True)
    state = load_state(folder)
    keep_metrics(folder / METRICS_FILE, last_epoch=0 if state is None else state.progress.epoch)
    started = time.monotonic()

    def save_epoch(metrics: EpochMetrics, after: TrainingState) -> None:
        nonlocal started
        ranks.check()
        append_metrics(folder / METRICS_FILE, metrics, seconds=time.monotonic() - started)
        save_state(folder, after)
        started = time.monotonic()
        if on_epoch is not None:
            on_epoch(metrics)

    trained = train(
        training_set,
        recipe,
        seed=seed,
        device=device,
        n_threads=n_threads,
        resume=state,
        on_epoch=save_epoch,
        on_step=on_step,
        ranks=ranks,
    )
    ranks.check()
    sha256 = save_checkpoint(folder, trained.weights, trained.header)
    write_model_card(folder, trained.header, sha256)
    remove_state(folder)
    return trained.header


def _finished(folder: Path, training_set: TrainingSet, recipe: Recipe, seed: int) -> CheckpointHeader:
    """Return the header of the model in a folder if this training made it."""
    checkpoint = load_checkpoint(folder)
    header = checkpoint.header
    made_by = (header.recipe, header.seed, header.training_set_hash)
    if made_by != (recipe.to_json(), seed, training_set.check()):
        raise UsageError(
            f"{folder} holds a model of another recipe, seed or training set: train into another folder"
        )
    write_model_card(folder, header, checkpoint.sha256)
    remove_state(folder)
    return header
