"""The sections of the page of a run: what each shows, and what it says where something is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from apogee_batch.report.flag_counts import DUPLICATE, FlagCounts
from apogee_batch.report.page import PageTable, Section
from apogee_batch.report.page_figures import Picture
from apogee_batch.report.page_figures_timing import Span, WorkerLane, find_lanes
from apogee_batch.report.page_sections_labels import NO_LABELS, SIMULATED, given
from apogee_batch.report.tables import (
    ALL_TYPES,
    LABEL_TITLES,
    NOTHING,
    show,
)
from apogee_batch.report.validation import Validation

NO_TOTAL = (
    "No star has a calibrated error: the model has no error model. 'apogee-batch model calibrate' makes one "
    "for the next run."
)
NO_LEDGER = "The folder of the run has no entries of its ledger any more: nothing is known of its workers."
UNNAMED_WORKERS = (
    "The ledger of this run is of before workers were named in it: shards of a host that were under way at "
    "the same time are put one below the other, as the work of so many workers."
)
TWO_AT_ONCE = (
    "Where a worker had two shards under way at once, as on a GPU, their bars lie one below the other. The "
    "time of each holds that in which it waited for the other; in the minutes at work both count once."
)
TAUGHT_BY_SIMULATED = (
    "The model learned from simulated spectra alone, and these stars are not simulated: their labels are "
    "worth nothing, however small their errors."
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


def glance_section(
    glance: tuple[tuple[str, str], ...],
    *,
    are_simulated: bool,
    is_taught_by_simulated: bool = False,
    strange: str | None = None,
) -> Section:
    """Return the section of the numbers that are wanted first, and of what forbids to trust them.

    Parameters
    ----------
    glance : tuple of (str, str)
        As from `glance_at`.
    are_simulated, is_taught_by_simulated : bool
        Whether the stars of the catalogue, and those that taught the model, are simulated.
    strange : str, optional
        What to say of too many strange spectra.
    """
    warnings = [SIMULATED] if are_simulated else []
    if is_taught_by_simulated and not are_simulated:
        warnings.append(TAUGHT_BY_SIMULATED)
    if strange is not None:
        warnings.append(f"{strange[0].upper()}{strange[1:]}.")
    return Section("glance", "At a glance", tuple(warnings), glance=glance)


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
    return Section("kiel", "Teff and log g", missing, given(picture), text if picture else ())


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
    return Section("sigmas", "Sigma and SNR", missing, given(picture), text if picture else ())


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
    return Section("pulls", "Are the sigmas honest?", missing, given(picture), text if picture else ())


def training_section(picture: Picture | None, reason: str) -> Section:
    """Return the section of the training; `reason` says why there is no picture."""
    text = (
        "Mean squared error of standardised labels after each epoch; the star is the network that was kept. "
        "A coloured background is a round of adaptation to M dwarfs and young stars, its number above it.",
    )
    missing = () if picture else (reason,)
    return Section("training", "Training", missing, given(picture), text if picture else ())


def sky_section(picture: Picture | None, n_without: int) -> Section:
    """Return the section of the sky map."""
    missing = () if picture else ("No star has coordinates.",)
    text: tuple[str, ...] = ()
    if picture and n_without:
        text = (f"Stars without coordinates, not shown: {n_without:,}.",)
    return Section("sky", "Sky", missing, given(picture), text)


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
    if any(len(lane.tracks) > 1 for lane in lanes):
        text = (*text, TWO_AT_ONCE)
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
    return Section("timing", "Workers", (), given(picture), text, (table,))


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


def _percent(n: int, n_all: int) -> str:
    return f"{100 * n / n_all:.2f}" if n_all else NOTHING
