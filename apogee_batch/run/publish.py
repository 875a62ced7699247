"""The last stage: every part checked, one catalogue written, the manifest last of all."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from apogee_batch.catalog.export import write_fits, write_parquet
from apogee_batch.catalog.flags import mark_duplicates
from apogee_batch.catalog.parts import read_parts
from apogee_batch.errors import IntegrityError
from apogee_batch.files import write_json, write_text
from apogee_batch.network.header import CheckpointHeader
from apogee_batch.report.figures import kiel_diagram, label_comparison
from apogee_batch.report.tables import Results, results
from apogee_batch.run.infer import PARTS, part_path
from apogee_batch.run.ledger import describe_file
from apogee_batch.store.tables import REJECTS, STARS, read_table, write_table

MANIFEST_FILE = "manifest.json"
TEXT_WIDTH = 110


def publish(
    inputs: Path,
    run: Path,
    shards: Sequence[int],
    *,
    name: str,
    plan: dict[str, Any],
    model: tuple[str, CheckpointHeader],
    devices: Sequence[str],
) -> Results:
    """Write catalogue, rejects, results and figures of a finished run.

    Parameters
    ----------
    inputs, run : Path
        Folder of the star and reject tables that the run began with; the run's folder.
    shards : sequence of int
        Shards whose parts make the catalogue.
    name : str
        The run's name.
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
        If a part or a table is missing, or the rows of the parts are not the stars of the run.
    """
    sha256, header = model
    catalog = mark_duplicates(read_parts([part_path(run, shard) for shard in shards]))
    stars = read_table(inputs / f"{STARS}.parquet")
    if catalog["apstar_id"].to_pylist() != stars["apstar_id"].to_pylist():
        raise IntegrityError(
            f"{run}: its parts, with {len(catalog)} stars, do not hold the {len(stars)} stars of {inputs}; "
            f"delete {run / PARTS} and give the same command again"
        )
    metadata = catalog_metadata(name, plan, sha256)
    files = {suffix: run / "catalog" / f"catalog.{suffix}" for suffix in ("parquet", "fits")}
    write_parquet(catalog, files["parquet"], metadata=metadata, staging=run / "staging")
    write_fits(catalog, files["fits"], metadata=metadata, staging=run / "staging")
    rejects = read_table(inputs / f"{REJECTS}.parquet")
    write_table(run / "rejects.parquet", rejects)
    found = _write_report(run, catalog, header)
    written = [*files.values(), run / "rejects.parquet"]
    manifest = {
        "run_id": name,
        "stars": len(catalog),
        "rejects": len(rejects),
        "model_sha256": sha256,
        "devices": sorted(set(devices)),
        "files": [asdict(describe_file(path, run)) for path in written],
    }
    write_json(run / MANIFEST_FILE, manifest)
    return found


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


def _write_report(run: Path, catalog: pa.Table, header: CheckpointHeader) -> Results:
    """Write the tables of agreement and the pictures."""
    found = results(catalog, label_std=header.scaler.std)
    folder = run / "report"
    write_json(folder / "results.json", found.to_json())
    write_text(folder / "results.txt", found.to_text(TEXT_WIDTH))
    kiel_diagram(catalog, folder / "kiel.png")
    label_comparison(catalog, folder / "labels.png")
    return found
