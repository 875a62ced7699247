"""The ingest stage: apStar files in, whole shards of the store out."""

import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.errors import IntegrityError, RejectReason, TooManyBadInputsError
from apogee_batch.files import write_json
from apogee_batch.run.clusters import Workers
from apogee_batch.run.ingest_plan import (
    INPUTS_FILE,
    SUMMARY_FILE,
    IngestPlan,
    ingest_folders,
    read_shard_inputs,
    star_from_json,
    write_inputs,
)
from apogee_batch.run.ledger import Ledger, ShardReport, describe_file
from apogee_batch.run.plan import run_id, settle_plan
from apogee_batch.run.progress import ProgressView
from apogee_batch.run.stages import run_shards
from apogee_batch.schema import Column, arrow_schema, reject_columns, star_columns
from apogee_batch.store.spectra import create_store, extend_store, open_store, write_shard
from apogee_batch.store.tables import REJECTS, STARS, read_table, table_path, write_table
from apogee_batch.survey.apstar import RejectedSpectrum, Rows, Spectrum, read_apstar
from apogee_batch.survey.pixels import N_PIXELS

SNR_TOLERANCE = 0.01


@dataclass(frozen=True)
class IngestSummary:
    """What an ingest did.

    Attributes
    ----------
    counts : dict
        Inputs, stars, rejects by reason and so on, as JSON values.
    """

    counts: dict[str, Any]


def run_ingest(
    store: Path,
    plan: IngestPlan,
    workers: Workers,
    progress: ProgressView,
    *,
    survey_counts: dict[str, int] | None = None,
) -> IngestSummary:
    """Carry out an ingest plan, going on where an earlier attempt stopped.

    Parameters
    ----------
    store : Path
        Folder of the store; made when it does not exist.
    plan : IngestPlan
        From `plan_ingest`.
    workers : Workers
        Where shards are read.
    progress : ProgressView
        What the user sees.
    survey_counts : dict, optional
        What the comparison with the survey's summary counted; kept in the summary.

    Raises
    ------
    IntegrityError
        If the counts do not add up.
    TooManyBadInputsError
        If no file gave a spectrum.
    """
    if not (store / "zarr.json").is_file():
        create_store(store, n_rows=plan.n_rows, shard_stars=plan.shard_stars)
    settle_plan(plan.folder, plan.values)
    write_inputs(plan)
    extend_store(store, n_rows=plan.n_rows)
    ledger = ingest_ledger(store, plan)
    done = ledger.done()
    todo = [shard for shard in plan.shards if shard not in done]
    n_before = sum(report.n_inputs for report in done.values())
    progress.start("ingest", len(plan.inputs), "files", done=n_before)
    task = partial(ingest_shard, str(store), plan.folder.name, plan.values["rows"])
    run_shards(workers, task, todo, ledger, progress)
    progress.finish()
    return _finish(store, plan, ledger, survey_counts)


def ingest_ledger(store: Path, plan: IngestPlan) -> Ledger:
    """Return the ledger of an ingest."""
    return Ledger(plan.folder / "ledger", store, run_id(plan.values))


def ingest_shard(store: str, ingest: str, rows: Rows, shard: int) -> ShardReport:
    """Read the files of one shard and write its rows: a task.

    Parameters
    ----------
    store, ingest : str
        Path of the store; name of the ingest's folder in it.
    rows : {"combined", "visits"}
        What becomes a row.
    shard : int
        The shard.
    """
    started = time.monotonic()
    base, folder = Path(store), Path(store) / "ingest" / ingest
    info = open_store(base)
    inputs = read_shard_inputs(folder, shard)
    spectra, numbers, rejects = _read_files(inputs, rows)
    offset = np.array(numbers, np.int64) - info.shard_rows(shard)[0]
    files = write_shard(
        info,
        shard,
        offset=offset.astype(np.int32),
        flux=np.stack([s.flux for s in spectra]) if spectra else np.empty((0, N_PIXELS), np.float32),
        err=np.stack([s.err for s in spectra]) if spectra else np.empty((0, N_PIXELS), np.float32),
        mask=np.stack([s.mask for s in spectra]) if spectra else np.empty((0, N_PIXELS), np.int32),
    )
    tables = {"stars": _star_table(spectra, numbers), "rejects": _reject_table(rejects)}
    for name, table in tables.items():
        path = folder / "parts" / f"{name}-{shard:05d}.parquet"
        write_table(path, table)
        files.append(path)
    return ShardReport(
        shard=shard,
        n_inputs=len(inputs),
        n_stars=len(spectra),
        n_rejected=len(rejects),
        files=tuple(describe_file(path, base) for path in files),
        seconds=time.monotonic() - started,
        host=socket.gethostname(),
        extra={"n_used": len(inputs) - len(rejects)},
    )


def _read_files(
    inputs: Sequence[dict[str, Any]], rows: Rows
) -> tuple[list[Spectrum], list[int], list[RejectedSpectrum]]:
    """Read every file; one that cannot be used costs its own rows only."""
    spectra: list[Spectrum] = []
    numbers: list[int] = []
    rejects: list[RejectedSpectrum] = []
    for record in inputs:
        known = None if record["known"] is None else star_from_json(record["known"])
        read = read_apstar(Path(record["path"]), rows=rows, known=known)
        if isinstance(read, list) and len(read) > record["n_rows"]:
            text = f"has {len(read)} spectra, had {record['n_rows']} when the ingest was planned"
            read = RejectedSpectrum(record["path"], read[0].star.apogee_id, RejectReason.BAD_SHAPE, text)
        if isinstance(read, RejectedSpectrum):
            rejects.append(read)
            continue
        spectra += read
        numbers += range(record["row"], record["row"] + len(read))
    return spectra, numbers, rejects


def _star_table(spectra: Sequence[Spectrum], rows: Sequence[int]) -> pa.Table:
    """Put what is known of the stars into the columns of the schema; unknown becomes null."""
    names = {field.name for field in fields(spectra[0].star)} if spectra else set()
    columns = {}
    for column in star_columns():
        values = rows if column.name == "row" else [getattr(s.star, column.name) for s in spectra]
        assert not spectra or column.name == "row" or column.name in names
        columns[column.name] = _arrow_column(column, values)
    return pa.table(columns, schema=arrow_schema(star_columns()))


def _arrow_column(column: Column, values: Sequence[Any]) -> pa.Array:
    """Return values as Arrow; NaN and the empty text are nulls where the schema allows them."""
    if column.nullable:
        values = [None if value is None or value != value or value == "" else value for value in values]
    return pa.array(values, pa.type_for_alias(column.dtype))


def _reject_table(rejects: Sequence[RejectedSpectrum]) -> pa.Table:
    columns = {
        column.name: _arrow_column(column, [_plain(getattr(reject, column.name)) for reject in rejects])
        for column in reject_columns()
    }
    return pa.table(columns, schema=arrow_schema(reject_columns()))


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, RejectReason) else value


def _finish(
    store: Path, plan: IngestPlan, ledger: Ledger, survey_counts: dict[str, int] | None
) -> IngestSummary:
    """Check that every input is accounted for, then write the tables and, last, the summary."""
    done = ledger.done(check_bytes=False)
    missing = [shard for shard in plan.shards if shard not in done]
    if missing:
        raise IntegrityError(f"{store}: shards {missing} are not in the ledger; run the same command again")
    n_accounted = sum(report.extra["n_used"] + report.n_rejected for report in done.values())
    if n_accounted != len(plan.inputs):
        raise IntegrityError(f"{store}: {n_accounted} of {len(plan.inputs)} files are accounted for")
    stars, rejects = _collect(store, plan)
    write_table(table_path(store, STARS), stars)
    write_table(table_path(store, REJECTS), rejects)
    counts = _count(plan, stars, rejects, survey_counts)
    write_json(plan.folder / SUMMARY_FILE, counts)
    if counts["stars_in_store"] == 0:
        first = rejects.slice(0, 1).to_pylist()[0]
        reasons = ", ".join(f"{n} {reason}" for reason, n in counts["rejects_by_reason"].items())
        raise TooManyBadInputsError(
            f"none of the {counts['inputs']} files could be used ({reasons}); the first is {first['path']}: "
            f"{first['text']}; all of them stand in {table_path(store, REJECTS)}"
        )
    return IngestSummary(counts)


def _collect(store: Path, plan: IngestPlan) -> tuple[pa.Table, pa.Table]:
    """Gather the parts of all ingests; of spectra with one name the first row stays."""
    folders = sorted({*ingest_folders(store), plan.folder})
    stars, rejects = (
        pa.concat_tables(
            read_table(path) for folder in folders for path in sorted(folder.glob(f"parts/{name}-*.parquet"))
        )
        for name in (STARS, REJECTS)
    )
    stars = stars.sort_by("row")
    keys = stars["apstar_id"].to_numpy(zero_copy_only=False).astype(str)
    is_first = np.zeros(len(keys), bool)
    is_first[np.unique(keys, return_index=True)[1]] = True
    again = stars.filter(pa.array(~is_first)).to_pylist()
    path_of_row = _paths_of_rows(folders, [star["row"] for star in again])
    duplicates = [
        RejectedSpectrum(
            path,
            star["apogee_id"],
            RejectReason.DUPLICATE_STAR,
            f"a file read before is {star['apstar_id']} too",
        )
        for star, path in zip(again, path_of_row, strict=True)
    ]
    return (
        stars.filter(pa.array(is_first)).combine_chunks(),
        pa.concat_tables([rejects, _reject_table(duplicates)]).combine_chunks(),
    )


def _paths_of_rows(folders: Sequence[Path], rows: Sequence[int]) -> list[str]:
    """Return the file that each row was read from."""
    if not rows:
        return []
    inputs = pa.concat_tables(read_table(folder / INPUTS_FILE) for folder in folders)
    first_rows = inputs["row"].to_numpy()
    return [inputs["path"][int(np.searchsorted(first_rows, row, side="right")) - 1].as_py() for row in rows]


def _count(
    plan: IngestPlan, stars: pa.Table, rejects: pa.Table, survey_counts: dict[str, int] | None
) -> dict[str, Any]:
    reasons = Counter(rejects["reason"].to_pylist())
    header, measured = stars["snr_header"].to_numpy(), stars["snr"].to_numpy()
    known = np.isfinite(header) & np.isfinite(measured)
    differs = np.abs(measured[known] - header[known]) > SNR_TOLERANCE * np.abs(header[known])
    counts: dict[str, Any] = {
        "inputs": len(plan.inputs),
        "stars_in_store": len(stars),
        "rejects_in_store": len(rejects),
        "rejects_by_reason": dict(sorted(reasons.items())),
        "snr_checked": int(known.sum()),
        "snr_differs": int(differs.sum()),
    }
    return counts | ({"survey": survey_counts} if survey_counts else {})
