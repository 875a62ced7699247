"""The commands that make models: all of them need torch, as few others do."""

from pathlib import Path

from apogee_batch.errors import UsageError
from apogee_batch.network.card import CARD_FILE
from apogee_batch.network.checkpoint import load_checkpoint
from apogee_batch.network.official import import_official
from apogee_batch.output import ResultLine
from apogee_batch.run.calibrate import run_calibration
from apogee_batch.run.calibrate_task import require_dev_stars
from apogee_batch.run.clusters import open_workers
from apogee_batch.run.computers import for_training
from apogee_batch.run.config import ORDINARY, Going, RunConfig
from apogee_batch.run.devices import choose_device
from apogee_batch.run.ingest_plan import require_finished_ingest
from apogee_batch.run.lock import hold_lock
from apogee_batch.run.logs import log_to_folder
from apogee_batch.run.plan import LOCK_FILE, read_plan
from apogee_batch.run.progress import Facts, ProgressView, show_facts
from apogee_batch.run.stage_times import time_stages
from apogee_batch.run.train import begin_training, run_training


def train(
    store: Path, out: Path, *, config: RunConfig, progress: ProgressView, going: Going = ORDINARY
) -> list[str]:
    """Train a network on the labels of a store."""
    store, out = store.absolute(), out.absolute()
    require_finished_ingest(store)
    if config.cluster.kind in ("local", "serial"):  # known here, and not after a worker was started
        choose_device(config.cluster.device)
    with hold_lock(out / LOCK_FILE, out, break_lock=going.break_lock) as lock:
        plan = begin_training(store, out, config, is_forced=going.force_new_plan)
        logs = out / "logs"
        with (
            log_to_folder(logs),
            open_workers(
                for_training(config.cluster, plan.get("workers", 1)),
                logs=logs,
                role="gpu",
                folders=(store, out),
                progress=progress,
            ) as workers,
        ):
            show_facts(progress, Facts(stages=("train", "calibrate")))
            checkpoint = run_training(store, out, config, workers, time_stages(progress, out), lock=lock)
    header = checkpoint.header
    by_type = ", ".join(f"{name} {loss:.4f}" for name, loss in header.dev_loss_by_type.items())
    return [
        ResultLine(
            f"{out}: model {checkpoint.sha256[:16]}, dev loss {header.dev_loss:.4f} ({by_type})",
            name="model",
            path=str(out),
            sha256=checkpoint.sha256,
            dev_loss=header.dev_loss,
        ),
        f"use it with: apogee-batch run-catalog {store} --model {out} --out RUN",
    ]


def calibrate(
    model: Path, store: Path, *, config: RunConfig, progress: ProgressView, going: Going = ORDINARY
) -> list[str]:
    """Calibrate a model there is with the labels of a store."""
    store, model = store.absolute(), model.absolute()
    require_finished_ingest(store)
    checkpoint = load_checkpoint(model, with_calibration=False)
    around = read_plan(model.parent)
    if around is not None and around["kind"] == "run-catalog":
        raise UsageError(
            f"{model}: is the model of a run, which calibrates it itself; copy the folder, and calibrate that"
        )
    require_dev_stars(store)  # told before a worker is started, and before an older calibration goes
    logs = model / "logs"
    with (
        hold_lock(model / LOCK_FILE, model, break_lock=going.break_lock) as lock,
        log_to_folder(logs),
        open_workers(
            for_training(config.cluster, 1), logs=logs, role="gpu", folders=(store, model), progress=progress
        ) as workers,
    ):
        calibrated = run_calibration(store, model, config, workers, time_stages(progress, model), lock=lock)
    name = (calibrated.calibration_sha256 or "")[:16]
    return [
        ResultLine(
            f"{model}: calibration {name} of model {checkpoint.sha256[:16]}, described in {CARD_FILE}",
            name="model",
            path=str(model),
            sha256=checkpoint.sha256,
            calibration_sha256=calibrated.calibration_sha256,
        ),
        f"use it with: apogee-batch run-catalog {store} --model {model} --out RUN",
    ]


def import_model(file: Path, out: Path) -> list[str]:
    """Import the authors' weights."""
    checkpoint = import_official(file, out)
    return [f"{out}: model {checkpoint.sha256[:16]} with the authors' weights, for run-catalog --model {out}"]
