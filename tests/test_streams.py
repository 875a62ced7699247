"""A file that is written piece by piece is whole or absent, and its hash is that of its bytes."""

import errno
import os
from pathlib import Path

import pytest

from apogee_batch import files, streams
from apogee_batch.files import CommitStep, sha256_of_file
from apogee_batch.streams import replace_on_success


def test_pieces_make_the_file_and_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with replace_on_success(path, staging=tmp_path / "staging") as file:
        for piece in (b"one", memoryview(b"two"), b""):
            assert file.write(piece) == len(piece)
        assert file.tell() == 6
        assert not path.exists()
    assert path.read_bytes() == b"onetwo"
    assert file.digest == files.FileDigest(path, 6, sha256_of_file(path))
    assert list((tmp_path / "staging").iterdir()) == []


def test_the_digest_knows_what_was_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replace_on_success(path) as file:
        file.write(b"????, the rest")
        file.overwrite_start(b"head")
    assert path.read_bytes() == b"head, the rest"
    assert file.digest is not None
    assert (file.digest.size, file.digest.sha256) == (14, sha256_of_file(path))


def test_an_error_in_the_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write_and_stop() -> None:
        with replace_on_success(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_failing_call_names_the_file_and_leaves_nothing(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, failing, fail)
    with (
        pytest.raises(OSError, match="No space left") as caught,
        replace_on_success(tmp_path / "file") as file,
    ):
        file.write(b"new")
    assert caught.value.filename == str(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_an_error_names_the_file_that_it_is_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, names = os.replace, ("outer", "middle", "inner")

    def fail(source: Path, target: Path) -> None:
        if Path(target).name == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", fail)
    for failing in names:
        with (
            pytest.raises(OSError, match="No space") as caught,
            replace_on_success(tmp_path / names[0]),
            replace_on_success(tmp_path / names[1]),
            replace_on_success(tmp_path / names[2]) as file,
        ):
            file.write(b"new")
        assert caught.value.filename == str(tmp_path / failing)
        assert not list(tmp_path.glob("*.partial"))


def test_an_error_of_a_file_that_is_read_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replace_on_success(tmp_path / "written"):
        (tmp_path / "read").read_bytes()
    assert str(caught.value.filename) == str(tmp_path / "read")
    assert list(tmp_path.iterdir()) == []


def test_a_short_write_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, bytes(content[:2])))
    with replace_on_success(tmp_path / "file") as file:
        file.write(b"12345")
    assert (tmp_path / "file").read_bytes() == b"12345"


def test_the_steps_of_a_commit_are_those_of_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[CommitStep, bool]] = []
    path = tmp_path / "file"
    monkeypatch.setattr(files, "on_commit_step", lambda step, path: steps.append((step, path.exists())))
    with replace_on_success(path) as file:
        file.write(b"x")
    assert steps == [("staged", False), ("flushed", False), ("renamed", True), ("committed", True)]


def test_a_short_overwrite_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda number, content, at: real(number, content[:2], at))
    with replace_on_success(tmp_path / "f") as file:
        file.write(b"0123456789")
        file.overwrite_start(b"abcde")
    assert (tmp_path / "f").read_bytes() == b"abcde56789"


def test_what_comes_after_the_end_reaches_no_other_file(tmp_path: Path) -> None:
    with replace_on_success(tmp_path / "f") as file:
        file.write(b"in time")
    with (tmp_path / "other").open("wb"):  # may have the same number
        for late in (lambda: file.write(b"late"), lambda: file.overwrite_start(b"late")):
            with pytest.raises(ValueError, match="closed"):
                late()
    assert (tmp_path / "other").read_bytes() == b""
    assert (tmp_path / "f").read_bytes() == b"in time"


@pytest.mark.parametrize("is_linux", [True, False])
def test_what_is_sent_to_the_disk_early_is_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_linux: bool
) -> None:
    if not is_linux:
        monkeypatch.setattr(streams, "_find_send", lambda: None)
    path = tmp_path / "file"
    with replace_on_success(path) as file:
        for i in range(3):
            file.write(bytes([i]) * 10_000)
            file.start_flush(i * 10_000)
    assert path.read_bytes() == b"".join(bytes([i]) * 10_000 for i in range(3))


def test_a_closed_file_is_not_sent_anywhere(tmp_path: Path) -> None:
    with replace_on_success(tmp_path / "file") as file:
        file.write(b"content")
    with pytest.raises(ValueError, match="closed"):
        file.start_flush(0)
