"""Whether files that were ingested are still what they were."""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

from apogee_batch.errors import IntegrityError, RejectReason, UsageError
from apogee_batch.run.attempts import run_alone
from apogee_batch.run.clusters import Workers
from apogee_batch.run.in_flight import read_in_order
from apogee_batch.run.ingest_inputs import most_at_once, read_shard_inputs, star_from_json, stat_file
from apogee_batch.run.ingest_plan import IngestPlan, ingest_folders, is_finished, read_ingest
from apogee_batch.run.ingest_tables import CONTENTS, ingest_ledger, part_path, read_part
from apogee_batch.run.ledger import Ledger, find_damage
from apogee_batch.run.plan import FORCE, LEDGER_FOLDER, read_plan, run_id
from apogee_batch.run.progress import ProgressView
from apogee_batch.store.tables import REJECTS
from apogee_batch.survey.apstar import Rows, read_apstar_file
from apogee_batch.survey.content_hash import HashName

N_EXAMPLES = 3
State = Literal["begun", "finished", "damaged"]


def has_stored_nothing(store: Path, folder: Path) -> bool:
    """Tell whether an ingest has read files and could use none, as of a wrong folder.

    One that was stopped before its first shard was done has not: who goes on with other files must say so.
    """
    ledger = Ledger(folder / LEDGER_FOLDER, store, run_id(read_plan(folder) or {}))
    done = ledger.done(check_bytes=False).values()
    return bool(done) and not ledger.damaged() and all(report.n_stars == 0 for report in done)


def shards_to_check(store: Path, named: Collection[str]) -> list[tuple[IngestPlan, list[int]]]:
    """Return each ingest of a store, and its shards that are done and hold a file that is named.

    Parameters
    ----------
    store : Path
        Folder of the store.
    named : collection of str
        Paths of the files that the command names.
    """
    plans = [read_ingest(folder) for folder in ingest_folders(store)]
    return [(plan, _shards_of(store, plan, named)) for plan in plans]


def changed_files(
    store: Path,
    ingests: Sequence[tuple[IngestPlan, list[int]]],
    workers: Workers,
    progress: ProgressView,
    *,
    trust_mtime: bool,
) -> dict[Path, list[str]]:
    """Compare the files of shards that are done with what was read of them then.

    Files that are gone are not looked at: a finished store does not need them, and an unfinished ingest has
    compared its list already. Rejected files of finished ingests are read again anyway if they have changed.

    Parameters
    ----------
    store : Path
        Folder of the store.
    ingests : sequence of tuple of IngestPlan and list of int
        As `shards_to_check` gives them; other shards are left out.
    workers : Workers
        Where the files are read.
    progress : ProgressView
        What the user sees.
    trust_mtime : bool
        Whether size and time of modification are enough.

    Returns
    -------
    dict of Path to list of str
        For the folder of each ingest with changed files: what is other than it was, one text a file.
    """
    found = {}
    for plan, shards in ingests:
        state: State = "finished" if is_finished(plan.folder) else "begun"
        changed = _run_all(workers, _task(store, plan, trust_mtime, state), shards, progress)
        if changed:
            found[plan.folder] = changed
    return found


def refuse_changed_files(store: Path, folder: Path, changed: Sequence[str]) -> NoReturn:
    """Raise UsageError for files of an ingest that were replaced; the message names them."""
    remedy = f"put the files back, or {FORCE}"
    if is_finished(folder):
        remedy = "the store keeps what was read then; put the files back, or ingest into a new store"
    examples = "; ".join(changed[:N_EXAMPLES])
    which = "1 file is" if len(changed) == 1 else f"{len(changed)} files are"
    raise UsageError(f"{store}: {which} not what ingest {folder.name} read: {examples}; {remedy}")


def _run_all(
    workers: Workers, task: Callable[[int], list[str]], shards: Sequence[int], progress: ProgressView
) -> list[str]:
    """Run a task for each shard, again where its worker dies, and join what they find."""

    def check(shard: int) -> list[str]:
        return run_alone(workers, partial(task, shard), f"checking shard {shard}", progress)

    workers.crew.ask(len(shards))
    threads = ThreadPoolExecutor(workers.n_workers)  # each waits for a worker
    try:
        return [text for found in threads.map(check, shards) for text in found]
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _task(store: Path, plan: IngestPlan, trust_mtime: bool, state: State) -> Callable[[int], list[str]]:
    """Return `check_shard` for the shards of an ingest."""
    folder, rows = plan.folder.name, plan.values["rows"]
    return partial(check_shard, str(store), folder, rows, plan.hash_name, trust_mtime, state)


def _shards_of(store: Path, plan: IngestPlan, named: Collection[str]) -> list[int]:
    """Return the shards of an ingest that are done and hold a file that is named."""
    done = ingest_ledger(store, plan).done(check_bytes=False)
    columns = (plan.inputs[name].to_pylist() for name in ("path", "shard"))
    touched = {shard for path, shard in zip(*columns, strict=True) if path in named}
    return sorted(touched & done.keys())


def check_shard(
    store: str,
    ingest: str,
    rows: Rows,
    hash_name: HashName,
    trust_mtime: bool,
    state: State,
    shard: int,
) -> list[str]:
    """Say which files of a shard are not what was read: a task.

    Parameters
    ----------
    store, ingest : str
        Path of the store; name of the ingest's folder in it.
    rows : {"combined", "visits"}
        What was read of each file.
    hash_name : {"blake3", "blake2b"}
        How it was hashed.
    trust_mtime : bool
        As for `changed_files`.
    state : {"begun", "finished", "damaged"}
        Of the ingest or, if it is damaged, of the shard: all its files are then wanted again.
    shard : int
        The shard.
    """
    folder = Path(store) / "ingest" / ingest
    try:
        _check_parts(Path(store), folder, shard)
        hashes = _hashes_of(folder, shard, hash_name)
        rejects = read_part(part_path(folder, REJECTS, shard)).to_pylist()
    except IntegrityError:
        if state != "damaged":
            return []  # the shard is made again
        hashes, rejects = {}, []
    # what ended its workers is not opened again; other rejects of a finished ingest are read by the next one
    left_out = {
        reject["path"]
        for reject in rejects
        if state == "finished" or reject["reason"] == RejectReason.WORKER_KILLED
    }
    records = [record for record in read_shard_inputs(folder, shard) if record["path"] not in left_out]

    def find(record: dict[str, Any]) -> str | None:
        digest = hashes.get(record["path"])
        return _find_change(record, digest, rows, hash_name, trust_mtime, must_exist=state == "damaged")

    changes = read_in_order(find, records, most_at_once=most_at_once(records))
    return [change for change in changes if change is not None]


def _find_change(
    record: dict[str, Any],
    digest: str | None,
    rows: Rows,
    hash_name: HashName,
    trust_mtime: bool,
    *,
    must_exist: bool,
) -> str | None:
    """Say how a file differs from what was planned and read; None if it does not."""
    path = record["path"]
    size, mtime_ns, _ = stat_file(path)
    if size < 0:
        return f"{path} is gone" if must_exist and record["size"] >= 0 else None
    if size != record["size"]:
        return f"{path} has {size} bytes, had {record['size']}"
    if (digest is None and must_exist) or (trust_mtime and mtime_ns == record["mtime_ns"]):
        return None
    known = None if record["known"] is None else star_from_json(record["known"])
    _, found = read_apstar_file(Path(path), rows=rows, known=known, hash_name=hash_name)
    if digest is None:
        return None if found.digest is None else f"{path} could not be read then, and can be now"
    return None if found.digest == digest else f"{path} has the same size and another content"


def _check_parts(store: Path, folder: Path, shard: int) -> None:
    """Raise IntegrityError if what a shard noted of its files is not what its ledger entry says.

    A mending that was refused has left there what it found.
    """
    report = Ledger(folder / LEDGER_FOLDER, store, run_id(read_plan(folder) or {})).entry(shard)
    for file in report.files if report is not None else ():
        is_note = Path(file.path).name.startswith((CONTENTS, REJECTS))
        if is_note and (problem := find_damage(file, store)) is not None:
            raise IntegrityError(f"{store / file.path}: {problem}")


def _hashes_of(folder: Path, shard: int, hash_name: HashName) -> dict[str, str | None]:
    """Return the hash of what was read of each file of a shard."""
    contents = read_part(part_path(folder, CONTENTS, shard))
    return dict(zip(contents["path"].to_pylist(), contents[hash_name].to_pylist(), strict=True))


def check_damaged_shards(store: Path, plan: IngestPlan, workers: Workers, progress: ProgressView) -> None:
    """Make sure that the files of damaged shards of a finished ingest are still what was read.

    Raises
    ------
    IntegrityError
        If one is gone or was replaced: the shards made again from them would be others.
    """
    done = ingest_ledger(store, plan).done()
    damaged = [shard for shard in plan.shards if shard not in done]
    changed = _run_all(workers, _task(store, plan, False, "damaged"), damaged, progress)
    if changed:
        raise IntegrityError(
            f"{store}: shards {', '.join(map(str, damaged))} of ingest {plan.folder.name} are damaged and "
            f"cannot be made again, since {len(changed)} of their files are not what was read: "
            f"{'; '.join(changed[:N_EXAMPLES])}; put the files back and give the command again"
        )
