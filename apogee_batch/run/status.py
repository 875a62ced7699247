"""What a run or a store has done so far, read from its files alone: works while it runs and after."""

from pathlib import Path
from typing import Any

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import read_sealed_json
from apogee_batch.network.checkpoint import Identity, load_checkpoint
from apogee_batch.network.metrics import METRICS_FILE, read_metrics
from apogee_batch.run.catalog_run import MODEL_FOLDER
from apogee_batch.run.ingest_inputs import INPUTS_FILE
from apogee_batch.run.ingest_mend import read_summary
from apogee_batch.run.ingest_plan import ingest_folders
from apogee_batch.run.ledger import Ledger
from apogee_batch.run.model_of_run import given_model, inference_ledger
from apogee_batch.run.onlooker import Onlooker
from apogee_batch.run.plan import read_plan, run_id
from apogee_batch.run.publish import MANIFEST_FILE
from apogee_batch.run.train import is_trained
from apogee_batch.store.spectra import open_store
from apogee_batch.store.tables import LABELS, read_labels, read_table, table_path


def describe_status(path: Path) -> list[str]:
    """Describe a run's folder, a model's folder, a store or one of its ingests in a few lines.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    if not path.exists():
        raise UsageError(f"{path}: does not exist; name the folder of a run or a model, or a store")
    if (path / "zarr.json").is_file():
        return _store_status(path)
    plan = (read_plan(path) if path.is_dir() else None) or {}
    kind = plan.get("kind")
    if kind == "train":
        return [f"training {run_id(plan)} in {path}", _training_line(path)]
    if kind == "run-catalog":
        return _run_status(path, plan)
    if kind == "ingest":
        store = path.resolve().parent.parent
        return [f"one ingest of the store {store}", _ingest_line(store, path.resolve())]
    raise UsageError(f"{path}: is neither a run nor a store (no plan.json of this program, no zarr.json)")


def status_to_json(path: Path) -> dict[str, Any]:
    """Return how far something is as JSON values: what `status --watch --json` tells at each look.

    Raises
    ------
    UsageError
        If it is no run, model or store.
    """
    describe_status(path)  # names what is damaged
    return Onlooker(path).look().to_json()


def _store_status(store: Path) -> list[str]:
    info = open_store(store)
    lines = [f"store {store}: {info.n_rows} rows in {info.n_shards} shards of {info.shard_stars}"]
    lines += [_ingest_line(store, folder) for folder in ingest_folders(store)]
    labels = read_labels(store) if table_path(store, LABELS).is_file() else None
    lines.append("labels: none attached" if labels is None else f"labels: {len(labels)} spectra labelled")
    return lines


def _ingest_line(store: Path, folder: Path) -> str:
    plan = read_plan(folder) or {}
    state = "planned"  # the list of inputs is written right after the plan
    summary = read_summary(folder)
    if summary:
        reasons = ", ".join(f"{n} {reason}" for reason, n in summary["rejects_by_reason"].items())
        state = f"done: {summary['stars_in_store']} stars, rejected {reasons or 'none'}"
    elif (folder / INPUTS_FILE).is_file():
        n_shards = len(set(read_table(folder / INPUTS_FILE)["shard"].to_pylist()))
        done = Ledger(folder / "ledger", store, run_id(plan)).done(check_bytes=False)
        state = f"{len(done)} of {n_shards} shards written"
    return f"ingest {folder.name}: {plan['n_inputs']} files, {state}"


def _run_status(run: Path, plan: dict[str, Any]) -> list[str]:
    lines = [f"run {run_id(plan)} in {run}"]
    model, stage = run / MODEL_FOLDER, "training"
    used = given_model(plan)
    if used is None:
        lines.append(_training_line(model))
        used, trouble = _identity_of(model) if is_trained(model) else (None, "")
        lines += [trouble] if trouble else []
    if used is not None:
        reports = inference_ledger(run, plan, used).done(check_bytes=False).values()
        n_stars = sum(report.n_stars for report in reports)
        seconds = sum(report.seconds for report in reports)
        rate = f", {n_stars / seconds:.3g} stars/s a worker" if seconds else ""
        n_shards = len(plan.get("shards", []))
        lines.append(f"infer: {len(reports)} of {n_shards} shards committed, {n_stars} stars{rate}")
        stage = "infer" if len(reports) < n_shards else "publish"
    manifest = run / MANIFEST_FILE
    if manifest.is_file():
        try:
            told = read_sealed_json(manifest)
        except ValueError as error:
            raise IntegrityError(f"{manifest}: is damaged; give the run-catalog command again") from error
        lines.append(f"published: {told['stars']} stars, {told['rejects']} rejects, {run / 'catalog'}")
    else:
        lines.append(f"stage: {stage}; not published yet, the same run-catalog command goes on with it")
    return lines


def _identity_of(model: Path) -> tuple[Identity | None, str]:
    """Return which model a run has trained, or a line that tells why that cannot be known."""
    try:
        return load_checkpoint(model).identity, ""
    except IntegrityError as error:
        return None, f"model: {error}"


def _training_line(model: Path) -> str:
    epochs = read_metrics(model / METRICS_FILE)
    if not epochs:
        return "train: no epoch finished yet"
    losses = [epoch["dev_loss"] for epoch in epochs if epoch["dev_loss"] is not None]
    best = f"best dev loss {min(losses):.4f}" if losses else "no finite dev loss yet"
    return f"train: {len(epochs)} epochs, {best}, {'finished' if is_trained(model) else 'going on'}"
