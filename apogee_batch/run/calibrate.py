"""The calibration stage: what a model gets wrong on the dev set, learned once and kept beside it."""

from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import remove_leftovers, sha256_of_file
from apogee_batch.inference.noise import NOISE_DEFINITION
from apogee_batch.network.calibration import load_calibration
from apogee_batch.network.card import write_model_card
from apogee_batch.network.checkpoint import Checkpoint, load_checkpoint
from apogee_batch.run.attempts import run_alone
from apogee_batch.run.calibrate_task import (
    MAX_DEV_STARS,
    MAX_TRAINING_STARS,
    calibrate_network,
    choose_stars,
    read_labelled,
)
from apogee_batch.run.clusters import Workers
from apogee_batch.run.config import InferenceSettings, RunConfig
from apogee_batch.run.fingerprint import store_fingerprint
from apogee_batch.run.lock import Lock
from apogee_batch.run.model_notes import notes_on
from apogee_batch.run.progress import ProgressView
from apogee_batch.run.store_tables import require_whole_tables
from apogee_batch.store.tables import LABELS, table_path

POLL_S = 0.5
STAGE = "calibrate"


def calibration_settings(store: Path, inference: InferenceSettings) -> dict[str, Any]:
    """Return what a calibration depends on beside the model, as JSON values."""
    labels = table_path(store, LABELS)
    if not labels.is_file():
        raise UsageError(
            f"{store}: has no labels to calibrate with; attach them with 'apogee-batch labels attach'"
        )
    require_whole_tables(store)
    return {
        "store_sha256": store_fingerprint(store),
        "labels_sha256": sha256_of_file(labels),
        "realizations": inference.realizations,
        "seed": inference.seed,
        "err_cap": inference.err_cap,
        "precision": inference.precision,
        "noise": NOISE_DEFINITION,
        "max_dev_stars": MAX_DEV_STARS,
        "max_training_stars": MAX_TRAINING_STARS,
    }


def run_calibration(
    store: Path,
    folder: Path,
    config: RunConfig,
    workers: Workers,
    progress: ProgressView,
    *,
    lock: Lock,
) -> Checkpoint:
    """Calibrate a model, unless it is calibrated with the same settings already.

    Parameters
    ----------
    store : Path
        A store with labels.
    folder : Path
        Of the model; gets the calibration, and a card that tells of it.
    config : RunConfig
        Settings `inference`, and the cluster's device.
    workers : Workers
        One of them does it.
    progress : ProgressView
        What the user sees.
    lock : Lock
        Of the folder, or of the run around it; looked at meanwhile.

    Returns
    -------
    Checkpoint
        With its calibration.

    Raises
    ------
    UsageError
        If there are no labels.
    IntegrityError
        If the model is damaged, or the spectra are not what was ingested.
    LockedError
        If another process took the lock away.
    """
    remove_leftovers(folder)
    wanted = calibration_settings(store, config.inference)
    bare = load_checkpoint(folder, with_calibration=False)
    sha256 = bare.sha256
    if is_calibrated(folder, sha256, wanted):
        progress.say(f"{STAGE}: {folder} is calibrated already")
    else:
        write_model_card(folder, bare.header, sha256)  # it never tells of a calibration that is not there
        _calibrate(store, folder, sha256, wanted, config, workers, progress, lock)
    checkpoint = load_checkpoint(folder)
    # Always: an old card may be damaged, and that of the training tells of no calibration.
    write_model_card(folder, checkpoint.header, sha256, checkpoint.calibrated)
    for note in notes_on(checkpoint.calibration, config.inference):
        progress.say(f"{STAGE}: {note}")
    return checkpoint


def is_calibrated(folder: Path, model_sha256: str, wanted: dict[str, Any]) -> bool:
    """Tell whether a model has a whole calibration with these settings."""
    try:
        found = load_calibration(folder, model_sha256)
    except IntegrityError:
        return False
    return found is not None and found[0].settings == wanted


def _calibrate(
    store: Path,
    folder: Path,
    sha256: str,
    wanted: dict[str, Any],
    config: RunConfig,
    workers: Workers,
    progress: ProgressView,
    lock: Lock,
) -> None:
    """Let a worker do it."""
    n_stars = len(choose_stars(read_labelled(store), "dev", MAX_DEV_STARS))
    progress.start(STAGE, n_stars, "stars")
    workers.crew.ask(1)
    engine, device = config.inference.engine, config.cluster.device
    settings = {"calibration": wanted, "model_sha256": sha256, "device": device, "engine": engine}

    def follow(future: Future[Any]) -> None:
        while not wait([future], timeout=POLL_S).done:
            lock.check()
            workers.crew.check()

    call = partial(calibrate_network, str(store), str(folder), settings)
    run_alone(workers, call, "the calibration", progress, follow=follow)
    lock.check()
    progress.advance(n_stars)
    progress.finish()
