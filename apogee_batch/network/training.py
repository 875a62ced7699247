"""Train the network: early stopping on the dev set, then adaptation (paper, sections 3.3 and 3.4)."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from apogee_batch.errors import ApogeeBatchError, UsageError
from apogee_batch.files import canonical_json, sha256_of_text
from apogee_batch.network.diagnosis import explain_plateau
from apogee_batch.network.draws import derive_generator, draw_adaptation_rows, draw_batches, make_dropout
from apogee_batch.network.header import CheckpointHeader
from apogee_batch.network.inputs import TrainingInputs
from apogee_batch.network.learner import Learner
from apogee_batch.network.memory import keep_freed_memory
from apogee_batch.network.ranks import ALONE, Ranks, Share, digest_of, join
from apogee_batch.network.recipe import Recipe
from apogee_batch.network.scaling import LabelScaler
from apogee_batch.network.state import EpochMetrics, Progress, TrainingState
from apogee_batch.network.stopping import (
    begin_next_round,
    can_adapt,
    is_round_over,
    judge,
    mean_loss,
)
from apogee_batch.network.training_set import RowArray, TrainingSet

EVALUATION_BATCH = 128
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that has been trained.

    Attributes
    ----------
    weights : dict of Tensor
        State dict of the best model, on the CPU.
    header : CheckpointHeader
        What belongs to them; `header.warnings` says what the training has against itself.
    n_epochs : int
        Over all phases.
    """

    weights: dict[str, Tensor]
    header: CheckpointHeader
    n_epochs: int


def train(
    training_set: TrainingSet,
    recipe: Recipe,
    *,
    seed: int,
    device: str = "cpu",
    n_threads: int | None = None,
    resume: TrainingState | None = None,
    on_epoch: Callable[[EpochMetrics, TrainingState], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    ranks: Ranks = ALONE,
) -> TrainedNetwork:
    """Train a network until its phases have ended.

    The same seed, data, recipe, device, number of threads and of ranks give the same bits, whether the
    training ran through or went on from a state.

    Parameters
    ----------
    training_set : TrainingSet
    recipe : Recipe
    seed : int
    device : str
        A torch device.
    n_threads : int, optional
        Threads of torch on the CPU; default as torch has it. Other numbers round sums differently.
    resume : TrainingState, optional
        Go on from here instead of from the start.
    on_epoch : callable, optional
        Called after each epoch with its metrics and the state to resume from.
    on_step : callable, optional
        Called after each step with the number of steps done and to be done in the epoch.
    ranks : Ranks, optional
        Those that share the training, each in a process that calls this; default this one alone.

    Raises
    ------
    RanksDisagreeError
        If the ranks have not got the same data, state or weights.
    UsageError
        If a split is empty, data are not numbers, or the state belongs to another training.
    ApogeeBatchError
        If the loss is never a number.
    """
    keep_freed_memory()
    with _reproducible(n_threads):
        trainer = _Trainer(training_set, recipe, seed=seed, device=device, on_step=on_step, ranks=ranks)
        progress = Progress(seed) if resume is None else trainer.take_up(resume)
        trainer.compare(progress)
        while progress.phase != "done":
            progress, metrics = trainer.run_epoch(progress)
            trainer.compare(progress)
            if on_epoch is not None:
                on_epoch(metrics, TrainingState(progress, trainer.key, trainer.learner.tensors()))
        return trainer.result(progress)


@contextmanager
def _reproducible(n_threads: int | None) -> Iterator[None]:
    """Make sums come out the same every time, and in full precision."""
    threads_before = torch.get_num_threads()
    if n_threads is not None:
        torch.set_num_threads(n_threads)
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(threads_before)


class _Trainer:
    """One training: its data, its network, and how an epoch goes."""

    def __init__(
        self,
        training_set: TrainingSet,
        recipe: Recipe,
        *,
        seed: int,
        device: str,
        on_step: Callable[[int, int], None] | None,
        ranks: Ranks,
    ) -> None:
        self.data = training_set
        self.recipe = recipe
        self.seed = seed
        self.device = device
        self.on_step = on_step
        self.ranks = ranks
        self.data_hash = training_set.check()
        self.key = sha256_of_text(canonical_json([recipe.to_json(), seed, self.data_hash]))
        self.transform = recipe.transform
        self.scaler = LabelScaler.from_labels(training_set.labels[training_set.rows("train")])
        self.inputs = TrainingInputs(training_set, recipe, self.scaler, device=device)
        self.n_train, self.n_dev = training_set.counts("train"), training_set.counts("dev")
        self.dev_rows = training_set.rows("dev")
        self.adapts = can_adapt(self.n_train, self.n_dev, recipe)
        self.learner = Learner(recipe, seed=seed, device=device, ranks=ranks)

    def take_up(self, state: TrainingState) -> Progress:
        """Go on from a state."""
        if state.training_key != self.key:
            raise UsageError(
                "the saved state is of a training with another recipe, seed or training set: "
                "use those again, or train into another folder"
            )
        self.learner.restore(state.tensors)
        return state.progress

    def compare(self, progress: Progress) -> None:
        """Check that all ranks stand where this one stands."""
        if self.ranks.n_ranks > 1:
            digest = digest_of([self.key, progress.to_json()], self.learner.tensors())
            self.ranks.agree(f"the state of the training after epoch {progress.epoch}", digest)

    def run_epoch(self, progress: Progress) -> tuple[Progress, EpochMetrics]:
        """Train for an epoch, evaluate, and decide what comes next."""
        recipe, seed, epoch, is_main = self.recipe, self.seed, progress.epoch, progress.phase == "main"
        batches = self._batches(progress)
        drop = make_dropout(recipe, seed=seed, epoch=epoch, device=self.device)
        noise = derive_generator(seed, "augmentation", epoch, device=self.device)
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        rate = recipe.adaptation_learning_rate
        with closing(self.inputs.each(batches, noise=noise, ranks=self.ranks)) as prepared:
            for i, (batch, (inputs, labels)) in enumerate(zip(batches, prepared, strict=True)):
                step, share = progress.step + i, Share.of(len(batch), self.ranks)
                if is_main:
                    rate = recipe.learning_rate_at(step, n_total=len(batches) * recipe.max_epochs)
                loss = self.learner.step(
                    inputs,
                    labels,
                    share=share,
                    number=step,
                    learning_rate=rate,
                    drop=None if drop is None else drop(share),
                )
                loss_sum += loss.double() * len(batch)
                if self.on_step is not None:
                    self.on_step(i + 1, len(batches))
        by_type = self._evaluate()
        after = judge(progress, by_type, self.n_dev, n_steps=len(batches), recipe=recipe)
        n_spectra = sum(map(len, batches))
        metrics = EpochMetrics(
            epoch=after.epoch,
            round_epoch=after.round_epoch,
            max_epochs=recipe.max_epochs if is_main else recipe.adaptation_max_epochs,
            phase=progress.phase,
            round=progress.round,
            n_spectra=n_spectra,
            n_steps=len(batches),
            learning_rate=rate,
            train_loss=loss_sum.item() / n_spectra,
            dev_loss=mean_loss(by_type, self.n_dev, by_type),
            dev_loss_by_type=by_type,
            is_best=after.best_epoch == after.epoch,
            n_stale=after.n_stale,
            patience=recipe.patience,
            warning=self._warn(after) if is_main else None,
        )
        return self._go_on(after), metrics

    def _go_on(self, progress: Progress) -> Progress:
        """Keep the best model; at the end of a phase or round, begin the next one from it."""
        if progress.best_epoch == progress.epoch:
            self.learner.keep_as_best()
        if not is_round_over(progress, self.recipe):
            return progress
        self.learner.return_to_best()
        return begin_next_round(progress, self.n_dev, adapts=self.adapts, recipe=self.recipe)

    def _batches(self, progress: Progress) -> list[RowArray]:
        """Return the batches of an epoch: of all training stars, or of those of the round."""
        recipe, seed = self.recipe, self.seed
        if progress.phase == "main":
            rows, min_steps = self.data.rows("train"), recipe.min_steps_per_epoch
        else:
            rows, min_steps = draw_adaptation_rows(self.data, recipe, seed=seed, round_=progress.round), 0
        return draw_batches(rows, recipe.batch_size, min_steps=min_steps, seed=seed, epoch=progress.epoch)

    def _evaluate(self) -> dict[str, float]:
        """Return the dev loss of each data type; the ranks share the batches."""
        starts = range(0, len(self.dev_rows), EVALUATION_BATCH)
        own = starts[Share.of(len(starts), self.ranks).slice]
        batches = [self.dev_rows[i : i + EVALUATION_BATCH] for i in own]
        with closing(self.inputs.each(batches)) as prepared:
            losses = self.learner.losses(prepared)
        losses = join(self.ranks.gather(losses.numpy()))
        types = self.data.data_type[self.dev_rows]
        return {t: losses[torch.from_numpy(types == t)].mean().item() for t in self.n_dev}

    def _warn(self, progress: Progress) -> str | None:
        """Say so if nothing was learned in the first epochs."""
        lowest = min(progress.first_losses, default=math.nan)
        if progress.epoch != self.recipe.plateau_epochs or lowest <= self.recipe.plateau_loss:
            return None
        return self._explain_plateau(lowest, progress.epoch)

    def _explain_plateau(self, dev_loss: float, n_epochs: int) -> str:
        text = explain_plateau(
            self.recipe,
            dev_loss=dev_loss,
            n_epochs=n_epochs,
            n_steps=len(self._batches(Progress(self.seed))),
            n_train=sum(self.n_train.values()),
        )
        logger.warning(text)
        return text

    def result(self, progress: Progress) -> TrainedNetwork:
        """Return the best model."""
        if progress.best_loss is None:
            raise ApogeeBatchError(
                f"the training diverged: in {progress.epoch} epochs the dev loss was never a number; "
                "lower the learning rate of the recipe, or train with the recipe `robust`"
            )
        dev_loss = mean_loss(progress.best_by_type, self.n_dev, progress.best_by_type)
        warnings: tuple[str, ...] = ()
        if dev_loss > self.recipe.plateau_loss:
            warnings = (self._explain_plateau(dev_loss, progress.epoch),)
        header = CheckpointHeader(
            origin="trained",
            transform=self.transform,
            scaler=self.scaler,
            recipe=self.recipe.to_json(),
            label_range=self.data.label_range(),
            training_set_hash=self.data_hash,
            n_train=self.n_train,
            dev_loss=dev_loss,
            dev_loss_by_type=progress.best_by_type,
            seed=self.seed,
            device=torch.device(self.device).type,
            warnings=warnings,
        )
        weights = {name: tensor.cpu() for name, tensor in self.learner.best.items()}
        return TrainedNetwork(weights, header, progress.epoch)
