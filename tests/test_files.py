"""Files are whole or absent."""

import errno
import fcntl
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apogee_batch import files
from apogee_batch.files import (
    canonical_json,
    make_folder,
    read_json,
    read_sealed_json,
    remove_leftovers,
    sha256_of_file,
    sha256_of_text,
    write_bytes,
    write_json,
    write_sealed_json,
    write_table,
    write_text,
)


class PulledPlugError(BaseException):
    """Stands for a crash."""


@pytest.mark.parametrize("at", ["staged", "flushed", "renamed", "committed"])
def test_a_crash_at_any_step_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    seen = []

    def crash(step: str, what: Path) -> None:
        seen.append(step)
        assert what == path
        if step == at:
            raise PulledPlugError

    monkeypatch.setattr(files, "on_commit_step", crash)
    with pytest.raises(PulledPlugError):
        write_text(path, "new")
    assert path.read_text() == ("old" if at in ("staged", "flushed") else "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert seen == ["staged", "flushed", "renamed", "committed"][: len(seen)]


def test_a_file_is_flushed_before_its_name_and_the_name_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    flush, rename = os.fsync, os.replace

    def spy_flush(descriptor: int) -> None:
        calls.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        flush(descriptor)

    def spy_rename(source: Path, target: Path) -> None:
        calls.append(("replace", target.name))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", spy_flush)
    monkeypatch.setattr(os, "replace", spy_rename)
    (tmp_path / "d").mkdir()
    write_bytes(tmp_path / "d" / "a", b"x")
    assert [call for call, _ in calls] == ["fsync", "replace", "fsync"]
    assert calls[0][1].startswith(".a.")
    assert calls[1:] == [("replace", "a"), ("fsync", "d")]


def test_where_there_is_a_call_that_reaches_behind_the_drives_memory_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, refusals = list[object](), dict[int, int]()

    def flush_drive(descriptor: int, command: int) -> None:
        calls.append(command)
        if code := refusals.get(command):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "_FLUSH_DRIVE", 51)
    monkeypatch.setattr(fcntl, "fcntl", flush_drive)
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))
    write_bytes(tmp_path / "a", b"x")
    assert calls == [51, 51]
    refusals[51] = errno.ENOTSUP  # a file system without it
    write_bytes(tmp_path / "a", b"x")
    assert calls[2:] == [51, "fsync", 51, "fsync"]
    refusals[51] = errno.EIO  # and this is an error
    with pytest.raises(OSError, match="Input/output error"):
        write_bytes(tmp_path / "a", b"y")
    assert (tmp_path / "a").read_bytes() == b"x"


def test_new_folders_are_flushed_into_those_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    flush = os.fsync

    def spy(descriptor: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    make_folder(tmp_path / "a" / "b")
    assert flushed == [str(tmp_path), str(tmp_path / "a")]
    make_folder(tmp_path / "a" / "b")
    assert len(flushed) == 2


def test_a_disk_that_takes_a_part_of_each_write_gets_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:7]))
    content = bytes(range(256)) * 3
    digest = write_bytes(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == content
    assert (digest.size, digest.sha256) == (768, sha256_of_file(tmp_path / "a"))


def test_an_error_of_the_system_names_the_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_bytes(tmp_path / "a", b"x")
    assert caught.value.filename == str(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_the_unfinished_file_can_lie_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(step: str, path: Path) -> None:
        if step == "flushed":
            assert len(list((tmp_path / "staging").iterdir())) == 1
            assert list(path.parent.iterdir()) == []

    monkeypatch.setattr(files, "on_commit_step", look)
    write_bytes(tmp_path / "clean" / "a", b"x", staging=tmp_path / "staging")
    assert (tmp_path / "clean" / "a").read_bytes() == b"x"


def test_the_mode_of_a_file_is_that_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_leftovers_of_killed_writers_go_and_nothing_else(tmp_path: Path) -> None:
    for name in (".a.json.0123.partial", "thesis.partial", ".hidden", "a.json"):
        (tmp_path / name).write_text("x")
    assert remove_leftovers(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a.json", "thesis.partial"]


def test_a_table_comes_back_and_a_flipped_bit_is_seen(tmp_path: Path) -> None:
    table = pa.table({"x": list(range(5000))})
    digest = write_table(tmp_path / "t", table)
    assert pq.read_table(tmp_path / "t").equals(table)
    assert write_table(tmp_path / "u", table).sha256 == digest.sha256
    content = bytearray((tmp_path / "t").read_bytes())
    content[len(content) // 4] ^= 1
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(OSError, match=r"CRC|crc|checksum"):
        pq.ParquetFile(tmp_path / "t", page_checksum_verification=True).read()


def test_canonical_json_does_not_depend_on_order_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": [1.5, None]}) == canonical_json({"a": [1.5, None], "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_json_comes_back_as_it_went(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, "é"], "b": {"c": None}}
    write_json(tmp_path / "deep" / "v.json", value)
    assert read_json(tmp_path / "deep" / "v.json") == value


def test_a_sealed_object_knows_when_it_was_changed(tmp_path: Path) -> None:
    write_sealed_json(tmp_path / "s.json", {"stars": 48})
    assert read_sealed_json(tmp_path / "s.json") == {"stars": 48}
    text = (tmp_path / "s.json").read_text()
    for damaged in (text.replace("48", "49"), text.replace("checksum", "cheksum"), "[]", text[:-4], ""):
        (tmp_path / "s.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"checksum|JSON|delimiter|value|end"):
            read_sealed_json(tmp_path / "s.json")


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"x" * 3_000_001)
    assert sha256_of_file(tmp_path / "t") == sha256_of_text("x" * 3_000_001)
