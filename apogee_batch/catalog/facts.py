"""What a catalogue file says of itself, whatever its format."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apogee_batch.schema import Flag, catalog_flags

ROW_COUNT = "rows"  # what a text file that cannot tell its end otherwise says: how many there are
FLAGS_COLUMN = "flags"
KEY_COLUMN = "apstar_id"  # a table with both is ours, or made from ours: its bits mean what ours do
_MAX_BIT = 62


@dataclass(frozen=True)
class ColumnFacts:
    """One column of a file.

    Attributes
    ----------
    name, dtype, unit, ucd, description : str
        As the file tells; "" where it does not.
    n_missing : int
        Rows without a value: null, masked, NaN or an empty text.
    """

    name: str
    dtype: str
    unit: str
    ucd: str
    description: str
    n_missing: int


@dataclass(frozen=True)
class FileFacts:
    """A catalogue file.

    Attributes
    ----------
    n_rows : int
    columns : tuple of ColumnFacts
    flag_counts : tuple of (Flag, int)
        How many rows have each bit of the column `flags`; empty where that is no column of ours.
    origin : dict of str to str
        What the file says of the run that made it.
    remarks : tuple of str
        What else a reader should know: parts of it, and what is odd about it.
    """

    n_rows: int
    columns: tuple[ColumnFacts, ...]
    flag_counts: tuple[tuple[Flag, int], ...]
    origin: dict[str, str]
    remarks: tuple[str, ...] = field(default=())


def is_ours(names: Collection[str]) -> bool:
    """Tell by the names of its columns whether a table has our flags."""
    return FLAGS_COLUMN in names and KEY_COLUMN in names


def count_flags(values: Any, origin: Mapping[str, str]) -> tuple[tuple[Flag, int], ...]:
    """Count the rows that have each bit.

    Parameters
    ----------
    values : ndarray of int
        The column `flags`.
    origin : mapping of str to str
        What the file says of itself: its own list of flags counts before that of this version.
    """
    flags = _told_flags(origin.get("flags", "")) or tuple(catalog_flags().values())
    return tuple((flag, int(np.count_nonzero(values & (1 << flag.bit)))) for flag in flags)


def _told_flags(text: str) -> tuple[Flag, ...]:
    """Return the flags that a file lists; none if that cannot be understood."""
    try:
        told = json.loads(text)
        flags = [Flag(str(name), int(x["bit"]), str(x["description"]), None, {}) for name, x in told.items()]
    except (ValueError, TypeError, KeyError, AttributeError):
        return ()
    return tuple(flags) if all(0 <= flag.bit <= _MAX_BIT for flag in flags) else ()
