"""The N-th call of the system fails, for every N: an error that says where, and the same bytes afterwards."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scenes import Scene, hash_all

from apogee_batch.errors import ApogeeBatchError
from apogee_batch.exits import explain_system_error

pytestmark = pytest.mark.fault

CALLS = ("replace", "fsync", "write")
ERRNOS = (errno.EIO, errno.ENOSPC, errno.ESTALE)
MOST = 500  # calls of a small command
Command = Callable[[], object]


@contextmanager
def failing(name: str, number: int) -> Iterator[Callable[[], bool]]:
    """Let the `number`-th call of a function of os fail; gives what tells whether it came to that."""
    real, calls = getattr(os, name), 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            code = ERRNOS[number % len(ERRNOS)]
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, call)
        yield lambda: calls >= number


def check_told(error: Exception, number: int) -> None:
    """Check that an error ends the program in one line that names a file and a remedy."""
    if isinstance(error, ApogeeBatchError):
        assert "/" in str(error)
        return
    assert isinstance(error, OSError), repr(error)
    assert error.errno == ERRNOS[number % len(ERRNOS)]
    assert error.filename is not None, repr(error)
    explained = explain_system_error(error)
    assert explained is not None
    assert explained[0] == 75
    assert str(error.filename) in explained[1]


def fail_each_call(
    command: Callable[[Path], Command], name: str, folder: Path, expected: dict[str, str]
) -> int:
    """Let call after call fail until none is left to fail; return how many there were.

    Every second time, what the failure before has left is gone on with; then all must be as if undisturbed.
    """
    target, is_fresh = folder / "first" / "target", True
    for number in range(1, MOST):
        error: Exception | None = None
        try:
            with failing(name, number) as has_failed:
                command(target)()
        except (OSError, ApogeeBatchError) as raised:
            error = raised
        if error is None and not has_failed() and is_fresh:
            assert hash_all(target) == expected
            return number - 1
        if error is not None:
            check_told(error, number)
            is_fresh = False
            if number % 2:
                continue  # the next failure meets what this one has left
            command(target)()
        assert hash_all(target) == expected, f"{name} {number}"
        assert not list(target.parent.rglob("*.partial"))
        shutil.rmtree(target.parent)
        target, is_fresh = folder / f"after{number}" / "target", True
    raise AssertionError("it never ends")


@pytest.fixture(scope="module")
def store_hashes(small: Scene) -> dict[str, str]:
    """What an undisturbed ingest leaves."""
    small.ingest(small.store)
    return hash_all(small.store)


@pytest.fixture(scope="module")
def run_hashes(small: Scene, store_hashes: dict[str, str], simple_pictures: None) -> dict[str, str]:
    """What an undisturbed run leaves."""
    small.attach(small.store)
    small.make_catalog(small.run)
    return hash_all(small.run)


@pytest.mark.parametrize("name", CALLS)
def test_an_ingest_of_which_any_call_fails_goes_on_to_the_same_store(
    small: Scene, store_hashes: dict[str, str], tmp_path: Path, name: str
) -> None:
    n_calls = fail_each_call(lambda store: partial(small.ingest, store), name, tmp_path, store_hashes)
    assert n_calls > 20


@pytest.mark.parametrize("name", CALLS)
def test_a_run_of_which_any_call_fails_goes_on_to_the_same_catalogue(
    small: Scene, run_hashes: dict[str, str], tmp_path: Path, name: str
) -> None:
    n_calls = fail_each_call(lambda run: partial(small.make_catalog, run), name, tmp_path, run_hashes)
    assert n_calls > 15


def test_calls_that_write_a_part_each_time_write_all(
    small: Scene,
    store_hashes: dict[str, str],
    run_hashes: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = os.write

    def write_some(descriptor: int, content: Any) -> int:
        return real(descriptor, memoryview(content)[: 1 + len(content) // 3])

    monkeypatch.setattr(os, "write", write_some)
    small.ingest(tmp_path / "s.zarr")
    assert hash_all(tmp_path / "s.zarr") == store_hashes
    small.make_catalog(tmp_path / "run")
    assert hash_all(tmp_path / "run") == run_hashes
