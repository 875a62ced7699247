"""What was read, planned or set is not what it was: the program notices, says what, and loses nothing."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from crashes import content_of, crash_after, other_version

from apogee_batch.errors import UsageError
from apogee_batch.run import commands
from apogee_batch.run.config import ORDINARY, Going, RunConfig
from apogee_batch.run.progress import SilentView
from apogee_batch.store.tables import read_stars, read_table, table_path
from apogee_batch.survey.simulate import SimulatedSurvey
from apogee_batch.survey.sources import find_apstar_files

pytestmark = pytest.mark.fault

N_FILES = 20  # a shard of 16, and one of 4
TRUSTING, FORCED = Going(trust_mtime=True), Going(force_new_plan=True)


class Listener(SilentView):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def spoil(path: Path) -> bytes:
    """Return the content of a file with another flux; as many bytes."""
    content = bytearray(path.read_bytes())
    at = content.index(b"XTENSION") + 2 * 2880 + 4 * 4000  # within the flux of the first row
    content[at : at + 4] = b"\x42\x28\x00\x00" if content[at : at + 4] != b"\x42\x28\x00\x00" else b"\x42" * 4
    return bytes(content)


def rewrite(path: Path, content: bytes, *, keep_mtime: bool) -> None:
    """Write a file anew; the clock may be too coarse to tell, so an honest time is moved on."""
    found = path.stat()
    path.write_bytes(content)
    later = found.st_mtime_ns if keep_mtime else found.st_mtime_ns + 5_000_000_000
    os.utime(path, ns=(later, later))


@dataclass(frozen=True)
class Desk:
    """A folder of apStar files, and the store that is made of it."""

    folder: Path
    store: Path
    config: RunConfig

    def ingest(self, going: Going = ORDINARY, **changes: Any) -> list[str]:
        options: dict[str, Any] = {"allstar": None, "config": self.config, "progress": SilentView()}
        sources = [str(self.folder)]
        return commands.ingest(sources, self.store, **options | changes, is_dry_run=False, going=going)

    def stop(self, **changes: Any) -> None:
        """Ingest the first of two shards."""
        crash_after("ledger/*.json", lambda: self.ingest(**changes))

    @property
    def paths(self) -> list[Path]:
        return find_apstar_files([str(self.folder)])

    def rejects(self) -> dict[str, str]:
        rows = read_table(table_path(self.store, "rejects")).to_pylist()
        return {row["path"]: row["reason"] for row in rows}

    def shard_bytes(self) -> dict[str, bytes]:
        kept = content_of(self.store)
        return {name: kept[name] for name in kept if name.startswith(("flux/c", "err/c", "mask/c"))}


@pytest.fixture
def desk(survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path) -> Desk:
    found = Desk(tmp_path / "stars", tmp_path / "s.zarr", serial_config)
    for path in find_apstar_files([str(survey.spectra)])[:N_FILES]:
        copy = found.folder / path.relative_to(survey.spectra)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    return found


@pytest.fixture
def spare(survey: SimulatedSurvey) -> Path:
    """A star that is in no store yet."""
    return find_apstar_files([str(survey.spectra)])[-1]


def add(desk: Desk, spare: Path) -> list[str]:
    path = desk.folder / spare.name
    shutil.copy(spare, path)
    return [f"1 file added ({path})"]


def remove(desk: Desk, spare: Path) -> list[str]:
    path = desk.paths[3]
    path.unlink()
    return [f"1 file removed ({path})"]


def lengthen(place: int) -> Callable[[Desk, Path], list[str]]:
    def change(desk: Desk, spare: Path) -> list[str]:
        path = desk.paths[place]
        size = path.stat().st_size
        rewrite(path, path.read_bytes() + bytes(2880), keep_mtime=True)
        return [str(path), str(size), str(size + 2880)]

    return change


def swap_flux(desk: Desk, spare: Path) -> list[str]:
    path = desk.paths[3]
    rewrite(path, spoil(path), keep_mtime=True)
    return [f"{path} has the same size and another content"]


CHANGES = {
    "a file more": add,
    "a file less": remove,
    "a longer file that was read": lengthen(3),
    "a longer file that was not read": lengthen(-1),
    "another content of the same size and time": swap_flux,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_ingest_does_not_go_on_with_other_files(
    desk: Desk, spare: Path, change: Callable[[Desk, Path], list[str]]
) -> None:
    desk.stop()
    said = change(desk, spare)
    before = content_of(desk.store)
    with pytest.raises(UsageError, match="--force-new-plan") as caught:
        desk.ingest()
    assert all(text in str(caught.value) for text in said)
    assert caught.value.exit_code == 2
    after = content_of(desk.store)
    assert {name: after[name] for name in before if "logs/" not in name} == {
        name: before[name] for name in before if "logs/" not in name
    }, "a refusal changes nothing"


def test_to_trust_the_time_of_a_file_is_to_trust_it(desk: Desk, spare: Path) -> None:
    desk.stop()
    swap_flux(desk, spare)
    desk.ingest(TRUSTING)
    assert len(read_stars(desk.store)) == N_FILES


def test_a_new_time_is_looked_into_even_where_times_are_trusted(desk: Desk) -> None:
    desk.stop()
    path = desk.paths[3]
    rewrite(path, spoil(path), keep_mtime=False)
    with pytest.raises(UsageError, match=re.escape(f"{path} has the same size and another content")):
        desk.ingest(TRUSTING)


@pytest.mark.parametrize("going", [ORDINARY, TRUSTING], ids=["by content", "by time"])
def test_a_file_that_was_only_touched_has_not_changed(desk: Desk, going: Going) -> None:
    desk.stop()
    for path in desk.paths:
        rewrite(path, path.read_bytes(), keep_mtime=False)
    desk.ingest(going)
    assert len(read_stars(desk.store)) == N_FILES


def test_an_ingest_does_not_go_on_with_another_summary(
    desk: Desk, survey: SimulatedSurvey, tmp_path: Path
) -> None:
    desk.stop(allstar=survey.allstar)
    with pytest.raises(UsageError, match="the allStar summary says other things of the stars"):
        desk.ingest()
    desk.ingest(allstar=survey.allstar)
    assert len(read_stars(desk.store)) == N_FILES


def test_an_ingest_does_not_go_on_with_another_version(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.stop()
    other_version(monkeypatch)
    with pytest.raises(UsageError, match=r"version of apogee-batch: .* -> 9\.9"):
        desk.ingest()


def test_a_forced_ingest_keeps_the_old_one_and_ends_as_a_new_one(desk: Desk, spare: Path) -> None:
    desk.stop()
    before = content_of(desk.store / "ingest" / "0001")
    add(desk, spare)
    view = Listener()
    desk.ingest(FORCED, progress=view)
    (aside,) = (desk.store / "ingest").glob("old-0001-*")
    assert any(str(aside) in line for line in view.lines)
    assert content_of(aside) == before
    fresh = replace(desk, store=desk.store.with_name("fresh.zarr"))
    fresh.ingest()
    assert desk.shard_bytes() == fresh.shard_bytes()
    assert read_stars(desk.store).equals(read_stars(fresh.store))
    assert "nothing to do" in desk.ingest()[0]


def test_a_forced_ingest_of_fewer_files_ends_as_a_new_one(desk: Desk) -> None:
    desk.stop()
    for path in desk.paths[10:]:
        path.unlink()
    desk.ingest(FORCED)
    fresh = replace(desk, store=desk.store.with_name("fresh.zarr"))
    fresh.ingest()
    assert read_stars(desk.store).equals(read_stars(fresh.store))
    assert desk.shard_bytes() == fresh.shard_bytes()


def test_a_file_of_a_finished_ingest_that_was_replaced_is_named(desk: Desk, spare: Path) -> None:
    desk.ingest()
    before = content_of(desk.store / "tables")
    said = swap_flux(desk, spare)[0]
    add(desk, spare)
    with pytest.raises(
        UsageError, match=re.escape(said) + ".*put the files back, or ingest into a new store"
    ):
        desk.ingest()
    assert content_of(desk.store / "tables") == before


def test_a_finished_store_does_not_need_its_files(desk: Desk) -> None:
    desk.ingest()
    for path in desk.paths[:5]:
        path.unlink()
    assert "nothing to do" in desk.ingest()[0]
    assert len(read_stars(desk.store)) == N_FILES


@pytest.mark.parametrize("keep_mtime", [False, True], ids=["new time", "same time"])
def test_a_rejected_file_that_was_mended_is_read_by_the_next_ingest(desk: Desk, keep_mtime: bool) -> None:
    path = desk.paths[3]
    good = path.read_bytes()
    rewrite(path, b"?" + good[1:], keep_mtime=True)
    desk.ingest()
    assert desk.rejects() == {str(path): "NOT_FITS"}
    rewrite(path, good, keep_mtime=keep_mtime)
    desk.ingest()
    assert desk.rejects() == {}
    assert len(read_stars(desk.store)) == N_FILES


@pytest.mark.parametrize("place", [3, -1], ids=["first shard", "last shard"])
def test_a_file_that_changes_while_it_is_ingested_is_read_by_the_next_ingest(desk: Desk, place: int) -> None:
    path = desk.paths[place]
    longer = path.read_bytes() + bytes(2880)
    crash_after("inputs.parquet", desk.ingest, lambda: rewrite(path, longer, keep_mtime=False))
    assert desk.rejects() == {str(path): "CHANGED"}
    desk.ingest()
    assert desk.rejects() == {}
    assert len(read_stars(desk.store)) == N_FILES


def test_a_copy_of_a_file_is_told_from_another_file_of_its_star(desk: Desk) -> None:
    first, second = desk.paths[:2]
    copy, other = desk.folder / "z" / first.name, desk.folder / "z" / second.name
    copy.parent.mkdir()
    shutil.copy(first, copy)
    other.write_bytes(spoil(second))
    desk.ingest()
    assert desk.rejects() == {str(copy): "DUPLICATE_FILE", str(other): "DUPLICATE_STAR"}
    assert len(read_stars(desk.store)) == N_FILES
    assert "nothing to do" in desk.ingest()[0], "duplicates are known files too"
