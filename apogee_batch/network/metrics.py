"""`metrics.jsonl`: one line of JSON for each epoch of a training."""

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apogee_batch.files import canonical_json, force_to_disk, write_text
from apogee_batch.network.state import EpochMetrics

METRICS_FILE = "metrics.jsonl"


def append_metrics(path: Path, metrics: EpochMetrics, *, seconds: float) -> None:
    """Add the line of an epoch, so that it can be read at once.

    Parameters
    ----------
    path : Path
    metrics : EpochMetrics
        Losses that are not numbers become null.
    seconds : float
        Time that the epoch took.

    Raises
    ------
    OSError
        If it cannot be written; `filename` is always set.
    """
    values = _without_nan(asdict(metrics) | {"seconds": round(seconds, 3)})
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(canonical_json(values) + "\n")
            file.flush()
            force_to_disk(file.fileno())  # before the state of the epoch is, or a power cut leaves a gap
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or errno.EIO), str(path)) from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a training; none where there is no file, a torn last line left out."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
            is_epoch = isinstance(line, dict) and isinstance(line.get("epoch"), int)
        except ValueError:  # cut short by a kill; the epoch is done again
            break
        if not is_epoch:
            break
        lines.append(line)
    return lines


def keep_metrics(path: Path, *, last_epoch: int) -> None:
    """Drop the lines of epochs that will be done again because their state was not saved.

    Parameters
    ----------
    path : Path
    last_epoch : int
        Epoch of the state that the training goes on from; 0: from the start.
    """
    kept = [line for line in read_metrics(path) if line["epoch"] <= last_epoch]
    write_text(path, "".join(canonical_json(line) + "\n" for line in kept))


def _without_nan(value: Any) -> Any:
    """Replace what JSON cannot say by null."""
    if isinstance(value, dict):
        return {key: _without_nan(held) for key, held in value.items()}
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
