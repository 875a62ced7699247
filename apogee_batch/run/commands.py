"""One function behind each command: settings in, work done, lines for the user out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.inference.choose import choose_engine
from apogee_batch.labels.columns import parse_column_map
from apogee_batch.network.card import CARD_FILE
from apogee_batch.network.checkpoint import HEADER_FILE, load_checkpoint
from apogee_batch.network.official import import_official
from apogee_batch.output import ResultLine
from apogee_batch.run.array_plan import finalise, plan_array, require_model
from apogee_batch.run.attach import attach_tables
from apogee_batch.run.calibrate import run_calibration
from apogee_batch.run.calibrate_task import require_dev_stars
from apogee_batch.run.catalog_run import MODEL_FOLDER, CatalogRun, begin_run, run_catalog
from apogee_batch.run.closing import describe_catalog, make_page
from apogee_batch.run.clusters import open_workers
from apogee_batch.run.config import ORDINARY, QUEUE_KINDS, ClusterSettings, Going, RunConfig
from apogee_batch.run.devices import choose_device
from apogee_batch.run.dry_run import describe_run
from apogee_batch.run.finished import count_left, no_more_than_needed, publish_if_done
from apogee_batch.run.ingest_command import ingest
from apogee_batch.run.ingest_plan import require_finished_ingest, store_lock
from apogee_batch.run.lock import Lock, hold_lock
from apogee_batch.run.logs import log_to_folder
from apogee_batch.run.plan import LOCK_FILE, read_plan
from apogee_batch.run.progress import Facts, ProgressView, show_facts
from apogee_batch.run.stage_times import time_stages
from apogee_batch.run.train import begin_training, run_training
from apogee_batch.store.tables import read_labels

__all__ = [
    "Going",
    "attach",
    "calibrate",
    "describe_catalog",
    "import_model",
    "ingest",
    "make_catalog",
    "train",
]


def attach(
    store: Path,
    tables: Mapping[str, Sequence[Path]],
    *,
    column_map: Sequence[str],
    going: Going = ORDINARY,
) -> list[str]:
    """Attach label tables to a store."""
    store = store.resolve()  # one store has one lock, whatever it is reached by
    require_finished_ingest(store)
    with hold_lock(store_lock(store), store, break_lock=going.break_lock):
        return _attach_locked(store, tables, column_map)


def _attach_locked(store: Path, tables: Mapping[str, Sequence[Path]], column_map: Sequence[str]) -> list[str]:
    n_replaced = _count_labels(store)
    summary = attach_tables(store, tables, column_map=parse_column_map(column_map))
    lines = []
    for data_type, counts in summary.counts.items():
        unused = {
            key: counts[key]
            for key in ("NO_NAME", "MISSING_LABEL", "CONFLICT", "NOT_IN_STORE")
            if counts[key]
        }
        sets = ", ".join(f"{counts[name]} {name}" for name in ("train", "dev", "test"))
        told = "; of no use: " + ", ".join(f"{n} {reason}" for reason, n in unused.items()) if unused else ""
        lines.append(
            f"{data_type}: {counts['spectra']} spectra labelled ({sets}) by {counts['used']} labels{told}"
        )
    if n_replaced is not None:
        lines.append(f"replaces the {n_replaced} labels that were attached before")
    return [*lines, f"labels of no use are listed in {summary.unmatched}"]


def _count_labels(store: Path) -> int | None:
    """Return how many labels are attached; None where there are none, or they are damaged."""
    try:
        labels = read_labels(store)
    except IntegrityError:
        return None
    return None if labels is None else len(labels)


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
                _for_training(config.cluster, plan.get("workers", 1)),
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


def _for_training(cluster: ClusterSettings, n_ranks: int) -> ClusterSettings:
    """Training alone needs no local workers but its own, which share the cores; no fewer anywhere."""
    if cluster.kind == "local":
        return cluster.model_copy(update={"workers": n_ranks})
    return cluster.model_copy(update={"workers": max(cluster.workers or 1, n_ranks)})


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
            _for_training(config.cluster, 1), logs=logs, role="gpu", folders=(store, model), progress=progress
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


def make_catalog(
    store: Path,
    out: Path,
    *,
    model: Path | None,
    config: RunConfig,
    is_dry_run: bool,
    progress: ProgressView,
    going: Going = ORDINARY,
    is_plan_only: bool = False,
    is_finalise: bool = False,
    wants_page: bool = False,
) -> list[str]:
    """Make the catalogue of a store; or only what is before or after its shards are done by a job array.

    With `wants_page` the run ends with its page, as the command does; no page is no reason to fail.
    """
    store, out = store.absolute(), out.absolute()
    if is_plan_only and is_finalise:
        raise UsageError("--plan-only comes before a job array and --finalise after it; give one of them")
    require_finished_ingest(store)
    is_by_array = is_plan_only or is_finalise
    if (
        config.cluster.kind in ("local", "serial") and not is_by_array
    ):  # known here, and not after the training
        wanted = config.inference
        choose_engine(wanted.engine, wanted.precision, choose_device(config.cluster.device))
    if model is not None and (model / MODEL_FOLDER / HEADER_FILE).is_file():
        raise UsageError(f"{model}: is a run and not a model; name its model: --model {model / MODEL_FOLDER}")
    if is_dry_run:
        return describe_run(store, out, model, config)
    given = require_model(model) if is_by_array else model
    with hold_lock(out / LOCK_FILE, out, break_lock=going.break_lock) as lock:
        plan = begin_run(
            store,
            out,
            given,
            config,
            progress,
            is_forced=going.force_new_plan,
            are_others_writing=is_by_array,
        )
        if is_plan_only:
            return plan_array(store, out, plan, model=require_model(given), config=config)
        timed = time_stages(progress, out)
        stages = ("publish",) if is_finalise else ("infer", "publish")
        before = ("train", "calibrate") if given is None else ()
        show_facts(timed, Facts(stages=(*before, *stages, *(["report"] * wants_page))))
        with log_to_folder(out / "logs"):
            if is_finalise:
                made_by = require_model(given)
                finished = finalise(out, plan, model=made_by, config=config, progress=timed, lock=lock)
            else:
                finished = _run_with_workers(store, out, plan, given, config, timed, lock)
            page = make_page(store, out, given, timed) if wants_page else []
    return [*describe_catalog(finished), *page]


def _run_with_workers(
    store: Path,
    out: Path,
    plan: dict[str, Any],
    model: Path | None,
    config: RunConfig,
    progress: ProgressView,
    lock: Lock,
) -> CatalogRun:
    """Make the catalogue with workers that are told what to do by this process."""
    n_ranks = plan["model"].get("trained", {}).get("workers", 1)
    cluster = config.cluster if config.cluster.kind == "local" else _for_training(config.cluster, n_ranks)
    if (
        model is not None and cluster.kind not in QUEUE_KINDS
    ):  # a queue may hold what a lost driver left there
        finished = publish_if_done(out, plan, model, config, progress, lock)
        if finished is not None:
            return finished
        cluster = no_more_than_needed(cluster, count_left(out, plan))
    with open_workers(
        cluster, logs=out / "logs", role="gpu", folders=(store, out), progress=progress
    ) as workers:
        progress.say(f"workers: {workers.description}")
        return run_catalog(
            store, out, plan, model=model, config=config, workers=workers, progress=progress, lock=lock
        )


def import_model(file: Path, out: Path) -> list[str]:
    """Import the authors' weights."""
    checkpoint = import_official(file, out)
    return [f"{out}: model {checkpoint.sha256[:16]} with the authors' weights, for run-catalog --model {out}"]
