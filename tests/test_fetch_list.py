"""Which files of the archive an allStar table is about, and what a call of fetch-list leaves behind."""

import csv
import os
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import make_table

from apogee_batch import files
from apogee_batch.cli import app
from apogee_batch.errors import UsageError
from apogee_batch.run.fetch_list import FetchSettings, write_fetch_list
from apogee_batch.survey.allstar import AllStar, read_allstar
from apogee_batch.survey.allstar_table import TEXT_COLUMNS
from apogee_batch.survey.fetch_list import Choice, FetchList, list_files, split_evenly

A, B, C = "2M00000001+0000001", "2M00000002-0000002", "2M00000003+0000003"
EVERY_ROW = Choice()
ROOT = "apogee/spectro/redux/r8/stars"


def star(apogee_id: str, reduction: str = "r8", **other: Any) -> dict[str, Any]:
    """Return a row as DR14 has them."""
    row = {
        "APSTAR_ID": f"apogee.apo25m.s.stars.4100.{apogee_id}",
        "FILE": f"apStar-{reduction}-{apogee_id}.fits",
        "APOGEE_ID": apogee_id,
        "TELESCOPE": "apo25m",
        "LOCATION_ID": 4100,
        "FIELD": "N6819",
        "NVISITS": 1,
        "SNR": 100.0,
    }
    return row | other


FORMATS = {"LOCATION_ID": "J", "NVISITS": "J", "SNR": "E"}


def table(folder: Path, *rows: dict[str, Any]) -> Path:
    """Write a table of rows."""
    columns = {name: (FORMATS.get(name, "80A"), [row[name] for row in rows]) for name in rows[0]}
    return make_table(folder, columns)


def listed(
    folder: Path, *rows: dict[str, Any], choice: Choice = EVERY_ROW, release: str | None = None
) -> FetchList:
    return list_files(read_allstar(table(folder, *rows)), choice, release=release)


def test_a_star_of_dr14_lies_in_the_folder_of_its_location_or_of_its_field(tmp_path: Path) -> None:
    found = listed(tmp_path, star(A), star(B, TELESCOPE="apo1m", LOCATION_ID=1, FIELD="hip"))
    assert found.stars == [f"{ROOT}/apo1m/hip/apStar-r8-{B}.fits", f"{ROOT}/apo25m/4100/apStar-r8-{A}.fits"]
    assert found.checksums == [
        f"{ROOT}/apo1m/hip/r8_stars_apo1m_hip.sha1sum",
        f"{ROOT}/apo25m/4100/r8_stars_apo25m_4100.sha1sum",
    ]


@pytest.mark.parametrize(("release", "reduction"), [("dr16", "r12"), ("dr17", "dr17")])
def test_a_star_of_later_releases_lies_in_the_folder_of_its_field(
    tmp_path: Path, release: str, reduction: str
) -> None:
    south = star(B, TELESCOPE="lco25m", FIELD="293-37-C", FILE=f"asStar-{reduction}-{B}.fits")
    found = listed(tmp_path, star(A, reduction), south)
    root = f"apogee/spectro/redux/{reduction}/stars"
    assert found.release.name == release
    assert found.stars == [
        f"{root}/apo25m/N6819/apStar-{reduction}-{A}.fits",
        f"{root}/lco25m/293-37-C/asStar-{reduction}-{B}.fits",
    ]
    assert found.checksums[1] == f"{root}/lco25m/293-37-C/{reduction}_stars_lco25m_293-37-C.sha1sum"


def test_a_file_that_two_rows_name_is_listed_once(tmp_path: Path) -> None:
    found = listed(tmp_path, star(A), star(A), star(A, LOCATION_ID=4200), star(B))
    assert (len(found.stars), found.n_repeated, found.n_chosen, found.n_rows) == (3, 1, 4, 4)
    assert len(set(found.stars)) == 3
    assert found.n_bytes == pytest.approx(3 * listed(tmp_path, star(A)).n_bytes)


def test_the_list_does_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    rows = [star(A), star(B), star(C, LOCATION_ID=4200)]
    assert listed(tmp_path, *rows).stars == listed(tmp_path, *reversed(rows)).stars


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"FILE": ""}, "the row names no file"),
        ({"FILE": "allStar-l31c.2.fits"}, "is not the name of an apStar file"),
        ({"FILE": f"apStar-r6-{A}.fits"}, "is of r6, not of r8"),
        ({"FILE": f"/etc/apStar-r8-{A}.fits"}, "is not the name of an apStar file"),
        ({"FILE": f"../apStar-r8-{A}.fits"}, "is not the name of an apStar file"),
        ({"FILE": "apStar-r8-a/../../x.fits"}, "is not the name of an apStar file"),
        ({"FILE": "apStar-r8-a..b.fits"}, "is not the name of an apStar file"),
        ({"FILE": "apStar-r8-a\nb.fits"}, "is not the name of an apStar file"),
        ({"FILE": "apStar-r8-$(id).fits"}, "is not the name of an apStar file"),
        ({"FILE": "apStar-r8-a b.fits"}, "is not the name of an apStar file"),
        ({"FILE": "apStar-r8-;id.fits"}, "is not the name of an apStar file"),
        ({"FILE": "apStar-r8-a?b#c.fits"}, "is not the name of an apStar file"),
        ({"TELESCOPE": "lco25m"}, "dr14 has no telescope 'lco25m'"),
        ({"TELESCOPE": ""}, "dr14 has no telescope ''"),
        ({"TELESCOPE": "../.."}, "dr14 has no telescope '../..'"),
        ({"LOCATION_ID": 0}, "LOCATION_ID"),
        ({"LOCATION_ID": -7}, "LOCATION_ID"),
        ({"TELESCOPE": "apo1m", "FIELD": ""}, "FIELD is ''"),
        ({"TELESCOPE": "apo1m", "FIELD": "../../.ssh"}, "FIELD is '../../.ssh'"),
        ({"TELESCOPE": "apo1m", "FIELD": "a\x1b[2Jb"}, r"FIELD is 'a\x1b[2Jb'"),
        ({"TELESCOPE": "apo1m", "FIELD": "--x"}, "FIELD is '--x'"),
    ],
)
def test_a_row_without_a_safe_path_is_left_out_by_its_number(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    found = listed(tmp_path, star(B), star(A, **change), star(C))
    assert [Path(path).name for path in found.stars] == [f"apStar-r8-{name}.fits" for name in (B, C)]
    ((number, apstar_id, why),) = found.unlisted
    assert number == 2
    assert A in apstar_id
    assert reason in why
    assert why.isprintable()


@given(st.text(st.characters(codec="ascii"), max_size=40), st.sampled_from(["file", "field", "telescope"]))
@settings(max_examples=200, deadline=None)
def test_no_text_of_a_table_leads_out_of_the_folder(text: str, column: str) -> None:
    columns = {name: [""] for name in TEXT_COLUMNS} | {"location_id": [4100], "n_visits": [1], "snr": [1.0]}
    columns |= {"file": [f"apStar-r8-{A}.fits"], "telescope": ["apo1m"], "field": ["hip"]}
    safe = {name: [value] for name, (value,) in columns.items()}
    for wild in (text, f"apStar-r8-{text}.fits"):
        both = {name: [*safe[name], wild if name == column else safe[name][0]] for name in columns}
        found = list_files(AllStar(Path("allStar.fits"), pa.table(both)), Choice())
        for path in found.stars + found.checksums:
            assert path.startswith(f"{ROOT}/apo")
            assert path.count("/") == ROOT.count("/") + 3
            assert os.path.normpath(path) == path
            assert shlex.quote(path) == path


def test_the_names_of_the_files_tell_the_release(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which is dr14, not dr17; leave --release out"):
        listed(tmp_path, star(A), release="dr17")
    with pytest.raises(UsageError, match="choose one of dr14, dr16, dr17"):
        listed(tmp_path, star(A), release="dr13")
    with pytest.raises(
        UsageError, match=r"allStar\.fits: .* reduction 'r6' is not known here, only of r8 \(dr14\)"
    ):
        listed(tmp_path, star(A, "r6"))
    with pytest.raises(UsageError, match="no row names an apStar file"):
        listed(tmp_path, star(A, FILE=""))


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (Choice(), [A, B, C]),
        (Choice(telescopes=("apo1m",)), [B]),
        (Choice(fields=("N6819", "M67")), [A, C]),
        (Choice(locations=(4200,)), [C]),
        (Choice(min_snr=50.0), [A]),
        (Choice(min_snr=20.0, telescopes=("apo25m",)), [A, C]),
        (Choice(limit=2), [A, B]),
    ],
)
def test_only_the_rows_that_were_asked_for_are_listed(
    tmp_path: Path, choice: Choice, names: list[str]
) -> None:
    rows = [
        star(A),
        star(B, TELESCOPE="apo1m", FIELD="hip", SNR=float("nan")),
        star(C, LOCATION_ID=4200, FIELD="M67", SNR=20.0),
    ]
    found = listed(tmp_path, *rows, choice=choice)
    assert sorted(Path(path).name for path in found.stars) == [f"apStar-r8-{name}.fits" for name in names]
    assert (found.n_chosen, found.n_rows) == (len(names), 3)


def test_a_choice_that_leaves_nothing_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave none of its 1 rows; its telescopes are apo25m"):
        listed(tmp_path, star(A), choice=Choice(telescopes=("lco25m",)))
    with pytest.raises(UsageError, match="no row tells an SNR; leave --min-snr out"):
        listed(tmp_path, star(A, SNR=-9999.0), choice=Choice(min_snr=1.0))
    with pytest.raises(UsageError, match=r"none of 1 rows gives a file; row 1: .* LOCATION_ID"):
        listed(tmp_path, star(A, LOCATION_ID=0))


@pytest.mark.data
def test_the_estimate_is_near_the_size_of_real_files(tmp_path: Path, shared_data: Path) -> None:
    sizes = {}
    for path in sorted(shared_data.glob("apstar/apStar-*.fits")):
        n_rows = round((path.stat().st_size - 43_200) / 229_700)
        sizes[path.stat().st_size] = 1 if n_rows == 1 else n_rows - 2
    assert sorted(sizes.values()) == [1, 2, 3, 4, 5, 6]
    for size, n_visits in sizes.items():
        assert listed(tmp_path, star(A, NVISITS=n_visits)).n_bytes == pytest.approx(size, rel=0.014)


def test_a_star_of_unknown_visits_counts_as_the_mean(tmp_path: Path) -> None:
    one, three = (listed(tmp_path, star(A, NVISITS=n)).n_bytes for n in (1, 3))
    found = listed(tmp_path, star(A, NVISITS=1), star(B, NVISITS=3), star(C, NVISITS=-1))
    assert found.n_without_visits == 1
    assert found.n_bytes == pytest.approx((one + three) * 1.5)
    assert listed(tmp_path, star(A, NVISITS=0)).n_bytes == pytest.approx(one)


@given(st.integers(0, 50), st.integers(1, 20))
def test_the_parts_of_a_list_are_the_list(n_paths: int, n_parts: int) -> None:
    paths = [str(number) for number in range(n_paths)]
    parts = split_evenly(paths, n_parts)
    assert [path for part in parts for path in part] == paths
    assert len(parts) == n_parts
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_lists_of_both_programs_name_the_same_files(tmp_path: Path) -> None:
    path, out = table(tmp_path, star(A), star(B)), tmp_path / "out"
    lines = write_fetch_list(path, out, FetchSettings())
    names = (out / "rsync.txt").read_text().splitlines()
    assert names[0] == f"{ROOT}/apo25m/4100/r8_stars_apo25m_4100.sha1sum"
    assert names[1:] == (out / "files.txt").read_text().splitlines()
    prefix = "https://data.sdss.org/sas/dr14/"
    assert (out / "wget.txt").read_text() == "".join(f"{prefix}{name}\n" for name in names)
    assert any(line.startswith("  rsync -aL ") and "rsync://dtn.sdss.org/dr14/ " in line for line in lines)
    assert (out / "not-listed.csv").read_text() == "row,apstar_id,reason\n"


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    path = table(tmp_path, star(A), star(B), star(C, FILE=""))
    first = write_fetch_list(path, tmp_path / "out", FetchSettings())
    before = snapshot(tmp_path / "out")
    assert write_fetch_list(path, tmp_path / "out", FetchSettings()) == first
    assert snapshot(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["files.txt", "rsync.txt", "wget.txt", "check.sh", "not-listed.csv"])
def test_a_crash_leaves_every_list_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path, out = table(tmp_path, star(A), star(B), star(C)), tmp_path / "out"
    write_fetch_list(path, out, FetchSettings(choice=Choice(limit=2)))
    before = snapshot(out)

    def crash(step: str, target: Path) -> None:
        if step == "flushed" and target.name == name:
            raise RuntimeError("power cut")

    monkeypatch.setattr(files, "on_commit_step", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        write_fetch_list(path, out, FetchSettings())
    assert snapshot(out).keys() == before.keys()
    assert (out / name).read_bytes() == before[name]


def test_rows_that_are_left_out_are_in_a_table(tmp_path: Path) -> None:
    path, out = table(tmp_path, star(A, FILE="a,b\n"), star(B)), tmp_path / "out"
    lines = write_fetch_list(path, out, FetchSettings())
    with (out / "not-listed.csv").open(newline="") as file:
        ((number, apstar_id, reason),) = list(csv.reader(file))[1:]
    assert (number, apstar_id) == ("1", f"'apogee.apo25m.s.stars.4100.{A}'")
    assert reason == r"'a,b\n' is not the name of an apStar file"
    assert f"           row 1: {reason}" in lines


def test_lists_of_an_earlier_call_are_replaced_and_nothing_else(tmp_path: Path) -> None:
    path, out = table(tmp_path, star(A), star(B), star(C)), tmp_path / "out"
    write_fetch_list(path, out, FetchSettings(n_parts=2))
    assert {"rsync-1-of-2.txt", "rsync-2-of-2.txt", "wget-1-of-2.txt", "wget-2-of-2.txt"} <= snapshot(
        out
    ).keys()
    parts = [(out / f"rsync-{part}-of-2.txt").read_text() for part in (1, 2)]
    (out / "rsync-notes.txt").write_text("mine")
    write_fetch_list(path, out, FetchSettings(form="rsync"))
    assert set(snapshot(out)) == {"rsync.txt", "rsync-notes.txt", "files.txt", "check.sh", "not-listed.csv"}
    assert "".join(parts) == (out / "rsync.txt").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "curl"}, "choose one of rsync, wget, both"),
        ({"n_parts": 0}, "--split 0"),
        ({"choice": Choice(limit=0)}, "--limit 0"),
        ({"base_urls": ("ftp://a.b/dr14",)}, "give the folder of a release, as rsync://dtn.sdss.org/dr14"),
        ({"base_urls": ("https://a.b/$(id)",)}, "give the folder of a release"),
        ({"base_urls": ("https://a.b/../x",)}, "give the folder of a release"),
        ({"base_urls": ("https://a.b/x", "http://c.d/x")}, "are both for wget"),
        ({"base_urls": ("https://a.b/x",), "form": "rsync"}, "leaves it out"),
    ],
)
def test_a_setting_that_no_call_can_mean_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        write_fetch_list(table(tmp_path, star(A)), tmp_path / "out", FetchSettings(**changes))
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, star(A))
    with pytest.raises(UsageError, match="not a folder; name another one with --out"):
        write_fetch_list(path, path, FetchSettings())


def test_a_mirror_takes_the_place_of_the_archive(tmp_path: Path) -> None:
    urls = ("rsync://mirror.example:873/sdss/dr14/", "http://mirror.example/a/b/dr14")
    lines = write_fetch_list(table(tmp_path, star(A)), tmp_path / "o ut", FetchSettings(base_urls=urls))
    rsync = next(shlex.split(line) for line in lines if "rsync -aL" in line)
    wget = next(shlex.split(line) for line in lines if "wget -nv" in line)
    assert rsync[-2:] == ["rsync://mirror.example:873/sdss/dr14/", f"{tmp_path}/o ut/spectra/"]
    assert "--cut-dirs=3" in wget
    assert (tmp_path / "o ut/wget.txt").read_text().startswith("http://mirror.example/a/b/dr14/apogee/")


def test_the_command_passes_its_options_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path, star(A), star(B, LOCATION_ID=4200), star(C, SNR=5.0), star(C, TELESCOPE="apo1m"))
    options = "--release dr14 --format rsync --telescope apo25m --location 4100 --location 4200 --field N6819"
    words = ["fetch-list", str(path), "--out", str(tmp_path / "out"), *options.split()]
    more = "--min-snr 50 --limit 1 --split 1 --base-url rsync://mirror.example/dr14"
    app([*words, *more.split()], standalone_mode=False)
    assert (tmp_path / "out/files.txt").read_text() == f"{ROOT}/apo25m/4100/apStar-r8-{A}.fits\n"
    said = capsys.readouterr().out
    assert "1 files for 1 rows (4 in the table), dr14, reduction r8" in said
    assert "rsync://mirror.example/dr14/ " in said
    assert "wget -nv" not in said
