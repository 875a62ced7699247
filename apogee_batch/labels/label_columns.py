"""What the tables of labels from photometry share: names of the stars, and values with their errors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.schema import Column, DoubleArray

NAME_COLUMNS = (
    Column("apogee_id", "string", True, "", "meta.id;meta.main", "Name of the star"),
    Column("apstar_id", "string", True, "", "meta.id", "Name of the spectrum, where the input has one"),
)
REASON_COLUMN = Column(
    "reason", "string", True, "", "meta.code", "Why the star has no label; null where it has one"
)


def value_columns(
    names: Sequence[str], meanings: Mapping[str, tuple[str, str, str]], errors_are: str
) -> list[Column]:
    """Return a column for each quantity, and one for its error after it.

    Parameters
    ----------
    names : sequence of str
        The quantities, in order.
    meanings : mapping of str to (str, str, str)
        Unit, UCD and description of each.
    errors_are : str
        Description of an error, with `{name}` for the quantity.
    """
    columns = []
    for name in names:
        unit, ucd, description = meanings[name]
        of_error = "dex" if unit.startswith("dex(") else unit  # an error of a logarithm has no zero point
        error = errors_are.format(name=name)
        columns.append(Column(name, "double", True, unit, ucd, description))
        columns.append(Column(f"e_{name}", "double", True, of_error, f"stat.error;{ucd}", error))
    return columns


def nullable(values: DoubleArray) -> Any:
    """Return numbers as an Arrow array with nulls for NaN."""
    return pa.array(values, mask=np.isnan(values))
