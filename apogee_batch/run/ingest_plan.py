"""Which files an ingest reads, and where in the store each of them goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from apogee_batch.errors import IntegrityError, RejectReason, UsageError
from apogee_batch.run.archive import is_there
from apogee_batch.run.in_flight import read_in_order
from apogee_batch.run.ingest_inputs import (
    INPUTS_FILE,
    TIMES,
    IngestInput,
    compare_inputs,
    hash_of_inputs,
    lay_out,
    read_inputs,
    stat_file,
    write_inputs,
)
from apogee_batch.run.plan import (
    LEDGER_FOLDER,
    PLAN_FILE,
    READING_PACKAGES,
    names_aside,
    read_plan,
    run_id,
    settle_plan,
    software_versions,
)
from apogee_batch.store.spectra import StoreInfo, choose_shard_stars, open_store
from apogee_batch.store.tables import REJECTS, read_table, table_path
from apogee_batch.survey.apstar import Rows, count_spectra
from apogee_batch.survey.content_hash import HashName

SUMMARY_FILE = "summary.json"
DUPLICATES = (RejectReason.DUPLICATE_FILE, RejectReason.DUPLICATE_STAR)  # read well, and of no use
FOLDER_NAMES = "[0-9][0-9][0-9][0-9]"
CONTENT_HASH = "content_hash"  # key of a plan: the algorithm, which the first plans do not name


@dataclass(frozen=True)
class IngestPlan:
    """A plan and its inputs.

    Attributes
    ----------
    folder : Path
        Where plan, ledger and parts of this ingest are, inside the store.
    inputs : pa.Table
        Columns of `INPUTS_SCHEMA`, ordered by row.
    values : dict
        The plan as JSON values.
    """

    folder: Path
    inputs: pa.Table
    values: dict[str, Any]

    @property
    def shards(self) -> list[int]:
        """Numbers of the shards that this ingest writes."""
        return sorted(set(self.inputs["shard"].to_pylist()))

    @property
    def sizes(self) -> dict[int, int]:
        """Number of files of each shard, in the order of the shards."""
        counted = self.inputs["shard"].combine_chunks().value_counts().to_pylist()
        return {item["values"]: item["counts"] for item in sorted(counted, key=lambda item: item["values"])}

    @property
    def n_rows(self) -> int:
        """Length of the store's star axis when the ingest is done."""
        return int(self.values["n_rows"])

    @property
    def shard_stars(self) -> int:
        """Rows of a shard."""
        return int(self.values["shard_stars"])

    @property
    def hash_name(self) -> HashName:
        """Algorithm of the hashes of what is read of the files."""
        return cast("HashName", self.values.get(CONTENT_HASH, "blake2b"))


def store_lock(store: Path) -> Path:
    """Return the lock file of a store; it lies beside the store, which appears whole by one rename."""
    return store.with_name(f"{store.name}.lock")


def ingest_folders(store: Path) -> list[Path]:
    """Return the folders of a store's ingests, oldest first.

    Raises
    ------
    IntegrityError
        If one that has begun has lost its plan: its stars would be missed without a word.
    """
    folders = []
    for folder in sorted((store / "ingest").glob(FOLDER_NAMES)):
        if (folder / PLAN_FILE).is_file():
            folders.append(folder)
        elif is_there(folder / LEDGER_FOLDER):
            raise IntegrityError(
                f"{folder / PLAN_FILE}: is missing; give any 'apogee-batch ingest' command of this store "
                "again, which writes lost plans anew"
            )
    return folders


def unfinished_ingest(store: Path) -> Path | None:
    """Return the folder of the ingest that was begun and not finished, if there is one."""
    folders = ingest_folders(store)
    return folders[-1] if folders and not is_finished(folders[-1]) else None


def is_finished(folder: Path) -> bool:
    """Tell whether an ingest was finished: it has a summary, or had one, since a later one was begun."""
    later = (other for other in folder.parent.glob(FOLDER_NAMES) if other.name > folder.name)
    return (folder / SUMMARY_FILE).is_file() or any(later)


def require_finished_ingest(store: Path) -> None:
    """Refuse to work with a store while an ingest into it is not finished.

    Raises
    ------
    UsageError
        If there is no store, or its last ingest was stopped.
    """
    open_store(store)
    unfinished = unfinished_ingest(store)
    if unfinished is not None:
        raise UsageError(f"{store}: ingest {unfinished.name} has not finished; give its command again first")


def read_ingest(folder: Path) -> IngestPlan:
    """Read the plan that an ingest was begun with.

    Raises
    ------
    IntegrityError
        If plan or inputs are missing or damaged, or do not belong together.
    """
    plan = read_plan(folder)
    inputs, noted = read_inputs(folder)
    if plan != noted:
        raise IntegrityError(f"{folder}: plan.json and {INPUTS_FILE} do not belong together")
    return IngestPlan(folder, inputs, noted)


def begin_ingest(plan: IngestPlan) -> None:
    """Write a plan and its inputs, or check that the ingest in the folder has the same ones.

    Raises
    ------
    UsageError
        If it has others; the message names files that differ.
    """

    def explain() -> list[str]:
        return compare_inputs(read_inputs(plan.folder)[0], plan.inputs)

    settle_plan(plan.folder, plan.values, explain=explain)
    try:
        read_inputs(plan.folder)  # those of the first call stay: they know the times of modification
    except IntegrityError:
        write_inputs(plan.folder, plan.inputs, plan.values)


def plan_ingest(
    store: Path, inputs: Sequence[IngestInput], *, rows: Rows, shard_stars: int | None
) -> IngestPlan | None:
    """Lay the inputs out over the shards of a store, new or existing.

    Files that an earlier, finished ingest of the store has read are left out, unless they were rejected and
    have another size, time or mode now; the others begin at the next shard boundary.

    Parameters
    ----------
    store : Path
        Folder of the store; need not exist.
    inputs : sequence of IngestInput
        The files, in the order in which they get rows.
    rows : {"combined", "visits"}
        What becomes a row.
    shard_stars : int or None
        Rows of a shard of a new store; None to choose.

    Returns
    -------
    IngestPlan or None
        None if no file is new.

    Raises
    ------
    UsageError
        If the settings contradict those of the store.
    """
    info = open_store(store) if (store / "zarr.json").is_file() else None
    unfinished = unfinished_ingest(store)
    earlier = [read_ingest(folder) for folder in ingest_folders(store) if folder != unfinished]
    _check_rows(store, earlier, rows)
    new = _without_known_files(store, inputs, earlier)
    if not new:
        return None
    counts = list(read_in_order(lambda item: count_spectra(item.path, rows=rows), new))
    size = _shard_size(info, shard_stars, sum(counts))
    first_row = _next_row(earlier, size)
    table = lay_out(new, counts, size, first_row)
    values = {
        "kind": "ingest",
        "rows": rows,
        "shard_stars": size,
        "first_row": first_row,
        "n_inputs": len(new),
        "n_rows": int(table["row"][-1].as_py() + table["n_rows"][-1].as_py()),
        "inputs_sha256": hash_of_inputs(table),
        **_content_hash(unfinished, earlier),
        "software": software_versions(READING_PACKAGES),
    }
    folder = unfinished or store / "ingest" / f"{len(earlier) + 1:04d}"
    return IngestPlan(folder, table, values)


def _content_hash(unfinished: Path | None, earlier: Sequence[IngestPlan]) -> dict[str, str]:
    """Return what a plan says of hashes: that of the store's other files, or copies would not be known."""
    begun = None if unfinished is None else read_plan(unfinished)
    if begun is not None:  # plans of earlier states do not name it
        return {CONTENT_HASH: begun[CONTENT_HASH]} if CONTENT_HASH in begun else {}
    return {CONTENT_HASH: earlier[0].hash_name if earlier else "blake3"}


def _check_rows(store: Path, earlier: Sequence[IngestPlan], rows: Rows) -> None:
    """Refuse to mix combined spectra and visits in one store."""
    for plan in earlier:
        kept = plan.values["rows"]
        if kept != rows:
            raise UsageError(f"{store}: its rows are {kept} spectra; make another store for --row {rows}")


def _without_known_files(
    store: Path, inputs: Sequence[IngestInput], earlier: Sequence[IngestPlan]
) -> list[IngestInput]:
    known: dict[str, tuple[int, ...]] = {}
    for plan in earlier:
        columns = (plan.inputs[name].to_pylist() for name in ("path", "size", *TIMES))
        known.update({path: tuple(state) for path, *state in zip(*columns, strict=True)})
    if not known:
        return list(inputs)
    path = table_path(store, REJECTS)
    rejects = read_table(path).to_pylist() if path.is_file() else []
    rejected = {reject["path"] for reject in rejects if reject["reason"] not in DUPLICATES}

    def is_known(path: str) -> bool:
        if path not in known or path not in rejected:
            return path in known
        size, *times = known[path]
        now = stat_file(path)
        return now == known[path] or (not any(times) and now[0] == size)  # no times: the inputs were restored

    return [item for item in inputs if not is_known(str(item.path))]


def _shard_size(info: StoreInfo | None, wanted: int | None, n_rows: int) -> int:
    if info is None:
        return wanted or choose_shard_stars(n_rows)
    if wanted not in (None, info.shard_stars):
        raise UsageError(f"{info.path}: its shards hold {info.shard_stars} stars; leave --shard-stars out")
    return info.shard_stars


def _next_row(earlier: Sequence[IngestPlan], shard_stars: int) -> int:
    """Return the first shard boundary after the rows of earlier ingests."""
    used = max((plan.n_rows for plan in earlier), default=0)
    return -(-used // shard_stars) * shard_stars


def is_other_ingest(plan: IngestPlan) -> bool:
    """Tell whether the folder of a plan holds an ingest that was begun with another one."""
    return read_plan(plan.folder) not in (None, plan.values)


def set_ingest_aside(folder: Path) -> Path:
    """Keep an unfinished ingest under another name, so that a new one can begin.

    Returns
    -------
    Path
        Where its plan and parts are now. The rows that it wrote are the new one's.
    """
    name = run_id(read_plan(folder) or {})
    aside = next(path for path in names_aside(folder.parent, f"{folder.name}-{name}") if not path.exists())
    folder.rename(aside)
    return aside
