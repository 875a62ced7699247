"""The tables of a store: what each shard writes of its stars and rejects, and how they are gathered."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.errors import IntegrityError, RejectReason
from apogee_batch.run.ingest_plan import IngestPlan, ingest_folders, read_ingest
from apogee_batch.run.ledger import Ledger, ShardReport
from apogee_batch.run.plan import run_id
from apogee_batch.schema import Column, arrow_schema, reject_columns, star_columns
from apogee_batch.store.tables import REJECTS, STARS, read_table
from apogee_batch.survey.apstar import RejectedSpectrum, Spectrum


def ingest_ledger(store: Path, plan: IngestPlan) -> Ledger:
    """Return the ledger of an ingest."""
    return Ledger(plan.folder / "ledger", store, run_id(plan.values))


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
    is_first[np.unique(keys, return_index=True)[1]] = True
    again = stars.filter(pa.array(~is_first)).to_pylist()
    duplicates = [
        RejectedSpectrum(
            path,
            star["apogee_id"],
            RejectReason.DUPLICATE_STAR,
            f"a file read before is {star['apstar_id']} too",
        )
        for star, path in zip(again, _paths_of_rows(plans, [star["row"] for star in again]), strict=True)
    ]
    return stars.filter(pa.array(is_first)).combine_chunks(), reject_table(duplicates)


def _paths_of_rows(plans: Sequence[IngestPlan], rows: Sequence[int]) -> list[str]:
    """Return the file that each row was read from."""
    if not rows:
        return []
    inputs = pa.concat_tables(plan.inputs for plan in plans)
    first_rows = inputs["row"].to_numpy()
    return [inputs["path"][int(np.searchsorted(first_rows, row, side="right")) - 1].as_py() for row in rows]
