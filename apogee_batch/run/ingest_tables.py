"""The tables of a store: what each shard writes of its stars and rejects, and how they are gathered."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from apogee_batch.errors import IntegrityError, RejectReason
from apogee_batch.run.archive import read_member
from apogee_batch.run.ingest_inputs import INPUTS_SCHEMA, TIMES
from apogee_batch.run.ingest_plan import IngestPlan, ingest_folders, read_ingest
from apogee_batch.run.ledger import Ledger, ShardReport, WrittenFile, find_damage
from apogee_batch.run.plan import read_plan, run_id
from apogee_batch.schema import Column, arrow_schema, reject_columns, star_columns
from apogee_batch.store.layout import StoreInfo
from apogee_batch.store.tables import REJECTS, STARS, read_table
from apogee_batch.survey.apstar import FileContent, RejectedSpectrum, Star
from apogee_batch.survey.content_hash import HashName

CONTENTS = "contents"
PARTS_FOLDER = "parts"
PLANNED = [field for field in INPUTS_SCHEMA if field.name not in TIMES]  # of a file, beside its hash


def ingest_ledger(store: Path, plan: IngestPlan) -> Ledger:
    """Return the ledger of an ingest."""
    return Ledger(plan.folder / "ledger", store, run_id(plan.values))


class _MendingLedger(Ledger):
    """A ledger whose shards can only be made again as they were."""

    def commit(self, report: ShardReport) -> None:
        """Record that a shard is whole again; refuse one that has become another."""
        before = self.entry(report.shard)
        if before is not None and before.files != report.files:
            raise IntegrityError(
                f"{self._base}: shard {report.shard} was damaged, and made again it is another one: one of "
                "its files was replaced or could not be read, or the software is another than at its ingest; "
                "mend that and give the command again"
            )
        super().commit(report)


def mending_ledger(store: Path, plan: IngestPlan) -> Ledger:
    """Return the ledger of a finished ingest whose damaged shards are made again."""
    return _MendingLedger(plan.folder / "ledger", store, run_id(plan.values))


def ingested_files(store: Path, shard: int) -> tuple[WrittenFile, ...]:
    """Return what the ingest of a shard wrote.

    Raises
    ------
    IntegrityError
        If no ledger of the store has the shard.
    """
    for folder in reversed(ingest_folders(store)):
        report = Ledger(folder / "ledger", store, run_id(read_plan(folder) or {})).entry(shard)
        if report is not None:
            return report.files
    raise IntegrityError(
        f"{store}: shard {shard} is in no ledger of it, or its entry is damaged; give the 'apogee-batch "
        "ingest' command again, which restores it"
    )


def check_spectra(info: StoreInfo, shard: int, arrays: tuple[str, ...]) -> None:
    """Check that the arrays of a shard are, byte for byte, what the ingest wrote.

    Parameters
    ----------
    info : StoreInfo
        The store.
    shard : int
        The shard.
    arrays : tuple of str
        How the paths of their files begin.

    Raises
    ------
    IntegrityError
        If a file is missing or has other bytes.
    """
    for file in ingested_files(info.path, shard):
        problem = find_damage(file, info.path) if file.path.startswith(arrays) else None
        if problem is not None:
            raise IntegrityError(
                f"{info.path / file.path}: {problem}; give the 'apogee-batch ingest' command again, which "
                "restores it, then this one"
            )


def part_path(folder: Path, name: str, shard: int) -> Path:
    """Return the file that holds a shard's rows of a table; that of a finished ingest lies in an archive."""
    return folder / PARTS_FOLDER / f"{name}-{shard:05d}.parquet"


def read_part(path: Path) -> pa.Table:
    """Read a part, be it a file or the member of an archive; raises like `store.tables.read_table`."""
    return read_table(path, None if path.is_file() else read_member(path))


def star_table(stars: Sequence[Star], rows: Sequence[int]) -> pa.Table:
    """Put what is known of the stars into the columns of the schema; unknown becomes null.

    Parameters
    ----------
    stars : sequence of Star, length n_stars
        The stars.
    rows : sequence of int, length n_stars
        Row of each in the store.
    """
    columns = {"row": pa.array(rows, pa.int64())}
    for column in star_columns():
        if column.name != "row":
            values = [getattr(star, column.name) for star in stars]
            columns[column.name] = _arrow_column(column, values)
    return pa.table(columns, schema=arrow_schema(star_columns()))


def reject_table(rejects: Sequence[RejectedSpectrum]) -> pa.Table:
    """Put rejected files into the columns of the schema."""
    columns = {}
    for column in reject_columns():
        values = [getattr(reject, column.name) for reject in rejects]
        columns[column.name] = _arrow_column(column, values)
    return pa.table(columns, schema=arrow_schema(reject_columns()))


def contents_table(
    inputs: Sequence[dict[str, Any]], contents: Sequence[FileContent], hash_name: HashName
) -> pa.Table:
    """Put the planned inputs of a shard beside the hash of what was read of each, null for nothing.

    Parameters
    ----------
    inputs : sequence of dict, length n_files
        Rows of the table of inputs.
    contents : sequence of FileContent, length n_files
        What was read.
    hash_name : {"blake3", "blake2b"}
        Algorithm of the hashes, which names their column.
    """
    columns = {field.name: [record[field.name] for record in inputs] for field in PLANNED}
    columns[hash_name] = [content.digest for content in contents]
    return pa.table(columns, schema=pa.schema([*PLANNED, (hash_name, pa.string())]))


def rejects_so_far(store: Path, plan: IngestPlan) -> pa.Table:
    """Return the rejects of the shards of an ingest that are done."""
    done = ingest_ledger(store, plan).done(check_bytes=False)
    parts = [read_part(part_path(plan.folder, REJECTS, shard)) for shard in sorted(done)]
    return pa.concat_tables([reject_table([]), *parts])


def _arrow_column(column: Column, values: Sequence[Any]) -> pa.Array:
    """Return values as Arrow; NaN and the empty text are nulls where the schema allows them."""
    if column.nullable:
        values = [None if value is None or value != value or value == "" else value for value in values]
    return pa.array(values, pa.type_for_alias(column.dtype))


def gather_tables(store: Path, *, without: Path | None = None) -> tuple[pa.Table, pa.Table]:
    """Put the parts of all ingests of a store together.

    Of spectra with one name the first row stays, and the files of the others become rejects. A file that was
    rejected and read again by a later ingest is what that one says.

    Returns
    -------
    stars, rejects : pa.Table
        The tables of the store.

    Raises
    ------
    IntegrityError
        If a shard of any ingest is not in its ledger, or the counts do not add up.
    """
    plans = [read_ingest(folder) for folder in ingest_folders(store) if folder != without]
    stars, rejects = [], []
    for i, plan in enumerate(plans):
        reports = _complete_reports(store, plan)
        found = pa.concat_tables(read_part(part_path(plan.folder, STARS, r.shard)) for r in reports)
        refused = pa.concat_tables(read_part(part_path(plan.folder, REJECTS, r.shard)) for r in reports)
        _check_counts(plan, reports, found, refused)
        read_again = {path for later in plans[i + 1 :] for path in later.inputs["path"].to_pylist()}
        is_last_word = [path not in read_again for path in refused["path"].to_pylist()]
        stars.append(found)
        rejects.append(refused.filter(pa.array(is_last_word, pa.bool_())))
    found = pa.concat_tables(stars).sort_by("row")
    if (np.diff(found["row"].to_numpy()) < 1).any():
        raise IntegrityError(f"{store}: two spectra have one row; ingest into a new store")
    kept, duplicates = _drop_duplicates(plans, found)
    return kept, pa.concat_tables([*rejects, duplicates]).combine_chunks()


def _complete_reports(store: Path, plan: IngestPlan) -> list[ShardReport]:
    """Return what the tasks of an ingest reported, one for each of its shards."""
    done = {report.shard: report for report in ingest_ledger(store, plan).entries()}
    parts = {
        shard: [file for file in report.files if "/parts/" in file.path] for shard, report in done.items()
    }
    missing = [
        shard
        for shard in plan.shards
        if shard not in done or any(find_damage(file, store) for file in parts[shard])
    ]
    if missing:
        raise IntegrityError(
            f"{store}: shards {', '.join(map(str, missing))} of ingest {plan.folder.name} are not in the "
            "ledger, or lost files; give the command of that ingest again"
        )
    return [done[shard] for shard in plan.shards]


def _check_counts(
    plan: IngestPlan, reports: Sequence[ShardReport], stars: pa.Table, rejects: pa.Table
) -> None:
    """Check that files used and files rejected are all files, and that no row was lost on the way."""
    n_used = sum(report.extra["n_used"] for report in reports)
    told = (n_used + len(rejects), len(stars), len(rejects))
    wanted = (
        len(plan.inputs),
        sum(report.n_stars for report in reports),
        sum(report.n_rejected for report in reports),
    )
    if told != wanted:
        raise IntegrityError(
            f"{plan.folder}: (files, stars, rejects) are {told} in its parts, but should be {wanted}"
        )


def _drop_duplicates(plans: Sequence[IngestPlan], stars: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Keep the first row of each name, and of each content those of the first file; reject the others."""
    files = _all_files(plans)
    row = stars["row"].to_numpy()
    file_of = np.searchsorted(files["row"].to_numpy(), row, side="right") - 1
    original_of = _first_of_same_content(files, file_of)
    is_copy = original_of != file_of
    keys = stars["apstar_id"].to_numpy(zero_copy_only=False).astype(str)
    places = np.flatnonzero(~is_copy)
    _, first, name = np.unique(keys[places], return_index=True, return_inverse=True)
    first_of_name = places[first[name]]
    is_again = np.zeros(len(keys), bool)
    is_again[places] = first_of_name != places
    if not (is_copy | is_again).any():
        return stars, reject_table([])
    original_of[places] = file_of[first_of_name]
    paths, apogee_ids = files["path"], stars["apogee_id"]
    duplicates = [
        _describe_duplicate(
            apogee_ids[i].as_py(),
            keys[i],
            paths[int(file_of[i])].as_py(),
            paths[int(original_of[i])].as_py(),
            is_copy=bool(is_copy[i]),
        )
        for i in np.flatnonzero(is_copy | is_again)
    ]
    return stars.filter(pa.array(~(is_copy | is_again))).combine_chunks(), reject_table(duplicates)


def _first_of_same_content(files: pa.Table, used: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return for each of the files that are used the first used one of the same content."""
    place, inverse = np.unique(used, return_inverse=True)
    taken = files.take(pa.array(place))
    contents = pc.binary_join_element_wise(pc.cast(taken["size"], pa.string()), taken["hash"], " ").to_numpy(
        zero_copy_only=False
    )
    _, first, content = np.unique(contents.astype(str), return_index=True, return_inverse=True)
    originals: npt.NDArray[np.int64] = place[first[content]][inverse]
    return originals


def _describe_duplicate(
    apogee_id: str, apstar_id: str, path: str, original: str, *, is_copy: bool
) -> RejectedSpectrum:
    """Tell a copy of a file from another file of the same star."""
    if is_copy:
        text = f"has the content of {original}"
        return RejectedSpectrum(path, apogee_id, RejectReason.DUPLICATE_FILE, text)
    text = f"{original} is {apstar_id} too"
    return RejectedSpectrum(path, apogee_id, RejectReason.DUPLICATE_STAR, text)


def _all_files(plans: Sequence[IngestPlan]) -> pa.Table:
    """Return path, size and content hash of the files of all ingests, in the order of their rows."""
    tables = [
        read_part(part_path(plan.folder, CONTENTS, shard)).select(["path", "size", "row", plan.hash_name])
        for plan in plans
        for shard in plan.shards
    ]
    named = [table.rename_columns(["path", "size", "row", "hash"]) for table in tables]
    return pa.concat_tables(named).sort_by("row").combine_chunks()
