"""Columns of a table that somebody else made: which is meant, and what is in it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from apogee_batch.errors import UsageError
from apogee_batch.labels.formats import RawColumn
from apogee_batch.schema import DoubleArray


def find_columns(wanted: Sequence[str], names: Sequence[str], *, any_case: bool = True) -> list[str]:
    """Return the columns called as wanted: exactly, else whatever the case; earlier wishes first.

    Parameters
    ----------
    wanted : sequence of str
        Spellings, the preferred first.
    names : sequence of str
        Columns of the table.
    any_case : bool
        Whether another case will do: Gaia's G is not the g of the Sloan system.

    Returns
    -------
    list of str
        Nothing, the one column, or several that differ in case alone.
    """
    for name in wanted:
        if name in names:
            return [name]
    if any_case:
        for name in wanted:
            matches = [theirs for theirs in names if theirs.strip().lower() == name.lower()]
            if matches:
                return matches
    return []


def list_columns(names: Sequence[str], *, limit: int = 20) -> str:
    """Say which columns there are, a few hundred being too many for one line."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"it has {', '.join(names[:limit]) or 'none'}{more}"


def number_values(column: RawColumn, *, where: str, remedy: str) -> DoubleArray:
    """Return a column of numbers; NaN where it is missing or not finite.

    Parameters
    ----------
    column : RawColumn
        The column.
    where, remedy : str
        File and column, and what to do about it, for the message.

    Raises
    ------
    UsageError
        If it holds texts, or vectors.
    """
    is_missing = column.is_missing
    if column.values.ndim != 1:
        raise UsageError(f"{where} holds vectors; give a column of single values")
    if column.values.dtype.kind not in "fiu" and not is_missing.all():
        i = first_text(column)
        raise UsageError(f"{where} is not of numbers ({str(column.values[i])!r} in row {i + 1}); {remedy}")
    values = np.full(len(is_missing), np.nan)
    values[~is_missing] = column.values[~is_missing]
    return np.where(np.isfinite(values), values, np.nan)


def first_text(column: RawColumn) -> int:
    """Return the first row of a column whose value is no number."""
    for i in np.flatnonzero(~column.is_missing):
        try:
            float(column.values[i])
        except (TypeError, ValueError):
            return int(i)
    return int(np.flatnonzero(~column.is_missing)[0])


def text_values(column: RawColumn) -> tuple[str, ...]:
    """Return texts without their padding; "" where missing."""
    return tuple(
        "" if missing else _text(value)
        for value, missing in zip(column.values.tolist(), column.is_missing.tolist(), strict=True)
    )


def _text(value: Any) -> str:
    """Return one text; FITS gives padded bytes."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.strip("\0 \t\r\n")


def parse_column_map(pairs: Sequence[str]) -> dict[str, str]:
    """Read `ours=theirs` pairs of column names.

    Raises
    ------
    UsageError
        If a pair has another form.
    """
    named = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise UsageError(f"--map {pair}: write it as OURS=THEIRS, for example --map teff=TEFF")
        named[ours] = theirs
    return named
