"""Validation of a published run: its catalogue against its own labels, or against another table."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apogee_batch.catalog.rows import PUBLISH_AGAIN, read_pieces
from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import read_json, read_sealed_json, write_json
from apogee_batch.labels.rows import LabelTable
from apogee_batch.labels.tables import read_label_table
from apogee_batch.report.labelled import GROUP_COLUMNS, LABEL_COLUMNS, VALIDATION_COLUMNS, gather_labelled
from apogee_batch.report.validation import Origin, Validation, validate
from apogee_batch.report.validation_text import snr_markdown, validation_text
from apogee_batch.run.ledger import WrittenFile, find_damage
from apogee_batch.run.plan import read_plan
from apogee_batch.run.run_folder import CATALOG_FILE, MANIFEST_FILE, RESULTS_FILE
from apogee_batch.schema import DATA_TYPES, LABEL_NAMES, N_LABELS

IDENTIFIERS = ("apstar_id", "apogee_id")  # a spectrum's own name is the more exact, so it comes first


def validate_run(
    run: Path, *, against: Path | None = None, column_map: Mapping[str, str] | None = None
) -> Validation:
    """Compare the catalogue of a published run with labels; only the labelled stars are held in memory.

    Parameters
    ----------
    run : Path
        The run's folder.
    against : Path, optional
        A table of labels in place of those attached to the store, matched by apstar_id or apogee_id. Types
        and sets stay those of the run.
    column_map : mapping of str to str, optional
        Our names of the table's columns to the table's.

    Raises
    ------
    UsageError
        If the folder is no run or not published, or the table cannot be used or has none of the stars.
    IntegrityError
        If something published is missing or damaged.
    """
    manifest = _read_manifest(run)
    label_std = _read_label_std(run)
    origin = Origin(manifest["run_id"], manifest["model_sha256"], manifest.get("calibration_sha256"))
    if against is None:
        stars = gather_labelled(read_pieces(run / CATALOG_FILE, VALIDATION_COLUMNS))
        return validate(stars, label_std=label_std, origin=origin)
    other = _OtherLabels(
        read_label_table(against, DATA_TYPES[0], column_map=column_map)
    )  # types are the run's
    pieces = read_pieces(run / CATALOG_FILE, (*IDENTIFIERS, *VALIDATION_COLUMNS))
    stars = gather_labelled(map(other.put, pieces))
    if len(stars) and other.n_without == len(stars):
        raise UsageError(
            f"{against}: none of its {other.n_rows} stars is a labelled star of {run}; they are matched by "
            "apstar_id or apogee_id (2M00000000+0000000); --map apogee_id=COLUMN names another column"
        )
    origin = replace(origin, against=str(against), n_not_in_table=other.n_without)
    return validate(stars, label_std=label_std, origin=origin)


def describe_validation(
    run: Path,
    *,
    json: Path | None,
    width: int,
    against: Path | None,
    column_map: Mapping[str, str],
    is_markdown: bool,
) -> list[str]:
    """Validate a run as the command does: write the JSON if it is asked for, return the lines to print."""
    if column_map and against is None:
        raise UsageError("--map names columns of the table of --against; give that table, too")
    found = validate_run(run, against=against, column_map=column_map)
    if json is not None:
        write_json(json, found.to_json())
    text = snr_markdown(found) if is_markdown and found.n_labelled else validation_text(found, width)
    return text.splitlines()


class _OtherLabels:
    """Labels of another table, put in the place of those of the catalogue.

    Attributes
    ----------
    n_rows, n_without : int
        Rows of the table; labelled stars of the catalogue so far that it does not have.
    """

    def __init__(self, table: LabelTable) -> None:
        self.n_rows = table.n_rows
        self.n_without = 0
        self._names = {
            name: pa.array([text or None for text in getattr(table, name)], pa.string())
            for name in IDENTIFIERS
        }
        self._labels = np.vstack([table.labels, np.full(N_LABELS, np.nan)])  # the last for a star without

    def put(self, piece: pa.Table) -> pa.Table:
        """Return a piece of the catalogue with the table's labels, NaN where it has none."""
        place = np.full(len(piece), -1)
        for name, known in self._names.items():
            found = pc.index_in(piece[name], value_set=known).fill_null(-1).to_numpy()
            place = np.where(place >= 0, place, found)
        is_labelled = np.logical_and.reduce([piece[name].is_valid().to_numpy() for name in GROUP_COLUMNS])
        self.n_without += int((is_labelled & (place < 0)).sum())
        for i, name in enumerate(LABEL_COLUMNS):
            values = pa.array(self._labels[place, i], pa.float64())
            piece = piece.set_column(piece.column_names.index(name), name, values)
        return piece


def _read_manifest(run: Path) -> dict[str, Any]:
    """Return the manifest of a published run whose catalogue and results are whole."""
    if not run.is_dir():
        problem = "is not a folder" if run.exists() else "does not exist"
        raise UsageError(f"{run}: {problem}; name the folder that 'apogee-batch run-catalog --out' made")
    plan = read_plan(run)
    if plan is None or plan.get("kind") != "run-catalog":
        what = "a training" if plan and plan.get("kind") == "train" else "no run"
        raise UsageError(f"{run}: is {what}; name the folder that 'apogee-batch run-catalog --out' made")
    path = run / MANIFEST_FILE
    if not path.is_file():
        raise UsageError(f"{run}: is not published yet, see 'apogee-batch status {run}'; {PUBLISH_AGAIN}")
    try:
        manifest = read_sealed_json(path)
        files = [WrittenFile(**file) for file in manifest["files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path}: is damaged; {PUBLISH_AGAIN}") from error
    for file in files:
        problem_of_file = find_damage(file, run) if file.path in (CATALOG_FILE, RESULTS_FILE) else None
        if problem_of_file is not None:
            raise IntegrityError(f"{run / file.path}: {problem_of_file}; {PUBLISH_AGAIN}")
    return manifest


def _read_label_std(run: Path) -> list[float]:
    """Return what the network's labels were divided by, in the order of `LABEL_NAMES`."""
    path = run / RESULTS_FILE
    try:
        told = read_json(path)["label_std"]
        return [float(told[name]) for name in LABEL_NAMES]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path}: is missing or damaged; {PUBLISH_AGAIN}") from error
