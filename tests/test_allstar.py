"""The allStar table of each release, and which files its rows are about."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import packed, simple_file

from apogee_batch.errors import UsageError
from apogee_batch.survey import allstar_table
from apogee_batch.survey.allstar import AllStar, Reconciliation, match_allstar, read_allstar
from apogee_batch.survey.apstar import read_apstar

A, B, C = "2M00000001+0000001", "2M00000002+0000002", "2M00000003+0000003"


def make_table(folder: Path, columns: dict[str, tuple[str, list[Any]]], name: str = "allStar.fits") -> Path:
    """Write a table of FITS formats and values."""
    hdu = fits.BinTableHDU.from_columns(
        [fits.Column(name, form, array=np.array(values)) for name, (form, values) in columns.items()]
    )
    path = folder / name
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    return path


def dr14(*rows: tuple[str, str, int, str], extratarg: list[int] | None = None) -> AllStar:
    """Return a table of rows (apogee_id, telescope, location_id, field) as those of DR14 are read."""
    block = {name: [""] * len(rows) for name in allstar_table.TEXT_COLUMNS}
    numbers = {name: [np.nan] * len(rows) for name in allstar_table.NUMBER_COLUMNS}
    integers = {name: [filler] * len(rows) for name, (_, filler, _) in allstar_table.INTEGER_COLUMNS.items()}
    known = {
        "apstar_id": [f"apogee.{telescope}.s.stars.{number}.{star}" for star, telescope, number, _ in rows],
        "file": [f"apStar-r8-{row[0]}.fits" for row in rows],
        "extratarg": extratarg or [0] * len(rows),
    }
    for i, name in enumerate(("apogee_id", "telescope", "location_id", "field")):
        known[name] = [row[i] for row in rows]
    return AllStar(Path("allStar.fits"), pa.table({**block, **numbers, **integers, **known}))


def kinds(result: Reconciliation) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(result.details["kind"]).to_pylist()}


# Reading


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


def test_an_apstar_file_is_no_summary(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(simple_file())
    with pytest.raises(UsageError, match="it has no table at all"):
        read_allstar(path)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.fits: no such file; name the allStar"):
        read_allstar(tmp_path / "absent.fits")


def test_a_table_cut_short_is_refused(tmp_path: Path) -> None:
    path = make_table(tmp_path, {"APOGEE_ID": ("18A", [A] * 1000)})
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(UsageError, match="cannot be read"):
        read_allstar(path)


# Matching


def test_the_folders_of_the_survey_tell_files_of_one_name_apart() -> None:
    allstar = dr14(
        (A, "apo25m", 4100, "one"),
        (A, "apo25m", 4200, "two"),
        (A, "apo1m", 1, "hip"),
        (A, "apo1m", 1, "calibration"),
    )
    stars = Path("/redux/r8/stars")
    name = f"apStar-r8-{A}.fits"
    files = [
        stars / "apo25m/4200" / name,
        stars / "apo1m/calibration" / name,
        stars / "apo25m/4100" / f"{name}.gz",
    ]
    result = match_allstar(allstar, files)
    assert [(path.parent.name, star.field) for path, star in result.selected] == [
        ("calibration", "calibration"),
        ("4100", "one"),
        ("4200", "two"),
    ]
    assert (result.n_found, result.n_missing, result.n_extra, result.n_duplicate) == (3, 1, 0, 0)
    (missing,) = result.details.to_pylist()
    assert missing == {"kind": "missing", "apstar_id": f"apogee.apo1m.s.stars.1.{A}", "file": name}


def test_a_field_that_no_row_has_makes_a_file_extra() -> None:
    allstar = dr14((A, "apo25m", 4100, "one"))
    path = Path(f"/stars/apo25m/4999/apStar-r8-{A}.fits")
    result = match_allstar(allstar, [path, Path(f"/stars/apo25m/4100/apStar-r6-{A}.fits")])
    assert (result.n_found, result.n_missing, result.n_extra) == (0, 1, 2)


def test_in_a_flat_folder_one_candidate_is_enough() -> None:
    allstar = dr14((A, "apo25m", 4100, "one"), (B, "apo25m", 4100, "one"))
    result = match_allstar(allstar, [Path(f"/data/apStar-r8-{B}.fits")])
    assert [star.apogee_id for _, star in result.selected] == [B]
    assert (result.n_found, result.n_missing) == (1, 1)


def test_in_a_flat_folder_the_header_decides_between_candidates(tmp_path: Path) -> None:
    allstar = dr14((A, "apo25m", 4100, "one"), (A, "apo25m", 4200, "two"))
    path = tmp_path / f"apStar-r8-{A}.fits"
    path.write_bytes(simple_file(cards={"OBJID": A, "LOCID": 4200, "FIELD": "two"}))
    ((_, star),) = match_allstar(allstar, [path]).selected
    assert star.location_id == 4200
    path.write_bytes(b"damaged")
    assert match_allstar(allstar, [path]).n_extra == 1
    path.unlink()
    assert match_allstar(allstar, [path]).n_extra == 1


def test_a_folder_of_another_tree_decides_where_it_can() -> None:
    allstar = dr14((A, "apo25m", 4100, "one"), (A, "apo25m", 4200, "two"))
    ((_, star),) = match_allstar(allstar, [Path(f"/mine/4200/apStar-r8-{A}.fits")]).selected
    assert star.field == "two"


def test_without_a_file_column_stars_are_matched(tmp_path: Path) -> None:
    allstar = read_allstar(make_table(tmp_path, {"APOGEE_ID": ("18A", [A, A]), "COMMISS": ("I", [0, 1])}))
    files = [Path(f"/x/apStarC-r5-{A}.fits"), Path(f"/x/apStar-r5-{A}.fits"), Path(f"/x/apStar-r5-{B}.fits")]
    result = match_allstar(allstar, files)
    assert [path for path, _ in result.selected] == [files[1], files[0]]
    assert result.n_extra == 1


def test_every_kind_of_repetition_is_counted() -> None:
    allstar = dr14(
        (A, "apo25m", 4100, "one"),
        (A, "apo25m", 4100, "one"),
        (B, "apo25m", 4100, "one"),
        (B, "apo25m", 4200, "two"),
        extratarg=[0, 0, 1, 1 << 4],
    )
    names = [f"apo25m/4100/apStar-r8-{A}.fits", f"apo25m/4100/apStar-r8-{A}.fits.gz"]
    names += [f"apo25m/{field}/apStar-r8-{B}.fits" for field in (4100, 4200)]
    result = match_allstar(allstar, [Path("/s") / name for name in names])
    assert (result.n_found, result.n_missing, result.n_extra, result.n_duplicate) == (3, 0, 0, 3)
    assert kinds(result) == {"duplicate_file": 1, "duplicate_row": 1, "duplicate_target": 1}


def test_a_row_may_name_a_compressed_file(tmp_path: Path) -> None:
    table = {
        "APOGEE_ID": ("18A", [A, B]),
        "FILE": ("60A", [f"stars/apStar-r8-{A}.fits.gz", f"apStar-r8-{B}.fits"]),
    }
    allstar = read_allstar(make_table(tmp_path, table))
    files = [Path(f"/x/apStar-r8-{A}.fits"), Path(f"/x/apStar-r8-{B}.fits.gz")]
    assert match_allstar(allstar, files).n_found == 2


def test_the_telescope_of_a_folder_counts() -> None:
    allstar = dr14((A, "apo25m", 1, "hip"))
    assert match_allstar(allstar, [Path(f"/stars/apo1m/hip/apStar-r8-{A}.fits")]).n_extra == 1


def test_stars_of_the_one_meter_telescope_are_told_apart_by_field(tmp_path: Path) -> None:
    allstar = dr14((A, "apo1m", 1, "hip"), (A, "apo1m", 1, "calibration"))
    path = tmp_path / f"apStar-r8-{A}.fits"
    path.write_bytes(simple_file(cards={"TELESCOP": "apo1m", "LOCID": 1, "FIELD": "calibration"}))
    result = match_allstar(allstar, [path])
    assert [star.field for _, star in result.selected] == ["calibration"]
    assert (result.n_missing, result.n_duplicate) == (1, 0)


def test_a_row_that_gets_a_file_of_its_own_is_no_repetition() -> None:
    allstar = dr14((A, "apo25m", 7, "x"), (A, "apo25m", 7, "y"))
    files = [Path(f"/stars/apo25m/{folder}/apStar-r8-{A}.fits") for folder in ("7", "y")]
    result = match_allstar(allstar, files)
    assert (result.n_found, result.n_duplicate, result.details.num_rows) == (2, 0, 0)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_every_row_and_every_file_is_accounted_for(data: st.DataObject) -> None:
    stars = st.tuples(
        st.sampled_from([A, B, C]),
        st.sampled_from(["apo25m", "apo1m"]),
        st.sampled_from([1, 2]),
        st.sampled_from("xy"),
    )
    rows = data.draw(st.lists(stars, min_size=1, max_size=8))
    names = st.builds(
        "/{}/{}/apStar-r8-{}.fits{}".format,
        st.sampled_from(["apo25m", "apo1m", "mine"]),
        st.sampled_from(["1", "2", "x", "elsewhere"]),
        st.sampled_from([A, B, C]),
        st.sampled_from(["", ".gz"]),
    )
    files = [Path(name) for name in data.draw(st.lists(names, unique=True, max_size=10))]
    allstar = dr14(*rows)
    result = match_allstar(allstar, files)
    counts = kinds(result)
    assert result.n_found + result.n_missing + counts.get("duplicate_row", 0) == len(rows)
    assert result.n_found + result.n_extra + counts.get("duplicate_file", 0) == len(files)
    assert len({path for path, _ in result.selected}) == result.n_found == len(result.selected)
    again = match_allstar(allstar, files[::-1])
    assert [path for path, _ in again.selected] == [path for path, _ in result.selected]
    assert again.details.equals(result.details)


def test_what_a_row_knows_reaches_the_spectrum(tmp_path: Path) -> None:
    allstar = dr14((A, "apo25m", 4100, "one"))
    folder = tmp_path / "stars" / "apo25m" / "4100"
    folder.mkdir(parents=True)
    path = folder / f"apStar-r8-{A}.fits"
    path.write_bytes(simple_file())
    ((found, known),) = match_allstar(allstar, [path]).selected
    result = read_apstar(found, known=known)
    assert isinstance(result, list)
    star = result[0].star
    assert (star.apstar_id, star.apogee_id, star.field) == (f"apogee.apo25m.s.stars.4100.{A}", A, "one")
    assert (star.h, star.starflag, star.release) == (10.305, 198656, "r8")
