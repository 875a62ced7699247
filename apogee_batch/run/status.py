"""What a run or a store has done so far, read from its files alone: works while it runs and after."""

from pathlib import Path

from apogee_batch.errors import UsageError
from apogee_batch.files import read_json
from apogee_batch.network.metrics import METRICS_FILE, read_metrics
from apogee_batch.run.ingest_plan import INPUTS_FILE, SUMMARY_FILE, ingest_folders
from apogee_batch.run.ledger import Ledger
from apogee_batch.run.plan import read_plan, run_id
from apogee_batch.store.spectra import open_store
from apogee_batch.store.tables import LABELS, read_labels, read_table, table_path


def describe_status(path: Path) -> list[str]:
    """Describe a run's folder, a model's folder or a store in a few lines.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    if (path / "zarr.json").is_file():
        return _store_status(path)
    plan = read_plan(path) if path.is_dir() else None
    if plan is None:
        raise UsageError(f"{path}: is neither a run nor a store (no plan.json, no zarr.json)")
    if plan["kind"] == "train":
        return [f"training {run_id(plan)} in {path}", _training_line(path)]
    return _run_status(path, run_id(plan))


def _store_status(store: Path) -> list[str]:
    info = open_store(store)
    lines = [f"store {store}: {info.n_rows} rows in {info.n_shards} shards of {info.shard_stars}"]
    for folder in ingest_folders(store):
        plan = read_plan(folder) or {}
        ledger = Ledger(folder / "ledger", store, run_id(plan))
        n_shards = len(set(read_table(folder / INPUTS_FILE)["shard"].to_pylist()))
        done = ledger.done(check_bytes=False)
        state = f"{len(done)} of {n_shards} shards written"
        if (folder / SUMMARY_FILE).is_file():
            summary = read_json(folder / SUMMARY_FILE)
            reasons = ", ".join(f"{n} {reason}" for reason, n in summary["rejects_by_reason"].items())
            state = f"done: {summary['stars_in_store']} stars, rejected {reasons or 'none'}"
        lines.append(f"ingest {folder.name}: {plan['n_inputs']} files, {state}")
    labels = read_labels(store) if table_path(store, LABELS).is_file() else None
    lines.append("labels: none attached" if labels is None else f"labels: {len(labels)} spectra labelled")
    return lines


def _run_status(run: Path, name: str) -> list[str]:
    lines = [f"run {name} in {run}"]
    model = run / "model"
    if model.is_dir():
        lines.append(_training_line(model))
    entries = [read_json(path) for path in sorted((run / "ledger").glob("[0-9]*.json"))]
    n_stars = sum(entry["n_stars"] for entry in entries)
    seconds = sum(entry["seconds"] for entry in entries)
    rate = f", {n_stars / seconds:.3g} stars/s a worker" if seconds else ""
    lines.append(f"infer: {len(entries)} shards committed, {n_stars} stars{rate}")
    manifest = run / "manifest.json"
    if manifest.is_file():
        told = read_json(manifest)
        lines.append(f"published: {told['stars']} stars, {told['rejects']} rejects, {run / 'catalog'}")
    else:
        lines.append("not published yet; the same run-catalog command goes on with it")
    return lines


def _training_line(model: Path) -> str:
    epochs = read_metrics(model / METRICS_FILE)
    if not epochs:
        return "train: no epoch finished yet"
    best = min(epoch["dev_loss"] for epoch in epochs)
    state = (
        "finished"
        if (model / "model.json").is_file() and not (model / "state.json").is_file()
        else "going on"
    )
    return f"train: {len(epochs)} epochs, best dev loss {best:.4f}, {state}"
