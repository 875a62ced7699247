"""What a run or a store has done so far, read from its files alone: works while it runs and after."""

from pathlib import Path
from typing import Any

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import read_sealed_json
from apogee_batch.network.metrics import METRICS_FILE, read_metrics
from apogee_batch.network.model_files import Identity, is_trained, read_model
from apogee_batch.run.model_of_run import given_model, inference_ledger
from apogee_batch.run.onlooker import Onlooker
from apogee_batch.run.plan import read_plan, run_id
from apogee_batch.run.run_folder import MANIFEST_FILE, MODEL_FOLDER


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
        from apogee_batch.run.status_of_store import describe_store  # needs Zarr, which a run does not

        return describe_store(path)
    plan = (read_plan(path) if path.is_dir() else None) or {}
    kind = plan.get("kind")
    if kind == "train":
        return [f"training {run_id(plan)} in {path}", _training_line(path)]
    if kind == "run-catalog":
        return _run_status(path, plan)
    if kind == "ingest":
        from apogee_batch.run.status_of_store import describe_ingest

        return describe_ingest(path.resolve())
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
        lines += _flag_lines(run)
    else:
        lines.append(f"stage: {stage}; not published yet, the same run-catalog command goes on with it")
    return lines


def _flag_lines(run: Path) -> list[str]:
    """Say how many rows of a published catalogue have which flag, and what to fear of them."""
    from apogee_batch.run.flag_lines import count_flags, flag_line  # tables: only what is published has them

    try:
        counts = count_flags(run)
    except IntegrityError as error:
        return [str(error)]
    warning = counts.strange_words()
    return [str(flag_line(counts)), *([] if warning is None else [f"WARNING: {warning}"])]


def _identity_of(model: Path) -> tuple[Identity | None, str]:
    """Return which model a run has trained, or a line that tells why that cannot be known."""
    try:
        return read_model(model).identity, ""
    except IntegrityError as error:
        return None, f"model: {error}"


def _training_line(model: Path) -> str:
    epochs = read_metrics(model / METRICS_FILE)
    if not epochs:
        return "train: no epoch finished yet"
    losses = [epoch["dev_loss"] for epoch in epochs if epoch["dev_loss"] is not None]
    best = f"best dev loss {min(losses):.4f}" if losses else "no finite dev loss yet"
    return f"train: {len(epochs)} epochs, {best}, {'finished' if is_trained(model) else 'going on'}"
