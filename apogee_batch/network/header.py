"""What a checkpoint says about itself: the JSON beside the weights."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

import numpy as np

from apogee_batch import __version__
from apogee_batch.errors import IntegrityError
from apogee_batch.network.scaling import InputTransform, LabelScaler
from apogee_batch.schema import LABEL_NAMES

FORMAT_VERSION = 1


def _current_versions() -> dict[str, str]:
    """Return the versions of what computes."""
    return {
        "apogee_batch": __version__,
        "torch": version("torch"),  # as torch says itself; many read a header who need no torch
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


@dataclass(frozen=True)
class CheckpointHeader:
    """Everything but the weights that a model's numbers depend on, and where it comes from.

    Attributes
    ----------
    origin : {"trained", "official"}
        Trained here, or imported weights of the authors.
    transform, scaler
        What the network reads and writes.
    recipe : dict or None
        The training recipe as JSON values; None for imported weights, as for the rest below.
    label_range : dict of (float, float) or None
        Smallest and largest label of the training set, by label name, in physical units.
    training_set_hash : str or None
        SHA-256 that the caller gives to the training set.
    n_train : dict of int
        Number of training stars by data type.
    dev_loss : float or None
        Mean squared error of standardised labels of the dev set.
    dev_loss_by_type : dict of float
        The same by data type.
    seed : int or None
    device : str or None
        Kind of device that trained it.
    warnings : tuple of str
        What the training had to say against itself.
    versions : dict of str
        Versions of apogee_batch, torch, numpy and python that wrote it.
    """

    origin: Literal["trained", "official"]
    transform: InputTransform
    scaler: LabelScaler
    recipe: Mapping[str, Any] | None = None
    label_range: Mapping[str, tuple[float, float]] | None = None
    training_set_hash: str | None = None
    n_train: Mapping[str, int] = field(default_factory=dict)
    dev_loss: float | None = None
    dev_loss_by_type: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None
    device: str | None = None
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=_current_versions)

    def to_json(self) -> dict[str, Any]:
        """Return the header as JSON values."""
        label_range = None
        if self.label_range is not None:
            label_range = {name: list(ends) for name, ends in self.label_range.items()}
        return {
            "format": "apogee_batch model",
            "format_version": FORMAT_VERSION,
            "label_order": list(LABEL_NAMES),
            "origin": self.origin,
            "transform": self.transform.to_json(),
            "scaler": self.scaler.to_json(),
            "recipe": None if self.recipe is None else dict(self.recipe),
            "label_range": label_range,
            "training_set_hash": self.training_set_hash,
            "n_train": dict(self.n_train),
            "dev_loss": self.dev_loss,
            "dev_loss_by_type": dict(self.dev_loss_by_type),
            "seed": self.seed,
            "device": self.device,
            "warnings": list(self.warnings),
            "versions": dict(self.versions),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "CheckpointHeader":
        """Return the header that `to_json` wrote.

        Raises
        ------
        IntegrityError
            If it is of another format version or label order, or incomplete.
        """
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise IntegrityError(
                f"model format {version}, this program reads {FORMAT_VERSION}: use the release that wrote it"
            )
        if values.get("label_order") != list(LABEL_NAMES):
            raise IntegrityError(f"model with labels {values.get('label_order')}, not {list(LABEL_NAMES)}")
        label_range = values["label_range"]
        if label_range is not None:
            label_range = {name: (float(low), float(high)) for name, (low, high) in label_range.items()}
        same = ("origin", "recipe", "training_set_hash", "n_train", "dev_loss", "dev_loss_by_type", "seed")
        try:
            return cls(
                transform=InputTransform.from_json(values["transform"]),
                scaler=LabelScaler.from_json(values["scaler"]),
                label_range=label_range,
                device=values["device"],
                warnings=tuple(values["warnings"]),
                versions=values["versions"],
                **{name: values[name] for name in same},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"the header of the model is incomplete: {error!r}") from error
