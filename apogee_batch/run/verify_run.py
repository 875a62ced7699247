"""Whether everything in a run's folder, or a model's, is as it was written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apogee_batch.network.calibration import CALIBRATION_FILE
from apogee_batch.network.model_files import Identity
from apogee_batch.run.array import PATHS_FILE, PLAN_AGAIN
from apogee_batch.run.config import RunConfig
from apogee_batch.run.damage import MISSING, Damage, Findings, is_leftover
from apogee_batch.run.ledger import ShardReport, WrittenFile
from apogee_batch.run.model_of_run import given_model, inference_ledger
from apogee_batch.run.plan import LEDGER_FOLDER, PLAN_FILE, read_plan, run_id
from apogee_batch.run.run_folder import INPUTS, MANIFEST_FILE, MODEL_FOLDER, PARTS, SETTINGS_FILE, part_path
from apogee_batch.run.table_reading import count_rows, each_name
from apogee_batch.run.verify_model import TRAIN_AGAIN, examine_model
from apogee_batch.store.tables import REJECTS, STARS

RUN_AGAIN = "give the same 'apogee-batch run-catalog' command again"


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
        examine_model(run, found, plan=plan)
    elif plan is None:
        if not found.damages:
            found.add(run / PLAN_FILE, MISSING, remedy)
        found.notes.append(f"{run}: without its plan nothing else of the run can be told right from wrong")
    else:
        _examine_planned(run, plan, found)
    return found


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
    model = _examine_model_of_run(run, plan, found, manifest)
    reports = None
    if model is not None:
        reports = _examine_parts(run, plan, model, found, is_published=is_published)
    if not is_published:
        found.notes.append(f"{run}: not finished (no {MANIFEST_FILE}); {RUN_AGAIN}, which goes on with it")
    elif manifest is not None:
        _examine_published(run, run_id(plan), model, manifest, found)
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


def _examine_model_of_run(
    run: Path, plan: dict[str, Any], found: Findings, manifest: dict[str, Any] | None
) -> Identity | None:
    """Look at the model that a run trained; return the model that it uses, if it is known."""
    if (given := given_model(plan)) is not None:
        return given
    folder, published = run / MODEL_FOLDER, _published_model(manifest)
    if not folder.is_dir() or not any(path for path in folder.iterdir() if not is_leftover(path)):
        return published
    own = found.attempt(lambda: read_plan(folder), folder / PLAN_FILE, RUN_AGAIN)
    if own is not None and own != plan["model"]["trained"]:
        found.add(folder / PLAN_FILE, "is not the training that the run has planned", RUN_AGAIN)
    checkpoint = examine_model(folder, found, plan=own)
    if checkpoint is None:
        return published
    if published is not None and checkpoint.sha256 == published.model_sha256:
        calibration = folder / CALIBRATION_FILE
        if published.calibration_sha256 is not None and not calibration.is_file():
            found.add(calibration, MISSING, RUN_AGAIN)
        if checkpoint.calibration is None:  # missing or damaged, which is told
            return published
    return checkpoint.identity


def _published_model(manifest: dict[str, Any] | None) -> Identity | None:
    """Return the model that a catalogue was made with, as its manifest tells."""
    if manifest is None or "model_sha256" not in manifest:
        return None
    return Identity(str(manifest["model_sha256"]), manifest.get("calibration_sha256"))


def _examine_parts(
    run: Path, plan: dict[str, Any], model: Identity, found: Findings, *, is_published: bool
) -> list[ShardReport] | None:
    """Look at ledger and parts; return the reports if all are whole."""
    n_before = len(found.damages)
    ledger = inference_ledger(run, plan, model)
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
    run: Path, name: str, model: Identity | None, manifest: dict[str, Any], found: Findings
) -> None:
    """Compare the published files with the manifest, and the manifest with the plan."""
    path = run / MANIFEST_FILE
    try:
        files = [WrittenFile(**file) for file in manifest["files"]]
        wanted = {"run_id": name, **(model or Identity("", None))._asdict()}
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
    names, n_in_parts = _Names(catalog), 0
    for report in reports:
        own = list(each_name(part_path(run, report.shard)))
        if len(own) != report.n_stars or not names.take(own):
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


class _Names:
    """The names of a catalogue, whatever its order, by their hashes: 9 bytes a star."""

    def __init__(self, path: Path) -> None:
        self._hashes = np.sort(np.fromiter(map(hash, each_name(path)), np.int64))
        self._is_taken = np.zeros(len(self._hashes), dtype=bool)

    def take(self, names: Sequence[str]) -> bool:
        """Take names out, each once; tell whether all of them were still there."""
        wanted = np.fromiter(map(hash, names), np.int64)
        places = np.searchsorted(self._hashes, wanted)
        is_there = places < len(self._hashes)
        is_there[is_there] = self._hashes[places[is_there]] == wanted[is_there]
        found = np.unique(places[is_there])
        is_whole = len(found) == len(names) and not self._is_taken[found].any()
        self._is_taken[found] = True
        return is_whole


def _holds_a_name_twice(path: Path) -> bool:
    """Tell whether a star is twice in a table: names of the same hash are compared, others need not be."""
    hashes = np.sort(np.fromiter(map(hash, each_name(path)), np.int64))
    shared = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    suspects = [name for name in each_name(path) if hash(name) in shared] if shared else []
    return len(set(suspects)) != len(suspects)
