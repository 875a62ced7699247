"""How a run ends once its catalogue is published: its page, and the lines that say where everything is."""

from pathlib import Path

from apogee_batch.files import sha256_of_file
from apogee_batch.output import ResultLine
from apogee_batch.run.catalog_run import CatalogRun
from apogee_batch.run.flag_lines import count_flags, flag_line
from apogee_batch.run.page_at_end import PAGE_FILE, is_page_of, make_page_at_end
from apogee_batch.run.progress import ProgressView
from apogee_batch.run.run_folder import CATALOG_FILE, MANIFEST_FILE
from apogee_batch.run.stage_times import stage

TABLE_WIDTH = 100


def make_page(store: Path, out: Path, model: Path | None, progress: ProgressView) -> list[str]:
    """Make the page of a published run, unless it has one of what is published now; say where it is."""
    if is_page_of(out / PAGE_FILE, sha256_of_file(out / MANIFEST_FILE)):
        lines = make_page_at_end(out, model=model, store=store, progress=progress)
    else:
        with stage(progress, "report", 1, "page"):
            lines = make_page_at_end(out, model=model, store=store, progress=progress)
    return [ResultLine(line, name="page", path=str(out / PAGE_FILE)) for line in lines]


def describe_catalog(finished: CatalogRun) -> list[str]:
    """Say where the catalogue is, what its flags are, and how well it agrees with the labels."""
    folder = finished.folder
    catalog, rejects, report = folder / CATALOG_FILE, folder / "rejects.parquet", folder / "report"
    n_labelled = sum(agreement.n_stars for agreement in finished.results.agreements)
    agreement = finished.results.to_text(TABLE_WIDTH).rstrip("\n")
    return [
        "",
        agreement if n_labelled else "No star has a label: there is nothing to compare the predictions with.",
        "",
        ResultLine(
            f"catalogue: {catalog} ({finished.n_stars} stars; FITS beside it)",
            name="catalogue",
            path=str(catalog),
            stars=finished.n_stars,
            run_id=finished.run_id,
        ),
        ResultLine(
            f"rejects:   {rejects} ({finished.n_rejects})",
            name="rejects",
            path=str(rejects),
            rejects=finished.n_rejects,
        ),
        flag_line(count_flags(folder)),
        ResultLine(
            f"report:    {report} (results.txt, validation.txt, kiel.png, labels.png)",
            name="report",
            path=str(report),
        ),
    ]
