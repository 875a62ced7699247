"""Who a star is: what its file's name, folder and header say, and the unique name made of them."""

import math
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from apogee_batch.errors import ApStarError, RejectReason
from apogee_batch.survey.fits_headers import Hdu, Header
from apogee_batch.survey.pixels import MISSING_MAGNITUDE
from apogee_batch.survey.spectrum import UNKNOWN_STAR, Star

ONE_METER = "apo1m"  # its stars share one location_id, whatever the field
TELESCOPES = ("apo25m", ONE_METER, "lco25m")
BRIGHTEST_MAGNITUDE = -9.0  # the brightest star of the sky in K is -4.2; -9.999 and -9999 mean missing

MAX_SHOWN = 80  # characters of a malformed name, which may have thousands

_FILE_NAME = re.compile(
    r"(?P<prefix>ap|as)Star(?P<commissioning>C?)-(?P<release>[a-z]+\d[A-Za-z\d._]*)-"
    r"(?P<apogee_id>.+?)(?i:\.fits(?:\.gz)?)",
    re.ASCII,
)
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,126}", re.ASCII)
_TWOMASS_NAME = re.compile(r"2M\d{8}[+-]\d{7}", re.ASCII)
_VISIT_FILE = re.compile(r"a[ps]Visit-(?P<release>[a-z]+\d[A-Za-z\d._]*)-", re.ASCII)
_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1


class FileName(NamedTuple):
    """What the name of an apStar file tells: apStar-r8-2M19390532+4027346.fits.

    Attributes
    ----------
    prefix : str
        "ap" (north, and the 1-m) or "as" (south).
    is_commissioning : bool
        Whether the spectrum was taken before the survey began (apStarC).
    release, apogee_id : str
        Reduction and star.
    """

    prefix: str
    is_commissioning: bool
    release: str
    apogee_id: str


def parse_file_name(name: str) -> FileName | None:
    """Return what the name of an apStar file tells; None for another name."""
    match = _FILE_NAME.fullmatch(name)
    if match is None:
        return None
    return FileName(match["prefix"], match["commissioning"] == "C", match["release"], match["apogee_id"])


class Place(NamedTuple):
    """Where a file lies in the survey's tree: .../stars/{telescope}/{location_id or field}/file.

    Attributes
    ----------
    telescope, folder : str
        "" where the folders are not those of the survey.
    """

    telescope: str
    folder: str


def find_place(path: Path) -> Place:
    """Return where a file lies in the survey's tree."""
    *_, telescope, folder = ("", "", *path.parts[-3:-1])
    return _place(telescope, folder)


@lru_cache(maxsize=1024)  # thousands of files lie in one folder
def _place(telescope: str, folder: str) -> Place:
    if telescope in TELESCOPES and is_identifier(folder):
        return Place(telescope, folder)
    return Place("", "")


def is_identifier(text: str) -> bool:
    """Tell whether a name holds only what names of stars, fields and telescopes hold.

    Names become keys of tables and may become parts of paths, so no file may choose them freely.
    """
    return _IDENTIFIER.fullmatch(text) is not None and ".." not in text


def guess_apogee_id(path: Path, primary: Hdu | None) -> str | None:
    """Return the name of the star that a file seems to be about, whatever file it is."""
    named = parse_file_name(path.name)
    found = _TWOMASS_NAME.search(path.name)
    candidates = (
        named.apogee_id if named else "",
        found[0] if found else "",
        (primary.header.text("OBJID") or primary.header.text("OBJ")) if primary else "",
    )
    return next((name for name in candidates if is_identifier(name)), None)


def describe_star(path: Path, primary: Header, *, n_visits: int, known: Star | None) -> Star:
    """Return what is known of the star of a file, before its spectrum is looked at.

    What a summary table knows wins over the header, and the header over names of file and folder.

    Parameters
    ----------
    path : Path
        The file.
    primary : Header
        Its primary header.
    n_visits : int
        Number of visits as the shape of the data tells it, for a header that does not.
    known : Star or None
        What the summary table knows; what equals the same attribute of `UNKNOWN_STAR` is unknown.

    Raises
    ------
    ApStarError
        BAD_ID for a missing or malformed name.
    """
    known = known or UNKNOWN_STAR
    named, place = parse_file_name(path.name), find_place(path)
    has_number = place.folder.isdigit()
    apogee_id = known.apogee_id or primary.text("OBJID") or (named.apogee_id if named else "")
    telescope = known.telescope or primary.text("TELESCOP") or place.telescope or _telescope_of_prefix(named)
    field = known.field or primary.text("FIELD") or ("" if has_number else place.folder)
    location_id = known.location_id or _bounded(primary.integer("LOCID"), _INT32_MAX)
    if location_id is None and has_number:
        location_id = _bounded(int(place.folder), _INT32_MAX)
    release = known.release or (named.release if named else _release_of_visits(primary))
    apstar_id = known.apstar_id
    if not apstar_id:
        kind = "starsC" if named is not None and named.is_commissioning else "stars"
        apstar_id = _compose_id(telescope, release, kind, location_id, field, apogee_id)
    ra, dec, j, h, k, snr = primary.numbers("RA", "DEC", "J", "H", "K", "SNR")
    star = Star.of(
        {
            "apstar_id": apstar_id,
            "apogee_id": apogee_id,
            "telescope": telescope,
            "field": field,
            "location_id": location_id,
            "ra": _prefer(known.ra, coordinate(ra, 0, 360)),
            "dec": _prefer(known.dec, coordinate(dec, -90, 90)),
            "j": _prefer(known.j, magnitude(j)),
            "h": _prefer(known.h, magnitude(h)),
            "k": _prefer(known.k, magnitude(k)),
            "snr": math.nan,
            "snr_header": _finite(snr),
            "n_visits": known.n_visits or _bounded(primary.integer("NVISITS"), _INT32_MAX) or n_visits,
            "visit": 0,
            "starflag": _starflag(known, primary),
            "release": release,
            "n_bad_pixels": 0,
            "file": path.name,
        }
    )
    _check_names(path, star)
    return star


def _telescope_of_prefix(named: FileName | None) -> str:
    """Return the telescope of an asStar file; "ap" may be either of two."""
    return "lco25m" if named is not None and named.prefix == "as" else ""


def _release_of_visits(primary: Header) -> str:
    """Return the reduction that the first visit of a star is from."""
    match = _VISIT_FILE.match(primary.text("SFILE1"))
    return match["release"] if match else ""


def _starflag(known: Star, primary: Header) -> int:
    """Return the APOGEE_STARFLAG bits; none where nothing tells them."""
    if known.starflag != UNKNOWN_STAR.starflag:
        return known.starflag
    return _bounded(primary.integer("STARFLAG"), _INT64_MAX) or 0


def _compose_id(
    telescope: str, release: str, kind: str, location_id: int | None, field: str, apogee_id: str
) -> str:
    """Return a unique name in the manner of the survey's APSTAR_ID, for a star that has none.

    The field's number is preferred, as in the survey's own; for the 1-m telescope, where the number
    is the same everywhere, its name. The reduction is a part of it, so that two are told apart.
    """
    location = "" if location_id is None else str(location_id)
    place = field or location if telescope == ONE_METER else location or field
    return ".".join(part for part in ("apogee", telescope, release, kind, place, apogee_id) if part)


def _check_names(path: Path, star: Star) -> None:
    """Raise BAD_ID for a missing or malformed name."""
    if not star.apogee_id:
        raise ApStarError(path, RejectReason.BAD_ID, "neither OBJID nor the file name says which star it is")
    names = (star.apogee_id, star.apstar_id, star.telescope, star.field)
    if all(map(_may_be_name, names)):
        return
    for name, text in zip(("apogee_id", "apstar_id", "telescope", "field"), names, strict=True):
        if not _may_be_name(text):
            raise ApStarError(path, RejectReason.BAD_ID, f"{name} is {text[:MAX_SHOWN]!r}")


@lru_cache(maxsize=1024)  # telescopes and fields return
def _may_be_name(text: str) -> bool:
    return not text or is_identifier(text)


def _prefer(known: float, found: float) -> float:
    """Return the first number, or the second where it is NaN."""
    return found if math.isnan(known) else known


def magnitude(value: float | None) -> float:
    """Return a magnitude, or NaN for none and for the fillers 99.99 and -9999."""
    if value is None or not BRIGHTEST_MAGNITUDE < value < MISSING_MAGNITUDE:
        return math.nan
    return float(value)


def coordinate(value: float | None, low: float, high: float) -> float:
    """Return a coordinate in degrees, or NaN for none and for a filler outside its range."""
    return float(value) if value is not None and low <= value <= high else math.nan


def _finite(value: float | None) -> float:
    """Return a number, or NaN for none, for an infinite one, and for the filler -9999."""
    return float(value) if value is not None and -9999 < value < math.inf else math.nan


def _bounded(value: int | None, largest: int) -> int | None:
    """Return a positive integer that fits its column; None for another."""
    return value if value is not None and 0 < value <= largest else None
