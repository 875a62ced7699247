"""A run by a plain job array, for sites where workers cannot talk to a driver: the plan and the end.

What each task does is in `run.array`.
"""

import shlex
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from apogee_batch.errors import IncompleteRunError, UsageError
from apogee_batch.files import write_sealed_json
from apogee_batch.run.array import NEEDS_MODEL, PATHS_FILE, planned_ledger
from apogee_batch.run.catalog_run import (
    CatalogRun,
    count_bad,
    publish_catalog,
)
from apogee_batch.run.config import InferenceSettings, RunConfig
from apogee_batch.run.ledger import ShardReport
from apogee_batch.run.lock import Lock
from apogee_batch.run.model_notes import notes_on
from apogee_batch.run.model_of_run import load_given_model
from apogee_batch.run.progress import ProgressView
from apogee_batch.run.run_folder import INPUTS, remove_run_leftovers
from apogee_batch.run.training_stars import notes_on_stars
from apogee_batch.store.tables import STARS, read_table

ARRAY_SCRIPT = "jobs/array.sbatch"
AT_ONCE = 50  # tasks of an array that run at the same time; a user may well edit it


def require_model(model: Path | None) -> Path:
    """Return the model's folder.

    Raises
    ------
    UsageError
        If there is none; says how to get one.
    """
    if model is None:
        raise UsageError(NEEDS_MODEL)
    return model.absolute()


def plan_array(store: Path, out: Path, plan: dict[str, Any], *, model: Path, config: RunConfig) -> list[str]:
    """Note where store and model are, and say which commands do the shards that are left and finish the run.

    Parameters
    ----------
    store, out, model : Path
        The store; the run's folder, locked and begun; the model's folder. All absolute.
    plan : dict
        From `begin_run`.
    config : RunConfig
        All settings.
    """
    write_sealed_json(out / PATHS_FILE, {"store": str(store), "model": str(model)})
    missing = _missing(plan, planned_ledger(out, plan).done())
    n_shards = len(plan["shards"])
    command = ["apogee-batch", "run-catalog", str(store), "--model", str(model), "--out", str(out)]
    options = _inference_options(config.inference) + _device_option(config)
    finish = shlex.join([*command, *options, "--finalise"])
    if not missing:
        return [f"{out}: all {n_shards} shards are done; publish them with:", f"  {finish}"]
    (out / "logs").mkdir(exist_ok=True)  # Slurm starts no task whose log has no folder
    return [
        f"{out}: {len(missing)} of {n_shards} shards to do; each is a task of a job array:",
        f"  {_submission(out, missing, config)}",
        "when all have ended:",
        f"  {finish}",
        *notes_on(load_given_model(model, plan).calibration, config.inference),
        *notes_on_stars(model, store),
    ]


def finalise(
    out: Path,
    plan: dict[str, Any],
    *,
    model: Path,
    config: RunConfig,
    progress: ProgressView,
    lock: Lock,
) -> CatalogRun:
    """Publish a run whose shards were done by an array; for the arguments see `run_catalog`.

    Raises
    ------
    IncompleteRunError
        If shards are missing; the message has the command that does them.
    """
    checkpoint = load_given_model(model, plan)
    ledger = planned_ledger(out, plan)
    done = ledger.done()
    for problem in ledger.problems(done):
        progress.say(f"WARNING: {problem}; its shard is to be done again")
    if missing := _missing(plan, done):
        command = _submission(out, missing, config)
        raise IncompleteRunError(
            f"{out}: {len(missing)} of {len(plan['shards'])} shards are missing: {index_ranges(missing)}; "
            f"wait if tasks still run, else do them with '{command}', then give this command again; where a "
            "shard ends every task that takes it, this command without --finalise finds the star that does it"
        )
    count_bad(out, ledger, done, len(read_table(out / INPUTS / f"{STARS}.parquet")), config)
    remove_run_leftovers(out)  # what a late copy of a task is writing is here already
    return publish_catalog(out, plan, checkpoint, progress, lock)


def index_ranges(indices: Iterable[int]) -> str:
    """Write numbers as `sbatch --array` takes them: 0,4-7."""
    runs = groupby(enumerate(sorted(indices)), lambda pair: pair[1] - pair[0])
    spans = [[index for _, index in members] for _, members in runs]
    return ",".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else f"{span[0]}" for span in spans)


def _missing(plan: dict[str, Any], done: Mapping[int, ShardReport]) -> list[int]:
    """Return the places in the plan of the shards that are not done."""
    return [index for index, shard in enumerate(plan["shards"]) if shard not in done]


def _inference_options(settings: InferenceSettings) -> list[str]:
    """Return the options that say what differs from the defaults."""
    return _as_options(settings.model_dump(exclude_defaults=True))


def _submission(out: Path, missing: list[int], config: RunConfig) -> str:
    """Return the command that starts an array for some shards."""
    log = str(out).replace("%", "%%") + "/logs/array-%A_%a.log"
    tasks = f"--array={index_ranges(missing)}%{AT_ONCE}"
    engine = config.inference.model_dump(include={"engine"}, exclude_defaults=True)
    options = _as_options(engine) + _device_option(config)
    return shlex.join(["sbatch", tasks, f"--output={log}", ARRAY_SCRIPT, str(out), *options])


def _device_option(config: RunConfig) -> list[str]:
    return _as_options(config.cluster.model_dump(include={"device"}, exclude_defaults=True))


def _as_options(settings: dict[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", f"{value}")]
