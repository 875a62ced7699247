"""Whether everything in a model's folder is as it was written."""

import json
import re
from pathlib import Path
from typing import Any

from apogee_batch import __version__
from apogee_batch.errors import IntegrityError
from apogee_batch.network.calibration import CALIBRATION_FILE, CALIBRATION_TENSORS, load_calibration
from apogee_batch.network.card import CALIBRATION_HEADING, CARD_FILE, STARS_FACT, render_model_card
from apogee_batch.network.metrics import METRICS_FILE
from apogee_batch.network.model_files import (
    HEADER_FILE,
    MODEL_FILE,
    STATE_FILE,
    SavedModel,
    check_tensors,
    read_model,
    read_state,
)
from apogee_batch.network.training_stars import TRAINING_STARS_FILE, TrainingStars, read_training_stars
from apogee_batch.run.damage import MISSING, Findings, describe_problem
from apogee_batch.run.plan import PLAN_FILE

TRAIN_AGAIN = "give the same 'apogee-batch train' or 'run-catalog' command again"
TRAIN_ANEW = "put a copy of it back, or remove the model's folder and train again"
GO_ON_UNSAVED = f"remove {STATE_FILE} and give the command again, to train from the start"
ONLY_TOLD = "the model is whole without it, and nothing writes it again: delete it"
STARS_AGAIN = f"delete it, and {TRAIN_AGAIN}, which writes it anew"
CALIBRATE_AGAIN = f"{TRAIN_AGAIN}, or 'apogee-batch model calibrate', which makes it anew"


def examine_model(folder: Path, found: Findings, *, plan: dict[str, Any] | None) -> SavedModel | None:
    """Look at the files of a model, trained, in training or imported; return the model if it is whole."""
    n_before = len(found.damages)
    checkpoint = _load_model(folder, found)
    is_imported = checkpoint is not None and checkpoint.header.origin != "trained"
    is_told = any(damage.path == folder / PLAN_FILE for damage in found.damages)
    is_trained_here = any((folder / name).is_file() for name in (METRICS_FILE, STATE_FILE))
    if plan is None and not is_told and is_trained_here:
        found.add(folder / PLAN_FILE, MISSING, TRAIN_AGAIN)
    if (folder / STATE_FILE).is_file():
        found.attempt(lambda: _check_state(folder), folder / STATE_FILE, GO_ON_UNSAVED)
    if checkpoint is not None:
        checkpoint = _with_calibration(folder, checkpoint, found)
        _examine_card(folder, checkpoint, _examine_stars(folder, found), found)
    elif len(found.damages) == n_before:
        found.notes.append(f"{folder}: the training has not finished; {TRAIN_AGAIN}")
    if not is_imported and (checkpoint is not None or (folder / METRICS_FILE).is_file()):
        problem = _find_metrics_damage(folder / METRICS_FILE, is_finished=checkpoint is not None)
        if problem == MISSING and checkpoint is not None:
            found.notes.append(f"{folder / METRICS_FILE}: {MISSING}; the model is whole without it")
        elif problem is not None:
            found.add(folder / METRICS_FILE, problem, ONLY_TOLD)
    return checkpoint


def _load_model(folder: Path, found: Findings) -> SavedModel | None:
    """Load a model; say which of its files is damaged."""
    header, weights = folder / HEADER_FILE, folder / MODEL_FILE
    if not header.is_file():
        is_lost = weights.is_file() and not (folder / STATE_FILE).is_file()
        if is_lost:  # the state of a training goes only when the model is complete
            found.add(header, MISSING, TRAIN_ANEW)
        return None
    checkpoint = None
    try:
        read = read_model(folder, with_calibration=False)
        check_tensors(weights)
        checkpoint = read
    except IntegrityError as error:
        path = weights if str(error).startswith(str(weights)) else header
        found.add(path, describe_problem(error, path), TRAIN_ANEW)
    found.n_files += 2
    found.n_bytes += sum(path.stat().st_size for path in (header, weights) if path.is_file())
    return checkpoint


def _check_state(folder: Path) -> None:
    """Raise what keeps a training from going on; its tensors are no more than looked at."""
    state = read_state(folder)
    if state is not None:
        check_tensors(state.tensors)


def _with_calibration(folder: Path, checkpoint: SavedModel, found: Findings) -> SavedModel:
    """Load the calibration of a whole model; say which of its files is damaged, or that there is none."""
    path, tensors = folder / CALIBRATION_FILE, folder / CALIBRATION_TENSORS
    if not path.is_file():
        if checkpoint.header.origin == "trained":  # else nobody may have asked for one
            found.notes.append(f"{path}: {MISSING}; {TRAIN_AGAIN}, which calibrates the model")
        return checkpoint
    found.n_files += 2
    found.n_bytes += sum(each.stat().st_size for each in (path, tensors) if each.is_file())
    try:
        calibrated = load_calibration(folder, checkpoint.sha256)
    except IntegrityError as error:
        damaged = tensors if str(error).startswith(f"{tensors}") else path
        found.add(damaged, describe_problem(error, damaged), CALIBRATE_AGAIN)
        return checkpoint
    return checkpoint if calibrated is None else checkpoint.calibrated_by(*calibrated)


def _examine_stars(folder: Path, found: Findings) -> TrainingStars | None:
    """Read what the folder notes of the training stars; older models note nothing."""
    path, card = folder / TRAINING_STARS_FILE, folder / CARD_FILE
    if not path.is_file():
        if card.is_file() and STARS_FACT.encode() in card.read_bytes():
            found.add(path, MISSING, TRAIN_AGAIN)
        return None
    found.n_files += 1
    found.n_bytes += path.stat().st_size
    try:
        return read_training_stars(folder)
    except IntegrityError as error:
        found.add(path, describe_problem(error, path), STARS_AGAIN)
        return None


def _examine_card(folder: Path, checkpoint: SavedModel, stars: TrainingStars | None, found: Findings) -> None:
    """Compare the card with the model; another version of the program may word it otherwise."""
    path, header = folder / CARD_FILE, checkpoint.header
    if not path.is_file():
        found.add(path, MISSING, TRAIN_AGAIN)
        return
    if header.versions.get("apogee_batch") != __version__:
        return
    content = path.read_bytes()
    told_of = ((CALIBRATION_HEADING, checkpoint.calibrated), (STARS_FACT, stars))
    if any(thing is None and words.encode() in content for words, thing in told_of):
        return  # of a calibration, or of training stars, that are lost or damaged, which is told
    told = _words(content)
    # The card of a model that is being calibrated does not tell of it yet.
    possible = [None] if checkpoint.calibrated is None else [None, checkpoint.calibrated]
    cards = (
        render_model_card(header, checkpoint.sha256, calibrated, noted)
        for calibrated in possible
        for noted in (None, stars)  # a card of before they were noted does not tell of them
    )
    if all(told != _words(card.encode()) for card in cards):
        found.add(path, "does not describe the model", TRAIN_AGAIN)


def _words(content: bytes) -> list[bytes]:
    """Return the words of a text in alphabetical order: facts may stand in any."""
    return sorted(re.split(rb"[\s,()]+", content))


def _find_metrics_damage(path: Path, *, is_finished: bool) -> str | None:
    """Say what is wrong with the metrics; a torn last line is none while the training goes on."""
    if not path.is_file():
        return MISSING
    lines = path.read_bytes().splitlines()
    try:
        epochs = [json.loads(line)["epoch"] for line in (lines if is_finished else lines[:-1])]
    except (ValueError, KeyError, TypeError):
        return "holds a line that is no epoch"
    is_whole = epochs == list(range(1, len(epochs) + 1)) and (epochs or not is_finished)
    return None if is_whole else "does not hold every epoch"
