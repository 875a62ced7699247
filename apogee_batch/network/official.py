"""The authors' published weights of APOGEE Net I."""

import pickle
import warnings
from pathlib import Path

import torch
from torch import Tensor

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.network.calibration import CALIBRATION_FILE, CALIBRATION_TENSORS
from apogee_batch.network.card import CARD_FILE
from apogee_batch.network.checkpoint import (
    HEADER_FILE,
    MODEL_FILE,
    Checkpoint,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
)
from apogee_batch.network.header import CheckpointHeader
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform

MAX_KEYS_NAMED = 6
OF_CALIBRATION = (CALIBRATION_FILE, CALIBRATION_TENSORS, CARD_FILE, "logs", "lock")  # made of an import later


def import_official(file: Path, folder: Path) -> Checkpoint:
    """Turn the authors' state dict into a checkpoint of this package.

    The input is `raw` and the scaler is the authors'; the range of their training labels is not known.

    Parameters
    ----------
    file : Path
        What `torch.save(model.state_dict(), file)` wrote.
    folder : Path
        Where the checkpoint goes: new, empty, or with this very model from an earlier import.

    Raises
    ------
    UsageError
        If the file is missing, is not a state dict, or is that of another network; if the folder holds
        anything else.
    """
    weights = _read_state_dict(file)
    _check_against_model(weights, file)
    header = CheckpointHeader(origin="official", transform=InputTransform("raw"), scaler=OFFICIAL_SCALER)
    weights = {name: tensor.float() for name, tensor in weights.items()}
    if not _is_imported(folder, weights, header):
        save_checkpoint(folder, weights, header)
    return load_checkpoint(folder)


def _is_imported(folder: Path, weights: dict[str, Tensor], header: CheckpointHeader) -> bool:
    """Tell whether a folder holds this import already; refuse a folder that holds anything else."""
    if not folder.exists():
        return False
    refusal = UsageError(f"{folder}: holds something other than this import; name a new folder with --out")
    if not folder.is_dir():
        raise refusal
    names = {path.name for path in folder.iterdir() if not path.match(".*.partial")}
    if not names <= {MODEL_FILE, HEADER_FILE, *OF_CALIBRATION}:
        raise refusal
    try:
        found = load_tensors(folder / MODEL_FILE) if MODEL_FILE in names else weights
        same = found.keys() == weights.keys() and all(found[name].equal(weights[name]) for name in weights)
        if HEADER_FILE in names:  # absent where an import was killed between its two files
            there = load_checkpoint(folder, with_calibration=False).header
            same = same and (there.origin, there.transform) == (header.origin, header.transform)
    except IntegrityError as error:
        raise refusal from error
    if not same:
        raise refusal
    return HEADER_FILE in names


def _read_state_dict(file: Path) -> dict[str, Tensor]:
    """Read tensors only: nothing in the file is run."""
    if not file.is_file():
        raise UsageError(f"{file}: no such file; name the authors' state dict (.pt)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a strange pickle protocol, before it is refused
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise UsageError(
            f"{file}: not a torch file of weights only ({type(error).__name__}); "
            "name a state dict, as `torch.save(model.state_dict(), FILE)` writes it"
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UsageError(f"{file} holds no state dict (a dict of tensors): save `model.state_dict()`")
    return loaded


def _check_against_model(weights: dict[str, Tensor], file: Path) -> None:
    """Refuse weights that are not those of `SpectrumNet`, saying what differs."""
    with torch.device("meta"):
        expected = SpectrumNet().state_dict()
    problems = []
    if missing := [name for name in expected if name not in weights]:
        problems.append(f"missing {_list(missing)}")
    if unexpected := [name for name in weights if name not in expected]:
        problems.append(f"unexpected {_list(unexpected)}")
    for name, tensor in expected.items():
        if name in weights and weights[name].shape != tensor.shape:
            problems.append(f"{name} has shape {tuple(weights[name].shape)}, not {tuple(tensor.shape)}")
        elif name in weights and not bool(torch.isfinite(weights[name]).all()):
            problems.append(f"{name} holds NaN or infinity")
    if problems:
        raise UsageError(f"{file} is not a state dict of APOGEE Net I: {'; '.join(problems)}")


def _list(names: list[str]) -> str:
    more = f" and {len(names) - MAX_KEYS_NAMED} more" if len(names) > MAX_KEYS_NAMED else ""
    return ", ".join(names[:MAX_KEYS_NAMED]) + more
