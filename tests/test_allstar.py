"""Which files the rows of an allStar table are about."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import make_table, simple_file

from apogee_batch.survey import allstar_table
from apogee_batch.survey.allstar import AllStar, Reconciliation, match_allstar, read_allstar
from apogee_batch.survey.apstar import read_apstar

A, B, C = "2M00000001+0000001", "2M00000002+0000002", "2M00000003+0000003"


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
    wanted = {"kind": "missing", "apstar_id": f"apogee.apo1m.s.stars.1.{A}", "file": name, "taken": ""}
    assert missing == wanted


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
    assert match_allstar(allstar, [Path(f"/stars/apo25m/4100/apStar-r5-{A}.fits")]).n_found == 1


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
    (further,) = (record for record in result.details.to_pylist() if record["kind"] == "duplicate_file")
    assert (further["file"], further["taken"]) == (f"/s/{names[1]}", f"/s/{names[0]}")


def test_a_row_may_name_a_compressed_file(tmp_path: Path) -> None:
    table = {
        "APOGEE_ID": ("18A", [A, B]),
        "FILE": ("60A", [f"stars/apStar-r8-{A}.fits.gz", f"apStar-r8-{B}.fits"]),
    }
    allstar = read_allstar(make_table(tmp_path, table))
    files = [Path(f"/x/apStar-r8-{A}.fits"), Path(f"/x/apStar-r8-{B}.fits.gz")]
    assert match_allstar(allstar, files).n_found == 2
    files = [Path(f"/x/apStar-r8-{A}.FITS"), Path(f"/x/apStar-r8-{B}.Fits.GZ")]
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
