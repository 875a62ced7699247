"""The tables of a store: written with their hashes noted beside them, and checked before they are used."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from apogee_batch.errors import IntegrityError
from apogee_batch.files import FileDigest, read_sealed_json, write_sealed_json, write_table
from apogee_batch.run.ingest_plan import unfinished_ingest
from apogee_batch.run.ingest_tables import gather_tables, reject_table
from apogee_batch.run.ledger import WrittenFile, find_damage, relative_digest
from apogee_batch.run.survey_match import further_files
from apogee_batch.run.table_reading import read_some
from apogee_batch.store.tables import LABELS, REJECTS, STARS, UNMATCHED, read_stars, table_path

ROW_GROUP_STARS = 16384  # what the task of a shard decodes to read its stars; fewer make a long footer
INGESTED, ATTACHED = "ingested", "attached"
TABLES = {INGESTED: (STARS, REJECTS), ATTACHED: (LABELS, UNMATCHED)}
REMEDIES = {
    INGESTED: "any 'apogee-batch ingest' command of this store writes it again",
    ATTACHED: "give the 'apogee-batch labels attach' command again",
}


def digest_path(store: Path, kind: str) -> Path:
    """Return the file that holds the hashes of the tables that were ingested, or of those attached."""
    return store / "tables" / f"{kind}.json"


def note_tables(store: Path, kind: str, written: list[FileDigest]) -> None:
    """Note the hashes of tables that were just written."""
    files = [asdict(relative_digest(file, store)) for file in written]
    write_sealed_json(digest_path(store, kind), {"files": files})


def write_ingested_tables(store: Path, *, without: Path | None = None) -> tuple[pa.Table, pa.Table]:
    """Gather stars and rejects from the parts of the ingests, write and return them.

    The last rejects are further files of a star, of which the summary has one row: no ingest has read them.

    Raises
    ------
    IntegrityError
        If a shard is not in its ledger, or the counts do not add up.
    """
    stars, rejects = gather_tables(store, without=without)
    if further := further_files(store, without=without):
        rejects = pa.concat_tables([rejects, reject_table(further)]).combine_chunks()
    written = [
        write_table(table_path(store, STARS), stars, row_group_size=ROW_GROUP_STARS),
        write_table(table_path(store, REJECTS), rejects),
    ]
    note_tables(store, INGESTED, written)
    return stars, rejects


def find_table_damage(store: Path) -> Iterator[tuple[Path, str, str]]:
    """Give the tables, and the notes of their hashes, that are not what was written: file, problem, remedy.

    A store without labels has no note of them; one whose note was lost with its tables looks the same.
    """
    for kind, names in TABLES.items():
        note = digest_path(store, kind)
        if not note.is_file():
            if any(table_path(store, name).is_file() for name in names):
                yield note, "is missing", REMEDIES[kind]
            continue
        try:
            files = [WrittenFile(**file) for file in read_sealed_json(note)["files"]]
        except ValueError:
            yield note, "is damaged", REMEDIES[kind]
            continue
        for file in files:
            problem = find_damage(file, store)
            if problem is not None:
                yield store / file.path, problem, REMEDIES[kind]


def require_whole_tables(store: Path) -> None:
    """Refuse to work with tables that are not what was written.

    Raises
    ------
    IntegrityError
        If one is missing or damaged; names it.
    """
    for path, problem, remedy in find_table_damage(store):
        raise IntegrityError(f"{path}: {problem}; {remedy}")


def mend_tables(store: Path) -> list[Path]:
    """Write the stars and rejects of a finished store again where they are damaged; return which."""
    ours = {digest_path(store, INGESTED), *(table_path(store, name) for name in TABLES[INGESTED])}
    damaged = [path for path, _, _ in find_table_damage(store) if path in ours]
    if damaged:
        write_ingested_tables(store, without=unfinished_ingest(store))
    return damaged


def read_star_rows(store: Path) -> pa.Table:
    """Return the column `row` of a store's star table; raises like `store.tables.read_stars`."""
    path = table_path(store, STARS)
    return read_some(path, ["row"]) if path.is_file() else read_stars(store)
