"""What differs between two plans, in words of those who observe; hashes tell nobody anything."""

import re
from collections.abc import Sequence
from typing import Any

SHA256 = re.compile("[0-9a-f]{64}")
MOST_SHOWN = 40  # characters of a value
STORE, MODEL = "store_sha256", "model.given"
TRAINED = "model.trained"
SOFTWARE = "software."
# What is there with an old and a new hash, only now, and no more.
HASHES = {
    STORE: ("the store holds other spectra",) * 3,
    "inputs_sha256": ("the files, or what is known of them, are others",) * 3,
    "inputs_sha256.stars": ("the store's table of stars is another one",) * 3,
    "inputs_sha256.rejects": ("other files of the store are rejected",) * 3,
    "inputs_sha256.labels": (
        "other labels are attached to the store",
        "labels were attached to the store since",
        "the store has no labels any more",
    ),
    "labels_sha256": ("other labels are attached to the store",) * 3,
    MODEL: ("another model is given",) * 3,
    "model.calibration": (
        "the model was calibrated anew",
        "the model was calibrated since",
        "the model has no calibration any more",
    ),
}
NAMES = {
    "n_inputs": "files",
    "n_rows": "rows of the store",
    "first_row": "first row",
    "shard_stars": "stars of a shard",
    "catalog_version": "version of the catalogue's columns",
    "rows": "spectra of a file (--row)",
}
# Where the first differs, the others do too and say nothing more.
FOLLOWING = {
    STORE: ("inputs_sha256.stars", "inputs_sha256.rejects"),
    MODEL: ("model.calibration",),
    "n_inputs": ("n_rows",),
}


def describe_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Say what differs between two plans.

    Parameters
    ----------
    old, new : dict
        JSON values.

    Returns
    -------
    list of str
        One text a difference: a sentence for what plans hold as a hash, 'name: old -> new' for the rest.
    """
    changes = _changes(old, new)
    dull = {name for key in changes for name in FOLLOWING.get(key, ())}
    if TRAINED in changes:  # a model was trained, and is given now, or the other way round
        dull |= {MODEL, "model.calibration"}
    said = [_describe(key, *values) for key, values in changes.items() if key not in dull]
    return list(dict.fromkeys(said))


def compare_plans(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """List what differs between two plans, as 'key: old -> new'."""
    return [
        f"{key}: {_shorten(before)} -> {_shorten(now)}" for key, (before, now) in _changes(old, new).items()
    ]


def _changes(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the values that differ, by their keys with those around them, in the order of the alphabet."""
    changes: dict[str, tuple[Any, Any]] = {}
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            changes |= _changes(before, now, f"{prefix}{key}.")
        elif before != now:
            changes[prefix + key] = before, now
    return changes


def _describe(key: str, before: Any, now: Any) -> str:
    """Say one difference."""
    if key == TRAINED:
        return "a model is given now" if now is None else "no model is given now, so one would be trained"
    key = key.removeprefix(f"{TRAINED}.")
    if key in HASHES:
        other, since, gone = HASHES[key]
        return since if before is None else gone if now is None else other
    if key == "shards" and _are_lists(before, now):
        return f"shards: {len(before)} -> {len(now)}" if len(before) != len(now) else "other shards"
    if key.startswith(SOFTWARE):
        return f"version of {key.removeprefix(SOFTWARE)}: {_shorten(before)} -> {_shorten(now)}"
    return f"{NAMES.get(key, key)}: {_shorten(before)} -> {_shorten(now)}"


def _are_lists(*values: Any) -> bool:
    return all(isinstance(value, Sequence) for value in values)


def _shorten(value: Any) -> str:
    text = str(value)
    if SHA256.fullmatch(text):
        return f"{text[:8]}..."
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."
