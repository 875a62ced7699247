"""Which stars are taken: the files at hand against the rows of an allStar table."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from apogee_batch.errors import ApStarError
from apogee_batch.survey.allstar_table import AllStar, read_allstar
from apogee_batch.survey.byte_ranges import FIRST_READ_BYTES, open_bytes
from apogee_batch.survey.fits_headers import read_hdu
from apogee_batch.survey.identity import ONE_METER, find_place, parse_file_name
from apogee_batch.survey.spectrum import Star

__all__ = ["AllStar", "Reconciliation", "match_allstar", "read_allstar"]

DUPLICATE_FILE, DUPLICATE_ROW, DUPLICATE_TARGET = "duplicate_file", "duplicate_row", "duplicate_target"
EXTRATARG_DUPLICATE = 1 << 4  # the star has another row: it was observed in another field too
DETAILS_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("kind", "apstar_id", "file", "taken")]
)


@dataclass(frozen=True)
class Reconciliation:
    """How the files at hand and an allStar table agree.

    Every row is found, missing, or a repetition of a found one; every file is selected, extra, or
    another copy of a selected one.

    Attributes
    ----------
    selected : list of (Path, Star)
        Files to ingest, sorted, each with what its row knows.
    n_found, n_missing : int
        Rows with and without a file.
    n_extra : int
        Files that no row is about.
    n_duplicate : int
        Further files of one row, further rows of one file, and rows whose star has another row
        (EXTRATARG bit 4); the last are selected like all others.
    details : pa.Table
        Columns kind ("missing", "extra", "duplicate_file", "duplicate_row", "duplicate_target"),
        apstar_id ("" for extra), file, taken (of a duplicate_file: the file of its row that is selected,
        which is the first by its path; "" otherwise).
    """

    selected: list[tuple[Path, Star]]
    n_found: int
    n_missing: int
    n_extra: int
    n_duplicate: int
    details: pa.Table


class _Row(NamedTuple):
    """What of a row decides which file it is about."""

    apstar_id: str
    apogee_id: str
    telescope: str
    field: str
    location_id: int
    file: str
    commiss: int
    extratarg: int


class _Claim(NamedTuple):
    """Where a file says that it belongs; "" says nothing."""

    telescope: str
    places: tuple[str, ...]


def match_allstar(allstar: AllStar, files: Sequence[Path]) -> Reconciliation:
    """Find the row of each file.

    Names of files and of stars are not unique: a star may be in several fields, at several
    telescopes, and in commissioning data. The name of a file gives the candidates; then its folders
    decide (.../stars/{telescope}/{location_id or field}/), where they are the survey's; elsewhere
    its header does, which is read only where there are several candidates.

    Parameters
    ----------
    allstar : AllStar
        The table. Where it has no FILE column, names of any release match.
    files : sequence of Path
        The files at hand.

    Returns
    -------
    Reconciliation
    """
    rows = _list_rows(allstar)
    candidates = _index(rows)
    taken: dict[int, Path] = {}
    repeated: set[int] = set()
    details: list[tuple[str, str, str, str]] = []
    for path in sorted(files):
        own = _choose(path, rows, candidates)
        if not own:
            details.append(("extra", "", str(path), ""))
        elif own[0] in taken:
            name, first = rows[own[0]].apstar_id, taken[own[0]]
            details.append((DUPLICATE_FILE, name, str(path), str(first)))
        else:
            taken[own[0]] = path
            repeated.update(own[1:])
    repeated -= taken.keys()
    missing = [i for i in range(len(rows)) if i not in taken and i not in repeated]
    again = [i for i in taken if rows[i].extratarg & EXTRATARG_DUPLICATE]
    for kind, which in (
        ("missing", missing),
        (DUPLICATE_ROW, sorted(repeated)),
        (DUPLICATE_TARGET, again),
    ):
        details += [(kind, rows[i].apstar_id or rows[i].apogee_id, rows[i].file, "") for i in which]
    kinds = [detail[0] for detail in details]
    return Reconciliation(
        selected=list(zip(taken.values(), allstar.stars(list(taken)), strict=True)),
        n_found=len(taken),
        n_missing=len(missing),
        n_extra=kinds.count("extra"),
        n_duplicate=sum(kind.startswith("duplicate") for kind in kinds),
        details=pa.Table.from_arrays(
            [pa.array([detail[i] for detail in details], pa.string()) for i in range(len(DETAILS_SCHEMA))],
            schema=DETAILS_SCHEMA,
        ),
    )


def _list_rows(allstar: AllStar) -> list[_Row]:
    """Return what of each row decides."""
    columns = [allstar.table[name].to_pylist() for name in _Row._fields]
    return [_Row(*values) for values in zip(*columns, strict=True)]


def _index(rows: Iterable[_Row]) -> dict[str, list[int]]:
    """Return which rows may be about a file, by its name without .gz or else by star."""
    index = defaultdict(list)
    for i, row in enumerate(rows):
        name = _plain_name(row.file.rpartition("/")[2])
        index[name or _star_key(row.apogee_id, is_commissioning=row.commiss != 0)].append(i)
    return dict(index)


def _plain_name(name: str) -> str:
    """Return the name of a file without .gz, its .fits in small letters."""
    plain = name[:-3] if name.lower().endswith(".gz") else name
    return plain[:-5] + ".fits" if plain.lower().endswith(".fits") else plain


def _star_key(apogee_id: str, *, is_commissioning: bool) -> str:
    """Return the key of a star whose file name is not told; no file name holds a slash."""
    return f"{apogee_id}/commissioning" if is_commissioning else f"{apogee_id}/survey"


def _choose(path: Path, rows: Sequence[_Row], index: dict[str, list[int]]) -> list[int]:
    """Return the row that a file belongs to, then rows that repeat it; nothing for an extra file."""
    named = parse_file_name(path.name)
    own = index.get(_plain_name(path.name), [])
    if not own and named is not None:
        own = index.get(_star_key(named.apogee_id, is_commissioning=named.is_commissioning), [])
    if not own:
        return []
    place = find_place(path)
    if place.telescope:
        return [i for i in own if _agrees(rows[i], _Claim(place.telescope, (place.folder,)))]
    if len(own) == 1:
        return own
    by_folder = [i for i in own if _agrees(rows[i], _Claim("", (path.parent.name,)))]
    return by_folder if len(by_folder) == 1 else _choose_by_header(path, rows, own)


def _choose_by_header(path: Path, rows: Sequence[_Row], own: Sequence[int]) -> list[int]:
    """Return those rows that the header of a file agrees with; none where it does not say."""
    try:
        with open_bytes(path) as source:
            primary = read_hdu(source, 0, ahead=FIRST_READ_BYTES)
    except ApStarError:
        return []
    if primary is None:
        return []
    header = primary.header
    places = tuple(text for text in (header.text("FIELD"), str(header.integer("LOCID") or "")) if text)
    claim = _Claim(header.text("TELESCOP"), places)
    return [i for i in own if _agrees(rows[i], claim)] if claim.telescope or claim.places else []


def _agrees(row: _Row, claim: _Claim) -> bool:
    """Tell whether a row can be about a file from a certain place."""
    if claim.telescope and row.telescope and claim.telescope != row.telescope:
        return False
    number = "" if row.telescope == ONE_METER and row.field else str(row.location_id or "")
    own = {row.field, number} - {""}
    return not own or not claim.places or not own.isdisjoint(claim.places)
