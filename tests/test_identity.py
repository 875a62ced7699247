"""Who a star is, from its file's name, folder and header."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import simple_file

from apogee_batch.errors import ApStarError
from apogee_batch.survey.fits_headers import BLOCK_BYTES, Header
from apogee_batch.survey.identity import (
    FileName,
    coordinate,
    describe_star,
    find_place,
    is_identifier,
    magnitude,
    parse_file_name,
)
from apogee_batch.survey.spectrum import Star


def header(**cards: object) -> Header:
    lines = [f"{name:8}= {value!r}" for name, value in cards.items()]
    text = "".join(line.ljust(80) for line in (*lines, "END"))
    return Header(text.ljust(-(-len(text) // BLOCK_BYTES) * BLOCK_BYTES).encode())


def describe(path: str, **cards: object) -> Star:
    return describe_star(Path(path), header(**cards), n_visits=2, known=None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("apStar-r8-2M19390532+4027346.fits", FileName("ap", False, "r8", "2M19390532+4027346")),
        ("apStar-dr17-2M19390532-4027346.fits.gz", FileName("ap", False, "dr17", "2M19390532-4027346")),
        ("asStar-r12-2M19390532-4027346.fits", FileName("as", False, "r12", "2M19390532-4027346")),
        ("apStarC-r6-2M19390532+4027346.fits", FileName("ap", True, "r6", "2M19390532+4027346")),
        ("apStar-r8-HD-1234_b.fits", FileName("ap", False, "r8", "HD-1234_b")),
        ("aspcapStar-r6-l30e.2-2M03290406+3117075.fits", None),
        ("apStar-2M19390532+4027346.fits", None),
        ("spec.fits", None),
        ("apStar-r8-2M19390532+4027346.fits.part", None),
    ],
)
def test_names_of_all_releases_are_parsed(name: str, expected: FileName | None) -> None:
    assert parse_file_name(name) == expected


@given(st.text(max_size=40))
def test_an_identifier_is_safe_in_a_path(text: str) -> None:
    if is_identifier(text):
        assert text.isascii()
        assert not set(text) & set("/\\ \0\n'\"")
        assert ".." not in text
        assert text[0].isalnum()


@pytest.mark.parametrize(
    "text", ["2M19390532+4027346", "VESTA", "150-08-RV", "N6819", "apogee.apo25m.s.stars.1.x"]
)
def test_names_of_the_survey_are_identifiers(text: str) -> None:
    assert is_identifier(text)


@pytest.mark.parametrize("text", ["", "a/b", "..", "a..b", ".a", "-a", "a b", "\uff12M", "a\n", "x" * 128])
def test_other_names_are_not(text: str) -> None:
    assert not is_identifier(text)


def test_the_header_is_taken_before_the_folder() -> None:
    star = describe("/s/apo25m/4263/apStar-r8-A.fits", OBJID="B", TELESCOP="lco25m", FIELD="f", LOCID=7)
    assert (star.apogee_id, star.telescope, star.field, star.location_id) == ("B", "lco25m", "f", 7)


def test_a_file_of_dr17_is_known_by_its_folders() -> None:
    star = describe("/dr17/stars/lco25m/N6819/asStar-dr17-2M19390532+4027346.fits")
    assert star.apstar_id == "apogee.lco25m.dr17.stars.N6819.2M19390532+4027346"
    assert (star.location_id, star.n_visits, star.starflag) == (None, 2, 0)
    assert all(np.isnan([star.ra, star.dec, star.j, star.h, star.k, star.snr, star.snr_header]))


def test_a_file_of_dr14_is_known_by_its_folders() -> None:
    star = describe("/r8/stars/apo25m/4263/apStar-r8-2M19390532+4027346.fits")
    assert star.apstar_id == "apogee.apo25m.r8.stars.4263.2M19390532+4027346"
    assert (star.location_id, star.field) == (4263, "")


def test_other_folders_tell_nothing() -> None:
    assert find_place(Path("/home/me/4263/a.fits")).telescope == ""
    assert find_place(Path("a.fits")).folder == ""
    star = describe("/home/me/4263/apStar-r8-A.fits")
    assert (star.telescope, star.field, star.location_id, star.apstar_id) == (
        "",
        "",
        None,
        "apogee.r8.stars.A",
    )


def test_a_star_of_the_one_meter_telescope_is_named_by_its_field() -> None:
    star = describe("apStar-r8-VESTA.fits", TELESCOP="apo1m", FIELD="calibration", LOCID=1)
    assert star.apstar_id == "apogee.apo1m.r8.stars.calibration.VESTA"


def test_commissioning_spectra_have_names_of_their_own() -> None:
    cards = {"OBJID": "A", "TELESCOP": "apo25m", "LOCID": 5}
    names = {describe(f"{kind}-r6-A.fits", **cards).apstar_id for kind in ("apStar", "apStarC")}
    assert len(names) == 2


def test_the_reduction_is_that_of_the_visits_where_the_name_does_not_tell_it() -> None:
    assert describe("a.fits", OBJID="A", SFILE1="apVisit-r8-5214-55813-299.fits").release == "r8"
    assert describe("a.fits", OBJID="A").release == ""


@pytest.mark.parametrize(
    "cards",
    [{}, {"OBJID": "a b"}, {"OBJID": "A", "FIELD": "../x"}, {"OBJID": "A", "TELESCOP": "a/b"}],
)
def test_a_missing_or_malformed_name_is_an_error(cards: dict[str, str]) -> None:
    with pytest.raises(ApStarError, match=r"OBJID|is '"):
        describe("a.fits", **cards)


def test_fillers_are_no_values() -> None:
    assert np.isnan([magnitude(value) for value in (None, 99.0, 99.99, 99.999, -9999.0, float("inf"))]).all()
    assert magnitude(-1.5) == -1.5
    assert np.isnan([coordinate(value, 0, 360) for value in (None, -9999, 361.0)]).all()
    assert coordinate(0, 0, 360) == 0.0
    star = describe("a.fits", OBJID="A", LOCID=-1, NVISITS=0, STARFLAG=1 << 70, SNR=-9999.0)
    assert (star.location_id, star.n_visits, star.starflag) == (None, 2, 0)
    assert np.isnan(star.snr_header)


def test_a_file_says_its_starflag(tmp_path: Path) -> None:
    primary = Header(simple_file()[: 2 * BLOCK_BYTES])
    star = describe_star(tmp_path / "a.fits", primary, n_visits=1, known=None)
    assert (star.starflag, star.apogee_id) == (198656, "2M19390532+4027346")
