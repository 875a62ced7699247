"""How long the stages of a run took: as their folders tell, else its ledger and the metrics of the model."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apogee_batch.report.page_figures_timing import Span, without_pauses
from apogee_batch.run.run_folder import MODEL_FOLDER
from apogee_batch.run.stage_times import StageTime, read_stage_times

INGEST = "ingest"
TITLES = {
    INGEST: "Ingest",
    "train": "Training",
    "calibrate": "Calibration",
    "infer": "Estimating the labels",
    "publish": "Publishing",
    "report": "Page",
}
SUMMED = ("train",)  # rounds of adaptation are attempts; those of other stages count what was done before


def stage_folders(run: Path, model: Path | None, store: Path | None) -> list[Path]:
    """Return the folders in which stages note their times: of the ingests, the model and the run."""
    ingests = [] if store is None else sorted(path for path in (store / INGEST).glob("*") if path.is_dir())
    return [*ingests, model or run / MODEL_FOLDER, run]


def describe_stages(
    folders: Sequence[Path], spans: Sequence[Span], epochs: Sequence[Mapping[str, Any]]
) -> list[tuple[str, ...]]:
    """Return the rows of the table of stages, in their order; those of which nothing is known are left out.

    Parameters
    ----------
    folders : sequence of Path
        As `stage_folders` gives them.
    spans : sequence of Span
        Work of the run at its shards.
    epochs : sequence of mapping
        Lines of the model's metrics.

    Returns
    -------
    list of tuple of str
        Stage, what was done, how long it took, when it began, on which hosts.
    """
    attempts = [read_stage_times(folder) for folder in folders]
    without_times = {"train": _training_of(epochs), "infer": _work_of(spans)}
    rows: list[tuple[str, ...]] = []
    for stage, title in TITLES.items():
        of_stage = [[attempt for attempt in found if attempt.stage == stage] for found in attempts]
        if any(attempt.end_s is not None for found in of_stage for attempt in found):
            rows.append((title, *_describe(of_stage)))
        elif (known := without_times.get(stage)) is not None:
            rows.append((title, *known, "", ""))
    return rows


def show_seconds(seconds: float) -> str:
    """Return a time as a person would say it: 12.3 s, 4.5 min or 6.7 h."""
    for unit, length_s, largest in (("s", 1.0, 120.0), ("min", 60.0, 7200.0)):
        if seconds < largest:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{seconds / 3600:,.1f} h"


def _describe(by_folder: Sequence[Sequence[StageTime]]) -> tuple[str, str, str, str]:
    """Return what the attempts at one stage did, how long they took together, and when and where."""
    attempts = [attempt for found in by_folder for attempt in found]
    ended = [attempt for attempt in attempts if attempt.end_s is not None]
    seconds = sum(attempt.end_s - attempt.begin_s for attempt in ended if attempt.end_s is not None)
    total = sum if ended[0].stage in SUMMED else max
    n_done = sum(total([0, *(a.done for a in found if a.end_s is not None)]) for found in by_folder)
    done = f"{n_done:,} {ended[-1].unit}" if n_done else ""
    if n_stopped := len(attempts) - len(ended):
        done += f"{'; ' if done else ''}{n_stopped} attempts were stopped, their times are not known"
    first = datetime.fromtimestamp(min(attempt.begin_s for attempt in attempts), UTC)
    hosts = ", ".join(sorted({attempt.host for attempt in attempts}))
    return done, show_seconds(seconds), f"{first:%Y-%m-%d %H:%M}", hosts


def _training_of(epochs: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    seconds = [float(epoch["seconds"]) for epoch in epochs if epoch.get("seconds") is not None]
    return (f"{len(seconds)} epochs", show_seconds(sum(seconds))) if seconds else None


def _work_of(spans: Sequence[Span]) -> tuple[str, str] | None:
    timed, _ = without_pauses([span for span in spans if span.seconds > 0])
    if not timed:
        return None
    done = f"{sum(span.n_stars for span in timed):,} stars, by the ledger"
    return done, show_seconds(max(span.end_s for span in timed))
