"""One task of a job array: one shard of a planned run, done and committed by a process of its own.

Nothing watches over it: a task that is killed is started again by the queue or by the user, and the ledger
knows what is done. A shard that ends every process which takes it stays undone; `run-catalog` without an
array finds the star that does it, and leaves it out.
"""

import os
import socket
from pathlib import Path
from typing import Any

from apogee_batch.errors import ApogeeBatchError, IncompleteRunError, IntegrityError, UsageError
from apogee_batch.exits import explain_system_error
from apogee_batch.files import read_sealed_json, sha256_of_file
from apogee_batch.inference.engines import EngineChoice
from apogee_batch.network.model_files import Identity
from apogee_batch.run.config import Device
from apogee_batch.run.fingerprint import store_fingerprint
from apogee_batch.run.ledger import Ledger, ShardReport, find_damage
from apogee_batch.run.lock import refuse_if_locked
from apogee_batch.run.model_of_run import given_model, inference_ledger
from apogee_batch.run.plan import LOCK_FILE, PLAN_FILE, read_plan, software_versions
from apogee_batch.run.plan_words import describe_differences
from apogee_batch.run.progress import ProgressView, SilentView
from apogee_batch.run.run_folder import INPUTS, inference_settings
from apogee_batch.run.worker_tasks import infer_shard
from apogee_batch.schema import catalog_version

PATHS_FILE = "paths.json"  # beside the plan, and no part of it: a store may move
PLAN_AGAIN = "give 'apogee-batch run-catalog STORE --model MODEL --out RUN --plan-only' again"
NEEDS_MODEL = (
    "tasks of a job array do not train, so --plan-only and --finalise need --model: train first, with "
    "'apogee-batch train STORE --out MODEL'"
)


def run_shard(
    plan: Path,
    index: int,
    *,
    device: Device = "auto",
    engine: EngineChoice = "auto",
    progress: ProgressView | None = None,
) -> list[str]:
    """Do one shard of a run in this process and commit it.

    Any number of copies may run at once, as when Slurm begins a task again whose node it lost while the first
    copy still runs: their parts have the same bytes, and every write is atomic. No lock is held. So a driver
    that begins meanwhile may remove the unfinished file of a task, which then ends with a message; if such
    files were spared by their age, the clocks of two hosts would decide.

    Parameters
    ----------
    plan : Path
        The run's folder, or the plan in it; planned by `plan_array`.
    index : int
        Which of the plan's shards, counted from 0.
    device : {"auto", "cpu", "cuda"}
        Where the network runs.
    engine : str
        What computes it, or "auto".
    progress : ProgressView, optional
        Told what is done, and where.

    Returns
    -------
    list of str
        What was done, for people.

    Raises
    ------
    ApogeeBatchError
        With node and job in its message. UsageError if there is no such shard, or store or software are not
        as planned; LockedError while a driver works in the folder; IncompleteRunError if the task is to be
        started again.
    """
    run = plan.absolute().parent if plan.name == PLAN_FILE else plan.absolute()
    try:
        return _run_shard(run, index, (device, engine), progress or SilentView())
    except ApogeeBatchError as error:
        raise type(error)(f"on {_place()}: {error}") from error
    except (OSError, MemoryError) as error:
        explained = explain_system_error(error)
        if explained is None:
            raise
        code, text = explained
        kind = IncompleteRunError if code == IncompleteRunError.exit_code else ApogeeBatchError
        raise kind(f"on {_place()}: {text}") from error


def planned_ledger(run: Path, plan: dict[str, Any]) -> Ledger:
    """Return the ledger of a run that was given its model."""
    return inference_ledger(run, plan, _model_of(plan))


def _model_of(plan: dict[str, Any]) -> Identity:
    """Return the model that a run was begun with."""
    model = given_model(plan)
    if model is None:
        raise UsageError(f"the run was begun without a model; {NEEDS_MODEL}")
    return model


def _run_shard(
    run: Path, index: int, computer: tuple[Device, EngineChoice], progress: ProgressView
) -> list[str]:
    plan = _read_whole_plan(run)
    last = len(plan["shards"]) - 1
    if not 0 <= index <= last:
        raise UsageError(f"--index {index}: {run} has the shards 0 to {last}")
    shard = plan["shards"][index]
    ledger = planned_ledger(run, plan)
    told = f"{run}: shard {shard} (index {index} of 0 to {last})"
    if _is_done(run, ledger, shard):
        return [f"{told} is done already"]
    refuse_if_locked(run / LOCK_FILE, run, "'run-catalog ... --plan-only --break-lock' frees the folder")
    store, model = _read_paths(run)
    _check_as_planned(run, store, plan)
    progress.say(f"{told} on {_place()}")
    device, engine = computer
    settings = inference_settings(plan, _model_of(plan), device=device, engine=engine)
    try:
        report = infer_shard(str(store), str(run), str(model), settings, shard)
        _commit(run, plan, ledger, report)
    except FileNotFoundError as error:
        if _is_done(run, ledger, shard):
            return [f"{told} was done by another process meanwhile"]
        if error.filename is None or run not in Path(error.filename).parents:
            raise
        raise IncompleteRunError(
            f"{error.filename}: was removed before it was finished, as by a 'run-catalog' that has just "
            f"begun in {run}; if that does not do the shard, start the task again"
        ) from error
    return [f"{told}: {report.n_stars} stars in {report.seconds:.1f} s on {report.extra['device']}"]


def _commit(run: Path, plan: dict[str, Any], ledger: Ledger, report: ShardReport) -> None:
    """Enter a shard into the ledger, and see that the entry is true."""
    if read_plan(run) != plan:
        raise UsageError(f"{run}: another run was begun in it meanwhile; plan the array again")
    ledger.commit(report)
    if not _is_done(run, ledger, report.shard):
        raise IncompleteRunError(
            f"{run}: shard {report.shard} was written by another process meanwhile, with other bytes, as on "
            "another kind of device; start the task again"
        )


def _read_whole_plan(run: Path) -> dict[str, Any]:
    """Read the plan of a run that an array can do."""
    plan = read_plan(run)
    if plan is None or plan["kind"] != "run-catalog":
        raise UsageError(f"{run}: is no run; plan one with 'apogee-batch run-catalog ... --plan-only'")
    if given_model(plan) is None:
        raise UsageError(f"{run}: was begun without a model; {NEEDS_MODEL}")
    return plan


def _read_paths(run: Path) -> tuple[Path, Path]:
    """Return where the store and the model are."""
    path = run / PATHS_FILE
    try:
        paths = read_sealed_json(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: is missing; {PLAN_AGAIN}, which writes it") from error
    except ValueError as error:
        raise IntegrityError(f"{path}: is damaged; {PLAN_AGAIN}, which writes it anew") from error
    store, model = Path(paths["store"]), Path(paths["model"])
    for place in (store, model):
        if not place.is_dir():
            raise UsageError(f"{place}: is not there; if it was moved, {PLAN_AGAIN} with its new place")
    return store, model


def _check_as_planned(run: Path, store: Path, plan: dict[str, Any]) -> None:
    """Check that software, store and copies of its tables are as planned; inference looks at the model."""
    now = {
        "software": software_versions(),
        "catalog_version": catalog_version(),
        "store_sha256": store_fingerprint(store),
    }
    if differences := describe_differences({name: plan[name] for name in now}, now):
        raise UsageError(
            f"{run}: was planned otherwise ({'; '.join(differences)}); start the task where store and "
            "software are as they were, or plan another run"
        )
    for name, sha256 in plan["inputs_sha256"].items():
        copy = run / INPUTS / f"{name}.parquet"
        if not copy.is_file() or sha256_of_file(copy) != sha256:
            raise IntegrityError(f"{copy}: is missing or damaged; {PLAN_AGAIN}, which copies it")


def _is_done(run: Path, ledger: Ledger, shard: int) -> bool:
    """Tell whether the ledger has a shard and its files are whole."""
    report = ledger.entry(shard)
    return report is not None and not any(find_damage(file, run) for file in report.files)


def _place() -> str:
    """Say on which node, and in which job, this process runs."""
    job, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    name = f"{job}_{task}" if job and task else os.environ.get("SLURM_JOB_ID", "")
    return socket.gethostname() + (f", Slurm job {name}" if name else "")
