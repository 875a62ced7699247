"""What `apogee-batch run-catalog` does: a store in, its catalogue and the page of the run out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apogee_batch.errors import UsageError
from apogee_batch.network.model_files import HEADER_FILE
from apogee_batch.run.array_plan import finalise, plan_array, require_model
from apogee_batch.run.catalog_run import CatalogRun, begin_run, run_catalog
from apogee_batch.run.closing import describe_catalog, make_page
from apogee_batch.run.clusters import no_more_than_needed, open_workers
from apogee_batch.run.computers import for_training, refuse_impossible
from apogee_batch.run.config import ORDINARY, QUEUE_KINDS, Going, RunConfig
from apogee_batch.run.dry_run import describe_run
from apogee_batch.run.finished import count_left, publish_if_done
from apogee_batch.run.flag_lines import warn_of_strange_stars
from apogee_batch.run.import_ahead import import_ahead
from apogee_batch.run.ingest_plan import require_finished_ingest
from apogee_batch.run.lock import Lock, hold_lock
from apogee_batch.run.logs import log_to_folder
from apogee_batch.run.plan import LOCK_FILE
from apogee_batch.run.progress import Facts, ProgressView, show_facts
from apogee_batch.run.run_folder import MODEL_FOLDER
from apogee_batch.run.stage_times import time_stages

PUBLISHING = ("apogee_batch.run.publish", "apogee_batch.report.figures")  # what is imported ahead
PAGE = ("apogee_batch.run.report",)


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
        refuse_impossible(config)
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
                finished = _run_with_workers(
                    store, out, plan, given, config, timed, lock, ahead=PUBLISHING + PAGE * wants_page
                )
            warn_of_strange_stars(out, timed)
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
    *,
    ahead: Sequence[str],
) -> CatalogRun:
    """Make the catalogue with workers that are told what to do by this process."""
    n_ranks = plan["model"].get("trained", {}).get("workers", 1)
    cluster = config.cluster if config.cluster.kind == "local" else for_training(config.cluster, n_ranks)
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
        if cluster.kind != "serial":  # this process waits for the others
            import_ahead(*ahead)
        return run_catalog(
            store, out, plan, model=model, config=config, workers=workers, progress=progress, lock=lock
        )
