"""Folders whose names are no UTF-8: file systems have them, and JSON and Arrow have no such text."""

import io
import json
import os
import shutil
from pathlib import Path

import pytest

from apogee_batch import cli, cli_options
from apogee_batch.run.logs import LOG_FILE, log_to_folder
from apogee_batch.run.progress import PlainView
from apogee_batch.run.verify import verify
from apogee_batch.store.tables import STARS, read_table, table_path
from apogee_batch.survey.simulate import SimulatedSurvey
from apogee_batch.survey.sources import find_apstar_files

ODD = os.fsdecode(b"r\xfcn")


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    folder = tmp_path / ODD
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes names of UTF-8 alone")
    return folder


def ask(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["apogee-batch", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0


@pytest.mark.parametrize(
    "options", [["--json"], ["--json", "--watch"], ["--watch"], ["--watch", "--log-json"], ["--log-json"]]
)
def test_the_status_of_a_run_is_told_in_escaped_text(
    options: list[str],
    odd_folder: Path,
    finished_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = odd_folder / "run"
    shutil.copytree(finished_run, run)
    ask(["status", str(run), *options], monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert "".join(lines).isascii()
    told = [] if options == ["--watch"] else [json.loads(line) for line in lines]
    if "--watch" not in options:
        assert any(ODD in str(text) for values in told for text in values.values())


def test_the_status_of_a_store_is_told_in_escaped_text(
    odd_folder: Path,
    labelled_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = odd_folder / "s.zarr"
    shutil.copytree(labelled_store, store)
    ask(["status", str(store), "--json"], monkeypatch)
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == str(store.resolve() / "ingest" / "0001")
    assert told["done"] == told["total"]
    assert len(read_table(table_path(store, STARS))) == len(read_table(table_path(labelled_store, STARS)))


def test_verify_looks_at_folders_of_any_name(
    odd_folder: Path, finished_run: Path, labelled_store: Path
) -> None:
    for name, whole in {"run": finished_run, "s.zarr": labelled_store}.items():
        shutil.copytree(whole, odd_folder / name)
        assert verify(odd_folder / name).damages == []


def test_a_file_that_is_not_taken_may_have_any_name(
    odd_folder: Path,
    survey: SimulatedSurvey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spectra = odd_folder.parent / "spectra"
    spectra.mkdir()
    shutil.copy(find_apstar_files([str(survey.spectra)])[0], spectra)
    (spectra / f"{ODD}.fits").write_bytes(b"SIMPLE")
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="utf-8"))  # as strict as a user's
    ask(["ingest", str(spectra), "--store", str(spectra / "s.zarr"), "--cluster", "serial"], monkeypatch)
    told = written.getvalue().decode().splitlines()
    left_out = [line for line in told if line.startswith("left out: 1 FITS file")]
    assert len(left_out) == 2  # before and after
    assert all(line.endswith(r"r\udcfcn.fits; name it to take it") for line in left_out)
    assert len(read_table(table_path(spectra / "s.zarr", STARS))) == 1


def test_the_log_keeps_a_line_with_such_a_name(tmp_path: Path) -> None:
    with log_to_folder(tmp_path) as logger:
        logger.warning("%s.fits is left out", ODD)
    lines = (tmp_path / LOG_FILE).read_text(encoding="utf-8").splitlines()
    assert f"{ODD}.fits is left out" in [json.loads(line)["message"] for line in lines]


def test_a_path_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView(cli_options._console())
    view.say("/data/:star:/[b]x")
    assert capsys.readouterr().out == "/data/:star:/[b]x\n"


def test_a_command_that_cannot_work_there_says_so_in_one_line(
    odd_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    spectra = odd_folder / "spectra"
    spectra.mkdir()
    (spectra / "apStar-r8-2M00000000+0000000.fits").write_bytes(b"SIMPLE")
    words = ["ingest", str(spectra), "--store", str(odd_folder / "x.zarr"), "--cluster", "serial"]
    monkeypatch.setattr("sys.argv", ["apogee-batch", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    told = capfd.readouterr().err
    assert "is not UTF-8; rename it" in told
    assert "Traceback" not in told
