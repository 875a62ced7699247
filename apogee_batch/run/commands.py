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
from apogee_batch.run.ingest import IngestSummary, count_survey, damaged_ingests, run_ingest
from apogee_batch.run.ingest_plan import IngestInput, IngestPlan, plan_ingest, require_finished_ingest
from apogee_batch.run.logs import log_to_folder
from apogee_batch.run.progress import ProgressView
from apogee_batch.run.train import begin_training, run_training
from apogee_batch.store.tables import REJECTS, read_labels, table_path
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
    store = store.absolute()  # workers may have another working folder
    files = find_apstar_files(sources)
    inputs = [IngestInput(path, None) for path in files]
    survey = None
    if allstar is not None:
        survey = match_allstar(read_allstar(allstar), files)
        inputs = [IngestInput(path, known) for path, known in survey.selected]
        if not inputs:
            raise UsageError(
                f"{allstar}: none of its stars is among the {len(files)} files of {', '.join(sources)}"
            )
    plan = plan_ingest(store, inputs, rows=config.ingest.row, shard_stars=config.ingest.shard_stars)
    damaged = damaged_ingests(store)
    if is_dry_run:
        return _ingest_dry_run(store, plan, damaged) + _survey_lines(survey)
    if plan is None and not damaged:
        return [f"nothing to do: {store} holds all {len(inputs)} files already"]
    cluster = config.cluster.model_copy(update={"device": "cpu"})
    with open_workers(cluster) as workers:
        progress.say(f"workers: {workers.description}")
        for broken in damaged:
            progress.say(
                f"WARNING: ingest {broken.folder.name} has lost files; its damaged shards are made again"
            )
            summary = run_ingest(store, broken, workers, progress)
        if plan is not None:
            summary = run_ingest(store, plan, workers, progress, survey=survey)
    return _ingest_lines(store, summary) + _survey_lines(survey)


def _ingest_dry_run(store: Path, plan: IngestPlan | None, damaged: Sequence[IngestPlan]) -> list[str]:
    lines = [f"would make lost shards of ingest {broken.folder.name} again" for broken in damaged]
    return lines + (["no file is new"] if plan is None else describe_ingest(store, plan))


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


def _survey_lines(survey: Reconciliation | None) -> list[str]:
    if survey is None:
        return []
    return ["allStar: " + ", ".join(f"{n} {name}" for name, n in count_survey(survey).items())]


def attach(store: Path, tables: Mapping[str, Sequence[Path]], *, column_map: Sequence[str]) -> list[str]:
    """Attach label tables to a store."""
    store = store.absolute()
    require_finished_ingest(store)
    replaced = read_labels(store)
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
    if replaced is not None:
        lines.append(f"replaces the {len(replaced)} labels that were attached before")
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
    store, out = store.absolute(), out.absolute()
    require_finished_ingest(store)
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
    store, out = store.absolute(), out.absolute()
    require_finished_ingest(store)
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
    n_labelled = sum(agreement.n_stars for agreement in finished.results.agreements)
    agreement = finished.results.to_text(TABLE_WIDTH).rstrip("\n")
    return [
        "",
        agreement if n_labelled else "No star has a label: there is nothing to compare the predictions with.",
        "",
        f"catalogue: {folder / 'catalog' / 'catalog.parquet'} ({finished.n_stars} stars; FITS beside it)",
        f"rejects:   {folder / 'rejects.parquet'} ({finished.n_rejects})",
        f"report:    {folder / 'report'} (results.txt, kiel.png, labels.png)",
    ]


def import_model(file: Path, out: Path) -> list[str]:
    """Import the authors' weights."""
    checkpoint = import_official(file, out)
    return [f"{out}: model {checkpoint.sha256[:16]} with the authors' weights, for run-catalog --model {out}"]
