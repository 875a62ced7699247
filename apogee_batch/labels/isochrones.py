"""Isochrone tables as their authors give them: PARSEC from the CMD web form, and BHAC15."""

import gzip
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from apogee_batch.errors import UsageError
from apogee_batch.labels.isochrone_grid import STAGE_UNKNOWN, SUN_TEFF, Isochrone, Isochrones, StarModels
from apogee_batch.schema import DoubleArray

__all__ = ["Isochrone", "Isochrones", "StarModels", "read_isochrones", "read_table"]

PARSEC_BANDS = {
    "Gmag": "g_gaia",
    "G_BPmag": "bp",
    "G_BPftmag": "bp",  # Weiler (2018) has two BP passbands; ft is that of stars fainter than G = 10.87
    "G_RPmag": "rp",
    "Jmag": "j",
    "Hmag": "h",
    "Ksmag": "k",
    "gP1mag": "g",
    "rP1mag": "r",
    "zP1mag": "z",
    "gmag": "g",
    "rmag": "r",
    "zmag": "z",
    "Vmag": "v",
    "W1mag": "w1",
    "W2mag": "w2",
    "W3mag": "w3",
}
"""CMD's names of columns, and ours; the case tells Gaia's Gmag from the gmag of SDSS."""
_PARSEC_NEEDS = ("MH", "logAge", "Mini", "logL", "logTe", "logg", "label")
_BHAC15_BANDS = {"Mj": "j", "Mh": "h", "Mk": "k"}
_BHAC15_NEEDS = ("M/Ms", "Teff", "L/Ls", "g", "R/Rs")
MAX_FE_H = 0.05  # dex from 0: tables of solar composition say [M/H] = 0, or what their Z comes to


def read_isochrones(paths: Sequence[Path]) -> Isochrones:
    """Read isochrone tables: several ages in one file, or one a file.

    Parameters
    ----------
    paths : sequence of Path
        Tables of PARSEC as downloaded from CMD 3.x, or of BHAC15; `.gz` after the name is fine.

    Returns
    -------
    Isochrones
        With a note where the tables differ in their passbands.

    Raises
    ------
    UsageError
        If a file is neither, lacks columns, is not of solar metallicity, ends early, or if two
        tables have the same age or belong to different families of models.
    """
    if not paths:
        raise UsageError("no isochrone table is named; give --isochrones FILE, once for each file")
    read = [_read_file(path) for path in paths]
    for path, (_, some, _) in zip(paths, read, strict=True):
        _require_solar(path, some)
    families = {family for family, _, _ in read}
    if len(families) > 1:
        raise UsageError(
            f"the isochrones are of different models ({', '.join(sorted(families))}), between which there is "
            "no interpolation; give the tables of one of them"
        )
    found = sorted((one for _, some, _ in read for one in some), key=lambda one: one.log_age)
    for one, other in pairwise(found):
        if other.log_age == one.log_age:
            raise UsageError(
                f"{other.source}: its age {other.age_myr:.4g} Myr is in {one.source} too; give each age once"
            )
    systems = sorted({system for _, _, system in read if system})
    notes = [f"the tables differ in their passbands: {' / '.join(systems)}"] if len(systems) > 1 else []
    return Isochrones(tuple(found), tuple(notes))


def read_table(path: Path) -> list[Isochrone]:
    """Read one isochrone table as `read_isochrones` does, of any metallicities; nothing is checked beside.

    Raises
    ------
    UsageError
        If the file is no such table, lacks columns, or ends early.
    """
    return _read_file(path)[1]


def _require_solar(path: Path, isochrones: Sequence[Isochrone]) -> None:
    """Refuse tables of another metallicity than the sun's."""
    for one in isochrones:
        if abs(one.fe_h) > MAX_FE_H:
            raise UsageError(
                f"{path}: its metallicity is [M/H] = {one.fe_h:+.2f}, and young stars are taken to have 0; "
                "download the table with [M/H] = 0"
            )


def _read_file(path: Path) -> tuple[str, list[Isochrone], str]:
    """Return the family of models, the isochrones and the photometric system of one file."""
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise UsageError(f"{path}: {problem}; give an isochrone table of PARSEC (CMD) or BHAC15")
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
        lines = [line for line in text.splitlines() if line.strip()]
        if any(line.lstrip("# ").startswith("Zini") for line in lines):
            system = next(
                (line.partition(":")[2].strip() for line in lines if "Photometric system" in line), ""
            )
            return "PARSEC", list(_parsec(lines, path)), system
        if any(line.lstrip("! ").startswith("t (Gyr)") for line in lines):
            return "BHAC15", list(_bhac15(lines, path)), ""
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UsageError(f"{path}: cannot be read as an isochrone table ({error}); is it whole?") from error
    raise UsageError(
        f"{path}: not an isochrone table: neither a line '# Zini MH logAge Mini ...' as CMD 3.x writes it "
        "nor 't (Gyr) = ...' as in BHAC15"
    )


def _parsec(lines: Iterable[str], path: Path) -> Iterator[Isochrone]:
    """Give the isochrones of a CMD table, in which a header stands before each age or before the first."""
    names: list[str] = []
    rows: list[tuple[str, ...]] = []
    for line in lines:
        if line.startswith("#"):
            if line.lstrip("# ").startswith("Zini"):
                names = _checked(line.lstrip("#").split(), _PARSEC_NEEDS, path)
            continue
        rows.append(tuple(line.split()))
    age, metallicity = names.index("logAge"), names.index("MH")
    if not rows or any(len(row) != len(names) for row in rows):
        raise ValueError(f"it has no rows, or rows of other than {len(names)} columns")
    for _, alike in groupby(rows, key=lambda row: (row[age], row[metallicity])):
        yield _parsec_isochrone(dict(zip(names, _columns(alike), strict=True)), path)


def _parsec_isochrone(column: dict[str, DoubleArray], path: Path) -> Isochrone:
    """Return the isochrone of one age and metallicity of a CMD table."""
    return Isochrone(
        log_age=float(column["logAge"][0]),
        mass=column["Mini"],
        log_teff=column["logTe"],
        logg=column["logg"],
        log_luminosity=column["logL"],
        log_radius=column["logL"] / 2 - 2 * (column["logTe"] - math.log10(SUN_TEFF)),
        magnitude={ours: column[theirs] for theirs, ours in PARSEC_BANDS.items() if theirs in column},
        stage=column["label"].astype(np.int32),
        source=path.name,
        fe_h=float(column["MH"][0]),
    )


def _bhac15(lines: Iterable[str], path: Path) -> Iterator[Isochrone]:
    """Give the isochrones of a BHAC15 table: a line with the age, one with names, then the masses."""
    age_gyr, names = math.nan, [""]
    rows: list[tuple[str, ...]] = []
    for line in (*lines, "t (Gyr) = nan"):
        words = line.lstrip("! ").split()
        if words[:2] == ["t", "(Gyr)"]:
            if rows:
                yield _bhac15_isochrone(age_gyr, dict(zip(names, _columns(rows), strict=True)), path)
            age_gyr, rows = float(words[-1]), []
        elif "M/Ms" in words:
            names = _checked(words, _BHAC15_NEEDS, path)
        elif not line.startswith(("!", "#")):
            if len(words) != len(names):
                raise ValueError(f"a row has {len(words)} columns, not {len(names)}")
            rows.append(tuple(words))


def _bhac15_isochrone(age_gyr: float, column: dict[str, DoubleArray], path: Path) -> Isochrone:
    """Return the isochrone of one age of a BHAC15 table, whose L is a logarithm and whose R is not."""
    mass = column["M/Ms"]
    return Isochrone(
        log_age=9 + math.log10(age_gyr),
        mass=mass,
        log_teff=np.log10(column["Teff"]),
        logg=column["g"],
        log_luminosity=column["L/Ls"],
        log_radius=np.log10(column["R/Rs"]),
        magnitude={ours: column[theirs] for theirs, ours in _BHAC15_BANDS.items() if theirs in column},
        stage=np.full(mass.size, STAGE_UNKNOWN, dtype=np.int32),
        source=path.name,
    )


def _columns(rows: Iterable[tuple[str, ...]]) -> list[DoubleArray]:
    """Return the columns of some rows of numbers."""
    return list(np.array(list(rows), dtype=np.float64).T)


def _checked(names: list[str], needed: Sequence[str], path: Path) -> list[str]:
    """Return the names of the columns if those needed are among them."""
    lacking = [name for name in needed if name not in names]
    if lacking:
        raise UsageError(
            f"{path}: the isochrone table has no column {', '.join(lacking)}; "
            "PARSEC tables come from CMD 3.x, output 'isochrone tables', with every column"
        )
    return names
