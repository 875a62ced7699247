"""How many rows of a catalogue have which flag: told at the end of a run and by `status`."""

import logging
from pathlib import Path

from apogee_batch.catalog.rows import read_pieces
from apogee_batch.output import ResultLine
from apogee_batch.report.flag_counts import DUPLICATE, FlagCounts
from apogee_batch.run.progress import SAID, WARNING, ProgressView
from apogee_batch.run.run_folder import CATALOG_FILE

logger = logging.getLogger(__name__)


def count_flags(run: Path) -> FlagCounts:
    """Count the flags of a published catalogue.

    Raises
    ------
    IntegrityError
        If the catalogue is damaged.
    """
    counts = FlagCounts()
    for piece in read_pieces(run / CATALOG_FILE, ("flags", "teff")):
        counts.add(piece)
    return counts


def flag_line(counts: FlagCounts) -> ResultLine:
    """Say how many rows have which flag, the most frequent first, and how many have none."""
    found = {flag.name: n for flag, n in counts.by_flag() if n}
    told = sorted(found.items(), key=lambda item: -item[1])
    words = [f"{name} {n} ({_percent(n, counts.n_rows)})" for name, n in told] or ["none"]
    n_good = counts.n_clean_but_duplicate
    clean = f"{n_good} ({_percent(n_good, counts.n_rows)}) without a flag, {DUPLICATE} apart"
    return ResultLine(f"flags:     {', '.join(words)}; {clean}", name="flags", rows=found, without=n_good)


def warn_of_strange_stars(run: Path, progress: ProgressView) -> None:
    """Warn, on the screen and in the log, if too many spectra are unlike those that taught the model."""
    text = count_flags(run).strange_words()
    if text is not None:
        logger.warning("%s", text, extra=SAID)
        progress.say(f"{WARNING} {text}")


def _percent(n: int, n_rows: int) -> str:
    """Return a share with two digits at least, so that a few of many are not nothing."""
    share = 100 * n / n_rows if n_rows else 0.0
    return f"{share:.0f} %" if share >= 10 else f"{share:.2g} %"
