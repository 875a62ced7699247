"""Whether everything in a store is as it was written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.labels.attach import LABELS_SCHEMA, UNMATCHED_SCHEMA
from apogee_batch.run.archive import archive_path, is_kept, is_there, is_torn
from apogee_batch.run.damage import MISSING, TORN, Damage, Findings, is_leftover
from apogee_batch.run.ingest_inputs import INPUTS_FILE, read_inputs
from apogee_batch.run.ingest_mend import INPUTS_NOTE
from apogee_batch.run.ingest_plan import FOLDER_NAMES, SUMMARY_FILE
from apogee_batch.run.ingest_tables import CONTENTS, PARTS_FOLDER, gather_tables, part_path
from apogee_batch.run.ledger import Ledger, WrittenFile
from apogee_batch.run.plan import LEDGER_FOLDER, PLAN_FILE, read_plan, run_id
from apogee_batch.run.store_tables import (
    ATTACHED,
    INGESTED,
    REMEDIES,
    TABLES,
    digest_path,
    find_table_damage,
)
from apogee_batch.run.survey_match import SURVEY_FILE
from apogee_batch.schema import DATA_SETS, DATA_TYPES, arrow_schema, reject_columns, star_columns
from apogee_batch.store.metadata import find_metadata_damage
from apogee_batch.store.spectra import STAR_ARRAYS, open_store, shard_files
from apogee_batch.store.tables import LABELS, REJECTS, STARS, UNMATCHED, read_table, table_path

INGEST_AGAIN = "any 'apogee-batch ingest' command of this store restores it"
NOTHING_NEEDED_IT = "it is for people only, nothing reads it; delete it"
DELETE = "delete it"
SCHEMAS = {
    STARS: arrow_schema(star_columns()),
    REJECTS: arrow_schema(reject_columns()),
    LABELS: LABELS_SCHEMA,
    UNMATCHED: UNMATCHED_SCHEMA,
}


@dataclass(frozen=True)
class _Ingest:
    """An ingest as its plan or, should that be lost, its inputs describe it."""

    folder: Path
    values: dict[str, Any]

    @property
    def is_finished(self) -> bool:
        return (self.folder / SUMMARY_FILE).is_file()

    @property
    def shards(self) -> range:
        """Its shards: an ingest begins at a boundary and leaves no shard out."""
        size = self.values["shard_stars"]
        return range(self.values["first_row"] // size, -(-self.values["n_rows"] // size))


def verify_store(store: Path) -> list[Damage]:
    """Return everything in a store that is not as it was written; an ingest may go on meanwhile.

    Parameters
    ----------
    store : Path
        Folder of the store.

    Returns
    -------
    list of Damage
        Always in the same order. Files that were never finished are none.
    """
    return examine_store(store).damages


def examine_store(store: Path) -> Findings:
    """Do what `verify_store` does; return also what was looked at."""
    found = Findings()
    folders = sorted((store / "ingest").glob(FOLDER_NAMES))
    read = [_read_ingest(folder, found, is_last=folder == folders[-1]) for folder in folders]
    ingests = [ingest for ingest in read if ingest is not None]
    if not ingests:
        found.notes.append(f"{store}: no ingest has begun")
    else:
        _examine_metadata(store, ingests, found)
    for ingest in ingests:
        _examine_ingest(store, ingest, found, is_last=ingest.folder == folders[-1])
    if len(ingests) == len(folders):
        _find_unexpected(store, ingests, found)
    _examine_tables(store, ingests, found)
    return found


def _read_ingest(folder: Path, found: Findings, *, is_last: bool) -> _Ingest | None:
    """Read plan and inputs of an ingest; either is enough to go on with."""
    n_before = len(found.damages)
    path, inputs_path = folder / PLAN_FILE, folder / INPUTS_FILE
    values = found.attempt(lambda: read_plan(folder), path, INGEST_AGAIN)
    has_begun = inputs_path.is_file() or is_there(folder / LEDGER_FOLDER) or not is_last
    if not has_begun:
        found.notes.append(f"{folder}: not finished, its inputs are not written yet")
        return None if values is None else _Ingest(folder, values)
    if values is None and len(found.damages) == n_before:
        found.add(path, MISSING, INGEST_AGAIN)
    noted = found.attempt(lambda: read_inputs(folder)[1], inputs_path, INGEST_AGAIN)
    if values is not None and noted is not None and noted != values:
        found.add(inputs_path, f"does not belong to the {PLAN_FILE} beside it", INGEST_AGAIN)
    held = values or noted
    return None if held is None else _Ingest(folder, held)


def _examine_metadata(store: Path, ingests: Sequence[_Ingest], found: Findings) -> None:
    """Compare the metadata of the arrays with what the plans say."""
    lengths = {max(ingest.values["n_rows"] for ingest in ingests)}
    finished = [ingest.values["n_rows"] for ingest in ingests if ingest.is_finished]
    if len(finished) < len(ingests):  # the arrays grow soon after the plan is written
        lengths |= {max(finished, default=0), *_present_length(store)}
    shard_stars = ingests[0].values["shard_stars"]
    damage = min(
        (find_metadata_damage(store, n_rows=n, shard_stars=shard_stars) for n in sorted(lengths)), key=len
    )
    for path, problem in damage:
        found.add(path, problem, INGEST_AGAIN)


def _present_length(store: Path) -> Iterator[int]:
    """Give the number of rows that the arrays say they have, if they can be opened at all."""
    try:
        yield open_store(store).n_rows
    except Exception:  # noqa: BLE001  damaged metadata fail in many ways, and are told as damaged anyway
        return


def _examine_ingest(store: Path, ingest: _Ingest, found: Findings, *, is_last: bool) -> None:
    """Look at ledger, parts and shards of an ingest, and at its summary."""
    folder = ingest.folder
    n_done = _examine_shards(store, ingest, found, is_last=is_last)
    if ingest.is_finished:
        _examine_summary(store, ingest, found)
    elif is_last:
        done = f"{n_done} of {len(ingest.shards)} shards written"
        found.notes.append(f"{folder}: not finished ({done}); the same 'apogee-batch ingest' goes on with it")
    else:
        found.add(folder / SUMMARY_FILE, MISSING, INGEST_AGAIN)
    survey = folder / SURVEY_FILE
    if survey.is_file():
        found.attempt(lambda: read_table(survey), survey, NOTHING_NEEDED_IT)


def _examine_shards(store: Path, ingest: _Ingest, found: Findings, *, is_last: bool) -> int:
    """Look at ledger, parts and shards of an ingest; return how many shards are in the ledger."""
    folder = ingest.folder
    ledger = Ledger(folder / LEDGER_FOLDER, store, run_id(ingest.values))
    damaged = ledger.damaged()
    for path in damaged:
        found.add_of_ingest(path, "damaged ledger entry", INGEST_AGAIN)
    n_done = 0
    for shard in ingest.shards:
        path = folder / LEDGER_FOLDER / f"{shard:05d}.json"
        report = None if path in damaged else ledger.entry(shard)
        if report is not None:
            n_done += 1
            for file in report.files:
                found.check(file, store, INGEST_AGAIN)
        elif (ingest.is_finished or not is_last) and path not in damaged:
            problem = "is of another plan" if is_kept(path) else MISSING
            found.add_of_ingest(path, problem, INGEST_AGAIN)
    for small in (folder / LEDGER_FOLDER, folder / PARTS_FOLDER):
        if is_torn(small) and archive_path(small) not in [damage.path for damage in found.damages]:
            found.add(archive_path(small), TORN, INGEST_AGAIN)
    return n_done


def _examine_summary(store: Path, ingest: _Ingest, found: Findings) -> None:
    """Look at the summary of a finished ingest, and by it at the file of the inputs."""
    path = ingest.folder / SUMMARY_FILE
    summary = found.read_sealed(path, INGEST_AGAIN)
    if summary is None:
        return
    if summary.get("inputs") != ingest.values["n_inputs"]:
        found.add(path, "its counts are not those of the plan", INGEST_AGAIN)
    note = WrittenFile(**summary[INPUTS_NOTE])
    if store / note.path not in [damage.path for damage in found.damages]:
        found.check(note, store, INGEST_AGAIN)


def _find_unexpected(store: Path, ingests: Sequence[_Ingest], found: Findings) -> None:
    """Name files in the place of shards and parts that are of no ingest."""
    expected = {file for ingest in ingests for shard in ingest.shards for file in shard_files(store, shard)}
    for ingest in ingests:
        names = (STARS, REJECTS, CONTENTS)
        expected |= {part_path(ingest.folder, name, shard) for shard in ingest.shards for name in names}
    places = [store / name / "c" for name in STAR_ARRAYS] + [
        ingest.folder / PARTS_FOLDER for ingest in ingests
    ]
    for place in places:
        for path in sorted(place.rglob("*")):
            if path.is_file() and path not in expected and not is_leftover(path):
                found.add(path, "is of no ingest of this store", DELETE)


def _examine_tables(store: Path, ingests: Sequence[_Ingest], found: Findings) -> None:
    """Compare the tables with their hashes, and those that are whole with the parts and with one another.

    An ingest that goes on writes stars and rejects at its end, whatever they are now.
    """
    is_finished = bool(ingests) and all(ingest.is_finished for ingest in ingests)
    can_compare = is_finished and not found.damages
    ours = {digest_path(store, INGESTED), *(table_path(store, name) for name in TABLES[INGESTED])}
    damage = [item for item in find_table_damage(store) if is_finished or item[0] not in ours]
    if is_finished and not any(path.exists() for path in ours):
        damage.append((digest_path(store, INGESTED), MISSING, INGEST_AGAIN))
    for item in damage:
        found.add(*item)
    damaged = {path for path, _, _ in damage}
    held = {
        name: _read_table(store, name, found) for name in SCHEMAS if table_path(store, name) not in damaged
    }
    if can_compare:
        made = found.attempt(lambda: gather_tables(store), store / "ingest", INGEST_AGAIN)
        for name, table in zip(TABLES[INGESTED], made or (), strict=False):
            is_held = held.get(name)
            if is_held is not None and not _holds(is_held, table):
                path = table_path(store, name)
                found.add(path, "holds other rows than the parts of the ingests", INGEST_AGAIN)
                held[name] = table
    stars, labels = held.get(STARS), held.get(LABELS)
    if stars is not None and labels is not None and not _are_labels_of(stars, labels):
        path = table_path(store, LABELS)
        found.add(path, "holds labels of stars that are not in the store", REMEDIES[ATTACHED])


def _holds(table: pa.Table, made: pa.Table) -> bool:
    """Tell whether a table has the rows of the parts; rejects may go on with files that were not read."""
    rest = table.slice(len(made))
    of_unread = "reason" in rest.schema.names and set(rest["reason"].to_pylist()) == {"DUPLICATE_STAR"}
    return bool(table.slice(0, len(made)).equals(made)) and (of_unread or not len(rest))


def _read_table(store: Path, name: str, found: Findings) -> pa.Table | None:
    """Read a table whose bytes are as they were written; None where there is none, or another."""
    path = table_path(store, name)
    if not path.is_file():
        return None
    remedy = next(REMEDIES[kind] for kind, names in TABLES.items() if name in names)
    table = found.attempt(lambda: read_table(path), path, remedy)
    found.n_files += 1
    found.n_bytes += path.stat().st_size
    if table is not None and not _are_alike(table.schema, SCHEMAS[name]):
        found.add(path, "has other columns than it should", remedy)
        return None
    return table


def _are_alike(found: pa.Schema, wanted: pa.Schema) -> bool:
    """Compare columns by all but their descriptions: an older version may have had other words for them."""
    return bool(_without_words(found).equals(_without_words(wanted), check_metadata=True))


def _without_words(schema: pa.Schema) -> pa.Schema:
    fields = [
        field.with_metadata({key: value for key, value in field.metadata.items() if key != b"description"})
        if field.metadata
        else field
        for field in schema
    ]
    return pa.schema(fields, schema.metadata)


def _are_labels_of(stars: pa.Table, labels: pa.Table) -> bool:
    """Tell whether labels are of known kinds and each of another star of the store, by row and name."""
    rows, own = stars["row"].to_numpy(), labels["row"].to_numpy()
    place = np.searchsorted(rows, own)
    if len(np.unique(own)) != len(own) or not np.isin(own, rows).all():
        return False
    names = stars["apstar_id"].take(pa.array(place)).to_pylist()
    kinds = set(labels["data_type"].to_pylist()) <= {*DATA_TYPES}
    sets = set(labels["data_set"].to_pylist()) <= {*DATA_SETS}
    return kinds and sets and names == labels["apstar_id"].to_pylist()
