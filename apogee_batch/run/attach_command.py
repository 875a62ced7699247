"""What `apogee-batch labels attach` does: label tables in, the labels of a store out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from apogee_batch.errors import IntegrityError
from apogee_batch.labels.columns import parse_column_map
from apogee_batch.run.attach import attach_tables
from apogee_batch.run.config import ORDINARY, Going
from apogee_batch.run.ingest_plan import require_finished_ingest, store_lock
from apogee_batch.run.lock import hold_lock
from apogee_batch.store.tables import read_labels


def attach(
    store: Path,
    tables: Mapping[str, Sequence[Path]],
    *,
    column_map: Sequence[str],
    going: Going = ORDINARY,
) -> list[str]:
    """Attach label tables to a store."""
    store = store.resolve()  # one store has one lock, whatever it is reached by
    require_finished_ingest(store)
    with hold_lock(store_lock(store), store, break_lock=going.break_lock):
        return _attach_locked(store, tables, column_map)


def _attach_locked(store: Path, tables: Mapping[str, Sequence[Path]], column_map: Sequence[str]) -> list[str]:
    n_replaced = _count_labels(store)
    summary = attach_tables(store, tables, column_map=parse_column_map(column_map))
    lines, n_unused = list[str](), 0
    for data_type, counts in summary.counts.items():
        unused = {
            key: counts[key]
            for key in ("NO_NAME", "MISSING_LABEL", "CONFLICT", "NOT_IN_STORE")
            if counts[key]
        }
        n_unused += sum(unused.values())
        sets = ", ".join(f"{counts[name]} {name}" for name in ("train", "dev", "test"))
        told = "; of no use: " + ", ".join(f"{n} {reason}" for reason, n in unused.items()) if unused else ""
        lines.append(
            f"{data_type}: {counts['spectra']} spectra labelled ({sets}) by {counts['used']} labels{told}"
        )
    if n_replaced is not None:
        lines.append(f"replaces the {n_replaced} labels that were attached before")
    if n_unused:
        lines.append(f"labels of no use are listed in {summary.unmatched}")
    return lines


def _count_labels(store: Path) -> int | None:
    """Return how many labels are attached; None where there are none, or they are damaged."""
    try:
        labels = read_labels(store)
    except IntegrityError:
        return None
    return None if labels is None else len(labels)
