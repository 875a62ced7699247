"""What the files of a model's folder say, without its weights: all that most who ask about a model need.

Weights are tensors, and whoever holds tensors has waited for torch; `network.checkpoint` gives a model that
can predict.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from safetensors import SafetensorError, safe_open

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import canonical_json, read_json, read_sealed_json, sha256_of_file, sha256_of_text
from apogee_batch.network.calibration import Calibration, load_calibration
from apogee_batch.network.header import FORMAT_VERSION, CheckpointHeader
from apogee_batch.network.scaling import InputTransform, LabelScaler
from apogee_batch.network.state import Progress

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
class SavedModel:
    """A model whose files are whole.

    Attributes
    ----------
    header : CheckpointHeader
    sha256 : str
        Hash of weights and header: the model's identity.
    calibration : Calibration or None
        What is known of its errors, if it was calibrated.
    calibration_sha256 : str or None
        Hash of that.
    """

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

    def calibrated_by(self, calibration: Calibration, sha256: str) -> Self:
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


@dataclass(frozen=True)
class SavedState:
    """The state of a training whose files are whole.

    Attributes
    ----------
    progress : Progress
    training_key : str
        What the state belongs to.
    tensors : Path
        The file of its tensors.
    """

    progress: Progress
    training_key: str
    tensors: Path


def is_trained(folder: Path) -> bool:
    """Tell whether a folder holds a model whose training is over."""
    return (folder / HEADER_FILE).is_file() and not any(folder.glob("state*"))  # else its end has not cleared


def read_model(folder: Path, *, with_calibration: bool = True) -> SavedModel:
    """Read what a model says of itself, and check that all of it, weights as well, is what was written.

    Parameters
    ----------
    folder : Path
        Folder with `model.safetensors` and `model.json`.
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
        is_whole = sha256_of_model(header_json, weights_sha256) == sha256
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
    return SavedModel(header, sha256, *(calibrated or ()))


def sha256_of_model(header: Mapping[str, Any], weights_sha256: str) -> str:
    """Return the hash of a model: of the values of its header and the hash of its weights."""
    return sha256_of_text(canonical_json({"header": header, "weights": weights_sha256}))


def read_state(folder: Path) -> SavedState | None:
    """Read where a training stands, and check its tensors' hash; None where no state was saved.

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
        tensors = folder / Path(saved["tensors"]).name
        if not tensors.is_file() or sha256_of_file(tensors) != saved["sha256"]:
            raise IntegrityError(f"{tensors} is missing or damaged: {remedy}")
        return SavedState(Progress.from_json(saved["progress"]), saved["training_key"], tensors)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} is damaged ({error!r}): {remedy}") from error


def check_tensors(path: Path) -> None:
    """Check that a file is of the safetensors format.

    Raises
    ------
    IntegrityError
        If it is not.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> IntegrityError:
    """Return the error for a file of tensors that cannot be read."""
    return IntegrityError(f"{path} is not a readable safetensors file: {error}")
