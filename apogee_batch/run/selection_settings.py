"""What `apogee-batch select` is told: the polygon, the flags, the isochrones, and where the table goes."""

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apogee_batch.catalog.export import write_fits, write_parquet
from apogee_batch.catalog.selection import YSO_VERTICES, Polygon, polygon_of
from apogee_batch.catalog.text_tables import write_csv, write_ecsv
from apogee_batch.catalog.votable import write_votable
from apogee_batch.errors import UsageError
from apogee_batch.labels.age_mesh import MAX_AGE_MYR, AgeMesh, build_mesh
from apogee_batch.labels.isochrones import read_isochrones
from apogee_batch.schema import catalog_flags

SELECTIONS = "selections"
PAPER = "the polygon of Olney et al. 2020, section 4.1"
_WRITERS = {
    ".parquet": write_parquet,
    ".fits": write_fits,
    ".vot": write_votable,
    ".ecsv": write_ecsv,
    ".csv": write_csv,
}


@dataclass(frozen=True)
class SelectionSettings:
    """What is selected, and what is added.

    Attributes
    ----------
    polygon : Path or None
        TOML file with `vertices`; None for the polygon of the paper.
    without_flags : tuple of str
        Stars with one of these flags of the catalogue are left out.
    with_probability : bool
        Whether `p_inside` is added.
    isochrones : tuple of Path
        Tables for ages; none of them, no ages.
    max_age_myr : float
        Older isochrones are left out.
    logg_bins : str or None
        Edges between commas; None for no bins. The paper's five are known by their ages only.
    """

    polygon: Path | None = None
    without_flags: tuple[str, ...] = ()
    with_probability: bool = False
    isochrones: tuple[Path, ...] = ()
    max_age_myr: float = MAX_AGE_MYR
    logg_bins: str | None = None


def read_polygon(path: Path | None) -> tuple[Polygon, str]:
    """Return a polygon from a TOML file, or the paper's, and where it is from in words.

    Raises
    ------
    UsageError
        If the file cannot be read, holds anything but `vertices`, or they make no polygon.
    """
    if path is None:
        return Polygon(YSO_VERTICES), PAPER
    remedy = "it needs a line like: vertices = [[2200, 4.4], [4500, 3.9], [3200, 1.7]]"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except ValueError as error:  # TOML's own error and that of wrong bytes are two
        raise UsageError(f"{path}: is no TOML ({error}); {remedy}") from error
    if set(content) != {"vertices"} or not isinstance(content["vertices"], list):
        raise UsageError(f"{path}: holds {', '.join(content) or 'nothing'}; {remedy}")
    try:
        return polygon_of(content["vertices"]), f"the polygon of {path.name}"
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def writer_of(path: Path, run: Path) -> Any:
    """Return what writes a table of this name; refuse a place where it would be taken for the run's own."""
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise UsageError(f"{path}: the suffix tells the format; use {', '.join(_WRITERS)}")
    place, folder = path.resolve(), run.resolve()
    if place.is_relative_to(folder) and not place.is_relative_to(folder / SELECTIONS):
        raise UsageError(
            f"{path}: lies among the run's own files; choose {folder / SELECTIONS} or another folder"
        )
    return write


def bits_of(names: Sequence[str]) -> int:
    """Return the sum of the bits of some flags."""
    flags = catalog_flags()
    unknown = [name for name in names if name not in flags]
    if unknown:
        raise UsageError(f"unknown flag {unknown[0]!r}; the flags are {', '.join(flags)}")
    return sum(1 << flags[name].bit for name in set(names))


def read_mesh(settings: SelectionSettings) -> tuple[AgeMesh | None, list[str]]:
    """Return the cells between the isochrones, and what to tell of them."""
    if not settings.isochrones:
        return None, []
    if not (math.isfinite(settings.max_age_myr) and settings.max_age_myr > 0):
        raise UsageError(f"--max-age {settings.max_age_myr:g}: give an age in Myr, above 0")
    isochrones = read_isochrones(list(settings.isochrones))
    mesh = build_mesh(isochrones, max_age_myr=settings.max_age_myr)
    ranges = ", ".join(f"{start:.3g} to {end:.3g}" for start, end in mesh.age_intervals_myr)
    ages = np.unique(mesh.log_age)
    n_others = isochrones.log_ages.size - ages.size
    told = f"isochrones: {ages.size} ages cover {ranges} Myr"
    if n_others:
        told += f"; {n_others} left out: older than {settings.max_age_myr:g} Myr, or too far from the next"
    return mesh, [told, *isochrones.notes]
