"""Folders whose names are no UTF-8: file systems have them, and JSON and Arrow have no such text."""

import json
import os
import shutil
from pathlib import Path

import pytest

from apogee_batch import cli
from apogee_batch.run.verify import verify
from apogee_batch.store.tables import STARS, read_table, table_path

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
