"""What `select` adds to the catalogue's columns: how sure the choice is, ages, masses, log g bins."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.catalog.selection import Polygon
from apogee_batch.errors import UsageError
from apogee_batch.labels.age_mesh import AgeMesh
from apogee_batch.labels.ages import AGE_FLAGS, estimate_ages
from apogee_batch.schema import BoolArray, Column, DoubleArray, IntArray

P_INSIDE = Column(
    "p_inside",
    "float32",
    nullable=True,
    unit="",
    ucd="stat.probability",
    description="Part of the star's error in teff and logg that lies in the polygon; null without errors",
    display="F6.3",
)
AGE_COLUMNS = (
    Column(
        "log_age",
        "float32",
        nullable=True,
        unit="dex(yr)",
        ucd="time.age",
        description="Age, log10 of years, by interpolation of teff and logg on isochrones",
        display="F7.3",
    ),
    Column(
        "e_log_age",
        "float32",
        nullable=True,
        unit="dex",
        ucd="stat.error;time.age",
        description="Standard deviation of log_age over the errors of teff and logg",
        display="F7.3",
    ),
    Column(
        "mass",
        "float32",
        nullable=True,
        unit="solMass",
        ucd="phys.mass",
        description="Initial mass by the same interpolation",
        display="F7.3",
    ),
    Column(
        "e_mass",
        "float32",
        nullable=True,
        unit="solMass",
        ucd="stat.error;phys.mass",
        description="Standard deviation of mass over the errors of teff and logg",
        display="F7.3",
    ),
    Column(
        "age_flags",
        "int32",
        nullable=False,
        unit="",
        ucd="meta.code.qual",
        description="Bits that tell of the age, see age_flags of this file's metadata; 0 is clean",
    ),
)


@dataclass(frozen=True)
class LoggBins:
    """Bins of log g, one map of young stars each.

    Attributes
    ----------
    edges : tuple of float
        Rising. Bin 0 is below the first, bin i holds `edges[i - 1] <= logg < edges[i]`.

    Raises
    ------
    UsageError
        If they are none, not numbers, or do not rise.
    """

    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        is_rising = all(one < other for one, other in pairwise(self.edges))
        if not self.edges or not is_rising or not all(map(math.isfinite, self.edges)):
            told = ",".join(f"{edge:g}" for edge in self.edges)
            raise UsageError(f"log g bins '{told}': give rising edges, as in --logg-bins 3.5,3.8,4.1")

    @classmethod
    def parse(cls, text: str) -> "LoggBins":
        """Read edges between commas."""
        try:
            return cls(tuple(float(word) for word in text.split(",")))
        except ValueError as error:
            raise UsageError(f"log g bins '{text}': give numbers between commas, as 3.5,3.8,4.1") from error

    @property
    def column(self) -> Column:
        """The column of their numbers."""
        last, edges = len(self.edges), ", ".join(f"{edge:g}" for edge in self.edges)
        return Column(
            "logg_bin",
            "int32",
            nullable=False,
            unit="",
            ucd="meta.code.class",
            description=f"Bin of logg: 0 to {last}, divided at {edges}; an edge belongs to the bin above it",
        )

    def number_of(self, logg: DoubleArray) -> IntArray:
        """Return the bin of each star; edges are compared in float32, the precision of the catalogue."""
        edges = np.array(self.edges, np.float32)
        return np.searchsorted(edges, logg.astype(np.float32), side="right").astype(np.int32)

    def name(self, number: int) -> str:
        """Return the range of a bin in words."""
        if number == 0:
            return f"below {self.edges[0]:g}"
        if number == len(self.edges):
            return f"{self.edges[-1]:g} and above"
        return f"{self.edges[number - 1]:g} to {self.edges[number]:g}"


@dataclass
class Tally:
    """What was counted while columns were added.

    Attributes
    ----------
    errors : Counter of str
        Stars by where their errors are from: calibrated, realizations, none.
    age_flags, logg_bins : Counter
        Stars by flag of the age, and by bin.
    n_ages : int
        Stars with an age.
    expected : float
        Sum of `p_inside`.
    """

    errors: Counter[str] = field(default_factory=Counter)
    age_flags: Counter[str] = field(default_factory=Counter)
    logg_bins: Counter[int] = field(default_factory=Counter)
    n_ages: int = 0
    expected: float = 0.0


@dataclass(frozen=True)
class AddedColumns:
    """Adds columns to rows of the catalogue.

    Attributes
    ----------
    probability_of : Polygon or None
        Whose `p_inside` is wanted.
    mesh : AgeMesh or None
        For ages.
    logg_bins : LoggBins or None
    """

    probability_of: Polygon | None = None
    mesh: AgeMesh | None = None
    logg_bins: LoggBins | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that are added, in order."""
        return (
            *((P_INSIDE,) if self.probability_of else ()),
            *(AGE_COLUMNS if self.mesh else ()),
            *((self.logg_bins.column,) if self.logg_bins else ()),
        )

    def add_to(self, rows: pa.Table, tally: Tally) -> pa.Table:
        """Return rows with the columns, and count.

        Parameters
        ----------
        rows : pa.Table
            Of the catalogue, with teff and logg that are not null.
        tally : Tally
            Gets what is counted.
        """
        teff, logg = floats(rows["teff"]), floats(rows["logg"])
        values: dict[str, Any] = {}
        if self.probability_of or self.mesh:
            e_teff, e_logg, is_total = errors_of(rows)
            has_errors = np.isfinite(e_teff) & np.isfinite(e_logg)
            tally.errors["calibrated"] += int((is_total & has_errors).sum())
            tally.errors["realizations"] += int((~is_total & has_errors).sum())
            tally.errors["none"] += int((~has_errors).sum())
        if self.probability_of:
            values["p_inside"] = self.probability_of.probability_inside(teff, logg, e_teff, e_logg)
            tally.expected += float(np.nansum(values["p_inside"]))
        if self.mesh:
            ages = estimate_ages(self.mesh, teff, logg, e_teff, e_logg)
            values |= {column.name: getattr(ages, column.name, ages.flags) for column in AGE_COLUMNS}
            tally.n_ages += int(np.isfinite(ages.log_age).sum())
            for name, (bit, _) in AGE_FLAGS.items():
                tally.age_flags[name] += int((ages.flags & (1 << bit) != 0).sum())
        if self.logg_bins:
            values["logg_bin"] = self.logg_bins.number_of(logg)
            tally.logg_bins.update(values["logg_bin"].tolist())
        for column in self.columns:
            arrow_field = column.arrow_field()
            array = pa.array(values[column.name], from_pandas=True).cast(arrow_field.type)
            rows = rows.append_column(arrow_field, array)
        return rows

    def metadata(self) -> Mapping[str, str]:
        """Return what the file says of the columns: the meaning of `age_flags`, the ages that are covered."""
        if self.mesh is None:
            return {}
        flags = {name: {"bit": bit, "description": text} for name, (bit, text) in AGE_FLAGS.items()}
        intervals = [[round(age, 3) for age in interval] for interval in self.mesh.age_intervals_myr]
        return {
            "age_flags": json.dumps(flags, separators=(",", ":")),
            "isochrone_ages_myr": json.dumps(intervals),
        }


def errors_of(rows: pa.Table) -> tuple[DoubleArray, DoubleArray, BoolArray]:
    """Return one sigma of Teff and log g of each star, and whether they are the calibrated ones.

    A star's errors are the calibrated ones where it has both, else the scatter of its realizations.
    """
    own = [floats(rows[name]) for name in ("e_teff", "e_logg")]
    total = [floats(rows[name]) for name in ("e_teff_total", "e_logg_total")]
    is_total = np.isfinite(total[0]) & np.isfinite(total[1])
    teff, logg = (np.where(is_total, better, first) for better, first in zip(total, own, strict=True))
    return teff, logg, is_total


def floats(column: Any) -> DoubleArray:
    """Return a column as float64, NaN where it is null."""
    values: DoubleArray = column.to_numpy().astype(np.float64)
    return values
