"""What a model knows of its own errors: made from stars that did not teach it, beside its weights, sealed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from apogee_batch.errors import IntegrityError
from apogee_batch.files import (
    canonical_json,
    read_sealed_json,
    sha256_of_file,
    sha256_of_text,
    write_bytes,
    write_sealed_json,
)
from apogee_batch.network.error_model import ErrorModel
from apogee_batch.network.hull import LabelHull
from apogee_batch.network.strangeness import Strangeness

CALIBRATION_FILE = "calibration.json"
CALIBRATION_TENSORS = "calibration.safetensors"
FORMAT_VERSION = 1
STRANGENESS, HULL = "strangeness", "hull"  # the parts that have arrays
COMPUTED_ON = "computed_on"  # may be missing: older files do not tell it
REMEDY = (
    "give the command that trained the model again, or 'apogee-batch model calibrate MODEL STORE', which "
    "makes it anew"
)


@dataclass(frozen=True)
class Calibration:
    """What was learned of a model from stars that did not teach it.

    Attributes
    ----------
    model_sha256 : str
        The model it belongs to.
    settings : mapping
        JSON values: what it was made from and with. The same settings give the same calibration.
    n_stars : mapping of str to int
        Dev stars behind it, by data type.
    error_model : ErrorModel or None
        Calibrated errors; None where there were too few stars.
    strangeness : Strangeness or None
        What tells spectra that are unlike those of the training set.
    hull : LabelHull or None
        Where the labels of the training set lie.
    notes : tuple of str
        What is missing, and why; for people.
    computed_on : str
        Device, engine and precision behind it; empty where it does not tell. It is not part of the
        calibration's hash: the same numbers are the same calibration, whatever computed them.
    """

    model_sha256: str
    settings: Mapping[str, Any]
    n_stars: Mapping[str, int]
    error_model: ErrorModel | None = None
    strangeness: Strangeness | None = None
    hull: LabelHull | None = None
    notes: tuple[str, ...] = ()
    computed_on: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return all but the tensors as JSON values."""
        told = {COMPUTED_ON: self.computed_on} if self.computed_on else {}
        return told | {
            "format": "apogee_batch calibration",
            "format_version": FORMAT_VERSION,
            "model_sha256": self.model_sha256,
            "settings": dict(self.settings),
            "n_stars": dict(self.n_stars),
            "error_model": None if self.error_model is None else self.error_model.to_json(),
            "strangeness": None if self.strangeness is None else self.strangeness.to_json(),
            "hull": None if self.hull is None else self.hull.to_json(),
            "notes": list(self.notes),
        }

    def tensors(self) -> dict[str, Any]:
        """Return the arrays of the parts, each with the part's name before its own."""
        parts = {STRANGENESS: self.strangeness, HULL: self.hull}
        return {
            f"{name}.{key}": array
            for name, part in parts.items()
            if part is not None
            for key, array in part.tensors().items()
        }


def save_calibration(folder: Path, calibration: Calibration) -> str:
    """Write a calibration into the folder of its model, and return its sha256.

    One that is there goes first, so that no file of it can be taken for one of the new one.
    """
    (folder / CALIBRATION_FILE).unlink(missing_ok=True)
    written = write_bytes(folder / CALIBRATION_TENSORS, save(calibration.tensors()))
    values = calibration.to_json() | {"tensors_sha256": written.sha256}
    write_sealed_json(folder / CALIBRATION_FILE, values)
    return _sha256_of(values)


def load_calibration(folder: Path, model_sha256: str) -> tuple[Calibration, str] | None:
    """Read the calibration of a model and its sha256; None where it has none.

    Raises
    ------
    IntegrityError
        If it is damaged, of another model, or of another format; names the file.
    """
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        return None
    try:
        values = read_sealed_json(path)
        calibration = _from_values(values, folder, model_sha256)
    except IntegrityError as error:
        named = str(error) if str(error).startswith(f"{folder}") else f"{path}: {error}"
        raise IntegrityError(f"{named}; {REMEDY}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{path}: is damaged ({error!r}); {REMEDY}") from error
    return calibration, _sha256_of(values)


def _sha256_of(values: Mapping[str, Any]) -> str:
    """Return the hash of a calibration: of all its file says but what computed it."""
    return sha256_of_text(
        canonical_json({name: value for name, value in values.items() if name != COMPUTED_ON})
    )


def _from_values(values: Mapping[str, Any], folder: Path, model_sha256: str) -> Calibration:
    """Return the calibration that a file describes."""
    if values["format_version"] != FORMAT_VERSION:
        raise IntegrityError(f"of format {values['format_version']}, this program reads {FORMAT_VERSION}")
    if values["model_sha256"] != model_sha256:
        raise IntegrityError("belongs to another model")
    arrays = _load_arrays(folder / CALIBRATION_TENSORS, values["tensors_sha256"])
    errors, strangeness, hull = (values[name] for name in ("error_model", STRANGENESS, HULL))
    return Calibration(
        model_sha256=model_sha256,
        settings=values["settings"],
        n_stars=values["n_stars"],
        error_model=errors and ErrorModel.from_json(errors),
        strangeness=strangeness and Strangeness.from_parts(strangeness, arrays[STRANGENESS]),
        hull=hull and LabelHull.from_parts(hull, arrays[HULL]),
        notes=tuple(values["notes"]),
        computed_on=str(values.get(COMPUTED_ON, "")),
    )


def _load_arrays(path: Path, sha256: str) -> dict[str, dict[str, Any]]:
    """Read the arrays of each part, by the part's name and their own."""
    if not path.is_file() or sha256_of_file(path) != sha256:
        raise IntegrityError(f"{path}: is missing or damaged (its sha256 is not the recorded one)")
    try:
        loaded = load_file(path)
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path}: is no readable safetensors file ({error})") from error
    arrays: dict[str, dict[str, Any]] = {STRANGENESS: {}, HULL: {}}
    for name, array in loaded.items():
        part, _, key = name.partition(".")
        arrays[part][key] = array
    return arrays
