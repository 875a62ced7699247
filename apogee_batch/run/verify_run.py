"""Whether everything in a run's folder, or a model's, is as it was written."""

import json
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from apogee_batch import __version__
from apogee_batch.errors import IntegrityError
from apogee_batch.network.card import CARD_FILE, render_model_card
from apogee_batch.network.checkpoint import (
    HEADER_FILE,
    MODEL_FILE,
    STATE_FILE,
    Checkpoint,
    load_checkpoint,
    load_state,
)
from apogee_batch.network.metrics import METRICS_FILE
from apogee_batch.run.array import PATHS_FILE, PLAN_AGAIN
from apogee_batch.run.catalog_run import MODEL_FOLDER, SETTINGS_FILE, inference_ledger
from apogee_batch.run.config import RunConfig
from apogee_batch.run.damage import MISSING, Damage, Findings, describe_problem, is_leftover
from apogee_batch.run.infer import INPUTS, PARTS, part_path
from apogee_batch.run.ledger import ShardReport, WrittenFile
from apogee_batch.run.plan import LEDGER_FOLDER, PLAN_FILE, read_plan, run_id
from apogee_batch.run.publish import MANIFEST_FILE
from apogee_batch.run.store_tables import count_rows, each_name
from apogee_batch.store.tables import REJECTS, STARS

RUN_AGAIN = "give the same 'apogee-batch run-catalog' command again"
TRAIN_AGAIN = "give the same 'apogee-batch train' or 'run-catalog' command again"
TRAIN_ANEW = "put a copy of it back, or remove the model's folder and train again"
GO_ON_UNSAVED = f"remove {STATE_FILE} and give the command again, to train from the start"
ONLY_TOLD = "the model is whole without it, and nothing writes it again: delete it"


def verify_run(run: Path) -> list[Damage]:
    """Return everything in the folder of a run or a model that is not as it was written.

    Parameters
    ----------
    run : Path
        Folder that `run-catalog` or `train` wrote; either may go on meanwhile.

    Returns
    -------
    list of Damage
        Always in the same order. Files that were never finished are none.
    """
    return examine_run(run).damages


def examine_run(run: Path) -> Findings:
    """Do what `verify_run` does; return also what was looked at."""
    found = Findings()
    is_run = any((run / name).is_dir() for name in (INPUTS, PARTS, MODEL_FOLDER, "catalog"))
    remedy = RUN_AGAIN if is_run else TRAIN_AGAIN
    plan = found.attempt(lambda: read_plan(run), run / PLAN_FILE, remedy)
    is_model = plan["kind"] == "train" if plan is not None else not is_run
    if is_model:
        _examine_model(run, found, plan=plan)
    elif plan is None:
        if not found.damages:
            found.add(run / PLAN_FILE, MISSING, remedy)
        found.notes.append(f"{run}: without its plan nothing else of the run can be told right from wrong")
    else:
        _examine_planned(run, plan, found)
    return found


def _examine_model(folder: Path, found: Findings, *, plan: dict[str, Any] | None) -> Checkpoint | None:
    """Look at the files of a model, trained, in training or imported; return the model if it is whole."""
    n_before = len(found.damages)
    checkpoint = _load_model(folder, found)
    is_imported = checkpoint is not None and checkpoint.header.origin != "trained"
    is_told = any(damage.path == folder / PLAN_FILE for damage in found.damages)
    is_trained_here = any((folder / name).is_file() for name in (METRICS_FILE, STATE_FILE))
    if plan is None and not is_told and is_trained_here:
        found.add(folder / PLAN_FILE, MISSING, TRAIN_AGAIN)
    if (folder / STATE_FILE).is_file():
        found.attempt(lambda: load_state(folder), folder / STATE_FILE, GO_ON_UNSAVED)
    if checkpoint is not None:
        _examine_card(folder, checkpoint, found)
    elif len(found.damages) == n_before:
        found.notes.append(f"{folder}: the training has not finished; {TRAIN_AGAIN}")
    if not is_imported and (checkpoint is not None or (folder / METRICS_FILE).is_file()):
        problem = _find_metrics_damage(folder / METRICS_FILE, is_finished=checkpoint is not None)
        if problem == MISSING and checkpoint is not None:
            found.notes.append(f"{folder / METRICS_FILE}: {MISSING}; the model is whole without it")
        elif problem is not None:
            found.add(folder / METRICS_FILE, problem, ONLY_TOLD)
    return checkpoint


def _load_model(folder: Path, found: Findings) -> Checkpoint | None:
    """Load a model; say which of its files is damaged."""
    header, weights = folder / HEADER_FILE, folder / MODEL_FILE
    if not header.is_file():
        is_lost = weights.is_file() and not (folder / STATE_FILE).is_file()
        if is_lost:  # the state of a training goes only when the model is complete
            found.add(header, MISSING, TRAIN_ANEW)
        return None
    checkpoint = None
    try:
        checkpoint = load_checkpoint(folder)
    except IntegrityError as error:
        path = weights if str(error).startswith(str(weights)) else header
        found.add(path, describe_problem(error, path), TRAIN_ANEW)
    found.n_files += 2
    found.n_bytes += sum(path.stat().st_size for path in (header, weights) if path.is_file())
    return checkpoint


def _examine_card(folder: Path, checkpoint: Checkpoint, found: Findings) -> None:
    """Compare the card with the model; another version of the program may word it otherwise."""
    path, header = folder / CARD_FILE, checkpoint.header
    if not path.is_file():
        found.add(path, MISSING, TRAIN_AGAIN)
    elif header.versions.get("apogee_batch") == __version__ and _words(path.read_bytes()) != _words(
        render_model_card(header, checkpoint.sha256).encode()
    ):
        found.add(path, "does not describe the model", TRAIN_AGAIN)


def _words(content: bytes) -> list[bytes]:
    """Return the words of a text in alphabetical order: facts may stand in any."""
    return sorted(re.split(rb"[\s,()]+", content))


def _find_metrics_damage(path: Path, *, is_finished: bool) -> str | None:
    """Say what is wrong with the metrics; a torn last line is none while the training goes on."""
    if not path.is_file():
        return MISSING
    lines = path.read_bytes().splitlines()
    try:
        epochs = [json.loads(line)["epoch"] for line in (lines if is_finished else lines[:-1])]
    except (ValueError, KeyError, TypeError):
        return "holds a line that is no epoch"
    is_whole = epochs == list(range(1, len(epochs) + 1)) and (epochs or not is_finished)
    return None if is_whole else "does not hold every epoch"


def _examine_planned(run: Path, plan: dict[str, Any], found: Findings) -> None:
    """Look at the parts of a run whose plan is whole."""
    manifest = None
    is_published = (run / MANIFEST_FILE).is_file()
    if is_published:
        manifest = found.read_sealed(run / MANIFEST_FILE, RUN_AGAIN)
    _examine_inputs(run, plan, found, is_published=is_published)
    _examine_settings(run, found)
    if (run / PATHS_FILE).is_file():
        found.read_sealed(run / PATHS_FILE, PLAN_AGAIN)
    sha256 = _examine_model_of_run(run, plan, found) or (manifest or {}).get("model_sha256")
    reports = None
    if sha256 is not None:
        reports = _examine_parts(run, plan, str(sha256), found, is_published=is_published)
    if not is_published:
        found.notes.append(f"{run}: not finished (no {MANIFEST_FILE}); {RUN_AGAIN}, which goes on with it")
    elif manifest is not None:
        _examine_published(run, run_id(plan), sha256, manifest, found)
        if reports is not None and not found.damages:
            _examine_rows(run, reports, manifest, found)


def _examine_inputs(run: Path, plan: dict[str, Any], found: Findings, *, is_published: bool) -> None:
    """Compare the run's copies of the store's tables with the plan."""
    has_begun = is_published or any((run / LEDGER_FOLDER).glob("[0-9]*.json"))
    remedy = f"{RUN_AGAIN}, which copies it from the store"
    for name, sha256 in plan["inputs_sha256"].items():
        path = run / INPUTS / f"{name}.parquet"
        if path.is_file():
            found.check(
                WrittenFile(path.relative_to(run).as_posix(), path.stat().st_size, sha256), run, remedy
            )
        elif has_begun:
            found.add(path, MISSING, remedy)


def _examine_settings(run: Path, found: Findings) -> None:
    """Read the settings, which are kept for people."""
    path = run / SETTINGS_FILE
    if not path.is_file() and not (run / LEDGER_FOLDER).is_dir():
        return  # they are written right after the plan and the inputs
    values = found.read_sealed(path, RUN_AGAIN)
    if values is not None:
        try:
            RunConfig.model_validate(values)
        except ValueError:  # pydantic's own is one
            found.add(path, "holds no settings of this version", RUN_AGAIN)


def _examine_model_of_run(run: Path, plan: dict[str, Any], found: Findings) -> str | None:
    """Look at the model that a run trained; return the hash of the model that it uses, if it is known."""
    if "given" in plan["model"]:
        return str(plan["model"]["given"])
    folder = run / MODEL_FOLDER
    if not folder.is_dir() or not any(path for path in folder.iterdir() if not is_leftover(path)):
        return None
    own = found.attempt(lambda: read_plan(folder), folder / PLAN_FILE, RUN_AGAIN)
    if own is not None and own != plan["model"]["trained"]:
        found.add(folder / PLAN_FILE, "is not the training that the run has planned", RUN_AGAIN)
    checkpoint = _examine_model(folder, found, plan=own)
    return None if checkpoint is None else checkpoint.sha256


def _examine_parts(
    run: Path, plan: dict[str, Any], model_sha256: str, found: Findings, *, is_published: bool
) -> list[ShardReport] | None:
    """Look at ledger and parts; return the reports if all are whole."""
    n_before = len(found.damages)
    ledger = inference_ledger(run, plan, model_sha256)
    damaged = ledger.damaged()
    for path in damaged:
        found.add(path, "damaged ledger entry", RUN_AGAIN)
    reports = []
    for shard in plan["shards"]:
        path = run / LEDGER_FOLDER / f"{shard:05d}.json"
        report = None if path in damaged else ledger.entry(shard)
        if report is not None:
            reports.append(report)
            for file in report.files:
                found.check(file, run, RUN_AGAIN)
        elif is_published and path not in damaged:
            found.add(path, "is of another plan or model" if path.is_file() else MISSING, RUN_AGAIN)
    expected = {part_path(run, shard) for shard in plan["shards"]}
    for path in sorted((run / PARTS).rglob("*")):
        if path.is_file() and path not in expected and not is_leftover(path):
            found.add(path, "is of no shard of this run", "delete it")
    if not is_published:
        found.notes.append(f"{run}: {len(reports)} of {len(plan['shards'])} shards inferred")
    return reports if len(found.damages) == n_before else None


def _examine_published(
    run: Path, name: str, model_sha256: str | None, manifest: dict[str, Any], found: Findings
) -> None:
    """Compare the published files with the manifest, and the manifest with the plan."""
    path = run / MANIFEST_FILE
    try:
        files = [WrittenFile(**file) for file in manifest["files"]]
        wanted = {"run_id": name, "model_sha256": model_sha256}
        others = [key for key, value in wanted.items() if manifest[key] != value]
        counts = [int(manifest[key]) for key in ("stars", "rejects")]
    except (KeyError, TypeError, ValueError) as error:
        found.add(path, f"is damaged ({error!r})", RUN_AGAIN)
        return
    if others or min(counts) < 0:
        found.add(path, f"is of another run ({', '.join(others)} differ)", RUN_AGAIN)
    for file in files:
        found.check(file, run, RUN_AGAIN)


def _examine_rows(
    run: Path, reports: Sequence[ShardReport], manifest: dict[str, Any], found: Findings
) -> None:
    """Check that the parts make the catalogue, star by star, and that none of the inputs is lost."""
    catalog = run / "catalog" / "catalog.parquet"
    n_stars = count_rows(catalog)
    if _holds_a_name_twice(catalog):
        found.add(catalog, "holds a star twice", RUN_AGAIN)
    names, n_in_parts = each_name(catalog), 0
    for report in reports:
        own = list(each_name(part_path(run, report.shard)))
        if len(own) != report.n_stars or list(islice(names, len(own))) != own:
            found.add(part_path(run, report.shard), "holds other stars than the catalogue", RUN_AGAIN)
        n_in_parts += len(own)
    n_inputs = count_rows(run / INPUTS / f"{STARS}.parquet")
    n_left_out = sum(report.n_rejected for report in reports)
    if n_in_parts != n_stars or n_stars + n_left_out != n_inputs:
        found.add(catalog, f"holds {n_stars} stars of {n_inputs} with {n_left_out} left out", RUN_AGAIN)
    refused = count_rows(run / INPUTS / f"{REJECTS}.parquet") + n_left_out
    rejects = run / f"{REJECTS}.parquet"
    if count_rows(rejects) != refused:
        found.add(rejects, f"holds {count_rows(rejects)} rejects, should hold {refused}", RUN_AGAIN)
    devices = sorted({str(report.extra["device"]) for report in reports})
    if (manifest["stars"], manifest["rejects"], manifest.get("devices")) != (n_stars, refused, devices):
        found.add(run / MANIFEST_FILE, "its counts or devices are not those of the parts", RUN_AGAIN)


def _holds_a_name_twice(path: Path) -> bool:
    """Tell whether a star is twice in a table: names of the same hash are compared, others need not be."""
    hashes = np.sort(np.fromiter(map(hash, each_name(path)), np.int64))
    shared = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    suspects = [name for name in each_name(path) if hash(name) in shared] if shared else []
    return len(set(suspects)) != len(suspects)
