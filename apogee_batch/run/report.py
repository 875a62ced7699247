"""The page of a published run, `report/report.html`, and its pictures, in `report/figures`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apogee_batch.catalog.rows import read_pieces
from apogee_batch.files import FileDigest, sha256_of_file, write_text
from apogee_batch.report import page_sections as sections
from apogee_batch.report.figures import kiel_diagram, label_comparison
from apogee_batch.report.flag_counts import FlagCounts
from apogee_batch.report.isochrone_lines import IsochroneLine
from apogee_batch.report.labelled import AGREEMENT_COLUMNS, CALIBRATED
from apogee_batch.report.neighbours import NEIGHBOUR_COLUMNS
from apogee_batch.report.page import Section, render_page
from apogee_batch.report.page_figures import SUFFIXES, Picture
from apogee_batch.report.page_figures_pulls import draw_pulls
from apogee_batch.report.page_figures_sigma import SIGMA_PICTURE_COLUMNS, SigmaStars, draw_sigmas
from apogee_batch.report.page_figures_sky import SKY_COLUMNS, SkyStars, draw_sky
from apogee_batch.report.page_figures_timing import draw_timing
from apogee_batch.report.page_figures_training import draw_losses
from apogee_batch.report.page_sections_labels import agreement_section, labels_section
from apogee_batch.report.page_sections_strangest import StrangestSpectra, strangest_section
from apogee_batch.report.page_strangest import STRANGEST_COLUMNS, StrangestStars
from apogee_batch.report.simulated import FIELD_COLUMNS, FieldsSeen
from apogee_batch.report.tables import ALL_TYPES
from apogee_batch.report.validation import Validation
from apogee_batch.run.kiel_lines import read_kiel_lines
from apogee_batch.run.page_at_end import PAGE_FILE
from apogee_batch.run.report_facts import gather_head, name_page, read_manifest, read_model_facts, read_spans
from apogee_batch.run.report_spectra import draw_strangest
from apogee_batch.run.report_times import stage_folders
from apogee_batch.run.run_folder import CATALOG_FILE, MANIFEST_FILE
from apogee_batch.run.validate import validate_run

FIGURES = "report/figures"
NAMES = ("kiel", "labels", "sigmas", "pulls", "sky", "strangest", "training", "timing")


@dataclass(frozen=True)
class _Stars:
    """What one passage through the catalogue finds."""

    sigmas: SigmaStars
    sky: SkyStars
    flags: FlagCounts
    strangest: StrangestStars
    fields: FieldsSeen


def write_report(
    run: Path,
    *,
    model: Path | None = None,
    store: Path | None = None,
    isochrones: Sequence[IsochroneLine] = (),
) -> FileDigest:
    """Make the page of a published run, and its pictures as PNG and PDF; nothing else of the run changes.

    The same files give the same bytes. Memory does not grow with the stars that have no label.

    Parameters
    ----------
    run : Path
        The run's folder.
    model : Path, optional
        Folder of the model, whose training is shown; by default the run's own.
    store : Path, optional
        Store of the spectra, to show those of the strangest stars.
    isochrones : sequence of IsochroneLine
        Lines of the Kiel diagram.

    Returns
    -------
    FileDigest
        The page.

    Raises
    ------
    UsageError
        If the folder is no run or not published, or model or store are not the run's.
    IntegrityError
        If something published is missing or damaged.
    """
    found = validate_run(run)  # looks whether the run is published, and its catalogue whole
    manifest = read_manifest(run)
    facts = read_model_facts(run, model, manifest)
    spans = read_spans(run)
    folders = stage_folders(run, model, store)
    stars = _pass_through(run)
    head = gather_head(run, manifest, found, spans, facts, folders=folders)
    are_simulated = stars.fields.are_simulated
    glance = sections.glance_at(found, stars.flags, manifest["rejects"])
    page = [
        sections.glance_section(
            glance,
            are_simulated=are_simulated,
            is_taught_by_simulated=facts.is_taught_by_simulated,
            strange=stars.flags.strange_words(),
        )
    ]
    page += _compare(run, found, isochrones, stars)
    page += _look_at_stars(run, found, stars, store, threshold=facts.threshold)
    training = draw_losses(facts.epochs, _figure(run, "training"))
    page.append(sections.training_section(training, facts.reason))
    page.append(sections.timing_section(spans, draw_timing(spans, _figure(run, "timing"))))
    page.append(sections.made_section(head))
    _remove_others(run, page)
    title, subtitle = name_page(run, manifest, spans, store=store, are_simulated=are_simulated)
    html = render_page(title, page, subtitle=subtitle, made_of=sha256_of_file(run / MANIFEST_FILE))
    return write_text(run / PAGE_FILE, html)


def describe_report(
    run: Path,
    *,
    model: Path | None,
    store: Path | None,
    isochrones: Sequence[Path] = (),
    ages_myr: Sequence[float] = (),
) -> list[str]:
    """Make the page as the command does, and say where it is."""
    lines = read_kiel_lines(isochrones, ages_myr)
    written = write_report(run, model=model, store=store, isochrones=lines)
    size = f"{written.size / 1e6:.1f} MB"
    return [f"{written.path}: the page of the run, {size}", f"{run / FIGURES}: its pictures as PNG and PDF"]


def _remove_others(run: Path, page: Sequence[Section]) -> None:
    """Remove the pictures of an earlier page that are not on this one."""
    shown = {picture.path for section in page for picture in section.pictures}
    for path in (_figure(run, name) for name in NAMES):
        if path not in shown:
            for suffix in SUFFIXES:
                path.with_suffix(f".{suffix}").unlink(missing_ok=True)


def _figure(run: Path, name: str) -> Path:
    return run / FIGURES / f"{name}.png"


def _compare(
    run: Path, found: Validation, isochrones: Sequence[IsochroneLine], stars: _Stars
) -> list[Section]:
    """Return the sections that figures of any catalogue make: the Kiel diagram, and labels."""
    n_test, n_predicted = found.get(ALL_TYPES, "test").n_stars, stars.flags.n_predicted
    kiel, labels = _figure(run, "kiel"), _figure(run, "labels")
    if n_predicted:
        pieces = read_pieces(run / CATALOG_FILE, AGREEMENT_COLUMNS)
        kiel_diagram(pieces, kiel, isochrones=isochrones, with_pdf=True)
    if n_test:
        label_comparison(read_pieces(run / CATALOG_FILE, AGREEMENT_COLUMNS), labels, with_pdf=True)
    alt = (
        f"Kiel diagram: Teff against log g of {n_predicted:,} stars, hot stars at the left and giants at the "
        "top; at the left coloured by [Fe/H], at the right M dwarfs and young stars in colour."
    )
    if isochrones:
        alt += f" Lines: isochrones of {', '.join(line.name for line in isochrones)}."
    said = f"Predictions against labels of {n_test:,} test stars, and their differences."
    return [
        sections.kiel_section(Picture(kiel, alt) if n_predicted else None),
        labels_section(Picture(labels, said) if n_test else None, found),
        agreement_section(found.results, are_simulated=stars.fields.are_simulated),
    ]


def _pass_through(run: Path) -> _Stars:
    stars = _Stars(SigmaStars(), SkyStars(), FlagCounts(), StrangestStars(), FieldsSeen())
    columns = (*SIGMA_PICTURE_COLUMNS, *SKY_COLUMNS, *STRANGEST_COLUMNS, *FIELD_COLUMNS)
    for piece in read_pieces(run / CATALOG_FILE, columns):
        for part in (stars.sigmas, stars.sky, stars.flags, stars.strangest, stars.fields):
            part.add(piece)
    return stars


def _look_at_stars(
    run: Path, found: Validation, stars: _Stars, store: Path | None, *, threshold: float | None
) -> list[Section]:
    """Return the sections of sigmas, sky, flags and strange stars."""
    has_total = stars.sigmas.has(CALIBRATED)
    spectra = StrangestSpectra()
    if store is not None:
        near = read_pieces(run / CATALOG_FILE, NEIGHBOUR_COLUMNS)
        spectra = draw_strangest(stars.strangest.stars(), store, near, _figure(run, "strangest"))
    pulls = draw_pulls(found, _figure(run, "pulls"))
    return [
        sections.sigmas_section(draw_sigmas(stars.sigmas, _figure(run, "sigmas")), has_total=has_total),
        sections.pulls_section(pulls, found, has_total=has_total),
        sections.sky_section(draw_sky(stars.sky, _figure(run, "sky")), stars.sky.n_without),
        sections.flags_section(stars.flags, found.n_catalog),
        strangest_section(stars.strangest, spectra, threshold=threshold),
    ]
