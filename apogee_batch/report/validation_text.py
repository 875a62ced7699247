"""A validation as tables for the terminal, and its table by type and SNR as Markdown."""

from collections.abc import Callable, Sequence

from apogee_batch.report.labelled import CALIBRATED, REALIZATIONS, SIGMA_COLUMNS
from apogee_batch.report.measures import OUTLIER_SCATTERS, Pulls, Residuals
from apogee_batch.report.tables import (
    LABEL_DECIMALS,
    LABEL_TITLES,
    NOTHING,
    ROW_TITLES,
    show,
)
from apogee_batch.report.text import Block, lay_out, wrap
from apogee_batch.report.validation import UNKNOWN, Bin, Measure, Validation
from apogee_batch.schema import DATA_SETS, LABEL_NAMES

DEFAULT_WIDTH = 100
JUDGED_SET = "test"  # whose residuals and sigmas the text shows in bins; the JSON has all three
NO_LABELS = (
    "No star of this catalogue has a label and a data set: there is nothing to compare the predictions with. "
    "Attach labels to the store with 'apogee-batch labels attach' and make the catalogue anew."
)
PULL_DECIMALS = 2
SLOPE_DECIMALS = 2
RESIDUAL_HEADER = ("bias", "slope", "scatter", "out %")
PULL_HEADER = ("stars", "sigma", "median", "width", "<1 %", "<2 %", "x")
SIGMA_WORDS = {REALIZATIONS: "a sigma of the realizations", CALIBRATED: "a calibrated sigma"}
KINDS_TEXT = {
    REALIZATIONS: "sigma of the realizations (e_teff, ...)",
    CALIBRATED: "calibrated sigma (e_teff_total, ...)",
}
PAPER_SIGMAS = "paper: typical sigmas of 0.04 dex, 25 K and 0.015 dex, too small by about 4 (section 3.6)."
BIN_TITLES = {"snr": "SNR", "teff": "label Teff (K)"}
MARKDOWN_ORDER = ("teff", "logg", "fe_h")

Row = tuple[str, str]  # title of the type, title of the label or bin


def validation_text(found: Validation, width: int = DEFAULT_WIDTH) -> str:
    """Return all tables as aligned plain text that ends with a line break.

    Parameters
    ----------
    found : Validation
    width : int
        Columns of the terminal; columns that do not fit beside one another are put below.
    """
    title = _title(found, width)
    if not found.n_labelled:
        return f"{title}\n\n{wrap(NO_LABELS, width)}\n"
    parts = [title, found.results.to_text(width).rstrip("\n"), _residual_text(found, width)]
    parts += [_trend_text(found, by, width) for by in BIN_TITLES]
    parts += [_pull_text(found, width)]
    parts += [_coverage_text(found, kind, width) for kind in KINDS_TEXT if found.has_sigmas(kind)]
    return "\n\n".join(parts) + "\n"


def snr_markdown(found: Validation) -> str:
    """Return rms, bias and robust scatter of the test set by type and SNR as a Markdown table."""
    numbers = ("rms", "bias", "scatter")
    titles = [f"{LABEL_TITLES[name]} {word}" for name in MARKDOWN_ORDER for word in numbers]
    header = ["type", "SNR", "stars", *titles]
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)]]
    for data_type, title in ROW_TITLES.items():
        group = found.get(data_type, JUDGED_SET)
        rows = [("all", group.n_stars, group.measures)]
        rows += [(cell.name, cell.n_stars, cell.measures) for cell in _shown_bins(group.by_snr)]
        for name, n_stars, measures in rows:
            cells = [cell for label in MARKDOWN_ORDER for cell in _residual_cells(label, measures[label])]
            lines.append([title, name, f"{n_stars:,}", *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _title(found: Validation, width: int) -> str:
    """Say what was compared with what."""
    origin = found.origin
    text = (
        f"Validation of run {origin.run_id}: {found.n_catalog:,} stars, {found.n_labelled:,} labelled, "
        f"compared with {origin.against or 'the labels of the run'}."
    )
    if origin.n_not_in_table:
        text += f" Labelled stars that this table does not have: {origin.n_not_in_table:,}, left out."
    return wrap(text, width)


def _residual_text(found: Validation, width: int) -> str:
    """Return bias, slope, robust scatter and outliers by type, label and set."""
    rows = [(data_type, label) for data_type in ROW_TITLES for label in LABEL_NAMES]
    blocks = []
    for data_set in DATA_SETS:
        cells = []
        for data_type, label in rows:
            residuals = found.get(data_type, data_set).measures[label].residuals
            cells.append(
                (
                    show_signed(residuals.bias, LABEL_DECIMALS[label]),
                    show_signed(residuals.slope, SLOPE_DECIMALS),
                    show(residuals.scatter, LABEL_DECIMALS[label], NOTHING),
                    _percent(residuals.outlier_fraction),
                )
            )
        blocks.append(Block(data_set, RESIDUAL_HEADER, tuple(cells)))
    title = (
        "Residuals (prediction - label): bias = median; slope = of residual on label, -1 if all predictions "
        "are the same; scatter = 1.4826 x median |residual - bias|; "
        f"out = further than {OUTLIER_SCATTERS:g} scatters from the bias"
    )
    titles = _titles([(ROW_TITLES[data_type], LABEL_TITLES[label]) for data_type, label in rows])
    return f"{wrap(title, width)}\n\n{lay_out(titles, blocks, width)}"


def _trend_text(found: Validation, by: str, width: int) -> str:
    """Return rms, bias and scatter of the test set in bins of SNR or Teff."""
    title = f"Test set by {BIN_TITLES[by]}: rms, bias and robust scatter of prediction - label"
    return _binned(found, title, width, by=by, header=("rms", "bias", "scatter"), cells=_residual_cells)


def _coverage_text(found: Validation, kind: str, width: int) -> str:
    """Return the coverage of one kind of sigma in the test set by SNR."""
    title = (
        f"Coverage of the test set by SNR, {KINDS_TEXT[kind]}: percent of the stars within 1 and 2 sigma "
        "of their label (honest: 68.27 and 95.45); x = sigma too small by this factor"
    )

    def cells(_: str, measure: Measure) -> tuple[str, ...]:
        pulls = measure.pulls[kind]
        return _percent(pulls.within_1), _percent(pulls.within_2), show(pulls.factor, PULL_DECIMALS, NOTHING)

    return _binned(found, title, width, by="snr", header=("<1 %", "<2 %", "x"), cells=cells)


def _binned(
    found: Validation,
    title: str,
    width: int,
    *,
    by: str,
    header: tuple[str, ...],
    cells: Callable[[str, Measure], tuple[str, ...]],
) -> str:
    """Return a table of the test set: bins of each type below one another, labels side by side."""
    rows: list[tuple[str, Bin]] = []
    empty = []
    for data_type, type_title in ROW_TITLES.items():
        group = found.get(data_type, JUDGED_SET)
        if group.n_stars:
            bins = group.by_snr if by == "snr" else group.by_teff
            rows += [(type_title, cell) for cell in _shown_bins(bins)]
        else:
            empty.append(type_title)
    lines = [wrap(title, width)]
    if rows:
        counts = tuple((f"{cell.n_stars:,}",) for _, cell in rows)
        blocks = [Block("", ("stars",), counts)]
        for label in LABEL_NAMES:
            numbers = tuple(cells(label, cell.measures[label]) for _, cell in rows)
            blocks.append(Block(LABEL_TITLES[label], header, numbers))
        lines.append(lay_out(_titles([(name, cell.name) for name, cell in rows]), blocks, width))
    if empty:
        lines.append(wrap(f"No star of the {JUDGED_SET} set: {', '.join(empty)}.", width))
    return "\n\n".join(lines)


def _pull_text(found: Validation, width: int) -> str:
    """Return the pulls of the test set by type and label."""
    rows = [(data_type, label) for data_type in ROW_TITLES for label in LABEL_NAMES]
    measures = [found.get(data_type, JUDGED_SET).measures[label] for data_type, label in rows]
    kinds = [kind for kind in KINDS_TEXT if found.has_sigmas(kind)]
    blocks = [
        Block(
            KINDS_TEXT[kind],
            PULL_HEADER,
            tuple(
                _pull_cells(label, measure.pulls[kind])
                for (_, label), measure in zip(rows, measures, strict=True)
            ),
        )
        for kind in kinds
    ]
    title = (
        "Pulls of the test set (residual / sigma). Honest sigmas: median 0, width 1, 68.27 and 95.45 percent "
        "of the stars within 1 and 2 sigma of their label, x = 1; sigma is too small by the factor x"
    )
    titles = _titles([(ROW_TITLES[data_type], LABEL_TITLES[label]) for data_type, label in rows])
    lines = [wrap(title, width), *([lay_out(titles, blocks, width)] if blocks else [])]
    for kind in KINDS_TEXT:
        if kind not in kinds:
            columns = ", ".join(SIGMA_COLUMNS[kind])
            lines.append(wrap(f"No star has {SIGMA_WORDS[kind]}: {columns} hold none.", width))
    lines.append(wrap(PAPER_SIGMAS, width))
    return "\n\n".join(lines)


def _pull_cells(label: str, pulls: Pulls) -> tuple[str, ...]:
    return (
        f"{pulls.n_stars:,}",
        show(pulls.median_sigma, LABEL_DECIMALS[label], NOTHING),
        show_signed(pulls.median, PULL_DECIMALS),
        show(pulls.width, PULL_DECIMALS, NOTHING),
        _percent(pulls.within_1),
        _percent(pulls.within_2),
        show(pulls.factor, PULL_DECIMALS, NOTHING),
    )


def _residual_cells(label: str, measure: Measure) -> tuple[str, ...]:
    """Return rms, bias and robust scatter."""
    found: Residuals = measure.residuals
    decimals = LABEL_DECIMALS[label]
    return (
        show(found.rms, decimals, NOTHING),
        show_signed(found.bias, decimals),
        show(found.scatter, decimals, NOTHING),
    )


def _shown_bins(bins: Sequence[Bin]) -> list[Bin]:
    """Leave out the stars without an SNR where there are none; an empty range stays."""
    return [cell for cell in bins if cell.n_stars or cell.name != UNKNOWN]


def _titles(rows: Sequence[Row]) -> list[str]:
    """Return row titles of two columns; the first is told where it changes."""
    first = max(len(name) for name, _ in rows)
    second = max(len(name) for _, name in rows)
    is_number = not any(name in LABEL_TITLES.values() for _, name in rows)
    told = list[str]()
    previous = ""
    for name, detail in rows:
        placed = detail.rjust(second) if is_number else detail
        told.append(f"{name if name != previous else '':{first}}  {placed}")
        previous = name
    return told


def show_signed(value: float | None, decimals: int) -> str:
    """Return a number with its sign, or that there is none; what rounds to zero has no sign."""
    if value is None:
        return NOTHING
    text = f"{value:+,.{decimals}f}"
    return text[1:] if float(text.replace(",", "")) == 0 else text


def _percent(fraction: float | None) -> str:
    """Return a fraction in percent with one decimal."""
    return show(None if fraction is None else 100 * fraction, 1, NOTHING)
