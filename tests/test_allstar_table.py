"""The allStar table of each release, in one form."""

from pathlib import Path

import numpy as np
import pytest
from strategies import make_table, packed, simple_file

from apogee_batch.errors import UsageError
from apogee_batch.survey import allstar_table
from apogee_batch.survey.allstar import read_allstar

A, B = "2M00000001+0000001", "2M00000002+0000002"


def test_a_row_of_dr14_is_read_without_its_padding_and_fillers(tmp_path: Path) -> None:
    path = make_table(
        tmp_path,
        {
            "APSTAR_ID": ("45A", ["apogee.apo25m.s.stars.4263.2M19390532+4027346   ", "x"]),
            "APOGEE_ID": ("18A", ["2M19390532+4027346", "VESTA"]),
            "TELESCOPE": ("8A", ["apo25m", "apo1m"]),
            "LOCATION_ID": ("I", [4263, -9999]),
            "FIELD": ("16A", ["N6819", "hip"]),
            "RA": ("D", [294.772188, -9999.0]),
            "DEC": ("D", [40.459633, np.nan]),
            "J": ("E", [10.5, 99.0]),
            "H": ("E", [10.25, 99.999]),
            "K": ("E", [10.125, -9999.0]),
            "NVISITS": ("J", [6, -1]),
            "STARFLAG": ("J", [198656, -9999]),
            "TEFF": ("E", [6500.0, -9999.0]),
            "FPARAM": ("7E", [[0.0] * 7, [1.0] * 7]),
        },
    )
    allstar = read_allstar(path)
    assert allstar.n_stars == 2
    one, other = allstar.stars([0, 1])
    assert one.apstar_id == "apogee.apo25m.s.stars.4263.2M19390532+4027346"
    assert (one.apogee_id, one.telescope, one.field, one.location_id) == (
        "2M19390532+4027346",
        "apo25m",
        "N6819",
        4263,
    )
    assert (one.ra, one.dec, one.j, one.h, one.k) == (294.772188, 40.459633, 10.5, 10.25, 10.125)
    assert (one.n_visits, one.starflag) == (6, 198656)
    assert (other.location_id, other.n_visits, other.starflag) == (None, 0, -1)
    assert np.isnan([other.ra, other.dec, other.j, other.h, other.k]).all()
    assert other.apogee_id == "VESTA"


def test_a_table_of_dr17_has_no_location_and_other_types(tmp_path: Path) -> None:
    path = make_table(
        tmp_path,
        {
            "file": ("64A", ["asStar-dr17-2M19390532+4027346.fits"]),
            "apogee_id": ("30A", ["2M19390532+4027346"]),
            "field": ("20A", ["N6819"]),
            "starflag": ("K", [1 << 40]),
            "ra": ("D", [0.0]),
        },
    )
    (star,) = read_allstar(path).stars([0])
    assert (star.location_id, star.starflag, star.ra, star.field) == (None, 1 << 40, 0.0, "N6819")
    assert star.telescope == star.apstar_id == ""


def test_a_table_is_read_in_blocks_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allstar_table, "ROWS_AT_ONCE", 3)
    path = make_table(tmp_path, {"APOGEE_ID": ("18A", [A] * 10), "LOCATION_ID": ("I", list(range(1, 11)))})
    allstar = read_allstar(path)
    assert [star.location_id for star in allstar.stars(range(10))] == list(range(1, 11))


def test_a_table_may_be_compressed(tmp_path: Path) -> None:
    path = make_table(tmp_path, {"APOGEE_ID": ("18A", [A, B])})
    path.write_bytes(packed(path.read_bytes()))
    assert [star.apogee_id for star in read_allstar(path).stars([0, 1])] == [A, B]


def test_padding_with_spaces_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = make_table(tmp_path, {"APOGEE_ID": ("18A", ["VESTA"]), "FIELD": ("8A", ["hip"])})
    content = path.read_bytes()
    assert b"VESTA" + bytes(13) in content
    path.write_bytes(content.replace(bytes(13) + b"hip", b" " * 13 + b"hip"))
    (star,) = read_allstar(path).stars([0])
    assert (star.apogee_id, star.field) == ("VESTA", "hip")


def test_columns_of_unexpected_kinds_tell_nothing(tmp_path: Path) -> None:
    columns = {"APOGEE_ID": ("18A", [A]), "RA": ("2D", [[1.0, 2.0]]), "LOCATION_ID": ("D", [np.nan])}
    (star,) = read_allstar(make_table(tmp_path, columns)).stars([0])
    assert np.isnan(star.ra)
    assert star.location_id is None


def test_an_empty_table_has_no_stars(tmp_path: Path) -> None:
    path = make_table(tmp_path, {"APOGEE_ID": ("18A", []), "RA": ("D", [])})
    assert read_allstar(path).n_stars == 0


def test_a_table_of_something_else_is_refused_with_its_columns(tmp_path: Path) -> None:
    path = make_table(tmp_path, {"RA": ("D", [1.0]), "PLATE": ("J", [1])})
    with pytest.raises(UsageError, match="no column APOGEE_ID; it has RA, PLATE; name the allStar FITS file"):
        read_allstar(path)


def test_a_text_where_numbers_should_be_is_refused(tmp_path: Path) -> None:
    path = make_table(tmp_path, {"APOGEE_ID": ("18A", [A]), "RA": ("9A", ["12:00:00"])})
    with pytest.raises(UsageError, match="column RA holds no numbers"):
        read_allstar(path)


@pytest.mark.parametrize("content", [b"", b"apogee_id,ra\n", b"SIMPLE  =                    T"])
def test_what_is_no_fits_table_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "allStar.fits"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"allStar\.fits"):
        read_allstar(path)


@pytest.mark.parametrize("name", ["minimal.csv", "it's.parquet"])
def test_a_table_in_another_format_is_refused_with_the_way_to_convert_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"APOGEE_ID,RA,DEC\n2M00000000+0000000,0.0,0.0\n")
    with pytest.raises(UsageError, match="is not FITS, as allStar tables are") as caught:
        read_allstar(path)
    assert f"Table.read({name!r}).write('allStar.fits')" in str(caught.value)
    assert "SIMPLE" not in str(caught.value)


def test_an_apstar_file_is_no_summary(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(simple_file())
    with pytest.raises(UsageError, match="it has no table"):
        read_allstar(path)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.fits: no such file; name the allStar"):
        read_allstar(tmp_path / "absent.fits")


def test_a_table_cut_short_is_refused(tmp_path: Path) -> None:
    path = make_table(tmp_path, {"APOGEE_ID": ("18A", [f"{i * 7919:018}" for i in range(1000)])})
    content = path.read_bytes()
    path.write_bytes(content[:-9000])
    with pytest.raises(UsageError, match="cannot be read"):
        read_allstar(path)
    path.write_bytes(packed(content)[:-50])
    with pytest.raises(UsageError, match="none that is whole"):
        read_allstar(path)
