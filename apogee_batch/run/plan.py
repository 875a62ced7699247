"""The plan of a run: written before anything else, never changed; its hash is the run's name."""

import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import canonical_json, read_json, sha256_of_file, sha256_of_text, write_json
from apogee_batch.run.plan_words import compare_plans, describe_differences

PLAN_FILE = "plan.json"
LEDGER_FOLDER = "ledger"
LOCK_FILE = "lock"
SET_ASIDE = "old-"  # begins the names of folders that --force-new-plan keeps
RUN_ID = "run_id"
REMEDY = "the command that began the run writes it again"
RUN_ID_LENGTH = 16
INPUTS_HASH = "inputs_sha256"  # tells nobody anything where what differs is told in words
READING_PACKAGES = ("apogee-batch", "numpy", "zarr", "numcodecs", "pyarrow", "astropy")
PACKAGES = (*READING_PACKAGES, "torch")
FORCE = "--force-new-plan begins anew and keeps what is there beside it"
logger = logging.getLogger(__name__)


def software_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def run_id(plan: dict[str, Any]) -> str:
    """Return the name of a plan: the start of the SHA-256 of its canonical JSON."""
    return sha256_of_text(canonical_json(plan))[:RUN_ID_LENGTH]


def write_plan(folder: Path, plan: dict[str, Any]) -> None:
    """Write a plan, and its name beside it, by which a damaged one is known."""
    write_json(folder / PLAN_FILE, plan | {RUN_ID: run_id(plan)})


def read_plan(folder: Path) -> dict[str, Any] | None:
    """Read the plan of a folder; None where there is none.

    Raises
    ------
    IntegrityError
        If it is not what was written.
    """
    path = folder / PLAN_FILE
    if not path.is_file():
        return None
    try:
        plan = read_json(path)
    except ValueError as error:
        raise IntegrityError(f"{path}: is damaged ({error}); {REMEDY}") from error
    if not isinstance(plan, dict) or plan.pop(RUN_ID, None) != run_id(plan):
        raise IntegrityError(
            f"{path}: is damaged, or not of this program (its {RUN_ID} does not fit it); {REMEDY}"
        )
    return plan


def settle_plan(folder: Path, plan: dict[str, Any], *, explain: Callable[[], Sequence[str]] = tuple) -> str:
    """Write the plan of a new run, or check that the run in the folder has the same one.

    A plan that was lost or damaged is written again if the rest of the folder belongs to it.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    plan : dict
        JSON values only.
    explain : callable, optional
        Says more of what differs, where hashes alone say little.

    Returns
    -------
    str
        The run's name.

    Raises
    ------
    UsageError
        If the folder holds something else, or a run with another plan; the message says what differs.
    IntegrityError
        If its plan is damaged, and the rest belongs to another.
    """
    try:
        existing = read_plan(folder)
    except IntegrityError:
        if not _belongs_to(folder, plan):
            raise
        logger.warning("%s: was damaged, and is written again", folder / PLAN_FILE)
        existing = None
    else:
        if existing is None and not _belongs_to(folder, plan):
            _refuse_foreign_folder(folder)
    if existing is None:
        try:
            write_plan(folder, plan)
        except PermissionError as error:
            raise UsageError(
                f"{folder}: cannot be written to ({error.strerror}); name another folder"
            ) from error
    elif existing.get("kind") != plan.get("kind"):
        raise UsageError(
            f"{folder}: holds what '{existing.get('kind')}' made, and not '{plan.get('kind')}'; name another "
            "folder"
        )
    elif existing != plan:
        explained = list(explain())
        told = {key: value for key, value in existing.items() if not (explained and key == INPUTS_HASH)}
        now = {key: value for key, value in plan.items() if key in told or key not in existing}
        differences = "; ".join([*explained, *describe_differences(told, now)])
        logger.info("%s: another plan: %s", folder, "; ".join(compare_plans(existing, plan)))
        raise UsageError(
            f"{folder}: was begun with another plan ({differences}); give the same inputs and settings to go "
            f"on with it, or another folder; {FORCE}"
        )
    return run_id(plan)


def _belongs_to(folder: Path, plan: dict[str, Any]) -> bool:
    """Tell whether what a folder holds, beside the plan it should hold, was made by this plan."""
    keys = [_key_of_entry(path) for path in (folder / LEDGER_FOLDER).glob("[0-9]*.json")]
    if keys:  # a folder of another plan may well hold damaged entries, but not only those
        return all(key is None or key.split()[0] == run_id(plan) for key in keys)
    if (folder / PLAN_FILE).is_file():  # damaged, and nothing was done by it
        return True
    if _holds_inputs_of(folder, plan):
        return True
    # a model or the state of a training knows by itself what it was made from
    return any((folder / name).is_file() for name in ("model.json", "state.json"))


def _holds_inputs_of(folder: Path, plan: dict[str, Any]) -> bool:
    """Tell whether a folder holds copies of inputs, each with the hash that the plan of a run gives it."""
    planned = plan.get(INPUTS_HASH)
    if not isinstance(planned, dict):  # an ingest has one hash for all
        return False
    copies = {path.stem: path for path in (folder / "inputs").glob("*.parquet")}
    return bool(copies) and all(sha256_of_file(path) == planned.get(name) for name, path in copies.items())


def _key_of_entry(path: Path) -> str | None:
    """Return the key of a ledger entry; None for a damaged one."""
    try:
        return str(read_json(path)["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _refuse_foreign_folder(folder: Path) -> None:
    """Refuse to write into a folder that holds something else; leftovers of a killed start are nothing."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is not a folder; name another one")
    if folder.is_dir() and any(not _is_ours(path) for path in folder.iterdir()):
        raise UsageError(f"{folder}: holds something that is not of this program; name another folder")


def _is_ours(path: Path) -> bool:
    """Tell whether a name is one that a run may leave before it has a plan."""
    return path.name == LOCK_FILE or path.name.endswith(".partial") or path.name.startswith(SET_ASIDE)


def set_aside(folder: Path, plan: dict[str, Any]) -> Path | None:
    """Keep a run with another plan in a folder of its own, so that a new one can begin.

    Its plan moves last: a call that was killed is gone on with by the next.

    Parameters
    ----------
    folder : Path
        Folder of the run, locked.
    plan : dict
        The new plan.

    Returns
    -------
    Path or None
        Where the old run is now; None if there was none, or one with the same plan.
    """
    if not (folder / PLAN_FILE).is_file():
        return None
    try:
        existing = read_plan(folder)
        name = run_id(existing or {})
    except IntegrityError:
        existing, name = None, "damaged"
    if existing == plan:
        return None
    old = next(path for path in names_aside(folder, name) if not (path / PLAN_FILE).is_file())
    old.mkdir(exist_ok=True)
    kept = (old.name, LOCK_FILE, PLAN_FILE)
    for path in sorted(folder.iterdir()):
        if path.name not in kept and not path.name.startswith(SET_ASIDE):
            path.replace(_free_name(old / path.name))
    (folder / PLAN_FILE).replace(old / PLAN_FILE)
    return old


def _free_name(place: Path) -> Path:
    """Return a path where nothing is: a call that was killed may have moved a namesake there."""
    names = (place.with_name(f"{place.name}-{i}") for i in count(2))
    return place if not place.exists() else next(name for name in names if not name.exists())


def names_aside(folder: Path, name: str) -> Iterator[Path]:
    """Give the folders in which a run of that name may be kept, the first one first."""
    yield folder / f"{SET_ASIDE}{name}"
    for i in count(2):
        yield folder / f"{SET_ASIDE}{name}-{i}"
