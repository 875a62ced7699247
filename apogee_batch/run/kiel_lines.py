"""Which isochrones of some tables are drawn in the Kiel diagram, and as what."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apogee_batch.errors import UsageError
from apogee_batch.labels.isochrones import MAX_FE_H, Isochrone, read_table
from apogee_batch.report.isochrone_lines import IsochroneLine
from apogee_batch.schema import DoubleArray

MOST_LINES = 6  # without ages that were asked for; more are not told apart
DECADES_MYR = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
SAME_AGE_DEX = 0.02
RED_GIANT, HELIUM_BURNING, THERMAL_PULSES = 3, 4, 8  # PARSEC's labels of stages
LONGEST_SOURCE = 16  # letters of a table's name


def read_kiel_lines(paths: Sequence[Path], ages_myr: Sequence[float] = ()) -> list[IsochroneLine]:
    """Read isochrone tables and choose lines, by rising age and metallicity.

    Parameters
    ----------
    paths : sequence of Path
        Tables of PARSEC or BHAC15, of any of the two each.
    ages_myr : sequence of float
        Ages to draw, in Myr; all of the tables if there are none and those are `MOST_LINES` at most, else
        those next to 1, 10, 100 Myr, 1 and 10 Gyr.

    Raises
    ------
    UsageError
        If a file is no isochrone table, or no table has an age.
    """
    if ages_myr and not paths:
        raise UsageError("--age chooses among isochrones; name their tables by --isochrones FILE")
    found = [one for path in paths for one in read_table(path)]
    chosen = sorted(_choose(found, ages_myr), key=lambda one: (one.log_age, one.fe_h, one.source))
    is_solar = all(abs(one.fe_h) <= MAX_FE_H for one in chosen)
    names = [_name(one) if is_solar else f"{_name(one)}, {_metallicity(one)}" for one in chosen]
    times = Counter(names)
    return [
        IsochroneLine(name + (_source(one) if times[name] > 1 else ""), *_points(one))
        for name, one in zip(names, chosen, strict=True)
    ]


def _choose(found: Sequence[Isochrone], ages_myr: Sequence[float]) -> list[Isochrone]:
    if not ages_myr and len(found) <= MOST_LINES:
        return list(found)
    log_ages = np.array([one.log_age for one in found])
    chosen: dict[int, Isochrone] = {}
    for age in ages_myr or DECADES_MYR:
        if not age > 0:
            raise UsageError(f"--age {age:g}: is no age; give Myr above 0")
        distance = np.abs(log_ages - np.log10(age) - 6)
        if distance.min() > SAME_AGE_DEX and ages_myr:
            there = ", ".join(f"{one.age_myr:.4g}" for one in sorted(found, key=lambda one: one.log_age))
            raise UsageError(f"--age {age:g}: no table has it; the ages that there are, in Myr: {there}")
        is_near = distance <= max(float(distance.min()), SAME_AGE_DEX)
        chosen |= {i: one for i, one in enumerate(found) if is_near[i]}
    return list(chosen.values())


def _name(one: Isochrone) -> str:
    """Return the age as it would be said."""
    age = one.age_myr
    return f"{age / 1000:.3g} Gyr" if age >= 999.5 else f"{age:.3g} Myr"


def _metallicity(one: Isochrone) -> str:
    number = "0" if abs(one.fe_h) <= MAX_FE_H else f"{one.fe_h:+.2g}"
    return f"[M/H] = {number}"


def _source(one: Isochrone) -> str:
    """Return where one of several of the same age is from."""
    stem = one.source.split(".")[0]
    return f" ({stem if len(stem) <= LONGEST_SOURCE else stem[: LONGEST_SOURCE - 1] + '…'})"


def _points(one: Isochrone) -> tuple[DoubleArray, DoubleArray]:
    """Return Teff and log g along an isochrone, broken off where its stars jump from one stage to another.

    At the helium flash a star leaves the tip of the giants' branch for the clump in no time; thermal pulses
    let a line run to and fro, and what comes after them is not seen by the survey.
    """
    is_drawn = one.stage < THERMAL_PULSES
    stage = one.stage[is_drawn]
    jumps = np.flatnonzero((stage[:-1] == RED_GIANT) & (stage[1:] == HELIUM_BURNING)) + 1
    teff, logg = 10 ** one.log_teff[is_drawn], one.logg[is_drawn]
    return np.insert(teff, jumps, np.nan), np.insert(logg, jumps, np.nan)
