"""Which files of the survey's archive an allStar table is about."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from apogee_batch.errors import UsageError
from apogee_batch.survey.allstar_table import ROWS_AT_ONCE, AllStar
from apogee_batch.survey.identity import MAX_SHOWN, is_identifier, parse_file_name
from apogee_batch.survey.releases import RELEASES, Release, find_release

NO_FILE = "the row names no file"


@dataclass(frozen=True)
class Choice:
    """Which rows of the table are wanted; what is empty or None leaves nothing out.

    Attributes
    ----------
    telescopes, fields : tuple of str
        Values of TELESCOPE and FIELD.
    locations : tuple of int
        Values of LOCATION_ID.
    min_snr : float or None
        Lowest SNR, per pixel; rows that tell none are then left out.
    limit : int or None
        Only so many files, the first in the order of the table.
    """

    telescopes: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    locations: tuple[int, ...] = ()
    min_snr: float | None = None
    limit: int | None = None


class Unlisted(NamedTuple):
    """A row whose file is not in the list.

    Attributes
    ----------
    row : int
        Counted from 1.
    apstar_id, reason : str
        Which star, and why; both without anything that would steer a terminal.
    """

    row: int
    apstar_id: str
    reason: str


@dataclass(frozen=True)
class FetchList:
    """The files of a table.

    Attributes
    ----------
    release : Release
        Of the files.
    stars : list of str
        apStar files, below the folder of the release, sorted, each once.
    checksums : list of str
        The survey's files of checksums for them, one a folder, sorted.
    n_rows, n_chosen, n_repeated : int
        Rows of the table; those that are wanted; those that name a file which an earlier one named.
    n_bytes : float
        About how large the stars' files are together.
    n_without_visits : int
        Files whose row does not tell the number of visits; they count as the mean of the others.
    unlisted : list of Unlisted
        Rows that are wanted but name no file that could be fetched.
    """

    release: Release
    stars: list[str]
    checksums: list[str]
    n_rows: int
    n_chosen: int
    n_repeated: int
    n_bytes: float
    n_without_visits: int
    unlisted: list[Unlisted]


class _Row(NamedTuple):
    """What of a row decides."""

    file: str
    telescope: str
    field: str
    location_id: int
    n_visits: int
    snr: float
    apstar_id: str
    apogee_id: str


class _UnusableError(Exception):
    """Why a row gives no path."""


def list_files(allstar: AllStar, choice: Choice, *, release: str | None = None) -> FetchList:
    """List the files of a table as the archive names them.

    Parameters
    ----------
    allstar : AllStar
        The table.
    choice : Choice
        Which rows are wanted.
    release : {"dr14", "dr16", "dr17"}, optional
        The release they must be of; default what the names of the files say.

    Returns
    -------
    FetchList
        The same for the same table, whatever the order of its rows, unless there is a limit.

    Raises
    ------
    UsageError
        For a table of another or of an unknown release, or if no file is left.
    """
    its_release = _release_of(allstar, release)
    places: dict[str, tuple[str, str]] = {}
    visits: list[int] = []
    unlisted: list[Unlisted] = []
    n_chosen = 0
    for number, row in _wanted_rows(allstar, choice):
        if len(places) == choice.limit:
            break
        n_chosen += 1
        try:
            telescope, folder = _place(row, its_release)
        except _UnusableError as problem:
            unlisted.append(Unlisted(number, _shown(row.apstar_id or row.apogee_id), str(problem)))
            continue
        path = f"{its_release.root}/{telescope}/{folder}/{row.file}"
        if path not in places:
            places[path] = (telescope, folder)
            visits.append(row.n_visits)
    if not places:
        raise UsageError(_nothing_left(allstar, choice, unlisted))
    return FetchList(
        release=its_release,
        stars=sorted(places),
        checksums=sorted(its_release.checksums(*place) for place in set(places.values())),
        n_rows=allstar.n_stars,
        n_chosen=n_chosen,
        n_repeated=n_chosen - len(unlisted) - len(places),
        n_bytes=_estimate_bytes(its_release, visits),
        n_without_visits=visits.count(0),
        unlisted=unlisted,
    )


def _estimate_bytes(release: Release, visits: Sequence[int]) -> float:
    """Return about how large files with so many visits are; 0 is an unknown number."""
    sizes = [release.file_bytes(n_visits) for n_visits in visits if n_visits]
    mean = math.fsum(sizes) / len(sizes) if sizes else release.file_bytes(1)
    return mean * len(visits)


def split_evenly(paths: Sequence[str], n_parts: int) -> list[Sequence[str]]:
    """Divide a list into so many runs of nearly equal length."""
    edges = [len(paths) * i // n_parts for i in range(n_parts + 1)]
    return [paths[start:stop] for start, stop in pairwise(edges)]


def _release_of(allstar: AllStar, wanted: str | None) -> Release:
    """Return the release of a table by the first name of an apStar file in it."""
    names = (parse_file_name(row.file) for row in _rows(allstar))
    reduction = next((name.release for name in names if name is not None), None)
    if reduction is None:
        raise UsageError(
            f"{allstar.path}: no row names an apStar file; give an allStar table with a column FILE"
        )
    try:
        release = find_release(reduction)
    except UsageError as error:
        raise UsageError(f"{allstar.path}: {error}") from error
    if wanted is not None and wanted not in RELEASES:
        raise UsageError(f"--release {wanted!r}: choose one of {', '.join(RELEASES)}")
    if wanted not in (None, release.name):
        raise UsageError(
            f"{allstar.path}: its files are of {release.reduction}, which is {release.name}, not {wanted}; "
            f"leave --release out, or give the table of {wanted}"
        )
    return release


def _rows(allstar: AllStar) -> Iterator[_Row]:
    """Give the rows, a block at a time as Python objects."""
    for batch in allstar.table.select(_Row._fields).to_batches(ROWS_AT_ONCE):
        yield from map(_Row._make, zip(*(column.to_pylist() for column in batch.columns), strict=True))


def _wanted_rows(allstar: AllStar, choice: Choice) -> Iterator[tuple[int, _Row]]:
    """Give the wanted rows with their numbers."""
    telescopes, fields, locations = map(frozenset, (choice.telescopes, choice.fields, choice.locations))
    for number, row in enumerate(_rows(allstar), start=1):
        if telescopes and row.telescope not in telescopes:
            continue
        if fields and row.field not in fields:
            continue
        if locations and row.location_id not in locations:
            continue
        if choice.min_snr is not None and not row.snr >= choice.min_snr:  # NaN is no SNR
            continue
        yield number, row


def _place(row: _Row, release: Release) -> tuple[str, str]:
    """Return telescope and folder of a row's file; raise _UnusableError where the row gives no safe path."""
    if not row.file:
        raise _UnusableError(NO_FILE)
    named = parse_file_name(row.file)
    if named is None or not is_identifier(row.file):
        raise _UnusableError(f"{_shown(row.file)} is not the name of an apStar file")
    if named.release != release.reduction:
        raise _UnusableError(f"{row.file} is of {named.release}, not of {release.reduction}")
    if row.telescope not in release.telescopes:
        raise _UnusableError(f"{release.name} has no telescope {_shown(row.telescope)}")
    if release.has_location_folder(row.telescope):
        if not row.location_id:
            raise _UnusableError("the row tells no LOCATION_ID, which names the folder")
        return row.telescope, str(row.location_id)
    if not is_identifier(row.field):
        raise _UnusableError(f"FIELD is {_shown(row.field)}, which names no folder")
    return row.telescope, row.field


def _shown(text: str) -> str:
    """Return a text of a table as it may be shown: in quotes, short, without control characters."""
    return ascii(text[:MAX_SHOWN])


def _nothing_left(allstar: AllStar, choice: Choice, unlisted: Sequence[Unlisted]) -> str:
    """Return why there is no file to fetch."""
    if unlisted:
        first = unlisted[0]
        return (
            f"{allstar.path}: none of {len(unlisted)} rows gives a file; row {first.row}: {first.reason}; "
            "check the table"
        )
    if choice.min_snr is not None and not np.isfinite(allstar.table["snr"].to_numpy()).any():
        return f"{allstar.path}: no row tells an SNR; leave --min-snr out"
    names = sorted(name for name in allstar.table["telescope"].unique().to_pylist() if is_identifier(name))
    return (
        f"{allstar.path}: --telescope, --field, --location and --min-snr leave none of its {allstar.n_stars} "
        f"rows; its telescopes are {', '.join(names) or 'not told'}"
    )
