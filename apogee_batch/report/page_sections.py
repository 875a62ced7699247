"""The sections of the page of a run: what each shows, and what it says where something is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from apogee_batch.report.page import PageTable, Section
from apogee_batch.report.page_figures import Picture
from apogee_batch.report.page_figures_timing import Span, WorkerLane, find_lanes
from apogee_batch.report.page_strangest import DUPLICATE, FlagCounts
from apogee_batch.report.tables import (
    ALL_TYPES,
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
from apogee_batch.schema import DATA_SETS, LABEL_NAMES

NO_LABELS = (
    "No star of this catalogue has a label, so there is nothing to compare the predictions with. Attach "
    "labels to the store with 'apogee-batch labels attach' and make a new run."
)
NO_TOTAL = (
    "No star has a calibrated error: the model has no error model. 'apogee-batch model calibrate' makes one "
    "for the next run."
)
NO_LEDGER = "The folder of the run has no entries of its ledger any more: nothing is known of its workers."
UNNAMED_WORKERS = (
    "The ledger of this run is of before workers were named in it: shards of a host that were under way at "
    "the same time are put one below the other, as the work of so many workers."
)
SIMULATED = (
    "These spectra are simulated: all lie in the fields of 'apogee-batch simulate', and none of the stars is "
    "real. How well their labels are found says little of real spectra."
)
MOST_LANES = 24  # rows of the table of workers; the picture has all

GLANCE_DECIMALS = {"teff": 1, "logg": 3, "fe_h": 3}
STAGES_HEADER = ("stage", "done", "time", "began (UTC)", "host")


@dataclass(frozen=True)
class Head:
    """What a run is, as the head of its page says it.

    Attributes
    ----------
    facts : sequence of (str, str)
        What it was made from, and how.
    rejects : mapping of str to int
        Inputs that gave no star, by reason.
    versions : mapping of str to str
        Of the software.
    stages : sequence of tuple of str
        What took how long, as far as it is known: cells below `STAGES_HEADER`.
    """

    facts: Sequence[tuple[str, str]]
    rejects: Mapping[str, int]
    versions: Mapping[str, str]
    stages: Sequence[tuple[str, ...]] = field(default_factory=tuple)


def glance_at(found: Validation, counts: FlagCounts, n_rejects: int) -> tuple[tuple[str, str], ...]:
    """Return what one wants to know of a run first: words, and numbers."""
    test = found.get(ALL_TYPES, "test")
    numbers = [("stars in the catalogue", f"{found.n_catalog:,}"), ("rejected inputs", f"{n_rejects:,}")]
    if found.n_catalog:
        n_clean = f"{100 * counts.n_clean_but_duplicate / found.n_catalog:.1f} %"
        numbers.append((f"no flag, or only {DUPLICATE}", n_clean))
    for name, decimals in GLANCE_DECIMALS.items() if test.n_stars else ():
        label, unit = LABEL_TITLES[name].removesuffix(")").split(" (")
        rms = show(test.measures[name].residuals.rms, decimals, NOTHING)
        numbers.append((f"rms {label}, test set", f"{rms} {unit}"))
    return tuple(numbers)


def glance_section(glance: tuple[tuple[str, str], ...], *, are_simulated: bool) -> Section:
    """Return the section of the numbers that are wanted first."""
    return Section("glance", "At a glance", (SIMULATED,) if are_simulated else (), glance=glance)


def made_section(head: Head) -> Section:
    """Return the section of how the run was made."""
    rejects = tuple((reason, f"{n:,}") for reason, n in head.rejects.items())
    tables = (
        PageTable("Run", (), tuple(head.facts), n_texts=2),
        PageTable("Software", (), tuple(head.versions.items()), n_texts=2),
        PageTable("Rejected inputs", ("reason", "inputs"), rejects),
        PageTable("Time by stage", STAGES_HEADER, tuple(head.stages), n_texts=2).without_empty_columns(),
    )
    text = () if rejects else ("No input was rejected.",)
    shown = tuple(table for table in tables if table.rows)
    return Section("made", "How it was made", text=text, tables=shown)


def kiel_section(picture: Picture | None) -> Section:
    """Return the section of the Kiel diagram."""
    missing = () if picture else ("No star of this catalogue has a prediction.",)
    text = (
        "Means of the realizations. Left: all stars, coloured by [Fe/H]. Right: the stars that have a label "
        "as M dwarf or young stellar object, before all others in grey.",
    )
    return Section("kiel", "Teff and log g", missing, _given(picture), text if picture else ())


def labels_section(picture: Picture | None, found: Validation) -> Section:
    """Return the section of labels against predictions, for the test set."""
    missing = () if found.n_labelled else (NO_LABELS,)
    if found.n_labelled and picture is None:
        missing = ("No star of the test set has all labels and all predictions.",)
    text = (
        "Stars of the test set, which the training has not seen. Below: prediction minus label of each type "
        "by itself, with its bias (median) and its robust scatter (1.4826 times the median absolute "
        "deviation from the bias).",
    )
    return Section("labels", "Labels and predictions", missing, _given(picture), text if picture else ())


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


def sigmas_section(picture: Picture | None, *, has_total: bool) -> Section:
    """Return the section of sigma against SNR."""
    missing = () if picture else ("No star has an SNR and a scatter over realizations.",)
    if picture and not has_total:
        missing = (NO_TOTAL,)
    text = (
        "The paper finds typical sigmas of 25 K, 0.04 dex and 0.015 dex (dashed), about 4 times smaller than "
        "the scatter between labels and predictions, and between SNR 10 and 20 (grey) a ceiling of 200 K, "
        "0.2 dex and 0.1 dex (thick).",
    )
    return Section("sigmas", "Sigma and SNR", missing, _given(picture), text if picture else ())


def pulls_section(picture: Picture | None, found: Validation, *, has_total: bool) -> Section:
    """Return the section of the pulls."""
    missing: tuple[str, ...] = () if found.n_labelled else (NO_LABELS,)
    if found.n_labelled and picture is None:
        missing = ("No star of the test set has a label and a sigma.",)
    elif picture and not has_total:
        missing = (NO_TOTAL,)
    text = (
        "Stars of the test set. If the sigmas are honest, the histogram is the dashed one, and 68.27 % of "
        "the labels lie within one sigma (dashed line); bars are one standard deviation of chance, and bins "
        "of SNR with fewer than 5 stars are left out. The outermost bins of the histogram hold all beyond.",
    )
    return Section("pulls", "Are the sigmas honest?", missing, _given(picture), text if picture else ())


def training_section(picture: Picture | None, reason: str) -> Section:
    """Return the section of the training; `reason` says why there is no picture."""
    text = (
        "Mean squared error of standardised labels after each epoch; the star is the network that was kept. "
        "A coloured background is a round of adaptation to M dwarfs and young stars, its number above it.",
    )
    missing = () if picture else (reason,)
    return Section("training", "Training", missing, _given(picture), text if picture else ())


def sky_section(picture: Picture | None, n_without: int) -> Section:
    """Return the section of the sky map."""
    missing = () if picture else ("No star has coordinates.",)
    text: tuple[str, ...] = ()
    if picture and n_without:
        text = (f"Stars without coordinates, not shown: {n_without:,}.",)
    return Section("sky", "Sky", missing, _given(picture), text)


def flags_section(counts: FlagCounts, n_stars: int) -> Section:
    """Return the section of the flags."""
    rows = [("", "clean", f"{counts.n_clean:,}", _percent(counts.n_clean, n_stars), "No flag is set")]
    for flag, n in counts.by_flag():
        rows.append((str(1 << flag.bit), flag.name, f"{n:,}", _percent(n, n_stars), flag.description))
    table = PageTable("Bits of the column flags", ("value", "name", "rows", "%", "meaning"), tuple(rows))
    return Section("flags", "Flags", tables=(_with_text_last(table),))


def _with_text_last(table: PageTable) -> PageTable:
    """Return a table with its last column of text beside the names, where it is set to the left."""

    def order(row: tuple[str, ...]) -> tuple[str, ...]:
        return (row[1], row[-1], row[0], *row[2:-1])

    return PageTable(table.caption, order(table.header), tuple(map(order, table.rows)), n_texts=2)


def timing_section(spans: Sequence[Span], picture: Picture | None) -> Section:
    """Return the section of the workers."""
    if not spans:
        return Section("timing", "Workers", (NO_LEDGER,))
    lanes = find_lanes(spans)
    text: tuple[str, ...] = ("A bar is a shard. Times in which nothing was done are cut out.",)
    if not all(lane.worker for lane in lanes):
        text = (*text, UNNAMED_WORKERS)
    if len(lanes) > MOST_LANES:
        text = (*text, f"The table has the {MOST_LANES} slowest of {len(lanes)} workers.")
        lanes = sorted(lanes, key=lambda lane: (lane.rate or 0.0, lane.host, lane.number))[:MOST_LANES]
    header = (
        "worker",
        "computed by",
        "shards",
        "stars",
        "minutes at work",
        "stars/s",
        "slowest shard (s)",
    )
    table = PageTable("Workers", header, tuple(map(_lane_row, lanes)), n_texts=2).without_empty_columns()
    return Section("timing", "Workers", (), _given(picture), text, (table,))


def _lane_row(lane: WorkerLane) -> tuple[str, ...]:
    return (
        lane.name,
        ", ".join(sorted({span.device for span in lane.spans})),
        f"{len(lane.spans):,}",
        f"{lane.n_stars:,}",
        f"{lane.seconds / 60:,.1f}",
        show(lane.rate, 1, NOTHING),
        f"{max(span.seconds for span in lane.spans):,.1f}",
    )


def _given(picture: Picture | None) -> tuple[Picture, ...]:
    return () if picture is None else (picture,)


def _percent(n: int, n_all: int) -> str:
    return f"{100 * n / n_all:.2f}" if n_all else NOTHING
