"""What `apogee-batch ingest` does: mend what is damaged, check what is known, read what is new."""

from collections.abc import Sequence
from pathlib import Path

from apogee_batch.errors import UsageError
from apogee_batch.output import ResultLine
from apogee_batch.run.clusters import Workers, no_more_than_needed, open_workers
from apogee_batch.run.config import ORDINARY, Going, RunConfig
from apogee_batch.run.dry_run import describe_ingest
from apogee_batch.run.ingest import (
    IngestSummary,
    begin_store,
    finish_ingest,
    fit_store,
    mend_ingest,
    run_ingest,
)
from apogee_batch.run.ingest_check import (
    changed_files,
    check_damaged_shards,
    has_stored_nothing,
    refuse_changed_files,
    shards_to_check,
)
from apogee_batch.run.ingest_inputs import IngestInput
from apogee_batch.run.ingest_mend import damaged_ingests, mend_store, pack_finished, remove_store_leftovers
from apogee_batch.run.ingest_plan import (
    SUMMARY_FILE,
    IngestPlan,
    ingest_folders,
    is_finished,
    is_other_ingest,
    plan_ingest,
    set_ingest_aside,
    store_lock,
    unfinished_ingest,
)
from apogee_batch.run.ingest_tables import ingest_ledger
from apogee_batch.run.lock import Lock, hold_lock
from apogee_batch.run.logs import log_to_folder
from apogee_batch.run.progress import ProgressView
from apogee_batch.run.store_tables import mend_tables
from apogee_batch.run.survey_match import describe_survey
from apogee_batch.store.tables import REJECTS, table_path
from apogee_batch.survey.allstar import Reconciliation, match_allstar, read_allstar
from apogee_batch.survey.sources import SourceFiles, find_source_files

DELETE_IT = "; delete it when you do not need it"


def ingest(
    sources: Sequence[str],
    store: Path,
    *,
    allstar: Path | None,
    config: RunConfig,
    is_dry_run: bool,
    progress: ProgressView,
    going: Going = ORDINARY,
) -> list[str]:
    """Read apStar files into a store."""
    store = store.resolve()  # workers may have another working folder; and one store has one lock
    found = find_source_files(sources)
    inputs, survey = _choose_inputs(sources, found, allstar)
    left_out = found.describe_left_out()
    if is_dry_run:
        plan = plan_ingest(store, inputs, rows=config.ingest.row, shard_stars=config.ingest.shard_stars)
        return _ingest_dry_run(store, plan, damaged_ingests(store)) + left_out + describe_survey(survey)
    for line in left_out:  # before hours of reading, and again at their end
        progress.say(line)
    with hold_lock(store_lock(store), store, break_lock=going.break_lock) as lock:
        lines, folder = _ingest_locked(store, inputs, survey, config, progress, going, lock)
    return lines + left_out + describe_survey(survey, folder)


def _choose_inputs(
    sources: Sequence[str], found: SourceFiles, allstar: Path | None
) -> tuple[list[IngestInput], Reconciliation | None]:
    if allstar is None:
        return [IngestInput(path, None) for path in found.files], None
    survey = match_allstar(read_allstar(allstar), found.files)
    inputs = [IngestInput(path, known) for path, known in survey.selected]
    if not inputs:
        raise UsageError(
            f"{allstar}: none of its stars is among the {len(found.files)} files of {', '.join(sources)}"
        )
    return inputs, survey


def _ingest_locked(
    store: Path,
    inputs: Sequence[IngestInput],
    survey: Reconciliation | None,
    config: RunConfig,
    progress: ProgressView,
    going: Going,
    lock: Lock,
) -> tuple[list[str], Path | None]:
    """Mend what is damaged, then read what is new; return the folder of the new ingest, too."""
    remove_store_leftovers(store)
    for path in mend_store(store):
        progress.say(f"WARNING: {path}: was lost or damaged, and is written again")
    _mend_tables(store, progress)
    plan = plan_ingest(store, inputs, rows=config.ingest.row, shard_stars=config.ingest.shard_stars)
    damaged = damaged_ingests(store, check_bytes=not going.trust_mtime)
    _begin_or_abandon(store, plan, progress, going)
    done = shards_to_check(store, {str(item.path) for item in inputs})
    written = [each.shards for each in (*damaged, *([] if plan is None else [plan]))]
    # to check what is done takes as much reading as what is new; one ingest comes after the other
    n_at_once = max(map(len, [*written, *(shards for _, shards in done)]), default=0)
    cluster = no_more_than_needed(config.cluster.model_copy(update={"device": "cpu"}), n_at_once)
    logs = store / "ingest" / "logs"
    opened = open_workers(cluster, logs=logs, role="cpu", folders=[store], progress=progress)
    with log_to_folder(logs), opened as workers:
        progress.say(f"workers: {workers.description}")
        _check(store, plan, done, workers, progress, going)
        for broken in damaged:
            _mend_shards(store, broken, workers, progress, lock)
        if plan is not None:
            begin_store(store, plan)
            fraction = config.ingest.max_bad_fraction
            run_ingest(store, plan, workers, progress, max_bad_fraction=fraction, lock=lock)
        workers.crew.dismiss()
        lock.check()
        summaries = [] if plan is None else [finish_ingest(store, plan, survey)]
        summaries += [finish_ingest(store, broken) for broken in damaged]  # last: all shards are there now
        lock.check()
        pack_finished(store)
    if not summaries:
        return [f"nothing to do: {store} holds all {len(inputs)} files already"], None
    return _ingest_lines(store, summaries[0]), None if plan is None else plan.folder


def _mend_shards(store: Path, plan: IngestPlan, workers: Workers, progress: ProgressView, lock: Lock) -> None:
    """Make the damaged shards of a finished ingest again; there is none where only its summary is damaged."""
    done = ingest_ledger(store, plan).done()
    lost = [shard for shard in plan.shards if shard not in done]
    if not lost:
        progress.say(f"WARNING: {plan.folder / SUMMARY_FILE}: was lost or damaged, and is written again")
        return
    names = ", ".join(map(str, lost))
    progress.say(
        f"WARNING: ingest {plan.folder.name}: shards {names} are damaged, and are made again from their files"
    )
    check_damaged_shards(store, plan, workers, progress)
    mend_ingest(store, plan, workers, progress, lock=lock)


def _begin_or_abandon(store: Path, plan: IngestPlan | None, progress: ProgressView, going: Going) -> None:
    """Write the plan of an ingest, or check that the one that was begun is the same, or give that one up.

    One of which every file was rejected is given up unasked: it was of a wrong folder, and there is nothing
    to go on with.

    An append to a finished store is not begun here, but when all that could refuse it has been asked.
    """
    begun = unfinished_ingest(store)
    is_other = begun is not None and (plan is None or is_other_ingest(plan))
    if begun is not None and is_other and (going.force_new_plan or has_stored_nothing(store, begun)):
        _set_aside(store, begun, progress)
    if plan is not None and (begun is not None or not ingest_folders(store)):
        begin_store(store, plan)


def _set_aside(store: Path, folder: Path, progress: ProgressView) -> None:
    """Keep an unfinished ingest under another name, and take its rows from the arrays."""
    progress.say(f"the ingest that was begun is kept in {set_ingest_aside(folder)}{DELETE_IT}")
    if ingest_folders(store):
        fit_store(store)


def _check(
    store: Path,
    plan: IngestPlan | None,
    done: Sequence[tuple[IngestPlan, list[int]]],
    workers: Workers,
    progress: ProgressView,
    going: Going,
) -> None:
    """Compare the files of shards that are done with what was read; an unfinished ingest may begin anew."""
    found = changed_files(store, done, workers, progress, trust_mtime=going.trust_mtime)
    for folder, changed in found.items():
        if not (going.force_new_plan and plan is not None and plan.folder == folder):
            refuse_changed_files(store, folder, changed)
        _set_aside(store, folder, progress)
        begin_store(store, plan)


def _mend_tables(store: Path, progress: ProgressView) -> None:
    """Write damaged tables again, which planning reads, unless what they are made of is damaged too."""
    is_any_finished = any(is_finished(folder) for folder in ingest_folders(store))
    if not is_any_finished or damaged_ingests(store, check_bytes=False):
        return
    for path in mend_tables(store):
        progress.say(f"WARNING: {path}: was lost or damaged, and is written again")


def _ingest_dry_run(store: Path, plan: IngestPlan | None, damaged: Sequence[IngestPlan]) -> list[str]:
    lines = [f"would make lost shards of ingest {broken.folder.name} again" for broken in damaged]
    return lines + (["no file is new"] if plan is None else describe_ingest(store, plan))


def _ingest_lines(store: Path, summary: IngestSummary) -> list[str]:
    counts = summary.counts
    n_spectra, n_rejects = counts["stars_in_store"], counts["rejects_in_store"]
    text = f"{store}: {n_spectra} spectra; {counts['inputs']} files read"
    lines: list[str] = [ResultLine(text, name="store", path=str(store), spectra=n_spectra, rejects=n_rejects)]
    if n_rejects:
        reasons = ", ".join(f"{n} {reason}" for reason, n in counts["rejects_by_reason"].items())
        lines.append(f"rejected: {reasons} (reasons in {table_path(store, REJECTS)})")
    lines.append(
        f"SNR card against median(flux/err): {counts['snr_checked']} compared, "
        f"{counts['snr_differs']} differ by over 1 %"
    )
    return lines
