"""The sections of the page that hold predictions against labels: figures, and Tables 2 and 3."""

from apogee_batch.report.page import PageTable, Section
from apogee_batch.report.page_figures import Picture
from apogee_batch.report.tables import (
    LABEL_DECIMALS,
    LABEL_TITLES,
    MSE_DECIMALS,
    NOTHING,
    PAPER_MSE_DECIMALS,
    ROW_TITLES,
    Results,
    show,
)
from apogee_batch.report.validation import Validation
from apogee_batch.report.validation_text import SLOPE_DECIMALS, show_signed
from apogee_batch.schema import DATA_SETS, LABEL_NAMES

NO_LABELS = (
    "No star of this catalogue has a label, so there is nothing to compare the predictions with. Attach "
    "labels to the store with 'apogee-batch labels attach' and make a new run."
)
SIMULATED = (
    "These spectra are simulated: all lie in the fields of 'apogee-batch simulate', and none of the stars is "
    "real. How well their labels are found says little of real spectra."
)


def given(picture: Picture | None) -> tuple[Picture, ...]:
    """Return the pictures of a section that has one or none."""
    return () if picture is None else (picture,)


def labels_section(picture: Picture | None, found: Validation) -> Section:
    """Return the section of labels against predictions, for the test set."""
    missing = () if found.n_labelled else (NO_LABELS,)
    if found.n_labelled and picture is None:
        missing = ("No star of the test set has all labels and all predictions.",)
    text = (
        "Stars of the test set, which the training has not seen. Below: prediction minus label of each type "
        "by itself, with its bias (median) and its robust scatter (1.4826 times the median absolute "
        "deviation from the bias). The table also has the slope of the line that fits prediction minus label "
        "on the label. At 0 high and low labels are treated alike; at -1 the network says the same of all "
        "stars, and the spread of its answers is no measurement. Noise of the labels alone makes slopes fall "
        "below 0.",
    )
    tables = (_slope_table(found),) if picture else ()
    return Section(
        "labels", "Labels and predictions", missing, given(picture), text if picture else (), tables
    )


def _slope_table(found: Validation) -> PageTable:
    """Return bias, slope, rms and the labels' own spread of the test set, by type and label."""
    rows = []
    for data_type, title in ROW_TITLES.items():
        group, agreement = found.get(data_type, "test"), found.results.get(data_type, "test")
        for label in LABEL_NAMES if group.n_stars else ():
            residuals, decimals = group.measures[label].residuals, LABEL_DECIMALS[label]
            cells = (
                show_signed(residuals.bias, decimals),
                show_signed(residuals.slope, SLOPE_DECIMALS),
                show(residuals.rms, decimals, NOTHING),
                show(agreement.label_spread.get(label), decimals, NOTHING),
            )
            rows.append((title, LABEL_TITLES[label], f"{group.n_stars:,}", *cells))
    header = ("type", "label", "stars", "bias", "slope", "rms", "spread of the labels")
    return PageTable("Test set: prediction minus label", header, tuple(rows), n_texts=2)


def agreement_section(results: Results, *, are_simulated: bool) -> Section:
    """Return Tables 2 and 3 beside the paper's."""
    n_labelled = sum(group.n_stars for group in results.agreements)
    if not n_labelled:
        return Section("agreement", "Tables 2 and 3", (NO_LABELS,))
    text = (
        "paper: Olney et al. 2020, AJ 159, 182, for spectra and labels of SDSS DR14; it gives no row for the "
        "Payne stars alone. Numbers of simulated spectra or of labels of another kind cannot be compared "
        "with the paper's; they stand here for the order of size.",
    )
    tables = (_mse_table(results), _rms_table(results))
    missing = (SIMULATED,) if are_simulated else ()
    return Section("agreement", "Tables 2 and 3", missing, text=text, tables=tables)


def _mse_table(results: Results) -> PageTable:
    header = ["type", *(f"{word} {what}" for word in DATA_SETS for what in ("stars", "here", "paper"))]
    rows = []
    for data_type, title in ROW_TITLES.items():
        cells = [title]
        for data_set in DATA_SETS:
            group = results.get(data_type, data_set)
            numbers = (show(group.mse, MSE_DECIMALS, NOTHING), show(group.paper_mse, PAPER_MSE_DECIMALS))
            cells += [f"{group.n_stars:,}", *numbers]
        rows.append(tuple(cells))
    caption = "Table 2. Normalised MSE: mean of (residual / spread of the training labels)²"
    return PageTable(caption, tuple(header), tuple(rows))


def _rms_table(results: Results) -> PageTable:
    header = ["type", "label", *(f"{word} {what}" for word in DATA_SETS for what in ("here", "paper"))]
    rows = []
    for data_type, title in ROW_TITLES.items():
        for label in LABEL_NAMES:
            cells = [title, LABEL_TITLES[label]]
            for group in (results.get(data_type, data_set) for data_set in DATA_SETS):
                decimals = LABEL_DECIMALS[label]
                cells.append(show(group.rms.get(label), decimals, NOTHING))
                cells.append(show(group.paper_rms.get(label), decimals))
            rows.append(tuple(cells))
    caption = "Table 3. RMS of prediction minus label, in native units"
    return PageTable(caption, tuple(header), tuple(rows), n_texts=2)
