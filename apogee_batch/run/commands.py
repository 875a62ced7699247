"""One function behind each command: settings in, work done, lines for the user out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from apogee_batch.errors import UsageError
from apogee_batch.network.official import import_official
from apogee_batch.run.attach import attach_tables
from apogee_batch.run.catalog_run import CatalogRun, begin_run, run_catalog
from apogee_batch.run.clusters import open_workers
from apogee_batch.run.config import RunConfig
from apogee_batch.run.dry_run import describe_ingest, describe_run
from apogee_batch.run.ingest import IngestSummary, run_ingest
from apogee_batch.run.ingest_plan import IngestInput, plan_ingest
from apogee_batch.run.logs import log_to_folder
from apogee_batch.run.progress import ProgressView
from apogee_batch.run.train import begin_training, run_training
from apogee_batch.store.tables import REJECTS, table_path, write_table
from apogee_batch.survey.allstar import Reconciliation, match_allstar, read_allstar
from apogee_batch.survey.sources import find_apstar_files

TABLE_WIDTH = 100


def ingest(
    sources: Sequence[str],
    store: Path,
    *,
    allstar: Path | None,
    config: RunConfig,
    is_dry_run: bool,
    progress: ProgressView,
) -> list[str]:
    """Read apStar files into a store."""
    files = find_apstar_files(sources)
    inputs = [IngestInput(path, None) for path in files]
    counts = None
    if allstar is not None:
        matched = match_allstar(read_allstar(allstar), files)
        inputs = [IngestInput(path, known) for path, known in matched.selected]
        counts = count_survey(matched)
        if not inputs:
            raise UsageError(
                f"{allstar}: none of its stars is among the {len(files)} files of {', '.join(sources)}"
            )
    plan = plan_ingest(store, inputs, rows=config.ingest.row, shard_stars=config.ingest.shard_stars)
    if plan is None:
        return [f"nothing to do: {store} holds all {len(inputs)} files already"]
    if is_dry_run:
        return describe_ingest(store, plan) + _survey_lines(counts)
    with open_workers(config.cluster) as workers:
        progress.say(f"workers: {workers.description}")
        summary = run_ingest(store, plan, workers, progress, survey_counts=counts)
    if allstar is not None:
        write_table(table_path(store, "allstar_match"), matched.details)
    return _ingest_lines(store, summary) + _survey_lines(counts)


def _ingest_lines(store: Path, summary: IngestSummary) -> list[str]:
    counts = summary.counts
    lines = [f"{store}: {counts['stars_in_store']} spectra; {counts['inputs']} files read"]
    if counts["rejects_in_store"]:
        reasons = ", ".join(f"{n} {reason}" for reason, n in counts["rejects_by_reason"].items())
        lines.append(f"rejected: {reasons} (reasons in {table_path(store, REJECTS)})")
    lines.append(
        f"SNR card against median(flux/err): {counts['snr_checked']} compared, "
        f"{counts['snr_differs']} differ by over 1 %"
    )
    return lines


def count_survey(matched: Reconciliation) -> dict[str, int]:
    """Return how files and the rows of the summary agree."""
    return {
        "found": matched.n_found,
        "missing": matched.n_missing,
        "extra": matched.n_extra,
        "duplicate": matched.n_duplicate,
    }


def _survey_lines(counts: Mapping[str, int] | None) -> list[str]:
    if counts is None:
        return []
    return ["allStar: " + ", ".join(f"{n} {name}" for name, n in counts.items())]


def attach(store: Path, tables: Mapping[str, Sequence[Path]], *, column_map: Sequence[str]) -> list[str]:
    """Attach label tables to a store."""
    summary = attach_tables(store, tables, column_map=parse_column_map(column_map))
    lines = []
    for data_type, counts in summary.counts.items():
        unused = {
            key: counts[key]
            for key in ("NO_NAME", "MISSING_LABEL", "CONFLICT", "NOT_IN_STORE")
            if counts[key]
        }
        sets = ", ".join(f"{counts[name]} {name}" for name in ("train", "dev", "test"))
        told = "; of no use: " + ", ".join(f"{n} {reason}" for reason, n in unused.items()) if unused else ""
        lines.append(
            f"{data_type}: {counts['spectra']} spectra labelled ({sets}) by {counts['used']} labels{told}"
        )
    return [*lines, f"labels of no use are listed in {summary.unmatched}"]


def parse_column_map(pairs: Sequence[str]) -> dict[str, str]:
    """Read `ours=theirs` pairs of column names.

    Raises
    ------
    UsageError
        If a pair has another form.
    """
    named = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise UsageError(f"--map {pair}: write it as OURS=THEIRS, for example --map teff=TEFF")
        named[ours] = theirs
    return named


def train(store: Path, out: Path, *, config: RunConfig, progress: ProgressView) -> list[str]:
    """Train a network on the labels of a store."""
    begin_training(store, out, config)
    with log_to_folder(out / "logs"), open_workers(_one_worker(config).cluster) as workers:
        checkpoint = run_training(store, out, config, workers, progress)
    header = checkpoint.header
    by_type = ", ".join(f"{name} {loss:.4f}" for name, loss in header.dev_loss_by_type.items())
    return [
        f"{out}: model {checkpoint.sha256[:16]}, dev loss {header.dev_loss:.4f} ({by_type})",
        f"use it with: apogee-batch run-catalog {store} --model {out} --out RUN",
    ]


def _one_worker(config: RunConfig) -> RunConfig:
    """Training alone needs one worker, which takes all the cores."""
    if config.cluster.kind != "local":
        return config
    return config.model_copy(update={"cluster": config.cluster.model_copy(update={"workers": 1})})


def make_catalog(
    store: Path,
    out: Path,
    *,
    model: Path | None,
    config: RunConfig,
    is_dry_run: bool,
    progress: ProgressView,
) -> list[str]:
    """Make the catalogue of a store."""
    if is_dry_run:
        return describe_run(store, out, model, config)
    plan = begin_run(store, out, model, config)
    with log_to_folder(out / "logs"), open_workers(config.cluster) as workers:
        progress.say(f"workers: {workers.description}")
        finished = run_catalog(
            store, out, plan, model=model, config=config, workers=workers, progress=progress
        )
    return describe_catalog(finished)


def describe_catalog(finished: CatalogRun) -> list[str]:
    """Say where the catalogue is and how well it agrees with the labels."""
    folder = finished.folder
    return [
        "",
        finished.results.to_text(TABLE_WIDTH).rstrip("\n"),
        "",
        f"catalogue: {folder / 'catalog' / 'catalog.parquet'} ({finished.n_stars} stars; FITS beside it)",
        f"rejects:   {folder / 'rejects.parquet'} ({finished.n_rejects})",
        f"report:    {folder / 'report'} (results.txt, kiel.png, labels.png)",
    ]


def import_model(file: Path, out: Path) -> list[str]:
    """Import the authors' weights."""
    checkpoint = import_official(file, out)
    return [f"{out}: model {checkpoint.sha256[:16]} with the authors' weights, for run-catalog --model {out}"]
