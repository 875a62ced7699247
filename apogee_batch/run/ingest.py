"""The ingest stage: apStar files in, whole shards of the store out."""

import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.errors import RejectReason, TooManyBadInputsError
from apogee_batch.files import read_json, write_json
from apogee_batch.run.clusters import Workers
from apogee_batch.run.ingest_plan import (
    SUMMARY_FILE,
    IngestPlan,
    ingest_folders,
    read_ingest,
    read_shard_inputs,
    star_from_json,
    write_inputs,
)
from apogee_batch.run.ingest_tables import gather_tables, ingest_ledger, part_path, reject_table, star_table
from apogee_batch.run.ledger import ShardReport, describe_file
from apogee_batch.run.plan import settle_plan
from apogee_batch.run.progress import ProgressView
from apogee_batch.run.stages import run_shards
from apogee_batch.store.spectra import create_store, extend_store, open_store, write_shard
from apogee_batch.store.tables import REJECTS, STARS, table_path, write_table
from apogee_batch.survey.allstar import Reconciliation
from apogee_batch.survey.apstar import RejectedSpectrum, Rows, Spectrum, read_apstar
from apogee_batch.survey.pixels import N_PIXELS

SURVEY_FILE = "allstar_match.parquet"
SNR_TOLERANCE = 0.01


@dataclass(frozen=True)
class IngestSummary:
    """What an ingest did.

    Attributes
    ----------
    counts : dict
        Inputs, stars, rejects by reason and so on, as JSON values.
    """

    counts: dict[str, Any]


def run_ingest(
    store: Path,
    plan: IngestPlan,
    workers: Workers,
    progress: ProgressView,
    *,
    survey: Reconciliation | None = None,
) -> IngestSummary:
    """Carry out an ingest plan, going on where an earlier attempt stopped.

    Parameters
    ----------
    store : Path
        Folder of the store; made when it does not exist.
    plan : IngestPlan
        From `plan_ingest`.
    workers : Workers
        Where shards are read.
    progress : ProgressView
        What the user sees.
    survey : Reconciliation, optional
        How the files compare with the survey's summary; kept beside the plan.

    Raises
    ------
    IntegrityError
        If the counts do not add up.
    TooManyBadInputsError
        If no file gave a spectrum.
    """
    if not (store / "zarr.json").is_file():
        create_store(store, n_rows=plan.n_rows, shard_stars=plan.shard_stars)
    settle_plan(plan.folder, plan.values)
    write_inputs(plan)
    extend_store(store, n_rows=plan.n_rows)
    ledger = ingest_ledger(store, plan)
    done = ledger.done()
    todo = [shard for shard in plan.shards if shard not in done]
    n_before = sum(report.n_inputs for report in done.values())
    progress.start("ingest", len(plan.inputs), "files", done=n_before)
    task = partial(ingest_shard, str(store), plan.folder.name, plan.values["rows"])
    run_shards(workers, task, todo, ledger, progress)
    progress.finish()
    if survey is not None:
        write_table(plan.folder / SURVEY_FILE, survey.details)
    return _finish(store, plan, survey)


def damaged_ingests(store: Path) -> list[IngestPlan]:
    """Return the finished ingests of a store of which a file is missing or has other bytes."""
    plans = [read_ingest(f) for f in ingest_folders(store) if (f / SUMMARY_FILE).is_file()]
    return [plan for plan in plans if len(ingest_ledger(store, plan).done()) < len(plan.shards)]


def ingest_shard(store: str, ingest: str, rows: Rows, shard: int) -> ShardReport:
    """Read the files of one shard and write its rows: a task.

    Parameters
    ----------
    store, ingest : str
        Path of the store; name of the ingest's folder in it.
    rows : {"combined", "visits"}
        What becomes a row.
    shard : int
        The shard.
    """
    started = time.monotonic()
    base, folder = Path(store), Path(store) / "ingest" / ingest
    info = open_store(base)
    inputs = read_shard_inputs(folder, shard)
    spectra, numbers, rejects, n_used = _read_files(inputs, rows)
    offset = np.array(numbers, np.int64) - info.shard_rows(shard)[0]
    files = write_shard(
        info,
        shard,
        offset=offset.astype(np.int32),
        flux=np.stack([s.flux for s in spectra]) if spectra else np.empty((0, N_PIXELS), np.float32),
        err=np.stack([s.err for s in spectra]) if spectra else np.empty((0, N_PIXELS), np.float32),
        mask=np.stack([s.mask for s in spectra]) if spectra else np.empty((0, N_PIXELS), np.int32),
    )
    for name, table in ((STARS, star_table(spectra, numbers)), (REJECTS, reject_table(rejects))):
        write_table(part_path(folder, name, shard), table)
        files.append(part_path(folder, name, shard))
    return ShardReport(
        shard=shard,
        n_inputs=len(inputs),
        n_stars=len(spectra),
        n_rejected=len(rejects),
        files=tuple(describe_file(path, base) for path in files),
        seconds=time.monotonic() - started,
        host=socket.gethostname(),
        extra={"n_used": n_used},
    )


def _read_files(
    inputs: Sequence[dict[str, Any]], rows: Rows
) -> tuple[list[Spectrum], list[int], list[RejectedSpectrum], int]:
    """Read every file, and count those that gave a spectrum; a bad one costs its own rows only."""
    n_used = 0
    spectra: list[Spectrum] = []
    numbers: list[int] = []
    rejects: list[RejectedSpectrum] = []
    for record in inputs:
        known = None if record["known"] is None else star_from_json(record["known"])
        read = read_apstar(Path(record["path"]), rows=rows, known=known)
        if isinstance(read, list) and len(read) > record["n_rows"]:
            text = f"has {len(read)} spectra, had {record['n_rows']} when the ingest was planned"
            read = RejectedSpectrum(record["path"], read[0].star.apogee_id, RejectReason.BAD_SHAPE, text)
        if isinstance(read, RejectedSpectrum):
            rejects.append(read)
            continue
        spectra += read
        numbers += range(record["row"], record["row"] + len(read))
        n_used += 1
    return spectra, numbers, rejects, n_used


def _finish(store: Path, plan: IngestPlan, survey: Reconciliation | None) -> IngestSummary:
    """Check that every input is accounted for, then write the tables and, last, the summary."""
    stars, rejects = gather_tables(store)
    write_table(table_path(store, STARS), stars)
    write_table(table_path(store, REJECTS), rejects)
    summary = plan.folder / SUMMARY_FILE
    before = (
        read_json(summary) if summary.is_file() else {}
    )  # of an ingest that is mended: its survey counts stay
    counts = before | _count(plan, stars, rejects, survey)
    write_json(summary, counts)
    if counts["stars_in_store"] == 0:
        first = rejects.slice(0, 1).to_pylist()[0]
        reasons = ", ".join(f"{n} {reason}" for reason, n in counts["rejects_by_reason"].items())
        raise TooManyBadInputsError(
            f"none of the {counts['inputs']} files could be used ({reasons}); the first is {first['path']}: "
            f"{first['text']}; all of them stand in {table_path(store, REJECTS)}"
        )
    return IngestSummary(counts)


def _count(
    plan: IngestPlan, stars: pa.Table, rejects: pa.Table, survey: Reconciliation | None
) -> dict[str, Any]:
    reasons = Counter(rejects["reason"].to_pylist())
    header, measured = stars["snr_header"].to_numpy(), stars["snr"].to_numpy()
    known = np.isfinite(header) & np.isfinite(measured)
    differs = np.abs(measured[known] - header[known]) > SNR_TOLERANCE * np.abs(header[known])
    counts: dict[str, Any] = {
        "inputs": len(plan.inputs),
        "stars_in_store": len(stars),
        "rejects_in_store": len(rejects),
        "rejects_by_reason": dict(sorted(reasons.items())),
        "snr_checked": int(known.sum()),
        "snr_differs": int(differs.sum()),
    }
    return counts if survey is None else counts | {"survey": count_survey(survey)}


def count_survey(survey: Reconciliation) -> dict[str, int]:
    """Return how files and the rows of the summary agree."""
    return {
        "found": survey.n_found,
        "missing": survey.n_missing,
        "extra": survey.n_extra,
        "duplicate": survey.n_duplicate,
    }
