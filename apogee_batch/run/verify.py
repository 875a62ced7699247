"""What `apogee-batch verify` does: look at everything that was written, and name what is damaged.

It writes nothing and takes no lock, so it may look while a command works in the same folder.
"""

from dataclasses import dataclass
from pathlib import Path

from apogee_batch.errors import UsageError
from apogee_batch.files import read_json
from apogee_batch.network.model_files import HEADER_FILE, STATE_FILE
from apogee_batch.run.damage import Damage, Findings
from apogee_batch.run.plan import LEDGER_FOLDER, PLAN_FILE
from apogee_batch.run.run_folder import INPUTS, PARTS
from apogee_batch.run.verify_run import examine_run, verify_run
from apogee_batch.run.verify_store import examine_store, verify_store
from apogee_batch.store.spectra import METADATA_FILE, STAR_ARRAYS

__all__ = ["Damage", "VerifyReport", "verify", "verify_run", "verify_store"]

MB = 1e6


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes
    ----------
    lines : list of str
        For the user: one for each damage, or one that tells that there is none; then what is not finished.
    damages : list of Damage
        What is damaged; empty when all is well.
    """

    lines: list[str]
    damages: list[Damage]


def verify(path: Path) -> VerifyReport:
    """Look at a store, a run's folder or a model's folder.

    Parameters
    ----------
    path : Path
        The folder. A store is known by its arrays, a run and a model by plan, ledger or model, so that one
        that lost some of them is still known.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    if _is_store(path):
        return _report(path, examine_store(path))
    if _is_run(path):
        return _report(path, examine_run(path))
    raise UsageError(f"{path}: is neither a run, nor a model, nor a store; name the folder of one")


def _is_store(path: Path) -> bool:
    has_arrays = all((path / name).is_dir() for name in STAR_ARRAYS)
    return has_arrays and ((path / METADATA_FILE).is_file() or (path / "ingest").is_dir())


def _is_run(path: Path) -> bool:
    if (path / PLAN_FILE).is_file() and _kind_of_plan(path / PLAN_FILE) == "ingest":
        return False  # a part of a store, which is looked at as a whole
    files = (PLAN_FILE, HEADER_FILE, STATE_FILE)
    folders = (LEDGER_FOLDER, PARTS, INPUTS)
    return any((path / name).is_file() for name in files) or any((path / name).is_dir() for name in folders)


def _kind_of_plan(path: Path) -> str | None:
    try:
        plan = read_json(path)
    except (OSError, ValueError):
        return None
    return str(plan.get("kind")) if isinstance(plan, dict) else None


def _report(path: Path, found: Findings) -> VerifyReport:
    looked_at = f"{found.n_files} files of {found.n_bytes / MB:.1f} MB compared with their hashes"
    if found.damages:
        lines = [str(damage) for damage in found.damages]
        lines.append(f"{path}: {len(found.damages)} damaged; {looked_at}")
    else:
        lines = [f"{path}: nothing is damaged; {looked_at}"]
    return VerifyReport(lines + found.notes, found.damages)
