"""Files are given in their order, alone or many at once, and none is read twice."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import simple_file

from apogee_batch.run import in_flight
from apogee_batch.run.in_flight import N_IN_FLIGHT, Waiting, is_slow, read_in_order
from apogee_batch.run.ingest_task import read_files


@given(st.integers(0, 1200), st.booleans())
@settings(max_examples=20, deadline=None)
def test_everything_is_read_once_and_given_in_order(n_items: int, is_far: bool) -> None:
    read: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_flight, "is_slow", lambda *_: is_far)
        found = list(read_in_order(lambda item: read.append(item) or -item, range(n_items)))
    assert found == [-item for item in range(n_items)]
    assert sorted(read) == list(range(n_items))


@pytest.mark.parametrize("is_far", [False, True])
def test_an_error_comes_in_its_turn_and_stops_the_reading(
    monkeypatch: pytest.MonkeyPatch, *, is_far: bool
) -> None:
    monkeypatch.setattr(in_flight, "is_slow", lambda *_: is_far)

    def read(item: int) -> int:
        if item == 100:
            raise OSError(116, "Stale file handle")
        return item

    reading = read_in_order(read, range(2000))
    assert [next(reading) for _ in range(100)] == list(range(100))
    with pytest.raises(OSError, match="Stale"):
        next(reading)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]


def test_little_is_read_ahead_of_who_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "is_slow", lambda *_: True)
    read: list[int] = []
    for n_given, _ in enumerate(read_in_order(read.append, range(400))):
        assert len(read) <= n_given + 3 * N_IN_FLIGHT


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (Waiting(0.004, 0.001, 4), True),
        (Waiting(0.002, 0.001, 4), False),  # a quarter of a millisecond for each
        (Waiting(0.4, 0.001, 2), False),  # put aside by a busy machine: it slept less than once a file
        (Waiting(0.4, 0.399, 40), False),
    ],
)
def test_only_who_sleeps_for_long_is_waiting(after: Waiting, *, expected: bool) -> None:
    assert is_slow(Waiting(0.0, 0.0, 0), after, 4) is expected


def test_the_thread_is_seen_to_sleep() -> None:
    before = Waiting.now()
    for _ in range(3):
        time.sleep(0.002)
    assert is_slow(before, Waiting.now(), 3)


def write_files(folder: Path, n_files: int) -> list[dict[str, Any]]:
    """Small apStar files, every fifth of them cut short, as a plan would name them."""
    inputs = []
    for i in range(n_files):
        path = folder / f"apStar-r8-2M{i:08d}+4027346.fits"
        content = simple_file(n_rows=1 + i % 3 * 3)
        path.write_bytes(content[:30_000] if i % 5 == 4 else content)
        size = path.stat().st_size
        inputs.append({"path": str(path), "size": size, "row": i, "n_rows": 1, "known": None})
    return inputs


def test_many_files_wait_at_once_where_each_call_takes_long_and_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = write_files(tmp_path, 40)
    expected = read_files(inputs, "combined")
    waiting, most, lock = 0, 0, threading.Lock()
    original = os.pread

    def far(*arguments: int) -> bytes:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        time.sleep(0.004)
        with lock:
            waiting -= 1
        return original(*arguments)

    monkeypatch.setattr(os, "pread", far)
    found = read_files(inputs, "combined")
    assert 1 < most <= N_IN_FLIGHT
    assert (found.rows, found.rejects, found.contents) == (expected.rows, expected.rejects, expected.contents)
    assert [star.file for star in found.stars] == [star.file for star in expected.stars]
    n_stars = len(found.stars)
    assert n_stars == 32
    for name in ("flux", "err", "mask"):
        np.testing.assert_array_equal(getattr(found, name)[:n_stars], getattr(expected, name)[:n_stars])
