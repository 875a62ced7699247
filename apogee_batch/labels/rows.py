"""Rows of a label table: which are of use, and why the others are not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from apogee_batch.schema import N_LABELS, BoolArray, DoubleArray


class UnusedReason(StrEnum):
    """Why a row of a label table teaches nothing."""

    NO_NAME = "NO_NAME"  # neither identifier is filled in
    MISSING_LABEL = "MISSING_LABEL"  # a label is null, not finite, or the survey's -9999
    CONFLICT = "CONFLICT"  # an earlier row of the same star has other labels
    NOT_IN_STORE = "NOT_IN_STORE"  # no spectrum of that name


@dataclass(frozen=True)
class UnusedLabel:
    """One row that is not used: the identifiers it gave, and why."""

    apogee_id: str
    apstar_id: str
    reason: UnusedReason


@dataclass(frozen=True)
class LabelTable:
    """The usable rows of one label table, in its order.

    Attributes
    ----------
    source : str
        The file, for messages.
    data_type : str
        "payne", "mstar" or "yso".
    apogee_id, apstar_id : tuple of str, length n_stars
        Identifiers, "" where the table gives none; a star occurs once.
    labels : ndarray of float64, shape (n_stars, n_labels)
        In the order of `LABEL_NAMES`: log10 of cm/s2, K, dex; all finite.
    data_set : tuple of str, length n_stars
        "train", "dev" or "test" where the table says it, else "".
    n_rows : int
        Rows of the file, the unused ones included.
    n_repeated : int
        Rows left out because an earlier row of the same star says the same.
    unused : tuple of UnusedLabel
        Rows left out for any other reason.
    """

    source: str
    data_type: str
    apogee_id: tuple[str, ...]
    apstar_id: tuple[str, ...]
    labels: DoubleArray
    data_set: tuple[str, ...]
    n_rows: int
    n_repeated: int = 0
    unused: tuple[UnusedLabel, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(self.apogee_id), len(self.apstar_id), len(self.data_set)}
        if self.labels.shape != (len(self.apogee_id), N_LABELS) or len(lengths) > 1:
            raise ValueError(f"labels of shape {self.labels.shape} for {lengths} stars")

    def by_apogee_id(self) -> "LabelTable":
        """Return the table with its stars known by `apogee_id` alone, where they have one."""
        apstar_id = tuple(
            "" if apogee_id else apstar_id
            for apogee_id, apstar_id in zip(self.apogee_id, self.apstar_id, strict=True)
        )
        return first_row_of_each_star(replace(self, apstar_id=apstar_id))


def complete_rows(table: LabelTable) -> LabelTable:
    """Leave out the rows without a name or with a label missing."""
    names = [a or b for a, b in zip(table.apogee_id, table.apstar_id, strict=True)]
    has_name = np.array([name != "" for name in names], dtype=bool)
    has_labels = np.isfinite(table.labels).all(axis=1)
    unused = [
        _unused(table, i, UnusedReason.MISSING_LABEL if has_name[i] else UnusedReason.NO_NAME)
        for i in np.flatnonzero(~(has_name & has_labels)).tolist()
    ]
    return _select(table, has_name & has_labels, unused)


def first_row_of_each_star(table: LabelTable) -> LabelTable:
    """Leave out every later row of a star; those that contradict the first are kept as unused."""
    first: dict[tuple[str, str], int] = {}
    keep = np.zeros(len(table.apogee_id), dtype=bool)
    unused = []
    for i, (apogee_id, apstar_id) in enumerate(zip(table.apogee_id, table.apstar_id, strict=True)):
        earlier = first.setdefault(("apstar_id", apstar_id) if apstar_id else ("apogee_id", apogee_id), i)
        if earlier == i:
            keep[i] = True
        elif table.data_set[i] != table.data_set[earlier] or (table.labels[i] != table.labels[earlier]).any():
            unused.append(_unused(table, i, UnusedReason.CONFLICT))
    n_repeated = int((~keep).sum()) - len(unused)
    return replace(_select(table, keep, unused), n_repeated=table.n_repeated + n_repeated)


def _unused(table: LabelTable, i: int, reason: UnusedReason) -> UnusedLabel:
    return UnusedLabel(table.apogee_id[i], table.apstar_id[i], reason)


def _select(table: LabelTable, keep: BoolArray, unused: Sequence[UnusedLabel]) -> LabelTable:
    """Keep some rows, and remember why the others went."""
    kept = np.flatnonzero(keep).tolist()
    return replace(
        table,
        apogee_id=tuple(table.apogee_id[i] for i in kept),
        apstar_id=tuple(table.apstar_id[i] for i in kept),
        labels=table.labels[kept],
        data_set=tuple(table.data_set[i] for i in kept),
        unused=(*table.unused, *unused),
    )
