"""The tables of a store: what each shard writes of its stars and rejects, and how they are gathered."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from apogee_batch.errors import IntegrityError, RejectReason
from apogee_batch.run.ingest_inputs import INPUTS_SCHEMA, TIMES
from apogee_batch.run.ingest_plan import IngestPlan, ingest_folders, read_ingest
from apogee_batch.run.ledger import Ledger, ShardReport, WrittenFile
from apogee_batch.run.plan import read_plan, run_id
from apogee_batch.schema import Column, arrow_schema, reject_columns, star_columns
from apogee_batch.store.tables import REJECTS, STARS, read_table
from apogee_batch.survey.apstar import FileContent, RejectedSpectrum, Spectrum

CONTENTS = "contents"
CONTENTS_SCHEMA = pa.schema(
    [*(field for field in INPUTS_SCHEMA if field.name not in TIMES), ("blake2b", pa.string())]
)


def ingest_ledger(store: Path, plan: IngestPlan) -> Ledger:
    """Return the ledger of an ingest."""
    return Ledger(plan.folder / "ledger", store, run_id(plan.values))


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


def part_path(folder: Path, name: str, shard: int) -> Path:
    """Return the file that holds a shard's rows of a table."""
    return folder / "parts" / f"{name}-{shard:05d}.parquet"


def star_table(spectra: Sequence[Spectrum], rows: Sequence[int]) -> pa.Table:
    """Put what is known of the stars into the columns of the schema; unknown becomes null.

    Parameters
    ----------
    spectra : sequence of Spectrum, length n_stars
        What was read.
    rows : sequence of int, length n_stars
        Row of each in the store.
    """
    columns = {"row": pa.array(rows, pa.int64())}
    for column in star_columns():
        if column.name != "row":
            values = [getattr(spectrum.star, column.name) for spectrum in spectra]
            columns[column.name] = _arrow_column(column, values)
    return pa.table(columns, schema=arrow_schema(star_columns()))


def reject_table(rejects: Sequence[RejectedSpectrum]) -> pa.Table:
    """Put rejected files into the columns of the schema."""
    columns = {}
    for column in reject_columns():
        values = [getattr(reject, column.name) for reject in rejects]
        columns[column.name] = _arrow_column(column, values)
    return pa.table(columns, schema=arrow_schema(reject_columns()))


def contents_table(inputs: Sequence[dict[str, Any]], contents: Sequence[FileContent]) -> pa.Table:
    """Put the planned inputs of a shard beside the hash of what was read of each, null for nothing.

    Parameters
    ----------
    inputs : sequence of dict, length n_files
        Rows of the table of inputs.
    contents : sequence of FileContent, length n_files
        What was read.
    """
    rows = [record | {"blake2b": content.blake2b} for record, content in zip(inputs, contents, strict=True)]
    return pa.Table.from_pylist(rows, schema=CONTENTS_SCHEMA)


def rejects_so_far(store: Path, plan: IngestPlan) -> pa.Table:
    """Return the rejects of the shards of an ingest that are done."""
    done = ingest_ledger(store, plan).done(check_bytes=False)
    parts = [read_table(part_path(plan.folder, REJECTS, shard)) for shard in sorted(done)]
    return pa.concat_tables([reject_table([]), *parts])


def _arrow_column(column: Column, values: Sequence[Any]) -> pa.Array:
    """Return values as Arrow; NaN and the empty text are nulls where the schema allows them."""
    if column.nullable:
        values = [None if value is None or value != value or value == "" else value for value in values]
    return pa.array(values, pa.type_for_alias(column.dtype))


def gather_tables(store: Path) -> tuple[pa.Table, pa.Table]:
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
    plans = [read_ingest(folder) for folder in ingest_folders(store)]
    stars, rejects = [], []
    for i, plan in enumerate(plans):
        reports = _complete_reports(store, plan)
        found = pa.concat_tables(read_table(part_path(plan.folder, STARS, r.shard)) for r in reports)
        refused = pa.concat_tables(read_table(part_path(plan.folder, REJECTS, r.shard)) for r in reports)
        _check_counts(plan, reports, found, refused)
        read_again = {path for later in plans[i + 1 :] for path in later.inputs["path"].to_pylist()}
        is_last_word = [path not in read_again for path in refused["path"].to_pylist()]
        stars.append(found)
        rejects.append(refused.filter(pa.array(is_last_word, pa.bool_())))
    kept, duplicates = _drop_duplicates(plans, pa.concat_tables(stars).sort_by("row"))
    return kept, pa.concat_tables([*rejects, duplicates]).combine_chunks()


def _complete_reports(store: Path, plan: IngestPlan) -> list[ShardReport]:
    """Return what the tasks of an ingest reported, one for each of its shards."""
    done = ingest_ledger(store, plan).done(check_bytes=False)
    missing = [shard for shard in plan.shards if shard not in done]
    if missing:
        raise IntegrityError(
            f"{store}: shards {missing} of ingest {plan.folder.name} are not in the ledger, or lost files; "
            "give the command of that ingest again"
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
    """Keep the first row of each name; return the files of the others as rejects."""
    keys = stars["apstar_id"].to_numpy(zero_copy_only=False).astype(str)
    is_first = np.zeros(len(keys), bool)
    _, first, name = np.unique(keys, return_index=True, return_inverse=True)
    is_first[first] = True
    again = np.flatnonzero(~is_first)
    if len(again) == 0:
        return stars, reject_table([])
    row = stars["row"].to_numpy()
    copies = _files_of_rows(plans, row[again])
    originals = _files_of_rows(plans, row[first[name[again]]])
    apogee_ids = stars["apogee_id"].take(pa.array(again)).to_pylist()
    duplicates = [
        _describe_duplicate(apogee_id, str(keys[i]), copy, original)
        for i, apogee_id, copy, original in zip(again, apogee_ids, copies, originals, strict=True)
    ]
    return stars.filter(pa.array(is_first)).combine_chunks(), reject_table(duplicates)


def _describe_duplicate(
    apogee_id: str, apstar_id: str, copy: dict[str, Any], original: dict[str, Any]
) -> RejectedSpectrum:
    """Tell a copy of a file from another file of the same star."""
    same = (copy["size"], copy["blake2b"]) == (original["size"], original["blake2b"])
    if same and copy["path"] != original["path"]:
        reason, text = RejectReason.DUPLICATE_FILE, f"has the content of {original['path']}"
    else:
        reason, text = RejectReason.DUPLICATE_STAR, f"{original['path']} is {apstar_id} too"
    return RejectedSpectrum(copy["path"], apogee_id, reason, text)


def _files_of_rows(plans: Sequence[IngestPlan], rows: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return path, size and content hash of the file that each row was read from."""
    columns = ["path", "size", "row", "blake2b"]
    tables = [
        pq.read_table(part_path(plan.folder, CONTENTS, shard), columns=columns)
        for plan in plans
        for shard in plan.shards
    ]
    files = pa.concat_tables(tables).sort_by("row")
    places = np.searchsorted(files["row"].to_numpy(), rows, side="right") - 1
    found: list[dict[str, Any]] = files.take(pa.array(places)).to_pylist()
    return found
