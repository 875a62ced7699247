"""A shard that is written while its rows come has the same bytes, and is there whole or not at all."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch import streams
from apogee_batch.files import sha256_of_file
from apogee_batch.store import shard_writer
from apogee_batch.store.layout import STAGING, StoreInfo, create_store, shard_files
from apogee_batch.store.spectra import ShardWriter, read_spectra, write_shard
from apogee_batch.survey.pixels import N_PIXELS

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def spectra(n_stars: int) -> Arrays:
    rng = np.random.default_rng(n_stars)
    flux, err = (rng.normal(1000, 30, (n_stars, N_PIXELS)).astype(np.float32) for _ in range(2))
    return flux, err, rng.integers(0, 9, (n_stars, N_PIXELS), np.int32)


def small_store(path: Path) -> StoreInfo:
    return create_store(path / "s.zarr", n_rows=96, shard_stars=48)  # of chunks of 16 stars


def no_leftovers(info: StoreInfo) -> bool:
    return not any(path.is_file() for path in (info.path / STAGING).rglob("*"))


@given(st.sets(st.integers(0, 47)))
@settings(max_examples=12, deadline=None)
def test_the_bytes_are_those_of_all_rows_at_once(
    tmp_path_factory: pytest.TempPathFactory, offset: set[int]
) -> None:
    info = small_store(tmp_path_factory.mktemp("writer"))
    flux, err, mask = spectra(len(offset))
    rows = np.array(sorted(offset), np.int64)
    written = write_shard(info, 0, offset=rows, flux=flux, err=err, mask=mask)
    expected = [path.read_bytes() for path in shard_files(info.path, 0)]
    assert [(file.path, file.sha256) for file in written] == [
        (path, sha256_of_file(path)) for path in shard_files(info.path, 0)
    ]
    room = tuple(np.full_like(values, 7) for values in (flux, err, mask))
    with ShardWriter(info, 1, flux=room[0], err=room[1], mask=room[2]) as writer:
        for i, row in enumerate(rows.tolist()):
            for values, of_star in zip(room, (flux, err, mask), strict=True):
                values[i] = of_star[i]
            writer.add(row)
    assert [path.read_bytes() for path in shard_files(info.path, 1)] == expected
    assert [file.sha256 for file in writer.written] == [file.sha256 for file in written]
    np.testing.assert_array_equal(read_spectra(info, 48 + rows).flux, flux)
    assert no_leftovers(info)


def test_what_ends_the_reading_ends_the_shard_and_is_passed_on_as_it_is(tmp_path: Path) -> None:
    info = small_store(tmp_path)
    flux, err, mask = spectra(20)
    away = OSError(errno.ESTALE, "Stale file handle", "apStar-r8-A.fits")

    def lose_the_server() -> None:
        with ShardWriter(info, 0, flux=flux, err=err, mask=mask) as writer:
            for row in range(20):
                writer.add(row)
            raise away

    with pytest.raises(OSError, match="Stale") as caught:
        lose_the_server()
    assert caught.value is away
    assert caught.value.filename == "apStar-r8-A.fits"
    assert no_leftovers(info)
    assert not any(path.exists() for path in shard_files(info.path, 0))


@pytest.mark.parametrize("nth", [1, 2, 3, 5, 9, 12])
def test_a_write_that_fails_names_its_file_and_leaves_the_old_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    info = small_store(tmp_path)
    flux, err, mask = spectra(48)
    write_shard(info, 0, offset=np.arange(20), flux=flux[:20], err=err[:20], mask=mask[:20])
    before = [path.read_bytes() for path in shard_files(info.path, 0)]
    original, n_calls = os.write, 0

    def full(descriptor: int, content: memoryview) -> int:
        nonlocal n_calls
        n_calls += 1
        if n_calls >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(descriptor, content)

    monkeypatch.setattr(streams.os, "write", full)
    with pytest.raises(OSError, match="No space") as caught:
        write_shard(info, 0, offset=np.arange(48), flux=flux, err=err, mask=mask)
    monkeypatch.undo()
    assert Path(caught.value.filename) in shard_files(info.path, 0)
    assert no_leftovers(info)
    assert [path.read_bytes() for path in shard_files(info.path, 0)] == before


@pytest.mark.parametrize("array", [0, 1, 2])
def test_a_name_that_cannot_be_given_is_that_of_the_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: int
) -> None:
    info = small_store(tmp_path)
    flux, err, mask = spectra(20)
    original, failing = os.replace, shard_files(info.path, 0)[array]

    def fail(source: Path, target: Path) -> None:
        if Path(target) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space") as caught:
        write_shard(info, 0, offset=np.arange(20), flux=flux, err=err, mask=mask)
    assert caught.value.filename == str(failing)
    assert no_leftovers(info)


def test_what_was_written_is_on_its_way_to_the_disk_while_rows_still_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = small_store(tmp_path)
    flux, err, mask = spectra(40)
    steps: list[str] = []
    sent = dict[int, int]()
    original = streams.StagedFile.start_flush

    def start_flush(self: streams.StagedFile, start: int) -> None:
        assert start == sent.get(id(self), 0)  # no byte is left out
        original(self, start)
        sent[id(self)] = self.tell()
        steps.append("sent")

    monkeypatch.setattr(streams.StagedFile, "start_flush", start_flush)
    monkeypatch.setattr(shard_writer, "START_BYTES", 1000)
    with ShardWriter(info, 0, flux=flux, err=err, mask=mask) as writer:
        for row in range(40):
            writer.add(row)
        writer._thread.submit(steps.append, "all rows").result()
    assert steps[: steps.index("all rows")] == ["sent"] * 6  # two chunks of three arrays


@pytest.mark.parametrize("row", [-1, 3, 2, 48])
def test_rows_must_ascend_within_the_shard(tmp_path: Path, row: int) -> None:
    info = small_store(tmp_path)
    flux, err, mask = spectra(2)
    with ShardWriter(info, 0, flux=flux, err=err, mask=mask) as writer:
        writer.add(3)
        with pytest.raises(ValueError, match="ascend"):
            writer.add(row)
    assert no_leftovers(info)
