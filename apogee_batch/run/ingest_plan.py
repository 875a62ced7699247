"""Which files an ingest reads, and where in the store each of them goes."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from apogee_batch.errors import UsageError
from apogee_batch.files import replace_on_success
from apogee_batch.run.plan import read_plan
from apogee_batch.store.spectra import StoreInfo, choose_shard_stars, open_store
from apogee_batch.store.tables import REJECTS, read_table, table_path
from apogee_batch.survey.apstar import Rows, Star, count_spectra

INPUTS_FILE = "inputs.parquet"
SUMMARY_FILE = "summary.json"
INPUTS_SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "size": pa.int64(),
        "shard": pa.int64(),
        "row": pa.int64(),
        "n_rows": pa.int64(),
        "known": pa.string(),
    }
)
MAYBE_UNKNOWN = ("ra", "dec", "j", "h", "k", "snr", "snr_header")  # NaN in a Star, null in JSON


@dataclass(frozen=True)
class IngestInput:
    """One file of an ingest.

    Attributes
    ----------
    path : Path
        The file.
    known : Star or None
        What the survey's summary says of it.
    """

    path: Path
    known: Star | None


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
    def n_rows(self) -> int:
        """Length of the store's star axis when the ingest is done."""
        return int(self.values["n_rows"])

    @property
    def shard_stars(self) -> int:
        """Rows of a shard."""
        return int(self.values["shard_stars"])


def ingest_folders(store: Path) -> list[Path]:
    """Return the folders of a store's ingests that have a plan, oldest first."""
    return sorted(path.parent for path in (store / "ingest").glob("[0-9]*/plan.json"))


def unfinished_ingest(store: Path) -> Path | None:
    """Return the folder of the ingest that was begun and not finished, if there is one."""
    folders = [folder for folder in ingest_folders(store) if not (folder / SUMMARY_FILE).is_file()]
    return folders[-1] if folders else None


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
    """Read the plan that an ingest was begun with."""
    return IngestPlan(folder, read_table(folder / INPUTS_FILE), read_plan(folder) or {})


def plan_ingest(
    store: Path, inputs: Sequence[IngestInput], *, rows: Rows, shard_stars: int | None
) -> IngestPlan | None:
    """Lay the inputs out over the shards of a store, new or existing.

    Files that an earlier, finished ingest of the store has read are left out, unless they were rejected and
    have another size now; the others begin at the next shard boundary.

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
    earlier = [folder for folder in ingest_folders(store) if folder != unfinished]
    _check_rows(store, earlier, rows)
    _check_names(inputs)
    new = _without_known_files(store, inputs, earlier)
    if not new:
        return None
    counts = [count_spectra(item.path, rows=rows) for item in new]
    size = _shard_size(info, shard_stars, sum(counts))
    first_row = _next_row(earlier, size)
    table = _lay_out(new, counts, size, first_row)
    values = {
        "kind": "ingest",
        "rows": rows,
        "shard_stars": size,
        "first_row": first_row,
        "n_inputs": len(new),
        "n_rows": int(table["row"][-1].as_py() + table["n_rows"][-1].as_py()),
        "inputs_sha256": _hash_of_inputs(table),
        "software": {"apogee-batch": version("apogee-batch")},
    }
    folder = unfinished or store / "ingest" / f"{len(earlier) + 1:04d}"
    return IngestPlan(folder, table, values)


def _check_rows(store: Path, earlier: Sequence[Path], rows: Rows) -> None:
    """Refuse to mix combined spectra and visits in one store."""
    for folder in earlier:
        kept = (read_plan(folder) or {})["rows"]
        if kept != rows:
            raise UsageError(f"{store}: its rows are {kept} spectra; make another store for --row {rows}")


def _check_names(inputs: Sequence[IngestInput]) -> None:
    """Refuse paths that no table can hold."""
    for item in inputs:
        try:
            str(item.path).encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(f"{str(item.path)!r}: its name is not UTF-8; rename it") from error


def _without_known_files(
    store: Path, inputs: Sequence[IngestInput], earlier: Sequence[Path]
) -> list[IngestInput]:
    known: dict[str, int] = {}
    for folder in earlier:
        table = pq.read_table(folder / INPUTS_FILE, columns=["path", "size"])
        known.update(zip(table["path"].to_pylist(), table["size"].to_pylist(), strict=True))
    path = table_path(store, REJECTS)
    rejected = set(read_table(path)["path"].to_pylist()) if path.is_file() else set()

    def is_known(path: str) -> bool:
        return path in known and (path not in rejected or _size_of(Path(path)) == known[path])

    return [item for item in inputs if not is_known(str(item.path))]


def _size_of(path: Path) -> int:
    """Return the bytes of a file, -1 where there is none to read."""
    return path.stat().st_size if path.is_file() else -1


def _shard_size(info: StoreInfo | None, wanted: int | None, n_rows: int) -> int:
    if info is None:
        return wanted or choose_shard_stars(n_rows)
    if wanted not in (None, info.shard_stars):
        raise UsageError(f"{info.path}: its shards hold {info.shard_stars} stars; leave --shard-stars out")
    return info.shard_stars


def _next_row(earlier: Sequence[Path], shard_stars: int) -> int:
    """Return the first shard boundary after the rows of earlier ingests."""
    plans = [read_plan(folder) or {} for folder in earlier]
    used = max((int(plan.get("n_rows", 0)) for plan in plans), default=0)
    return -(-used // shard_stars) * shard_stars


def _lay_out(
    inputs: Sequence[IngestInput], counts: Sequence[int], shard_stars: int, first_row: int
) -> pa.Table:
    """Give each input its rows; the visits of one file stay in one shard."""
    records, row = [], first_row
    for item, count in zip(inputs, counts, strict=True):
        if count > shard_stars:
            raise UsageError(
                f"{item.path}: {count} visits do not fit a shard of {shard_stars}; raise --shard-stars"
            )
        if row % shard_stars + count > shard_stars:
            row = -(-row // shard_stars) * shard_stars
        known = None if item.known is None else _star_to_json(item.known)
        records.append((str(item.path), _size_of(item.path), row // shard_stars, row, count, known))
        row += count
    return pa.table(
        [
            pa.array(column, field.type)
            for column, field in zip(zip(*records, strict=True), INPUTS_SCHEMA, strict=True)
        ],
        schema=INPUTS_SCHEMA,
    )


def _star_to_json(star: Star) -> str:
    """Return a star as JSON; NaN, which JSON does not know, becomes null."""
    return json.dumps(
        {key: None if value != value else value for key, value in asdict(star).items()}, sort_keys=True
    )


def star_from_json(text: str) -> Star:
    """Return the star that the plan recorded."""
    values = json.loads(text)
    return Star(**values | {name: math.nan for name in MAYBE_UNKNOWN if values[name] is None})


def _hash_of_inputs(table: pa.Table) -> str:
    digest = sha256()
    for record in table.to_pylist():
        digest.update(repr(tuple(record.values())).encode())
    return digest.hexdigest()


def write_inputs(plan: IngestPlan) -> None:
    """Write the inputs of a plan, one row group a shard, so that a task reads only its own."""
    with (
        replace_on_success(plan.folder / INPUTS_FILE) as temporary,
        pq.ParquetWriter(temporary, INPUTS_SCHEMA, compression="zstd") as writer,
    ):
        column = plan.inputs["shard"]
        for shard in plan.shards:
            writer.write_table(plan.inputs.filter(pa.compute.equal(column, shard)))


def read_shard_inputs(folder: Path, shard: int) -> list[dict[str, Any]]:
    """Read the inputs of one shard."""
    file = pq.ParquetFile(folder / INPUTS_FILE)
    first = int(file.read_row_group(0, columns=["shard"])["shard"][0].as_py())
    records: list[dict[str, Any]] = file.read_row_group(shard - first).to_pylist()
    return records
