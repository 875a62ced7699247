"""Models and the states of a training on disk: safetensors and JSON, hashes checked on reading."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import (
    canonical_json,
    read_json,
    read_sealed_json,
    sha256_of_file,
    sha256_of_text,
    write_bytes,
    write_json,
    write_sealed_json,
)
from apogee_batch.network.calibration import Calibration, load_calibration
from apogee_batch.network.header import FORMAT_VERSION, CheckpointHeader
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.scaling import InputTransform, LabelScaler
from apogee_batch.network.state import Progress, TrainingState

MODEL_FILE = "model.safetensors"
HEADER_FILE = "model.json"
STATE_FILE = "state.json"
UNCALIBRATED = "uncalibrated"
REMEDY = "put a copy of it back, or remove the model's folder and train again"


class Identity(NamedTuple):
    """A model and its calibration, by their hashes: what the numbers of a catalogue depend on."""

    model_sha256: str
    calibration_sha256: str | None

    def __str__(self) -> str:
        return f"{self.model_sha256} {self.calibration_sha256 or UNCALIBRATED}"


@dataclass(frozen=True)
class Checkpoint:
    """A model that can predict.

    Attributes
    ----------
    model : SpectrumNet
        In evaluation mode, on the device asked for.
    header : CheckpointHeader
    sha256 : str
        Hash of weights and header: the model's identity.
    calibration : Calibration or None
        What is known of its errors, if it was calibrated.
    calibration_sha256 : str or None
        Hash of that.
    """

    model: SpectrumNet
    header: CheckpointHeader
    sha256: str
    calibration: Calibration | None = None
    calibration_sha256: str | None = None

    @property
    def calibrated(self) -> tuple[Calibration, str] | None:
        """Calibration and hash, if there is one."""
        if self.calibration is None or self.calibration_sha256 is None:
            return None
        return self.calibration, self.calibration_sha256

    def calibrated_by(self, calibration: Calibration, sha256: str) -> "Checkpoint":
        """Return the same model with a calibration."""
        return replace(self, calibration=calibration, calibration_sha256=sha256)

    @property
    def identity(self) -> Identity:
        """Model and calibration."""
        return Identity(self.sha256, self.calibration_sha256)

    @property
    def scaler(self) -> LabelScaler:
        """How outputs become labels."""
        return self.header.scaler

    @property
    def transform(self) -> InputTransform:
        """How spectra become inputs."""
        return self.header.transform


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
    sha256 = _sha256_of_model(header.to_json(), weights_sha256)
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
    header_path, weights_path = folder / HEADER_FILE, folder / MODEL_FILE
    if not header_path.is_file():
        raise UsageError(
            f"{folder}: no model here ({HEADER_FILE} is missing): name a folder that `train` wrote"
        )
    try:
        saved = read_json(header_path)
        header_json, weights_sha256, sha256 = saved["header"], saved["weights_sha256"], saved["sha256"]
        header = CheckpointHeader.from_json(header_json)
        is_whole = _sha256_of_model(header_json, weights_sha256) == sha256
    except IntegrityError as error:
        raise IntegrityError(f"{header_path}: {error}; {REMEDY}") from error
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{header_path}: is damaged ({error!r}); {REMEDY}") from error
    if not is_whole:
        raise IntegrityError(
            f"{header_path}: was changed after it was written (its sha256 differs); {REMEDY}"
        )
    if not weights_path.is_file() or sha256_of_file(weights_path) != weights_sha256:
        raise IntegrityError(
            f"{weights_path}: is missing or damaged (its sha256 is not the recorded one); {REMEDY}"
        )
    calibrated = load_calibration(folder, sha256) if with_calibration else None
    checkpoint = Checkpoint(build_model(load_tensors(weights_path), device=device), header, sha256)
    return checkpoint if calibrated is None else checkpoint.calibrated_by(*calibrated)


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
        raise IntegrityError(f"{path} is not a readable safetensors file: {error}") from error
    return tensors


def _to_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Return tensors in the safetensors format."""
    content: bytes = save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
    return content


def _sha256_of_model(header: dict[str, Any], weights_sha256: str) -> str:
    return sha256_of_text(canonical_json({"header": header, "weights": weights_sha256}))


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
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    remedy = f"remove {path} to train from the start"
    try:
        saved = read_sealed_json(path)
        if saved["format_version"] != FORMAT_VERSION:
            raise IntegrityError(
                f"{path} is of format {saved['format_version']}, not {FORMAT_VERSION}: {remedy}"
            )
        tensors_path = folder / Path(saved["tensors"]).name
        if not tensors_path.is_file() or sha256_of_file(tensors_path) != saved["sha256"]:
            raise IntegrityError(f"{tensors_path} is missing or damaged: {remedy}")
        progress = Progress.from_json(saved["progress"])
        return TrainingState(progress, saved["training_key"], load_tensors(tensors_path))
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} is damaged ({error!r}): {remedy}") from error


def remove_state(folder: Path) -> None:
    """Remove the state of a training that has ended; its 90 MB are of no more use."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    _remove_states(folder, keep=None)


def _remove_states(folder: Path, *, keep: Path | None) -> None:
    for path in folder.glob("state-*.safetensors"):
        if path != keep:
            path.unlink(missing_ok=True)
