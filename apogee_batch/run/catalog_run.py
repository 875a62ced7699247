"""A whole run: plan, train unless a model is given, infer, publish."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from apogee_batch.errors import UsageError
from apogee_batch.files import write_sealed_json, write_table
from apogee_batch.inference.noise import NOISE_DEFINITION
from apogee_batch.network.model_files import SavedModel, read_model
from apogee_batch.network.recipe import load_recipe
from apogee_batch.report.tables import Results
from apogee_batch.run.bad_inputs import REJECTS_SO_FAR, BadInputs, describe_rejects
from apogee_batch.run.clusters import Workers
from apogee_batch.run.config import RunConfig
from apogee_batch.run.fingerprint import store_fingerprint
from apogee_batch.run.killed_stars import killed_stars
from apogee_batch.run.ledger import Ledger, ShardReport
from apogee_batch.run.lock import Lock
from apogee_batch.run.model_notes import notes_on
from apogee_batch.run.model_of_run import inference_ledger, load_given_model
from apogee_batch.run.plan import run_id, set_aside, settle_plan, software_versions
from apogee_batch.run.progress import Facts, ProgressView, show_facts
from apogee_batch.run.published import read_published
from apogee_batch.run.run_folder import (
    INPUTS,
    MANIFEST_FILE,
    MODEL_FOLDER,
    SETTINGS_FILE,
    copy_inputs,
    hash_inputs,
    inference_settings,
    remove_run_leftovers,
    shard_sizes,
)
from apogee_batch.run.stage_times import stage, untimed
from apogee_batch.run.stages import run_shards
from apogee_batch.run.store_tables import read_star_rows, require_whole_tables
from apogee_batch.run.table_reading import read_some
from apogee_batch.run.training_stars import notes_on_stars
from apogee_batch.run.worker_tasks import infer_shard
from apogee_batch.schema import catalog_version
from apogee_batch.store.spectra import open_store
from apogee_batch.store.tables import REJECTS, STARS


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
    require_whole_tables(store)
    stars = read_star_rows(store)  # an unfinished ingest is told here, before anything is written
    if len(stars) == 0:
        raise UsageError(f"{store}: holds no star, see its {REJECTS}.parquet; ingest files that can be used")
    if model is None:
        from apogee_batch.run.train import plan_training  # needs torch, and a run with a model does not

        recipe = load_recipe(config.training.recipe)
        origin: dict[str, Any] = {"trained": plan_training(store, out / MODEL_FOLDER, config, recipe)}
    else:
        given = read_model(model)
        origin = {"given": given.sha256, "calibration": given.calibration_sha256}
    return {
        "kind": "run-catalog",
        "store_sha256": store_fingerprint(store),
        "inputs_sha256": hash_inputs(store),
        "shards": list(shard_sizes(stars, open_store(store).shard_stars)),
        "model": origin,
        "realizations": config.inference.realizations,
        "seed": config.inference.seed,
        "err_cap": config.inference.err_cap,
        "noise": NOISE_DEFINITION,
        "precision": config.inference.precision,
        "catalog_version": catalog_version(),
        "software": software_versions(),
    }


def begin_run(
    store: Path,
    out: Path,
    model: Path | None,
    config: RunConfig,
    progress: ProgressView,
    *,
    is_forced: bool = False,
    are_others_writing: bool = False,
) -> dict[str, Any]:
    """Write the plan of a run, or check that the folder's run has the same one. The folder must be locked.

    Parameters
    ----------
    store, out : Path
        The store; the run's folder.
    model : Path or None
        Folder of a trained model; None to train one.
    config : RunConfig
        All settings.
    progress : ProgressView
        What the user sees.
    is_forced : bool
        Whether a run with another plan is kept aside and a new one begun.
    are_others_writing : bool
        Whether tasks of a job array may be writing shards, so that files which look like those of killed
        processes stay.

    Raises
    ------
    UsageError
        If the folder holds another run, or something else.
    """
    if store.absolute() in (out.absolute(), *out.absolute().parents):
        raise UsageError(f"{out}: lies inside the store; name a folder beside it")
    plan = plan_run(store, out, model, config)
    if is_forced and (aside := set_aside(out, plan)) is not None:
        progress.say(f"the run that was in {out} is kept in {aside}; delete it when you do not need it")
    settle_plan(out, plan)
    if not are_others_writing:
        remove_run_leftovers(out)
    copy_inputs(store, out, plan["inputs_sha256"])
    write_sealed_json(out / SETTINGS_FILE, config.model_dump(mode="json"))
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
    lock: Lock,
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
    lock : Lock
        Of the run's folder; looked at after each shard and before publishing.

    Raises
    ------
    IntegrityError
        If something written is damaged or does not add up.
    LockedError
        If another process took the lock away.
    """
    checkpoint, folder = _get_model(store, out, plan, model, config, workers, progress, lock)
    infer_catalog(store, out, plan, (checkpoint, folder), config, workers, progress, lock)
    workers.crew.dismiss()  # others can have the nodes while this process writes the catalogue
    return publish_catalog(out, plan, checkpoint, progress, lock)


def infer_catalog(
    store: Path,
    out: Path,
    plan: dict[str, Any],
    model: tuple[SavedModel, Path],
    config: RunConfig,
    workers: Workers,
    progress: ProgressView,
    lock: Lock,
) -> None:
    """Estimate the labels of the stars in all shards that are not in the ledger; see `run_catalog`.

    Here `model` is what the model says of itself, and its folder.
    """
    checkpoint, folder = model
    ledger = inference_ledger(out, plan, checkpoint.identity)
    done = ledger.done()
    for problem in ledger.problems(done):
        progress.say(f"WARNING: {problem}; its shard is done again")
    stars = read_some(out / INPUTS / f"{STARS}.parquet", ["row"])
    sizes = shard_sizes(stars, open_store(store).shard_stars)
    todo = {shard: sizes[shard] for shard in plan["shards"] if shard not in done}
    progress.start("infer", len(stars), "stars", done=sum(report.n_inputs for report in done.values()))
    settings = inference_settings(
        plan, checkpoint.identity, device=config.cluster.device, engine=config.inference.engine
    )
    task = partial(infer_shard, str(store), str(out), str(folder), settings)
    bad = count_bad(out, ledger, done, len(stars), config)
    counts = [report.n_rejected for report in done.values()]
    show_facts(progress, Facts(rejects=sum(counts)))

    def on_report(report: ShardReport) -> None:
        lock.check()
        counts.append(report.n_rejected)
        show_facts(progress, Facts(rejects=sum(counts)))
        bad.count(report)

    run_shards(workers, task, todo, ledger, progress, on_report=on_report)
    progress.finish()


def publish_catalog(
    out: Path, plan: dict[str, Any], checkpoint: SavedModel, progress: ProgressView, lock: Lock
) -> CatalogRun:
    """Write the catalogue of a run whose shards are all done; see `run_catalog`."""
    lock.check()
    reports = inference_ledger(out, plan, checkpoint.identity).done()
    devices = sorted({str(report.extra["device"]) for report in reports.values()})
    if len(devices) > 1:
        progress.say(f"WARNING: computed on {' and '.join(devices)}; bytes are equal on one kind only")
    view = untimed(progress) if (out / MANIFEST_FILE).is_file() else progress
    with stage(view, "publish", sum(report.n_stars for report in reports.values()), "stars"):
        published = read_published(out, reports, plan=plan, model=checkpoint.identity, devices=devices)
        if published is None:
            from apogee_batch.run.publish import publish  # much that nobody needs who is told it is done

            published = publish(
                out, reports, plan=plan, model=(checkpoint.identity, checkpoint.header), devices=devices
            )
    (out / REJECTS_SO_FAR).unlink(missing_ok=True)
    return CatalogRun(out, run_id(plan), published.n_stars, published.n_rejects, published.results)


def count_bad(
    out: Path, ledger: Ledger, done: Mapping[int, ShardReport], n_stars: int, config: RunConfig
) -> BadInputs:
    """Count the stars that were left out so far.

    Raises
    ------
    TooManyBadInputsError
        If there are too many already.
    """
    bad = BadInputs(n_stars, config.inference.max_bad_fraction, "stars", partial(_keep_killed, out, ledger))
    for report in done.values():
        bad.count(report)
    return bad


def _keep_killed(out: Path, ledger: Ledger) -> str:
    """Write the stars that ended their workers where a user can look at them; say what they are."""
    path = out / REJECTS_SO_FAR
    rejects = killed_stars(out, ledger.entries())
    write_table(path, rejects)
    return f"{describe_rejects(rejects)}; all are listed in {path}"


def _get_model(
    store: Path,
    out: Path,
    plan: dict[str, Any],
    model: Path | None,
    config: RunConfig,
    workers: Workers,
    progress: ProgressView,
    lock: Lock,
) -> tuple[SavedModel, Path]:
    """Load the model that is given, or train one; either must be the planned one."""
    if model is None:
        from apogee_batch.run.train import run_training  # see `plan_run`

        folder, planned = out / MODEL_FOLDER, plan["model"]["trained"]
        return run_training(store, folder, config, workers, progress, lock=lock, planned=planned), folder
    checkpoint = load_given_model(model, plan)
    for note in (*notes_on(checkpoint.calibration, config.inference), *notes_on_stars(model, store)):
        progress.say(note)
    return checkpoint, model.resolve()
