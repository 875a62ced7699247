"""The last stage: every part checked, one catalogue written, the manifest last of all."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from apogee_batch.catalog.export import write_fits, write_parquet
from apogee_batch.catalog.merge import merge_parts, sky_positions
from apogee_batch.catalog.rows import CatalogRows, read_pieces
from apogee_batch.catalog.sky_order import ORDER_WORDS, in_sky_order
from apogee_batch.errors import IntegrityError
from apogee_batch.files import (
    FileDigest,
    sha256_of_file,
    write_json,
    write_sealed_json,
    write_table,
    write_text,
)
from apogee_batch.network.header import CheckpointHeader
from apogee_batch.network.model_files import Identity
from apogee_batch.report.labelled import AGREEMENT_COLUMNS, VALIDATION_COLUMNS, gather_labelled
from apogee_batch.report.validation import Origin, Validation, validate
from apogee_batch.report.validation_text import validation_text
from apogee_batch.run.killed_stars import killed_stars
from apogee_batch.run.ledger import ShardReport, relative_digest
from apogee_batch.run.plan import run_id
from apogee_batch.run.published import Published, origin_of, read_published
from apogee_batch.run.run_folder import (
    CATALOG_FILE,
    FITS_FILE,
    INPUTS,
    MANIFEST_FILE,
    PARTS,
    RESULTS_FILE,
    STAGING,
    part_path,
)
from apogee_batch.run.table_reading import count_rows, each_name
from apogee_batch.store.tables import REJECTS, STARS, read_table

TEXT_WIDTH = 110
VALIDATION_WIDTH = 100


def publish(
    run: Path,
    reports: Mapping[int, ShardReport],
    *,
    plan: dict[str, Any],
    model: tuple[Identity, CheckpointHeader],
    devices: Sequence[str],
) -> Published:
    """Write catalogue, rejects, results and figures of a finished run; the manifest last.

    A run that was published from the same parts, and whose files are all whole, stays as it is.

    Parameters
    ----------
    run : Path
        The run's folder.
    reports : mapping of int to ShardReport
        The shards of the ledger whose parts have the bytes that were recorded.
    plan : dict
        The run's plan.
    model : tuple of Identity and CheckpointHeader
        Hashes of the model and its calibration that were used; the model's header.
    devices : sequence of str
        What the parts were computed on, each kind named once or more.

    Raises
    ------
    IntegrityError
        If a shard or a table is missing or damaged, or the rows of the parts and the stars that ended their
        workers are not the stars of the run.
    """
    identity, header = model
    paths = _part_paths(run, reports, plan["shards"])
    published = read_published(run, reports, plan=plan, model=identity, devices=devices)
    if published is not None:
        return published
    rows = merge_parts(paths)
    _check_stars(run, paths, rows.summary.n_rows, sum(report.n_rejected for report in reports.values()))
    rejects = [read_table(run / INPUTS / f"{REJECTS}.parquet"), killed_stars(run, list(reports.values()))]
    metadata = catalog_metadata(run_id(plan), plan, identity)
    with in_sky_order(rows, sky_positions(paths), staging=run / STAGING) as ordered:
        written = _write_tables(run, ordered, pa.concat_tables(rejects), metadata)
    labelled = gather_labelled(read_pieces(run / CATALOG_FILE, VALIDATION_COLUMNS))
    found = validate(labelled, label_std=header.scaler.std, origin=Origin(run_id(plan), *identity))
    del labelled  # what the pictures need comes in pieces
    written += _write_report(run, found)
    published = Published(rows.summary.n_rows, sum(map(len, rejects)), found.results)
    files = [asdict(relative_digest(file, run)) for file in written]
    counts = {"stars": published.n_stars, "rejects": published.n_rejects}
    made_of = origin_of(reports, plan=plan, model=identity, devices=devices)
    write_sealed_json(run / MANIFEST_FILE, made_of | counts | {"files": files})
    return published


def _part_paths(run: Path, reports: Mapping[int, ShardReport], shards: Sequence[int]) -> list[Path]:
    """Return the parts; every one must be there before any is read."""
    if missing := [shard for shard in shards if shard not in reports]:
        names = ", ".join(str(part_path(run, shard)) for shard in missing)
        raise IntegrityError(
            f"{len(missing)} parts are missing or damaged: {names}; give the same command again"
        )
    return [part_path(run, shard) for shard in shards]


def _check_stars(run: Path, paths: Sequence[Path], n_rows: int, n_killed: int) -> None:
    """Check that every star of the run is a row of a part, or was left out and told; in the store's order."""
    table = run / INPUTS / f"{STARS}.parquet"
    n_stars, stars = count_rows(table), each_name(table)
    is_in_order = all(name in stars for path in paths for name in each_name(path))  # takes from `stars`
    if not is_in_order or n_rows + n_killed != n_stars:
        raise IntegrityError(
            f"{run}: its parts, with {n_rows} stars, do not hold the {n_stars} stars of "
            f"{run / INPUTS}; delete {run / PARTS} and give the same command again"
        )


def catalog_metadata(name: str, plan: dict[str, Any], model: Identity) -> dict[str, str]:
    """Return what the catalogue files say of their origin: nothing that changes with time or cluster."""
    return {
        "run_id": name,
        "model_sha256": model.model_sha256,
        "calibration_sha256": model.calibration_sha256 or "none",
        "seed": str(plan["seed"]),
        "n_realizations": str(plan["realizations"]),
        "err_cap": str(plan["err_cap"]),
        "noise": str(plan["noise"]),
        "precision": str(plan["precision"]),
        "sorted_by": ORDER_WORDS,
        "software": f"apogee-batch {plan['software']['apogee-batch']}",
        "reference": "Olney et al. 2020, AJ 159, 182",
    }


def _write_tables(
    run: Path, rows: CatalogRows, rejects: pa.Table, metadata: Mapping[str, str]
) -> list[FileDigest]:
    """Write the catalogue in its formats, and the rejects."""
    return [
        write_parquet(rows, run / CATALOG_FILE, metadata=metadata, staging=run / STAGING),
        write_fits(rows, run / FITS_FILE, metadata=metadata, staging=run / STAGING),
        write_table(run / "rejects.parquet", rejects),
    ]


def _write_report(run: Path, found: Validation) -> list[FileDigest]:
    """Write the tables of agreement, the validation and the pictures."""
    from apogee_batch.report.figures import kiel_diagram, label_comparison  # half a second of matplotlib

    folder = run / "report"
    pictures = {folder / "kiel.png": kiel_diagram, folder / "labels.png": label_comparison}
    for path, draw in pictures.items():
        draw(read_pieces(run / CATALOG_FILE, AGREEMENT_COLUMNS), path)
    return [
        write_json(run / RESULTS_FILE, found.results.to_json()),
        write_text(folder / "results.txt", found.results.to_text(TEXT_WIDTH)),
        write_json(folder / "validation.json", found.to_json()),
        write_text(folder / "validation.txt", validation_text(found, VALIDATION_WIDTH)),
        *(FileDigest(path, path.stat().st_size, sha256_of_file(path)) for path in pictures),
    ]
