"""The last stage: every part checked, one catalogue written, the manifest last of all."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from apogee_batch.catalog.export import write_fits, write_parquet
from apogee_batch.catalog.flags import mark_duplicates
from apogee_batch.catalog.parts import read_parts
from apogee_batch.errors import IntegrityError, RejectReason
from apogee_batch.files import (
    FileDigest,
    sha256_of_file,
    write_json,
    write_sealed_json,
    write_table,
    write_text,
)
from apogee_batch.network.header import CheckpointHeader
from apogee_batch.report.figures import kiel_diagram, label_comparison
from apogee_batch.report.tables import Results, results
from apogee_batch.run.infer import INPUTS, KILLED, PARTS, STAGING, part_path
from apogee_batch.run.ingest_tables import reject_table
from apogee_batch.run.ledger import ShardReport, relative_digest
from apogee_batch.run.plan import run_id
from apogee_batch.store.tables import REJECTS, STARS, read_table
from apogee_batch.survey.apstar import RejectedSpectrum

MANIFEST_FILE = "manifest.json"
TEXT_WIDTH = 110


def publish(
    run: Path,
    reports: Mapping[int, ShardReport],
    *,
    plan: dict[str, Any],
    model: tuple[str, CheckpointHeader],
    devices: Sequence[str],
) -> Results:
    """Write catalogue, rejects, results and figures of a finished run; the manifest last.

    Parameters
    ----------
    run : Path
        The run's folder.
    reports : mapping of int to ShardReport
        The shards of the ledger whose parts have the bytes that were recorded.
    plan : dict
        The run's plan.
    model : tuple of str and CheckpointHeader
        SHA-256 and header of the model that was used.
    devices : sequence of str
        What the parts were computed on, each kind named once or more.

    Returns
    -------
    Results
        Agreement with the labels.

    Raises
    ------
    IntegrityError
        If a shard or a table is missing or damaged, or the rows of the parts and the stars that ended their
        workers are not the stars of the run.
    """
    sha256, header = model
    catalog = mark_duplicates(_read_all_parts(run, reports, plan["shards"]))
    killed = killed_stars(run, list(reports.values()))
    _check_stars(run, catalog, sum(report.n_rejected for report in reports.values()))
    metadata = catalog_metadata(run_id(plan), plan, sha256)
    files = {suffix: run / "catalog" / f"catalog.{suffix}" for suffix in ("parquet", "fits")}
    rejects = pa.concat_tables([read_table(run / INPUTS / f"{REJECTS}.parquet"), killed])
    written = [
        write_parquet(catalog, files["parquet"], metadata=metadata, staging=run / STAGING),
        write_fits(catalog, files["fits"], metadata=metadata, staging=run / STAGING),
        write_table(run / "rejects.parquet", rejects),
    ]
    found, report = _write_report(run, catalog, header)
    manifest = {
        "run_id": run_id(plan),
        "stars": len(catalog),
        "rejects": len(rejects),
        "model_sha256": sha256,
        "devices": sorted(set(devices)),
        "files": [asdict(relative_digest(file, run)) for file in [*written, *report]],
    }
    write_sealed_json(run / MANIFEST_FILE, manifest)
    return found


def _read_all_parts(run: Path, reports: Mapping[int, ShardReport], shards: Sequence[int]) -> pa.Table:
    """Read the parts; every one must be there before any is read."""
    if missing := [shard for shard in shards if shard not in reports]:
        names = ", ".join(str(part_path(run, shard)) for shard in missing)
        raise IntegrityError(
            f"{len(missing)} parts are missing or damaged: {names}; give the same command again"
        )
    return read_parts([part_path(run, shard) for shard in shards])


def _check_stars(run: Path, catalog: pa.Table, n_killed: int) -> None:
    """Check that every star of the run is a row, or was left out and told; in the order of the store."""
    stars = read_table(run / INPUTS / f"{STARS}.parquet")["apstar_id"].to_pylist()
    rows = catalog["apstar_id"].to_pylist()
    held = set(rows)
    if rows != [name for name in stars if name in held] or len(rows) + n_killed != len(stars):
        raise IntegrityError(
            f"{run}: its parts, with {len(catalog)} stars, do not hold the {len(stars)} stars of "
            f"{run / INPUTS}; delete {run / PARTS} and give the same command again"
        )


def killed_stars(run: Path, reports: Sequence[ShardReport]) -> pa.Table:
    """Return the stars that ended their workers, as rejects."""
    names = [name for report in reports for name in report.extra.get(KILLED, [])]
    if not names:
        return reject_table([])
    stars = read_table(run / INPUTS / f"{STARS}.parquet")
    text = (
        "each worker that estimated its labels was lost, as by a crash in native code or for want of memory"
    )
    return reject_table(
        [
            RejectedSpectrum(star["file"], star["apogee_id"], RejectReason.WORKER_KILLED, text)
            for star in stars.filter(pc.is_in(stars["apstar_id"], pa.array(names))).to_pylist()
        ]
    )


def catalog_metadata(name: str, plan: dict[str, Any], model_sha256: str) -> dict[str, str]:
    """Return what the catalogue files say of their origin: nothing that changes with time or cluster."""
    return {
        "run_id": name,
        "model_sha256": model_sha256,
        "seed": str(plan["seed"]),
        "n_realizations": str(plan["realizations"]),
        "err_cap": str(plan["err_cap"]),
        "software": f"apogee-batch {plan['software']['apogee-batch']}",
        "reference": "Olney et al. 2020, AJ 159, 182",
    }


def _write_report(run: Path, catalog: pa.Table, header: CheckpointHeader) -> tuple[Results, list[FileDigest]]:
    """Write the tables of agreement and the pictures."""
    found = results(catalog, label_std=header.scaler.std)
    folder = run / "report"
    pictures = [folder / "kiel.png", folder / "labels.png"]
    kiel_diagram(catalog, pictures[0])
    label_comparison(catalog, pictures[1])
    return found, [
        write_json(folder / "results.json", found.to_json()),
        write_text(folder / "results.txt", found.to_text(TEXT_WIDTH)),
        *(FileDigest(path, path.stat().st_size, sha256_of_file(path)) for path in pictures),
    ]
