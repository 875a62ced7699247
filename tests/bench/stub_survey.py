"""A store and a model of any number of stars without their spectra, for what only counts stars."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from apogee_batch.files import write_sealed_json, write_table
from apogee_batch.labels.attach import LABELS_SCHEMA
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.official import import_official
from apogee_batch.run.ingest_inputs import INPUTS_SCHEMA, hash_of_inputs, write_inputs
from apogee_batch.run.ingest_plan import SUMMARY_FILE, IngestPlan
from apogee_batch.run.ingest_tables import ingest_ledger, part_path, reject_table
from apogee_batch.run.ledger import ShardReport, relative_digest
from apogee_batch.run.plan import write_plan
from apogee_batch.run.store_tables import ATTACHED, INGESTED, ROW_GROUP_STARS, note_tables
from apogee_batch.schema import arrow_schema, star_columns
from apogee_batch.store.spectra import create_store
from apogee_batch.store.tables import LABELS, REJECTS, STARS, table_path

FIELD_STARS = 256
LABELLED = 0.87  # of the stars, as in the paper's survey
VISITED_TWICE = 50  # one star in so many has a second apStar file


def make_model(folder: Path) -> Path:
    """Save a network that has learned nothing."""
    if not folder.is_dir():
        torch.manual_seed(1)
        file = folder.with_suffix(".pt")
        torch.save(SpectrumNet().state_dict(), file)
        import_official(file, folder)
    return folder


def make_store(store: Path, n_stars: int, shard_stars: int) -> Path:
    """Make a store whose one ingest is finished and whose labels are attached; it holds no spectrum."""
    create_store(store, n_rows=n_stars, shard_stars=shard_stars)
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
    for shard in range(-(-n_stars // shard_stars)):
        stars = stars_of(np.arange(shard * shard_stars, min((shard + 1) * shard_stars, n_stars)))
        written = write_table(part_path(plan.folder, STARS, shard), stars)
        files = (relative_digest(written, store),)
        ledger.commit(ShardReport(shard, len(stars), len(stars), 0, files, 1.0, "here", {}))
        tables.append(stars)
    gathered = pa.concat_tables(tables)
    noted = [write_table(table_path(store, STARS), gathered, row_group_size=ROW_GROUP_STARS)]
    noted.append(write_table(table_path(store, REJECTS), reject_table([])))
    note_tables(store, INGESTED, noted)
    labels = write_table(table_path(store, LABELS), labels_of(gathered), row_group_size=ROW_GROUP_STARS)
    note_tables(store, ATTACHED, [labels])
    write_sealed_json(plan.folder / SUMMARY_FILE, {"stars_in_store": n_stars, "rejects_by_reason": {}})
    return store


def inputs_of(n_stars: int, shard_stars: int) -> pa.Table:
    """Return the inputs of an ingest of one file a star."""
    row = np.arange(n_stars)
    name = texts(
        "/survey/redux/r8/stars/apo25m/{:04d}/apStar-r8-2M{:08d}+{:07d}.fits", row // 256, row, row % 7
    )
    columns = {"path": name, "size": np.full(n_stars, 735_840), "shard": row // shard_stars, "row": row}
    columns |= {"n_rows": np.ones(n_stars, np.int64), "known": pa.nulls(n_stars, pa.string())}
    columns |= {"mtime_ns": np.full(n_stars, 1), "ctime_ns": np.full(n_stars, 1)}
    return pa.table(columns, schema=INPUTS_SCHEMA)


def stars_of(row: npt.NDArray[np.int64]) -> pa.Table:
    """Return the rows of the star table at these places; the same for each call."""
    random = np.random.default_rng(int(row[0]) if len(row) else 0)
    star = np.where(row % VISITED_TWICE == 1, row - 1, row)  # of another field, as the one before it

    def numbers(low: float, high: float, digits: int) -> npt.NDArray[np.float64]:
        return np.round(random.uniform(low, high, len(row)), digits)

    columns = {
        "row": row,
        "apstar_id": texts(
            "apogee.apo25m.s{}.stars.{:04d}.2M{:08d}+{:07d}", row - star, row // FIELD_STARS, star, star % 7
        ),
        "apogee_id": texts("2M{:08d}+{:07d}", star, star % 7),
        "telescope": ["apo25m"] * len(row),
        "field": texts("{:04d}", row // FIELD_STARS),
        "location_id": row // FIELD_STARS,
        "ra": numbers(0, 360, 4),
        "dec": numbers(-30, 80, 4),
        **{name: numbers(7, 14, 2) for name in ("j", "h", "k")},
        "snr": numbers(10, 400, 1),
        "snr_header": numbers(10, 400, 1),
        "n_visits": random.integers(1, 5, len(row)),
        "visit": np.zeros(len(row), np.int64),
        "starflag": np.where(random.random(len(row)) < 0.1, 512, 0),
        "release": ["r8"] * len(row),
        "n_bad_pixels": random.integers(763, 911, len(row)),
        "file": texts("apStar-r8-2M{:08d}+{:07d}.fits", star, star % 7),
    }
    schema = arrow_schema(star_columns())
    return pa.table({field.name: pa.array(columns[field.name]).cast(field.type) for field in schema}).cast(
        schema
    )


def labels_of(stars: pa.Table) -> pa.Table:
    """Return labels of most of the stars."""
    random = np.random.default_rng(0)
    chosen = np.flatnonzero(random.random(len(stars)) < LABELLED)
    labelled = stars.select(["row", "apstar_id", "apogee_id"]).take(pa.array(chosen))
    columns = {name: labelled[name] for name in labelled.schema.names}
    columns["data_type"] = pa.array(
        random.choice(["payne", "mstar", "yso"], len(chosen), p=[0.97, 0.02, 0.01])
    )
    columns["data_set"] = pa.array(random.choice(["train", "dev", "test"], len(chosen), p=[0.8, 0.1, 0.1]))
    columns["logg"] = pa.array(np.round(random.uniform(0, 5, len(chosen)), 2))
    columns["teff"] = pa.array(np.round(random.uniform(3000, 6500, len(chosen)), 1))
    columns["fe_h"] = pa.array(np.round(random.uniform(-1, 0.5, len(chosen)), 2))
    return pa.table(columns, schema=LABELS_SCHEMA)


def texts(pattern: str, *columns: npt.NDArray[np.int64]) -> pa.Array:
    """Return a text for each row of some columns of numbers."""
    return pa.array(map(pattern.format, *(column.tolist() for column in columns)), pa.string())
