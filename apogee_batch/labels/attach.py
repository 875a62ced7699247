"""Labels put on the spectra of a store."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.labels.rows import LabelTable, UnusedLabel, UnusedReason
from apogee_batch.labels.splits import assign_split
from apogee_batch.schema import DATA_SETS, DATA_TYPES, LABEL_NAMES, LABEL_UNITS

LABELS_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("apstar_id", pa.string(), nullable=False),
        pa.field("apogee_id", pa.string(), nullable=False),
        pa.field("data_type", pa.string(), nullable=False),
        pa.field("data_set", pa.string(), nullable=False),
        *(
            pa.field(name, pa.float64(), nullable=False, metadata={"unit": LABEL_UNITS[name]})
            for name in LABEL_NAMES
        ),
    ]
)
UNMATCHED_SCHEMA = pa.schema(
    [pa.field(n, pa.string(), nullable=False) for n in ("data_type", "apogee_id", "apstar_id", "reason")]
)
_VISIT_OF_APSTAR_ID = re.compile(r"\.visit\d+$")


@dataclass(frozen=True)
class AttachedLabels:
    """What the label tables say about the spectra of a store.

    Attributes
    ----------
    table : pa.Table
        Of `LABELS_SCHEMA`, by store row: one row a labelled spectrum.
    counts : dict of dict of int
        Of each label type: `rows` of its tables, of which `repeated` say the same again and
        NO_NAME, MISSING_LABEL, CONFLICT, NOT_IN_STORE are of no use; `outranked`, whose spectra all
        have a label of higher rank; `used`; and `spectra` labelled, of them in train, dev and test.
        The first six and `used` add up to `rows`.
    unmatched : pa.Table
        Of `UNMATCHED_SCHEMA`: every label row of no use, and why.
    """

    table: Any
    counts: dict[str, dict[str, int]]
    unmatched: Any


def attach_labels(stars: Any, tables: Sequence[LabelTable]) -> AttachedLabels:
    """Match label tables to the spectra of a store.

    A label row is matched by its `apstar_id`, which names one spectrum (and all its visits), else
    by its `apogee_id`, which names every spectrum of the star. Where no `apstar_id` of a table
    occurs in the store, its `apogee_id` are taken: the store may have been made without the
    summary that hands out the `apstar_id`.

    A spectrum in several tables gets the label of the last type in `DATA_TYPES` (yso, then mstar,
    then payne). All spectra of a star are in one split, the one of its highest label, unless the
    tables themselves say otherwise: else a star would be tested with its own training spectrum.

    Parameters
    ----------
    stars : pa.Table
        Star table of the store; of its columns `row`, `apstar_id` and `apogee_id` are used.
    tables : sequence of LabelTable
        In any order of types; of two tables of one type, the first has precedence.
    """
    index = _Index(stars["apstar_id"].to_pylist(), stars["apogee_id"].to_pylist())
    chosen = _Chosen()
    counts: dict[str, dict[str, int]] = {}
    unmatched: list[tuple[str, UnusedLabel]] = []
    for given in sorted(tables, key=lambda table: DATA_TYPES.index(table.data_type), reverse=True):
        table = index.with_names_of_store(given)
        unused = list(table.unused)
        n_used = 0
        for i, (apstar_id, apogee_id) in enumerate(zip(table.apstar_id, table.apogee_id, strict=True)):
            positions = index.find(apstar_id, apogee_id)
            if not positions:
                unused.append(UnusedLabel(apogee_id, apstar_id, UnusedReason.NOT_IN_STORE))
            n_used += chosen.add(table, i, {p: index.apogee_ids[p] for p in positions})
        _count(counts.setdefault(table.data_type, _no_counts()), table, unused, n_used)
        unmatched.extend((table.data_type, label) for label in unused)
    attached = _labels_table(stars, chosen)
    kinds = zip(attached["data_type"].to_pylist(), attached["data_set"].to_pylist(), strict=True)
    for data_type, data_set in kinds:
        counts[data_type]["spectra"] += 1
        counts[data_type][data_set] += 1
    return AttachedLabels(attached, counts, _unmatched_table(unmatched))


@dataclass
class _Chosen:
    """The labels given so far.

    Attributes
    ----------
    labels : dict
        By position in the star table: the label table, the row in it, and the split.
    split_of_star : dict of str to str
        Split of each `apogee_id` that has a label.
    """

    labels: dict[int, tuple[LabelTable, int, str]] = field(default_factory=dict)
    split_of_star: dict[str, str] = field(default_factory=dict)

    def add(self, table: LabelTable, i: int, spectra: Mapping[int, str]) -> bool:
        """Give row `i` to those spectra (position: `apogee_id`) without a label; tell if there were any."""
        unlabelled = {p: star for p, star in spectra.items() if p not in self.labels}
        for position, star in unlabelled.items():
            own = table.data_set[i]
            split = self.split_of_star.setdefault(star, own or assign_split(star, table.data_type))
            self.labels[position] = (table, i, own or split)
        return bool(unlabelled)


class _Index:
    """Positions of the spectra of a store by each of their names."""

    def __init__(self, apstar_ids: Sequence[str], apogee_ids: Sequence[str]) -> None:
        self.apogee_ids = apogee_ids
        self._by_apstar_id: dict[str, list[int]] = defaultdict(list)
        self._by_apogee_id: dict[str, list[int]] = defaultdict(list)
        for position, (apstar_id, apogee_id) in enumerate(zip(apstar_ids, apogee_ids, strict=True)):
            for name in {apstar_id, _VISIT_OF_APSTAR_ID.sub("", apstar_id)}:
                self._by_apstar_id[name].append(position)
            self._by_apogee_id[apogee_id].append(position)

    def with_names_of_store(self, table: LabelTable) -> LabelTable:
        """Return the table known by `apogee_id` if the store knows none of its `apstar_id`."""
        is_known = any(apstar_id in self._by_apstar_id for apstar_id in table.apstar_id)
        return table if is_known else table.by_apogee_id()

    def find(self, apstar_id: str, apogee_id: str) -> Sequence[int]:
        """Return the positions of the spectra of that name."""
        if apstar_id:
            return self._by_apstar_id.get(apstar_id, ())
        return self._by_apogee_id.get(apogee_id, ())


def _no_counts() -> dict[str, int]:
    names = ("rows", "repeated", *UnusedReason, "outranked", "used", "spectra", *DATA_SETS)
    return {str(name): 0 for name in names}


def _count(counts: dict[str, int], table: LabelTable, unused: Sequence[UnusedLabel], n_used: int) -> None:
    """Add one table to the counts of its type."""
    counts["rows"] += table.n_rows
    counts["repeated"] += table.n_repeated
    counts["used"] += n_used
    counts["outranked"] += table.n_rows - table.n_repeated - len(unused) - n_used
    for label in unused:
        counts[label.reason] += 1


def _labels_table(stars: Any, chosen: _Chosen) -> Any:
    """Return the labels that were given, by store row."""
    positions = np.array(list(chosen.labels), dtype=np.int64)
    positions = positions[np.argsort(stars["row"].to_numpy()[positions])]
    picked = [chosen.labels[position] for position in positions.tolist()]
    spectra = stars.select(["row", "apstar_id", "apogee_id"]).take(pa.array(positions))
    columns = {
        "row": spectra["row"],
        "apstar_id": spectra["apstar_id"],
        "apogee_id": spectra["apogee_id"],
        "data_type": [table.data_type for table, _, _ in picked],
        "data_set": [split for _, _, split in picked],
        **{name: [table.labels[i, k] for table, i, _ in picked] for k, name in enumerate(LABEL_NAMES)},
    }
    return pa.table(columns, schema=LABELS_SCHEMA)


def _unmatched_table(unmatched: Sequence[tuple[str, UnusedLabel]]) -> Any:
    columns = {
        "data_type": [data_type for data_type, _ in unmatched],
        "apogee_id": [label.apogee_id for _, label in unmatched],
        "apstar_id": [label.apstar_id for _, label in unmatched],
        "reason": [str(label.reason) for _, label in unmatched],
    }
    return pa.table(columns, schema=UNMATCHED_SCHEMA)
