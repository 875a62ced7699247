"""What the files of a run's folder say of it: its head, its workers, its model."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import parse_sealed_json, read_json, read_sealed_json
from apogee_batch.inference.realizations import MAX_ERR_OVER_TYPICAL
from apogee_batch.network.calibration import load_calibration
from apogee_batch.network.metrics import METRICS_FILE, read_metrics
from apogee_batch.network.model_files import HEADER_FILE
from apogee_batch.network.training_stars import read_training_stars
from apogee_batch.report.page_figures_timing import Span
from apogee_batch.report.page_sections import Head
from apogee_batch.report.tables import ROW_TITLES
from apogee_batch.report.validation import Validation
from apogee_batch.run.archive import list_files, read_file
from apogee_batch.run.ledger import WORKER
from apogee_batch.run.plan import LEDGER_FOLDER, read_plan
from apogee_batch.run.report_times import describe_stages
from apogee_batch.run.run_folder import MANIFEST_FILE, MODEL_FOLDER
from apogee_batch.run.stage_times import read_stage_times
from apogee_batch.schema import DATA_SETS

REJECTS_FILE = "rejects.parquet"
UNTOLD = "not known"
NO_MODEL = (
    "The run was given its model, and the curves of its training lie in the folder of that; name it by "
    "--model."
)
NAMED = {"device": UNTOLD, WORKER: ""}  # among the numbers of a shard, and what stands for it without
PLAN_WORDS = {
    "realizations": "Realizations",
    "seed": "Seed",
    "err_cap": "Limit of the errors",
    "noise": "Noise",
    "precision": "Precision",
}


@dataclass(frozen=True)
class ModelFacts:
    """What the folder of a model tells of the training.

    Attributes
    ----------
    epochs : tuple of dict
        Lines of its metrics; none where `reason` says why.
    reason : str
        Why there are none; empty if there are some.
    threshold : float or None
        Strangeness above which the run set its flag; None where it is not known.
    is_taught_by_simulated : bool
        Whether it is known that all stars that taught it are simulated.
    """

    epochs: tuple[dict[str, Any], ...]
    reason: str
    threshold: float | None = None
    is_taught_by_simulated: bool = False


def read_manifest(run: Path) -> dict[str, Any]:
    """Return the manifest of a run that was found to be published."""
    return read_sealed_json(run / MANIFEST_FILE)


def read_model_facts(run: Path, model: Path | None, manifest: dict[str, Any]) -> ModelFacts:
    """Read what a model's folder tells, the run's own if none is given.

    Raises
    ------
    UsageError
        If the folder that was given is not that of the run's model.
    IntegrityError
        If its calibration, or what it notes of the training stars, is damaged.
    """
    folder = model or run / MODEL_FOLDER
    sha256 = _sha256_of_model(folder)
    if sha256 is None or sha256 != manifest["model_sha256"]:
        if model is not None:
            raise UsageError(
                f"{model}: is not the model of {run}; name the folder that run-catalog was given"
            )
        return ModelFacts((), NO_MODEL)
    found = load_calibration(folder, sha256)
    is_of_run = found is not None and found[1] == manifest["calibration_sha256"]
    strangeness = found[0].strangeness if found is not None and is_of_run else None
    epochs = tuple(read_metrics(folder / METRICS_FILE))
    reason = (
        "" if epochs else f"The model's folder has no {METRICS_FILE}: it was imported, or the file is gone."
    )
    taught = read_training_stars(folder)
    return ModelFacts(
        epochs,
        reason,
        None if strangeness is None else strangeness.threshold,
        is_taught_by_simulated=taught is not None and taught.are_simulated,
    )


def _sha256_of_model(folder: Path) -> str | None:
    try:
        told = read_json(folder / HEADER_FILE)
        return str(told["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_spans(run: Path) -> list[Span]:
    """Return the work of a run at its shards, by its ledger; damaged entries are left out."""
    spans = []
    for path in list_files(run / LEDGER_FOLDER):
        if not path.match("[0-9]*.json"):
            continue
        try:
            entry = parse_sealed_json(read_file(path), path)
        except (OSError, ValueError):
            continue
        seconds = float(entry["seconds"])
        device, worker = (str(entry["extra"].get(key, other)) for key, other in NAMED.items())
        begin_s = float(entry["committed"]) - seconds
        spans.append(Span(str(entry["host"]), device, begin_s, seconds, int(entry["n_stars"]), worker))
    return spans


def count_rejects(run: Path) -> dict[str, int]:
    """Return how many inputs were rejected for which reason, the most frequent first.

    Raises
    ------
    IntegrityError
        If the table is missing or damaged.
    """
    path = run / REJECTS_FILE
    try:
        reasons = pq.read_table(path, columns=["reason"])["reason"]
    except (OSError, pa.ArrowException) as error:
        text = " ".join(str(error).split())
        raise IntegrityError(f"{path}: cannot be read ({text}); publish the run again") from error
    counted = {item["values"]: item["counts"] for item in pc.value_counts(reasons).to_pylist()}
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def gather_head(
    run: Path,
    manifest: dict[str, Any],
    found: Validation,
    spans: Sequence[Span],
    model: ModelFacts,
    *,
    folders: Sequence[Path],
) -> Head:
    """Return what the head of the page says; `folders` are those in which stages noted their times."""
    plan = read_plan(run) or {}
    facts = [
        ("Name", str(manifest["run_id"])),
        ("Inputs", f"{manifest['stars'] + manifest['rejects']:,}"),
        ("Stars in the catalogue", f"{manifest['stars']:,}"),
        ("Rejected inputs", f"{manifest['rejects']:,}"),
        *((f"Labelled: {title}", _count_labelled(found, word)) for word, title in ROW_TITLES.items()),
        ("SHA-256 of the store", str(plan.get("store_sha256", UNTOLD))),
        ("SHA-256 of the model", str(manifest["model_sha256"])),
        ("SHA-256 of its calibration", str(manifest["calibration_sha256"] or "none")),
        *((title, _plan_words(word, plan[word])) for word, title in PLAN_WORDS.items() if word in plan),
        ("Computed by", "; ".join(manifest["devices"])),
    ]
    versions = {name: str(text) for name, text in plan.get("software", {}).items()}
    return Head(facts, count_rejects(run), versions, describe_stages(folders, spans, model.epochs))


def _plan_words(word: str, value: Any) -> str:
    """Return a setting of the plan as a person would say it."""
    return f"{MAX_ERR_OVER_TYPICAL:g} times their {value}" if word == "err_cap" else str(value)


def name_page(
    run: Path, manifest: dict[str, Any], spans: Sequence[Span], *, store: Path | None, are_simulated: bool
) -> tuple[str, str]:
    """Return the title of the page, and what stands below it: which run, when it was published, of what."""
    n_stars = int(manifest["stars"])
    kind = "simulated star" if are_simulated else "star"
    title = f"Catalogue of {n_stars:,} {kind}{'' if n_stars == 1 else 's'}"
    ends_s = [time.end_s for time in read_stage_times(run) if time.stage == "publish"]
    known_s = [end_s for end_s in ends_s if end_s is not None]
    date = ""
    if known_s:
        date = f", published {datetime.fromtimestamp(known_s[-1], UTC):%Y-%m-%d %H:%M} UTC"
    elif spans:
        last_s = max(span.begin_s + span.seconds for span in spans)
        date = f", computed until {datetime.fromtimestamp(last_s, UTC):%Y-%m-%d %H:%M} UTC"
    of_store = "" if store is None else f", of the store {store.absolute().name}"
    return title, f"Run {manifest['run_id']} of apogee-batch{of_store}{date}"


def _count_labelled(found: Validation, data_type: str) -> str:
    counts = {word: found.get(data_type, word).n_stars for word in DATA_SETS}
    n_left_out = sum(found.get(data_type, word).n_left_out for word in DATA_SETS)
    text = ", ".join(f"{n:,} {word}" for word, n in counts.items())
    return text + (f"; {n_left_out:,} more lack a label or a prediction" if n_left_out else "")
