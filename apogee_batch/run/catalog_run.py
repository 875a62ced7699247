"""A whole run: plan, train unless a model is given, infer, publish."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from apogee_batch.errors import UsageError
from apogee_batch.files import read_json, sha256_of_file, write_json
from apogee_batch.network.checkpoint import Checkpoint, load_checkpoint
from apogee_batch.network.recipe import load_recipe
from apogee_batch.report.tables import Results
from apogee_batch.run.clusters import Workers
from apogee_batch.run.config import RunConfig
from apogee_batch.run.infer import INPUTS, copy_inputs, infer_shard, shards_with_stars
from apogee_batch.run.ledger import Ledger
from apogee_batch.run.plan import run_id, settle_plan, software_versions
from apogee_batch.run.progress import ProgressView
from apogee_batch.run.publish import publish
from apogee_batch.run.stages import run_shards
from apogee_batch.run.train import plan_training, run_training, store_fingerprint
from apogee_batch.schema import catalog_version
from apogee_batch.store.tables import LABELS, REJECTS, STARS, read_stars, read_table, table_path

MODEL_FOLDER = "model"
SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class CatalogRun:
    """What a finished run left.

    Attributes
    ----------
    folder : Path
        The run's folder.
    run_id : str
        Hash of its plan.
    n_stars, n_rejects : int
        Rows of the catalogue; inputs that gave none.
    results : Results
        Agreement with the labels.
    """

    folder: Path
    run_id: str
    n_stars: int
    n_rejects: int
    results: Results


def plan_run(store: Path, out: Path, model: Path | None, config: RunConfig) -> dict[str, Any]:
    """Return the plan of a run as JSON values: everything that its numbers depend on.

    The cluster is not part of it: the numbers do not depend on where they are computed.
    """
    labels = table_path(store, LABELS)
    if len(read_stars(store)) == 0:  # an unfinished ingest is told here, before anything is written
        raise UsageError(f"{store}: holds no star, see its {REJECTS}.parquet; ingest files that can be used")
    if model is None:
        recipe = load_recipe(config.training.recipe)
        origin: dict[str, Any] = {"trained": plan_training(store, out / MODEL_FOLDER, config, recipe)}
    else:
        origin = {"given": load_checkpoint(model).sha256}
    return {
        "kind": "run-catalog",
        "store_sha256": store_fingerprint(store),
        "stars_sha256": sha256_of_file(table_path(store, STARS)),
        "labels_sha256": sha256_of_file(labels) if labels.is_file() else None,
        "shards": shards_with_stars(store),
        "model": origin,
        "realizations": config.inference.realizations,
        "seed": config.inference.seed,
        "err_cap": config.inference.err_cap,
        "catalog_version": catalog_version(),
        "software": software_versions(),
    }


def begin_run(store: Path, out: Path, model: Path | None, config: RunConfig) -> dict[str, Any]:
    """Write the plan of a run, or check that the folder's run has the same one.

    Raises
    ------
    UsageError
        If the folder holds another run, or something else.
    """
    if store.absolute() in (out.absolute(), *out.absolute().parents):
        raise UsageError(f"{out}: lies inside the store; name a folder beside it")
    plan = plan_run(store, out, model, config)
    settle_plan(out, plan)
    copy_inputs(store, out)
    write_json(out / SETTINGS_FILE, config.model_dump(mode="json"))
    return plan


def run_catalog(
    store: Path,
    out: Path,
    plan: dict[str, Any],
    *,
    model: Path | None,
    config: RunConfig,
    workers: Workers,
    progress: ProgressView,
) -> CatalogRun:
    """Make a catalogue, going on where an earlier attempt stopped.

    Parameters
    ----------
    store, out : Path
        The store; the run's folder.
    plan : dict
        From `begin_run`.
    model : Path or None
        Folder of a trained model; None to train one in the run's folder.
    config : RunConfig
        All settings.
    workers : Workers
        Where the tasks run.
    progress : ProgressView
        What the user sees.

    Raises
    ------
    IntegrityError
        If something written is damaged or does not add up.
    """
    name = run_id(plan)
    checkpoint, folder = _get_model(store, out, model, config, workers, progress)
    shards = plan["shards"]
    ledger = inference_ledger(out, plan, checkpoint.sha256)
    done = ledger.done()
    todo = [shard for shard in shards if shard not in done]
    settings = {
        "model_sha256": checkpoint.sha256,
        "realizations": config.inference.realizations,
        "seed": config.inference.seed,
        "err_cap": config.inference.err_cap,
        "device": config.cluster.device,
    }
    n_stars = len(read_table(out / INPUTS / f"{STARS}.parquet"))
    progress.start("infer", n_stars, "stars", done=sum(report.n_inputs for report in done.values()))
    task = partial(infer_shard, str(store), str(out), str(folder), settings)
    run_shards(workers, task, todo, ledger, progress)
    progress.finish()
    devices = sorted({str(report.extra["device"]) for report in ledger.entries()})
    if len(devices) > 1:
        progress.say(f"WARNING: computed on {' and '.join(devices)}; bytes are equal on one kind only")
    made_by = (checkpoint.sha256, checkpoint.header)
    found = publish(out / INPUTS, out, shards, name=name, plan=plan, model=made_by, devices=devices)
    manifest = read_json(out / "manifest.json")
    return CatalogRun(out, name, manifest["stars"], manifest["rejects"], found)


def inference_ledger(out: Path, plan: dict[str, Any], model_sha256: str) -> Ledger:
    """Return the ledger of a run's parts; parts made with another model do not count."""
    return Ledger(out / "ledger", out, f"{run_id(plan)} {model_sha256}")


def _get_model(
    store: Path, out: Path, model: Path | None, config: RunConfig, workers: Workers, progress: ProgressView
) -> tuple[Checkpoint, Path]:
    """Load the model that is given, or train one."""
    if model is not None:
        return load_checkpoint(model), model.resolve()
    return run_training(store, out / MODEL_FOLDER, config, workers, progress), out / MODEL_FOLDER
