"""Where a HATS catalogue may be put, and what is done about what killed exports left there."""

import fcntl
import os
from pathlib import Path
from typing import IO

import pytest
from sky_catalogs import publish, sky_catalog
from typer.testing import CliRunner

from apogee_batch.catalog import hats as making
from apogee_batch.cli import app
from apogee_batch.errors import UsageError
from apogee_batch.run import hats
from apogee_batch.run.export import export

DEAD, LIVING, FOREIGN = (f".hats.{letter * 32}.partial" for letter in "abc")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hats-import seem to be there."""
    monkeypatch.setattr(making, "find_spec", lambda name: name)


def test_a_missing_hats_import_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "find_spec", lambda _: None)
    run = publish(sky_catalog(3), tmp_path / "run")
    with pytest.raises(UsageError, match=r"not installed; .*pip install -c constraints.txt '\.\[hats\]'$"):
        export(run, ["csv", "hats"])
    assert not (run / "export").exists()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("margin", [0.0, -1.0, 601.0, float("nan")])
def test_a_margin_that_is_none_is_refused(margin: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--margin"):
        hats.check_hats_export(tmp_path / "hats", margin)


def test_a_margin_goes_with_hats_only(tmp_path: Path) -> None:
    run = publish(sky_catalog(3), tmp_path / "run")
    ended = CliRunner().invoke(app, ["export", str(run), "--format", "csv", "--margin", "5"])
    assert isinstance(ended.exception, UsageError)
    assert "--margin is for --format hats" in str(ended.exception)


@pytest.mark.usefixtures("installed")
def test_only_an_export_of_ours_or_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "hats"
    hats.check_hats_export(folder, 10.0)
    folder.mkdir()
    hats.check_hats_export(folder, 10.0)
    (folder / "collection.properties").write_text("obs_collection=gaia\n")
    with pytest.raises(UsageError, match="is no exported catalogue"):
        hats.check_hats_export(folder, 10.0)
    (folder / "collection.properties").write_text(f"{making.MARK}=2\n")
    hats.check_hats_export(folder, 10.0)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UsageError, match="is no exported catalogue"):
        hats.check_hats_export(tmp_path / "link", 10.0)


def make_leftover(folder: Path) -> Path:
    (folder / "apogee_batch" / "apogee").mkdir(parents=True)
    (folder / ".rows.parquet.0123.partial").write_bytes(b"half")
    (folder / "lock").touch()
    return folder


def test_leftovers_of_killed_exports_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (DEAD, LIVING, FOREIGN):
        make_leftover(tmp_path / name)
    (tmp_path / FOREIGN / "thesis.tex").write_text("mine")
    (tmp_path / ".hats.mine.partial").mkdir()
    (tmp_path / "hats").mkdir()
    with (tmp_path / LIVING / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        hats._remove_leftovers(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {LIVING, FOREIGN, ".hats.mine.partial", "hats"}


def test_what_an_export_works_in_is_locked_and_gone_afterwards(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), hats._making_in(tmp_path) as aside:  # noqa: PT012
        hats._remove_leftovers(tmp_path)
        assert aside.is_dir()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_begins_beside_another_one_takes_nothing_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, seen = fcntl.flock, list[str]()

    def begin_beside(lock: IO[bytes], operation: int) -> None:
        if not seen:  # between the making of the lock and the taking
            seen.append("other")
            hats._remove_leftovers(tmp_path)
        flock(lock, operation)

    monkeypatch.setattr(fcntl, "flock", begin_beside)
    with hats._making_in(tmp_path) as aside:
        assert seen
        assert (aside / "lock").is_file()
        hats._remove_leftovers(tmp_path)
        assert (aside / "lock").is_file()
        assert hats._MADE_IN.fullmatch(aside.name)
    assert list(tmp_path.iterdir()) == []


def test_another_export_that_was_quicker_is_replaced_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "hats"
    rename, seen = Path.rename, list[str]()

    def be_quicker(path: Path, target: Path) -> Path:
        seen.append(path.name)
        if path.name == "made" and seen.count("made") == 1:  # it comes between the two renames
            folder.mkdir()
            (folder / "theirs").touch()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", be_quicker)
    with hats._making_in(tmp_path) as aside:
        (aside / "made").mkdir()
        (aside / "made" / "ours").touch()
        hats._put_in_place(aside / "made", folder, aside)
    assert [path.name for path in folder.iterdir()] == ["ours"]
    assert os.listdir(tmp_path) == ["hats"]  # noqa: PTH208
