"""The plan of a run: written before anything else, never changed; its hash is the run's name."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import canonical_json, read_json, sha256_of_text, write_json

PLAN_FILE = "plan.json"
RUN_ID_LENGTH = 16
PACKAGES = ("apogee-batch", "numpy", "torch", "zarr", "pyarrow", "astropy")


def software_versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def run_id(plan: dict[str, Any]) -> str:
    """Return the name of a plan: the start of the SHA-256 of its canonical JSON."""
    return sha256_of_text(canonical_json(plan))[:RUN_ID_LENGTH]


def read_plan(folder: Path) -> dict[str, Any] | None:
    """Read the plan of a folder; None where there is none."""
    path = folder / PLAN_FILE
    if not path.is_file():
        return None
    try:
        plan = read_json(path)
    except ValueError as error:
        raise IntegrityError(f"{path}: damaged plan ({error}); begin again in another folder") from error
    if not isinstance(plan, dict):
        raise IntegrityError(f"{path}: is not a plan; begin again in another folder")
    return plan


def settle_plan(folder: Path, plan: dict[str, Any]) -> str:
    """Write the plan of a new run, or check that the run in the folder has the same one.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    plan : dict
        JSON values only.

    Returns
    -------
    str
        The run's name.

    Raises
    ------
    UsageError
        If the folder holds something else, or a run with another plan; the message says what differs.
    """
    existing = read_plan(folder)
    if existing is None:
        _refuse_foreign_folder(folder)
        try:
            write_json(folder / PLAN_FILE, plan)
        except OSError as error:
            raise UsageError(
                f"{folder}: cannot be written to ({error.strerror}); name another folder"
            ) from error
    elif existing != plan:
        differences = "; ".join(compare_plans(existing, plan))
        raise UsageError(
            f"{folder}: was begun with another plan ({differences}); "
            "give the same inputs and settings to go on with it, or another folder to begin anew"
        )
    return run_id(plan)


def _refuse_foreign_folder(folder: Path) -> None:
    """Refuse to write into a folder that holds something else; leftovers of a killed start are nothing."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is not a folder; name another one")
    if folder.is_dir() and any(not path.name.endswith(".partial") for path in folder.iterdir()):
        raise UsageError(f"{folder}: holds something that is not of this program; name another folder")


def compare_plans(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """List what differs between two plans, as 'key: old -> new'."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            lines += compare_plans(before, now, f"{prefix}{key}.")
        elif before != now:
            lines.append(f"{prefix}{key}: {_shorten(before)} -> {_shorten(now)}")
    return lines


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
