"""The words that every room shares: label order, array types, the columns of each table.

The columns live in `schemas/*.json`, once; the Parquet schema, the FITS columns and the documents
are made from them.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

LABEL_NAMES = ("logg", "teff", "fe_h")  # the order of the network's outputs, as in the official weights
N_LABELS = len(LABEL_NAMES)
LABEL_UNITS = {"logg": "dex(cm/s2)", "teff": "K", "fe_h": "dex"}
DATA_TYPES = ("payne", "mstar", "yso")  # later ones take precedence where a star has several labels
DATA_SETS = ("train", "dev", "test")

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Column:
    """One column of a table: what it is called, holds and means.

    Attributes
    ----------
    name, dtype : str
        Name; type as an Arrow type name.
    nullable : bool
        Whether a value may be missing.
    unit, ucd, description : str
        Unit in astropy's words ("" for none), IVOA UCD1+, one line of English.
    display : str or None
        FITS TDISP format.
    """

    name: str
    dtype: str
    nullable: bool
    unit: str
    ucd: str
    description: str
    display: str | None = None

    def arrow_field(self) -> pa.Field:
        """Return the column as an Arrow field; unit, UCD and description are its metadata."""
        metadata = {"description": self.description, "ucd": self.ucd}
        if self.unit:
            metadata["unit"] = self.unit
        return pa.field(self.name, pa.type_for_alias(self.dtype), self.nullable, metadata)


@dataclass(frozen=True)
class Flag:
    """One bit of the catalogue's `flags` column; `threshold` is the limit its description states, if any."""

    name: str
    bit: int
    description: str
    threshold: float | None
    threshold_by_label: dict[str, float]


@cache
def _load(name: str) -> dict[str, Any]:
    """Read one file of `schemas/`."""
    loaded: dict[str, Any] = json.loads((files("apogee_batch.schemas") / name).read_text(encoding="utf-8"))
    return loaded


def _columns(entries: list[dict[str, Any]]) -> tuple[Column, ...]:
    return tuple(Column(**entry) for entry in entries)


def catalog_version() -> int:
    """Return the version of the catalogue's format."""
    return int(_load("catalog.json")["version"])


def store_version() -> int:
    """Return the version of the store's format."""
    return int(_load("store.json")["version"])


def catalog_columns() -> tuple[Column, ...]:
    """Return the columns of the catalogue, in order."""
    return _columns(_load("catalog.json")["columns"])


def star_columns() -> tuple[Column, ...]:
    """Return the columns of a store's star table, in order."""
    return _columns(_load("store.json")["star_columns"])


def reject_columns() -> tuple[Column, ...]:
    """Return the columns of `rejects.parquet`, in order."""
    return _columns(_load("store.json")["reject_columns"])


def store_arrays() -> tuple[dict[str, Any], ...]:
    """Return name, dtype, dims, unit and description of each array of a store."""
    return tuple(_load("store.json")["arrays"])


def catalog_flags() -> dict[str, Flag]:
    """Return the bits of the `flags` column by name."""
    flags = {}
    for entry in _load("catalog.json")["flags"]:
        threshold = entry.get("above", entry.get("below"))
        limits = entry.get("above_by_label", {})
        flags[entry["name"]] = Flag(entry["name"], entry["bit"], entry["description"], threshold, limits)
    return flags


def arrow_schema(columns: tuple[Column, ...]) -> pa.Schema:
    """Return the Arrow schema of some columns."""
    return pa.schema([column.arrow_field() for column in columns])
