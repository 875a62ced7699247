"""The ingest stage: apStar files in, whole shards of the store out."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.errors import TooManyBadInputsError
from apogee_batch.files import write_sealed_json, write_table
from apogee_batch.run.bad_inputs import REJECTS_SO_FAR, BadInputs, describe_rejects
from apogee_batch.run.clusters import Workers
from apogee_batch.run.ingest_check import has_stored_nothing
from apogee_batch.run.ingest_mend import INPUTS_NOTE, note_inputs, read_summary
from apogee_batch.run.ingest_plan import (
    SUMMARY_FILE,
    IngestPlan,
    begin_ingest,
    ingest_folders,
    read_ingest,
    unfinished_ingest,
)
from apogee_batch.run.ingest_tables import ingest_ledger, mending_ledger, rejects_so_far
from apogee_batch.run.ingest_task import ingest_shard
from apogee_batch.run.ledger import Ledger, ShardReport
from apogee_batch.run.lock import Lock
from apogee_batch.run.plan import read_plan
from apogee_batch.run.progress import Facts, ProgressView, show_facts
from apogee_batch.run.stage_times import time_stages
from apogee_batch.run.stages import run_shards
from apogee_batch.run.store_tables import write_ingested_tables
from apogee_batch.run.survey_match import SURVEY_FILE, count_survey
from apogee_batch.store.spectra import METADATA_FILE, create_store, resize_store
from apogee_batch.store.tables import REJECTS, table_path
from apogee_batch.survey.allstar import Reconciliation

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
    max_bad_fraction: float,
    lock: Lock,
) -> None:
    """Write the shards of an ingest plan, going on where an earlier attempt stopped.

    Parameters
    ----------
    store : Path
        Folder of the store.
    plan : IngestPlan
        One that was begun by `begin_store`.
    workers : Workers
        Where shards are read.
    progress : ProgressView
        What the user sees.
    max_bad_fraction : float
        Part of the files, 0 to 1, that may be of no use; those that an earlier ingest rejected do not count.
    lock : Lock
        Of the store; looked at after each shard.

    Raises
    ------
    TooManyBadInputsError
        If too many files gave no spectrum.
    LockedError
        If another process took the lock away.
    """
    n_known = _count_known(store, plan)
    keep = partial(_keep_rejects, store, plan)
    bad = BadInputs(len(plan.inputs), max_bad_fraction, "files", keep, n_known=n_known)
    _write_shards(store, plan, ingest_ledger(store, plan), workers, progress, bad, lock)


def mend_ingest(
    store: Path, plan: IngestPlan, workers: Workers, progress: ProgressView, *, lock: Lock
) -> None:
    """Make the shards of a finished ingest again that are damaged; they must become what they were.

    Parameters
    ----------
    store, plan, workers, progress, lock
        As for `run_ingest`.

    Raises
    ------
    IntegrityError
        If a shard becomes another one: a file was replaced or could not be read, or the software is another.
    LockedError
        If another process took the lock away.
    """
    bad = BadInputs(len(plan.inputs), 1.0, "files", partial(_keep_rejects, store, plan))
    _write_shards(store, plan, mending_ledger(store, plan), workers, progress, bad, lock)


def _write_shards(
    store: Path,
    plan: IngestPlan,
    ledger: Ledger,
    workers: Workers,
    progress: ProgressView,
    bad: BadInputs,
    lock: Lock,
) -> None:
    """Write the shards of an ingest that its ledger lacks."""
    progress = time_stages(progress, plan.folder)
    fit_store(store)
    done = ledger.done()
    for problem in ledger.problems(done):
        progress.say(f"WARNING: {problem}; its shard is done again")
    todo = {shard: size for shard, size in plan.sizes.items() if shard not in done}
    n_before = sum(report.n_inputs for report in done.values())
    n_rejected = sum(report.n_rejected for report in done.values())
    progress.start("ingest", len(plan.inputs), "files", done=n_before)
    show_facts(progress, Facts(rejects=n_rejected))
    for report in done.values():
        bad.count(report)

    def on_report(report: ShardReport) -> None:
        nonlocal n_rejected
        lock.check()
        n_rejected += report.n_rejected
        show_facts(progress, Facts(rejects=n_rejected))
        bad.count(report)

    task = partial(ingest_shard, str(store), plan.folder.name, plan.values["rows"], hash_name=plan.hash_name)
    run_shards(workers, task, todo, ledger, progress, on_report=on_report)
    progress.finish()


def fit_store(store: Path) -> None:
    """Give the arrays of a store the rows that its ingests have in all."""
    plans = [read_plan(folder) or {} for folder in ingest_folders(store)]
    resize_store(store, n_rows=max(int(begun["n_rows"]) for begun in plans))


def _count_known(store: Path, plan: IngestPlan) -> int:
    """Return how many files of a plan an earlier ingest has rejected, which was accepted then."""
    earlier = [folder for folder in ingest_folders(store) if folder.name < plan.folder.name]
    known = {path for folder in earlier for path in read_ingest(folder).inputs["path"].to_pylist()}
    return sum(path in known for path in plan.inputs["path"].to_pylist()) if known else 0


def begin_store(store: Path, plan: IngestPlan) -> None:
    """Make the store of a plan unless there is one, and write the plan into it, or check that it is there.

    Raises
    ------
    UsageError
        If another plan was begun.
    """
    if not (store / METADATA_FILE).is_file():
        create_store(store, n_rows=plan.n_rows, shard_stars=plan.shard_stars)
    begin_ingest(plan)


def _keep_rejects(store: Path, plan: IngestPlan) -> str:
    """Write the rejects known so far where a user can look at them; say what they are."""
    path = plan.folder / REJECTS_SO_FAR
    rejects = rejects_so_far(store, plan)
    write_table(path, rejects)
    wrong = "; nothing is stored, so if these are not the files that you meant, name the right ones"
    told = wrong if has_stored_nothing(store, plan.folder) else ""
    return f"{describe_rejects(rejects)}; all are listed in {path}{told}"


def finish_ingest(store: Path, plan: IngestPlan, survey: Reconciliation | None = None) -> IngestSummary:
    """Check that every input is accounted for, then write the tables and, last, the summary.

    Parameters
    ----------
    store : Path
        Folder of the store.
    plan : IngestPlan
        Whose shards are all in the ledger.
    survey : Reconciliation, optional
        How the files compare with the survey's summary; kept beside the plan.

    Raises
    ------
    IntegrityError
        If the counts do not add up.
    TooManyBadInputsError
        If no file gave a spectrum.
    """
    if survey is not None:
        write_table(plan.folder / SURVEY_FILE, survey.details)
    unfinished = unfinished_ingest(store)
    stars, rejects = write_ingested_tables(store, without=None if unfinished == plan.folder else unfinished)
    # the counts of an ingest that is mended: those of its survey stay
    counts = read_summary(plan.folder) | _count(plan, stars, rejects, survey)
    counts[INPUTS_NOTE] = note_inputs(store, plan.folder)
    (plan.folder / REJECTS_SO_FAR).unlink(missing_ok=True)
    write_sealed_json(plan.folder / SUMMARY_FILE, counts)
    if counts["stars_in_store"] == 0:
        raise TooManyBadInputsError(
            f"none of the {counts['inputs']} files could be used: {describe_rejects(rejects)}; "
            f"all are listed in {table_path(store, REJECTS)}; nothing is stored: name other files "
            "for this store, or delete it"
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
