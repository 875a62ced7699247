"""A store of any number of stars with spectra of real size, and a model that has a calibration.

The spectra of one shard are made up and repeated in every other; names, positions and labels are each star's
own. Nothing that is timed here depends on what the numbers are.
"""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
from stub_survey import inputs_of, labels_of, stars_of
from stub_survey import make_model as make_plain_model

from apogee_batch.files import FileDigest, write_sealed_json, write_table
from apogee_batch.labels.attach import LABELS_SCHEMA
from apogee_batch.network.calibration import CALIBRATION_FILE, Calibration, save_calibration
from apogee_batch.network.checkpoint import load_checkpoint
from apogee_batch.network.error_fit import fit_error_model
from apogee_batch.network.features import N_ACTIVATIONS
from apogee_batch.network.hull import fit_hull
from apogee_batch.network.strangeness import fit_strangeness
from apogee_batch.run.ingest_inputs import hash_of_inputs, write_inputs
from apogee_batch.run.ingest_plan import SUMMARY_FILE, IngestPlan
from apogee_batch.run.ingest_tables import ingest_ledger, part_path, reject_table
from apogee_batch.run.ledger import ShardReport, relative_digest
from apogee_batch.run.plan import write_plan
from apogee_batch.run.store_tables import ATTACHED, INGESTED, ROW_GROUP_STARS, note_tables
from apogee_batch.schema import N_LABELS, FloatArray
from apogee_batch.store.spectra import StoreInfo, create_store, write_shard
from apogee_batch.store.tables import LABELS, REJECTS, STARS, table_path
from apogee_batch.survey.pixels import N_PIXELS

GAPS = ((0, 206), (3310, 3546), (6117, 6303), (8370, N_PIXELS))
GAP_ERR = 1e10
BAD_PIXELS = 200  # beside the gaps: pixels with huge errors
TRAINING_STARS, DEV_STARS = 2400, 600


def make_spectra(n_stars: int) -> tuple[FloatArray, FloatArray]:
    """Return flux and err of some stars: lines, noise, gaps and bad pixels."""
    rng = np.random.default_rng(1)
    bright = 10 ** rng.uniform(2, 4, (n_stars, 1)).astype(np.float32)
    depth = rng.random((n_stars, N_PIXELS), np.float32)
    err = np.float32(0.01) * bright * (1 + rng.random((n_stars, N_PIXELS), np.float32))
    flux = bright * (1 - np.float32(0.5) * depth**8) + err * depth
    err[np.arange(n_stars)[:, None], rng.integers(0, N_PIXELS, (n_stars, BAD_PIXELS))] *= 1e4
    for start, stop in GAPS:
        flux[:, start:stop], err[:, start:stop] = 0, GAP_ERR
    return flux, err


def make_full_store(store: Path, n_stars: int, shard_stars: int) -> Path:
    """Make a store of whole shards as a finished ingest leaves it, with labels; keep one that is there."""
    if store.is_dir():
        return store
    if n_stars % shard_stars:
        raise SystemExit(f"{n_stars} stars: give a multiple of the stars of a shard, {shard_stars}")
    info = create_store(store, n_rows=n_stars, shard_stars=shard_stars)
    inputs = inputs_of(n_stars, shard_stars)
    values = {"kind": "ingest", "rows": "combined", "shard_stars": shard_stars, "first_row": 0}
    values |= {
        "n_inputs": n_stars,
        "n_rows": n_stars,
        "inputs_sha256": hash_of_inputs(inputs),
        "software": {},
    }
    plan = IngestPlan(store / "ingest" / "0001", inputs, values)
    write_plan(plan.folder, values)
    write_inputs(plan.folder, inputs, values)
    ledger, tables = ingest_ledger(store, plan), []
    first = _write_first(info, shard_stars)
    for shard in range(n_stars // shard_stars):
        stars = stars_of(np.arange(shard * shard_stars, (shard + 1) * shard_stars))
        part = write_table(part_path(plan.folder, STARS, shard), stars)
        written = [part, *(_repeat(file, shard) for file in first)]
        files = tuple(relative_digest(file, store) for file in written)
        ledger.commit(ShardReport(shard, len(stars), len(stars), 0, files, 1.0, "here", {}))
        tables.append(stars)
    _write_tables(store, pa.concat_tables(tables))
    write_sealed_json(plan.folder / SUMMARY_FILE, {"stars_in_store": n_stars, "rejects_by_reason": {}})
    return store


def _write_first(info: StoreInfo, shard_stars: int) -> list[FileDigest]:
    """Write the spectra of the first shard."""
    flux, err = make_spectra(shard_stars)
    mask = np.zeros(flux.shape, np.int32)
    return write_shard(info, 0, offset=np.arange(shard_stars, dtype=np.int32), flux=flux, err=err, mask=mask)


def _repeat(file: FileDigest, shard: int) -> FileDigest:
    """Copy a file of the first shard to where another shard has it."""
    path = file.path.parent.parent / str(shard) / file.path.name
    if path != file.path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.path, path)
    return dataclasses.replace(file, path=path)


def _write_tables(store: Path, stars: pa.Table) -> None:
    """Write the tables of a store whose labels are attached."""
    noted = [write_table(table_path(store, STARS), stars, row_group_size=ROW_GROUP_STARS)]
    noted.append(write_table(table_path(store, REJECTS), reject_table([])))
    note_tables(store, INGESTED, noted)
    labels = labels_of(stars).cast(LABELS_SCHEMA)
    written = write_table(table_path(store, LABELS), labels, row_group_size=ROW_GROUP_STARS)
    note_tables(store, ATTACHED, [written])


def make_model(folder: Path) -> Path:
    """Save a network that has learned nothing, with a calibration of which the same can be said."""
    make_plain_model(folder)
    if (folder / CALIBRATION_FILE).is_file():
        return folder
    rng = np.random.default_rng(2)
    snr = rng.uniform(20, 400, DEV_STARS)
    labels = np.array([2.5, 4800, -0.2]) + rng.standard_normal((TRAINING_STARS, N_LABELS)) * [1, 600, 0.3]
    sigma = np.abs(rng.standard_normal((DEV_STARS, N_LABELS))) * [0.05, 30, 0.03] + [0.02, 10, 0.01]
    features = rng.standard_normal((TRAINING_STARS + DEV_STARS, N_ACTIVATIONS), np.float32)
    calibration = Calibration(
        load_checkpoint(folder).sha256,
        settings={},
        n_stars={"payne": DEV_STARS},
        error_model=fit_error_model(sigma * rng.standard_normal(sigma.shape), sigma, snr, labels[:DEV_STARS]),
        strangeness=fit_strangeness(features[:TRAINING_STARS], features[TRAINING_STARS:], snr),
        hull=fit_hull(labels),
    )
    save_calibration(folder, calibration)
    return folder
