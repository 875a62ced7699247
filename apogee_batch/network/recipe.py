"""How a network is trained: every choice that changes its numbers, in one TOML file."""

import math
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apogee_batch.errors import UsageError
from apogee_batch.network.scaling import CONTRAST_GAIN, MAX_CONTRAST, InputTransform

RECIPE_NAMES = ("paper", "robust")


class Recipe(BaseModel):
    """The settings of a training.

    Attributes
    ----------
    name : str
        What tables and model cards call it.
    input : {"raw", "contrast"}
        Input transform: the flux as it is, or its contrast (flux over its median, minus 1).
    clip, gain : float
        The contrast is limited to plus and minus `clip`, and then multiplied by `gain`.
    initialisation : {"torch", "kaiming"}
        First weights: torch's default, or Kaiming-normal for ReLU with zero biases.
    optimiser : {"sgd", "adam"}
        `adam` takes its weight decay apart from the gradient (AdamW).
    learning_rate : float
        Learning rate before adaptation.
    momentum : float
        Of `sgd`; `adam` does not use it.
    weight_decay : float
        Share of each weight that a step takes away, times the learning rate.
    schedule : {"constant", "cosine"}
        `cosine`: a linear rise over `warmup_fraction` of all steps, then half a cosine down to zero at the
        last of `max_epochs`; constant in adaptation.
    warmup_fraction : float
        `cosine`: share of all steps during which the learning rate rises.
    max_gradient_norm : float
        Longer gradients are shortened to this norm; 0: never.
    batch_size : int
        Spectra of a step.
    dropout : float
        Probability with which an output of fc1 or fc2 is dropped.
    average_decay : float
        Above 0: the model that is evaluated and kept is an exponential running mean of the weights, with
        this weight of the past at each step.
    noise : float
        Above 0: training spectra get white noise, different every time, of a standard deviation up to
        this fraction of their median flux (`augmentation.add_noise`).
    min_steps_per_epoch : int
        An epoch before adaptation is one pass through the training set, or as many passes as give this many
        steps.
    max_epochs : int
        Epochs before adaptation at most.
    patience : int
        Evaluations on the dev set without improvement that end the training or a round.
    plateau_loss : float
        A dev loss above this after `plateau_epochs` epochs says that nothing is learned: a network that
        knows the mean labels only has 1.
    plateau_epochs : int
        Epochs after which a dev loss above `plateau_loss` ends the training.
    adaptation_payne_fraction : float
        Share of the Payne training stars that a round of adaptation draws.
    adaptation_payne_floor : float
        It draws at least this many Payne stars for each M dwarf and YSO, as far as there are so many.
    adaptation_learning_rate : float
        Learning rate of adaptation.
    adaptation_max_epochs : int
        Epochs of one round at most.
    adaptation_max_rounds : int
        0: no adaptation.
    adaptation_stale_rounds : int
        Rounds in a row without gain that end adaptation.
    adaptation_payne_tolerance : float
        A model is accepted in adaptation only if its Payne dev loss is at most (1 + this) times the one
        that adaptation began with.
    autocast : {"off", "bfloat16"}
        `bfloat16`: the passes through the network and back are computed in 16 bits where torch holds that
        for safe. Weights, loss, optimiser and every dev loss stay in float32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    input: Literal["raw", "contrast"]
    clip: float = Field(MAX_CONTRAST, gt=0)
    gain: float = Field(CONTRAST_GAIN, gt=0)
    initialisation: Literal["torch", "kaiming"]
    optimiser: Literal["sgd", "adam"]
    learning_rate: float = Field(gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_fraction: float = Field(0.0, ge=0, lt=1)
    max_gradient_norm: float = Field(0.0, ge=0)
    batch_size: int = Field(128, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    average_decay: float = Field(0.0, ge=0, lt=1)
    noise: float = Field(0.0, ge=0)
    min_steps_per_epoch: int = Field(0, ge=0)
    max_epochs: int = Field(1000, ge=1)
    patience: int = Field(5, ge=1)
    plateau_loss: float = Field(0.9, gt=0)
    plateau_epochs: int = Field(3, ge=1)
    adaptation_payne_fraction: float = Field(0.05, ge=0, le=1)
    adaptation_payne_floor: float = Field(0.0, ge=0)
    adaptation_learning_rate: float = Field(gt=0)
    adaptation_max_epochs: int = Field(1000, ge=1)
    adaptation_max_rounds: int = Field(1000, ge=0)
    adaptation_stale_rounds: int = Field(1, ge=1)
    adaptation_payne_tolerance: float = Field(0.1, ge=0)
    autocast: Literal["off", "bfloat16"] = "off"

    @property
    def transform(self) -> InputTransform:
        """How spectra become inputs."""
        return InputTransform(self.input, self.clip, self.gain)

    def learning_rate_at(self, step: int, *, n_total: int) -> float:
        """Return the learning rate of a step of the main phase.

        Parameters
        ----------
        step : int
            From 0.
        n_total : int
            Steps that the phase has at most.
        """
        if self.schedule == "constant":
            return self.learning_rate
        rise = min(1.0, (step + 1) / (self.warmup_fraction * n_total + 1))
        return self.learning_rate * rise * 0.5 * (1.0 + math.cos(math.pi * step / n_total))

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values.

        A recipe without autocast does not mention it: its hash, and with it the states and models of
        trainings that knew no such setting, stay what they are.
        """
        return self.model_dump(mode="json", exclude={"autocast"} if self.autocast == "off" else None)


def load_recipe(name: str) -> Recipe:
    """Read a recipe that comes with the package, or one from a file.

    Parameters
    ----------
    name : str
        `paper`, `robust`, or the path of a TOML file with the same keys.

    Raises
    ------
    UsageError
        If there is none of that name, or it has an unknown, missing or impossible setting.
    """
    if name in RECIPE_NAMES:
        text = (files("apogee_batch.network.recipes") / f"{name}.toml").read_text(encoding="utf-8")
        return parse_recipe(text, source=name)
    path = Path(name)
    if not path.is_file():
        known = ", ".join(RECIPE_NAMES)
        raise UsageError(f"no recipe {name!r}: use one of {known}, or the path of a TOML file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as text: {error}") from error
    return parse_recipe(text, source=str(path))


def parse_recipe(text: str, *, source: str) -> Recipe:
    """Read a recipe from TOML text.

    Parameters
    ----------
    text : str
    source : str
        Where it comes from, for the error message.

    Raises
    ------
    UsageError
        As for `load_recipe`.
    """
    try:
        return Recipe.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"recipe {source} is not TOML: {error}") from error
    except ValidationError as error:
        raise UsageError(f"recipe {source}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    """Say in one line which settings are wrong, and how."""
    texts = []
    for problem in error.errors():
        setting = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            texts.append(f"unknown setting {setting!r} (known: {', '.join(Recipe.model_fields)})")
        elif problem["type"] == "missing":
            texts.append(f"setting {setting!r} is missing")
        else:
            texts.append(f"{setting} = {problem['input']!r}: {problem['msg'].lower()}")
    return "; ".join(texts)
