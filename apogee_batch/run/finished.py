"""What is left of a run before a worker is started: nothing needs none."""

from pathlib import Path
from typing import Any

from apogee_batch.run.array import planned_ledger
from apogee_batch.run.catalog_run import (
    CatalogRun,
    count_bad,
    publish_catalog,
)
from apogee_batch.run.config import RunConfig
from apogee_batch.run.lock import Lock
from apogee_batch.run.model_of_run import inference_ledger, load_given_model
from apogee_batch.run.progress import ProgressView
from apogee_batch.run.run_folder import INPUTS
from apogee_batch.run.table_reading import count_rows
from apogee_batch.store.tables import STARS


def publish_if_done(
    out: Path, plan: dict[str, Any], model: Path, config: RunConfig, progress: ProgressView, lock: Lock
) -> CatalogRun | None:
    """Publish a run whose shards are all done; None where there is one to do.

    Parameters
    ----------
    out : Path
        The run's folder, locked.
    plan : dict
        From `begin_run`.
    model : Path
        Folder of the model that it was begun with.
    config : RunConfig
        All settings.
    progress : ProgressView
        What the user sees.
    lock : Lock
        Of the run's folder.

    Raises
    ------
    ApogeeBatchError
        As `run_catalog` does.
    """
    if count_left(out, plan):
        return None
    checkpoint = load_given_model(model, plan)
    ledger = inference_ledger(out, plan, checkpoint.identity)
    n_stars = count_rows(out / INPUTS / f"{STARS}.parquet")
    count_bad(out, ledger, ledger.done(check_bytes=False), n_stars, config)
    progress.start("infer", n_stars, "stars", done=n_stars)
    progress.finish()
    return publish_catalog(out, plan, checkpoint, progress, lock)


def count_left(out: Path, plan: dict[str, Any]) -> int:
    """Return how many shards of a run that was given its model are to be done."""
    done = planned_ledger(out, plan).done()
    return sum(shard not in done for shard in plan["shards"])
