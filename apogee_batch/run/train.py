"""The training stage: labelled rows of the store in, a model folder out."""

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import remove_leftovers, sha256_of_file
from apogee_batch.network.card import write_model_card
from apogee_batch.network.checkpoint import HEADER_FILE, Checkpoint, load_checkpoint
from apogee_batch.network.metrics import METRICS_FILE, read_metrics
from apogee_batch.network.model_files import is_trained
from apogee_batch.network.recipe import Recipe, load_recipe
from apogee_batch.run.attempts import run_alone
from apogee_batch.run.calibrate import run_calibration
from apogee_batch.run.clusters import SerialExecutor, Workers, available_cores
from apogee_batch.run.config import QUEUE_KINDS, RunConfig
from apogee_batch.run.fingerprint import store_fingerprint
from apogee_batch.run.gang.driver import train_together
from apogee_batch.run.lock import Lock
from apogee_batch.run.plan import read_plan, set_aside, settle_plan, software_versions
from apogee_batch.run.plan_words import describe_differences
from apogee_batch.run.progress import ProgressView
from apogee_batch.run.store_tables import require_whole_tables
from apogee_batch.run.train_task import train_network
from apogee_batch.run.training_stars import note_training_stars
from apogee_batch.store.tables import LABELS, table_path

POLL_S = 0.5
logger = logging.getLogger(__name__)
ATTACH = "attach labels with 'apogee-batch labels attach STORE --payne TABLE'"


def plan_training(store: Path, out: Path, config: RunConfig, recipe: Recipe) -> dict[str, Any]:
    """Return the plan of a training as JSON values.

    The numbers of threads and of ranks are part of it, since sums in another order give other last bits;
    where the user gave none, a training that was begun or planned keeps its own, also on other machines.
    """
    require_whole_tables(store)
    labels = table_path(store, LABELS)
    if not labels.is_file():
        raise UsageError(f"{store}: has no labels to train on; {ATTACH}, or give --model")
    begun = _planned(out)
    is_said = "workers" in config.training.model_fields_set
    n_ranks = config.training.workers if is_said else begun.get("workers", 1)
    plan = {
        "kind": "train",
        "store_sha256": store_fingerprint(store),
        "labels_sha256": sha256_of_file(labels),
        "recipe": recipe.to_json(),
        "seed": config.training.seed,
        "threads": config.training.threads or begun.get("threads") or _default_threads(config, n_ranks),
        "software": software_versions(),
    }
    return plan if n_ranks == 1 else plan | {"workers": n_ranks}


def _default_threads(config: RunConfig, n_ranks: int) -> int:
    """Return the cores that a rank has for itself."""
    cluster = config.cluster
    if cluster.kind in QUEUE_KINDS:
        return max(1, cluster.gpu.cores // cluster.gpu.processes)
    return max(1, available_cores() // (1 if cluster.kind == "address" else n_ranks))


def _planned(out: Path) -> dict[str, Any]:
    """Return the plan of the training in a folder or, before it has one, that in the run around it."""
    plan = _plan_or_none(out)
    if plan is None:  # a run writes its own plan first, and may be killed before the training has one
        run = _plan_or_none(out.parent) or {}
        plan = run["model"].get("trained") if run.get("kind") == "run-catalog" else None
    return plan or {}


def _plan_or_none(folder: Path) -> dict[str, Any] | None:
    """Read a plan; a damaged one is no reason not to plan, since it is written again by what is planned."""
    try:
        return read_plan(folder)
    except IntegrityError:
        return None


def begin_training(
    store: Path,
    out: Path,
    config: RunConfig,
    *,
    is_forced: bool = False,
    planned: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the plan of a training, or check that the folder's training has the same one.

    Parameters
    ----------
    store, out : Path
        A store with labels; folder for the model.
    config : RunConfig
        All settings.
    is_forced : bool
        Whether a training with another plan is kept aside and a new one begun.

    Raises
    ------
    UsageError
        If there are no labels, or the folder holds another training or something else.
    """
    plan = plan_training(store, out, config, load_recipe(config.training.recipe))
    if planned is not None and plan != planned:
        differences = "; ".join(describe_differences(planned, plan))
        raise IntegrityError(
            f"{store}: changed after the run was begun ({differences}); restore it and give the command again"
        )
    if is_forced and (aside := set_aside(out, plan)) is not None:
        logger.warning(
            "the training that was in %s is kept in %s; delete it when you do not need it", out, aside
        )
    settle_plan(out, plan)
    return plan


def run_training(
    store: Path,
    out: Path,
    config: RunConfig,
    workers: Workers,
    progress: ProgressView,
    *,
    lock: Lock,
    planned: dict[str, Any] | None = None,
) -> Checkpoint:
    """Train a network, going on from its last epoch if an earlier attempt stopped, and calibrate it.

    Parameters
    ----------
    store : Path
        A store with labels.
    out : Path
        Folder for the model.
    config : RunConfig
        Settings `training`, those of `inference` for the calibration, and the cluster's device.
    workers : Workers
        One of them trains, or as many as the settings say; one calibrates.
    progress : ProgressView
        What the user sees.
    lock : Lock
        Of the folder, or of the run around it; looked at while the training goes on.
    planned : dict, optional
        The plan that the run around it has for the training.

    Raises
    ------
    UsageError
        If there are no labels, or the folder holds another training.
    IntegrityError
        If the store is not what was planned.
    LockedError
        If another process took the lock away.
    """
    remove_leftovers(out)
    plan = begin_training(store, out, config, planned=planned)
    was_trained = is_trained(out)
    is_news = note_training_stars(store, out)
    if was_trained:
        progress.say(f"train: {out} is trained already")
    else:
        _train(store, out, plan, config, workers, progress, lock)
    for warning in load_checkpoint(out, with_calibration=False).header.warnings:
        progress.say(f"WARNING: {warning}")
    if was_trained and planned is None and (calibrated := _calibrated(out)) is not None:
        if is_news:  # of a version that noted nothing of them
            write_model_card(out, calibrated.header, calibrated.sha256, calibrated.calibrated)
        return calibrated
    begin_training(store, out, config, planned=plan)  # other labels may have been attached meanwhile
    return run_calibration(store, out, config, workers, progress, lock=lock)


def _calibrated(out: Path) -> Checkpoint | None:
    """Return a model that has a whole calibration, maybe one of other settings by `model calibrate`."""
    try:
        checkpoint = load_checkpoint(out)
    except IntegrityError:
        return None
    return None if checkpoint.calibration is None else checkpoint


def _train(
    store: Path,
    out: Path,
    plan: dict[str, Any],
    config: RunConfig,
    workers: Workers,
    progress: ProgressView,
    lock: Lock,
) -> None:
    """Let a worker train, or several together, while the driver shows the epochs."""
    follow = partial(
        _follow, folder=out, recipe=plan["recipe"], progress=progress, check=_checks(lock, workers)
    )
    if "workers" in plan and not (out / HEADER_FILE).is_file():  # else there is only something to clear up
        train_together(store, out, plan, config.cluster, workers, progress, follow=follow)
        return
    workers.crew.ask(1)
    settings = (plan["recipe"], plan["seed"], plan["threads"], config.cluster.device)
    call = partial(train_network, str(store), str(out), *settings)
    with _beside_the_driver(workers.executor) as executor:
        run_alone(
            replace(workers, executor=executor),
            call,
            "the training",
            progress,
            follow=follow,
            count_done=lambda: len(read_metrics(out / METRICS_FILE)),
        )


def _checks(lock: Lock, workers: Workers) -> Callable[[], None]:
    """Return what tells whether waiting for a training is of any use."""

    def check() -> None:
        lock.check()
        workers.crew.check()

    return check


def _beside_the_driver(executor: Executor) -> AbstractContextManager[Executor]:
    """Give the serial executor a thread, so that the driver can show the epochs of the only task."""
    return ThreadPoolExecutor(1) if isinstance(executor, SerialExecutor) else nullcontext(executor)


def _show_loss(loss: float | None) -> str:
    """Write a loss; a training that diverges has none."""
    return "not a number" if loss is None else f"{loss:.4f}"


def _follow(
    future: Future[Any],
    folder: Path,
    recipe: dict[str, Any],
    progress: ProgressView,
    check: Callable[[], None],
) -> None:
    """Show the epochs as the worker writes them to the metrics file."""
    before = read_metrics(folder / METRICS_FILE)
    seen, n_main = len(before), sum(epoch["phase"] == "main" for epoch in before)
    if seen:
        progress.say(f"train: going on after epoch {seen}")
    is_length_known = recipe["schedule"] == "cosine"  # else it lasts until the dev loss falls no more
    progress.start("train", recipe["max_epochs"] if is_length_known else None, "epochs", done=n_main)
    part, warned = ("main", 0), set[str]()
    while True:
        is_over = bool(wait([future], timeout=POLL_S).done)
        check()
        epochs = read_metrics(folder / METRICS_FILE)
        for epoch in epochs[seen:]:
            if (epoch["phase"], epoch["round"]) != part:
                part = (epoch["phase"], epoch["round"])
                progress.finish()
                progress.start(f"adapt {epoch['round']}", None, "epochs")
            progress.advance(1, f"dev loss {_show_loss(epoch['dev_loss'])}")
        for warning in (epoch.get("warning") for epoch in epochs):
            if warning and warning not in warned:
                progress.say(f"WARNING: {warning}")
                warned.add(warning)
        seen = len(epochs)
        if is_over:
            break
    progress.finish()
