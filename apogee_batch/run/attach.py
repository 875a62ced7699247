"""Attaching label tables to a store: what `labels attach` does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from apogee_batch.errors import UsageError
from apogee_batch.files import write_table
from apogee_batch.labels.attach import attach_labels
from apogee_batch.labels.tables import LabelTable, read_label_table
from apogee_batch.run.store_tables import ATTACHED, ROW_GROUP_STARS, note_tables
from apogee_batch.store.spectra import open_store
from apogee_batch.store.tables import LABELS, UNMATCHED, read_stars, table_path


@dataclass(frozen=True)
class AttachSummary:
    """What attaching did.

    Attributes
    ----------
    counts : dict of dict of int
        Of each label type, as `AttachedLabels.counts`.
    unmatched : Path
        Table of the labels of no use, with reasons.
    """

    counts: dict[str, dict[str, int]]
    unmatched: Path


def attach_tables(
    store: Path, tables: Mapping[str, Sequence[Path]], *, column_map: Mapping[str, str]
) -> AttachSummary:
    """Read label tables, match them to the stars of a store and keep the result in it.

    Labels attached before are replaced: the tables named are all the labels there are.

    Parameters
    ----------
    store : Path
        A store whose ingest has finished.
    tables : mapping of data type to sequence of Path
        The label tables of each type.
    column_map : mapping of str to str
        Our names of columns to those of the tables.

    Raises
    ------
    UsageError
        If a table cannot be used, or no label matches a star.
    """
    open_store(store)
    stars = read_stars(store)
    read = [
        read_label_table(path, data_type, column_map=column_map)
        for data_type, paths in tables.items()
        for path in paths
    ]
    if not read:
        raise UsageError("no label table is named; give --payne, --mstar or --yso")
    attached = attach_labels(stars, read)
    if len(attached.table) == 0:
        n_labels = sum(table.n_rows for table in read)
        raise UsageError(
            f"none of the {n_labels} labels belongs to a star of {store}; {_describe_names(read)}they are "
            "matched by apogee_id (2M00000000+0000000); --map apogee_id=COLUMN names another"
        )
    written = [
        write_table(table_path(store, UNMATCHED), attached.unmatched),
        write_table(table_path(store, LABELS), attached.table, row_group_size=ROW_GROUP_STARS),
    ]
    note_tables(store, ATTACHED, written)
    return AttachSummary(attached.counts, table_path(store, UNMATCHED))


def _describe_names(tables: Sequence[LabelTable]) -> str:
    """Show a name of the tables beside what is expected; nothing where they have none."""
    names = (name for table in tables for name in (*table.apogee_id, *table.apstar_id) if name)
    first = next(names, "")
    return f"theirs are like {first[:60]!r}, and " if first else ""
