"""Where a training stands after an epoch: all that it needs to go on as if never stopped."""

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Phase = Literal["main", "adaptation", "done"]


@dataclass(frozen=True)
class Progress:
    """The numbers of a training's state.

    There is no state of a random generator among them: the random numbers of each epoch follow from
    the seed and the epoch's number, the Payne stars of a round from the seed and the round's.

    Attributes
    ----------
    seed : int
    phase : {"main", "adaptation", "done"}
    round : int
        Adaptation round, from 1; 0 before.
    epoch, round_epoch : int
        Epochs done, over all phases and in this phase or round.
    step : int
        Optimiser steps done in this phase or round.
    n_stale : int
        Evaluations in this phase or round since the best one.
    n_stale_rounds : int
        Adaptation rounds in a row that brought no better model.
    best_epoch : int
        Epoch of the best model; 0 before there is one.
    best_loss : float or None
        What the best model is best in: dev loss in the main phase, the dev loss of M dwarfs and YSOs
        in adaptation.
    best_by_type : dict of float
        Dev loss of the best model by data type.
    payne_limit : float or None
        Largest Payne dev loss that adaptation accepts.
    first_losses : tuple of float
        Dev losses of the first epochs, for the verdict whether anything is learned.
    """

    seed: int
    phase: Phase = "main"
    round: int = 0
    epoch: int = 0
    round_epoch: int = 0
    step: int = 0
    n_stale: int = 0
    n_stale_rounds: int = 0
    best_epoch: int = 0
    best_loss: float | None = None
    best_by_type: dict[str, float] = field(default_factory=dict)
    payne_limit: float | None = None
    first_losses: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return asdict(self) | {"first_losses": list(self.first_losses)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Progress":
        """Return the numbers that `to_json` wrote."""
        return cls(**(values | {"first_losses": tuple(values["first_losses"])}))


@dataclass(frozen=True)
class TrainingState:
    """A training after an epoch.

    Attributes
    ----------
    progress : Progress
    training_key : str
        What the state belongs to: hash of recipe, seed and training set; a training with another key
        does not go on from it.
    tensors : dict of Tensor
        `weights.*` (the model), `best.*` (the best model), `average.*` (the running mean of the weights, if
        the recipe has one) and `optimiser.*` (its moments), by parameter.
    """

    progress: Progress
    training_key: str
    tensors: dict[str, "Tensor"]

    def part(self, prefix: str) -> dict[str, "Tensor"]:
        """Return the tensors below `prefix`, without it."""
        start = f"{prefix}."
        return {name.removeprefix(start): t for name, t in self.tensors.items() if name.startswith(start)}


@dataclass(frozen=True)
class EpochMetrics:
    """What an epoch gave: a line of `metrics.jsonl`.

    Attributes
    ----------
    epoch, round_epoch : int
        Over all phases, and in this phase or round; from 1.
    max_epochs : int
        Epochs that this phase or round has at most.
    phase : {"main", "adaptation"}
    round : int
        Adaptation round; 0 in the main phase.
    n_spectra, n_steps : int
        Spectra seen and optimiser steps done in the epoch.
    learning_rate : float
        Of the last step.
    train_loss : float
        Mean squared error of standardised labels while training: with dropout, before each step.
    dev_loss : float
        Mean squared error of standardised labels of the dev set.
    dev_loss_by_type : dict of float
        The same by data type.
    is_best : bool
        Whether this is the best model so far.
    n_stale, patience : int
        Evaluations without improvement, and how many end the phase or round.
    warning : str or None
        What the user must be told.
    """

    epoch: int
    round_epoch: int
    max_epochs: int
    phase: Phase
    round: int
    n_spectra: int
    n_steps: int
    learning_rate: float
    train_loss: float
    dev_loss: float
    dev_loss_by_type: dict[str, float]
    is_best: bool
    n_stale: int
    patience: int
    warning: str | None = None
