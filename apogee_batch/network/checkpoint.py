"""Models and the states of a training on disk: safetensors and JSON, hashes checked on reading."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from apogee_batch.files import write_bytes, write_json, write_sealed_json
from apogee_batch.network.header import FORMAT_VERSION, CheckpointHeader
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.model_files import (
    HEADER_FILE,
    MODEL_FILE,
    STATE_FILE,
    UNCALIBRATED,
    Identity,
    SavedModel,
    read_model,
    read_state,
    sha256_of_model,
    unreadable,
)
from apogee_batch.network.state import TrainingState

__all__ = [
    "HEADER_FILE",
    "MODEL_FILE",
    "STATE_FILE",
    "UNCALIBRATED",
    "Checkpoint",
    "Identity",
    "build_model",
    "load_checkpoint",
    "load_state",
    "load_tensors",
    "remove_state",
    "save_checkpoint",
    "save_state",
]


@dataclass(frozen=True)
class Checkpoint(SavedModel):
    """A model that can predict; its other attributes are those of `SavedModel`.

    Attributes
    ----------
    model : SpectrumNet
        In evaluation mode, on the device asked for.
    """

    model: SpectrumNet = field(kw_only=True)


def save_checkpoint(folder: Path, weights: dict[str, Tensor], header: CheckpointHeader) -> str:
    """Write `model.safetensors` and, last, `model.json`.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    weights : dict of Tensor
        State dict of a `SpectrumNet`.
    header : CheckpointHeader

    Returns
    -------
    str
        The model's sha256, as `load_checkpoint` gives it.
    """
    weights_sha256 = write_bytes(folder / MODEL_FILE, _to_bytes(weights)).sha256
    sha256 = sha256_of_model(header.to_json(), weights_sha256)
    write_json(
        folder / HEADER_FILE,
        {"header": header.to_json(), "weights_sha256": weights_sha256, "sha256": sha256},
    )
    return sha256


def load_checkpoint(folder: Path, *, device: str = "cpu", with_calibration: bool = True) -> Checkpoint:
    """Read a model and check that it is what was written.

    Parameters
    ----------
    folder : Path
        Folder with `model.safetensors` and `model.json`.
    device : str
        Where the model shall lie.
    with_calibration : bool
        Whether to read its calibration too, if there is one.

    Raises
    ------
    UsageError
        If there is no model in the folder.
    IntegrityError
        If a file is missing, damaged, or of another format.
    """
    saved = read_model(folder, with_calibration=with_calibration)
    model = build_model(load_tensors(folder / MODEL_FILE), device=device)
    return Checkpoint(saved.header, saved.sha256, saved.calibration, saved.calibration_sha256, model=model)


def build_model(weights: dict[str, Tensor], *, device: str = "cpu") -> SpectrumNet:
    """Return a `SpectrumNet` in evaluation mode that holds `weights`.

    Parameters
    ----------
    weights : dict of Tensor
        State dict; taken over, not copied, where they lie on `device` already.
    """
    with torch.device("meta"):  # the constructor's own random weights would be thrown away
        model = SpectrumNet()
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_(False).eval().to(device)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; `IntegrityError` if it is none."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise unreadable(path, error) from error
    return tensors


def _to_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Return tensors in the safetensors format."""
    content: bytes = save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
    return content


def save_state(folder: Path, state: TrainingState) -> None:
    """Write the state of a training; the one before it stays valid until this one is whole.

    The tensors go into a file named by the epoch; `state.json` names it with its hash and is replaced
    last, then older tensors go.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    state : TrainingState
    """
    path = folder / f"state-{state.progress.epoch:06d}.safetensors"
    sha256 = write_bytes(path, _to_bytes(state.tensors)).sha256
    write_sealed_json(
        folder / STATE_FILE,
        {
            "format_version": FORMAT_VERSION,
            "progress": state.progress.to_json(),
            "training_key": state.training_key,
            "tensors": path.name,
            "sha256": sha256,
        },
    )
    _remove_states(folder, keep=path)


def load_state(folder: Path) -> TrainingState | None:
    """Read the state of a training; None where none was saved.

    Raises
    ------
    IntegrityError
        If a state was saved and is missing a file, damaged, or of another format.
    """
    saved = read_state(folder)
    if saved is None:
        return None
    return TrainingState(saved.progress, saved.training_key, load_tensors(saved.tensors))


def remove_state(folder: Path) -> None:
    """Remove the state of a training that has ended; its 90 MB are of no more use."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    _remove_states(folder, keep=None)


def _remove_states(folder: Path, *, keep: Path | None) -> None:
    for path in folder.glob("state-*.safetensors"):
        if path != keep:
            path.unlink(missing_ok=True)
