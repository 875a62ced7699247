"""Ranges of bytes: equal for plain and gzip files; nothing but a regular file is opened."""

import gzip
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import packed

from apogee_batch.errors import ApStarError, RejectReason
from apogee_batch.survey import byte_ranges
from apogee_batch.survey.byte_ranges import open_bytes
from apogee_batch.survey.content_hash import FileContent, begin_hash


def reason(path: Path) -> RejectReason:
    with pytest.raises(ApStarError) as caught, open_bytes(path) as source:
        source.size()
    return caught.value.reason


@given(
    st.binary(min_size=1, max_size=300),
    st.lists(st.tuples(st.integers(0, 320), st.integers(0, 320)), min_size=1, max_size=8),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_range_is_the_same_slice(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, ranges: list[tuple[int, int]], is_packed: bool
) -> None:
    content = b"x" + content  # nothing that looks like gzip
    path = tmp_path_factory.getbasetemp() / "ranges"
    path.write_bytes(packed(content) if is_packed else content)
    with open_bytes(path) as source:
        for offset, n_bytes in ranges:
            assert source.read(offset, n_bytes) == content[offset : offset + n_bytes]
        assert source.size() == len(content)


def test_what_cannot_be_opened_has_no_hash(tmp_path: Path) -> None:
    told = begin_hash("blake3")
    with pytest.raises(ApStarError), open_bytes(tmp_path, told):
        pass
    assert told.content() == FileContent(0, None)


def test_nothing_is_fetched_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(b"x" * 200_000)
    fetched: list[tuple[int, int]] = []
    original = os.pread

    def noting(descriptor: int, n_bytes: int, offset: int) -> bytes:
        fetched.append((offset, n_bytes))
        return original(descriptor, n_bytes, offset)

    monkeypatch.setattr(os, "pread", noting)
    with open_bytes(path) as source:
        for offset, n_bytes in ((0, 65536), (65_000, 1000), (65_100, 500), (150_000, 10), (0, 66_100)):
            assert len(source.read(offset, n_bytes)) == n_bytes
    assert fetched == [(0, 65536), (65536, 464), (150_000, 10), (65536, 564)]


@given(
    st.binary(min_size=1, max_size=300),
    st.lists(st.tuples(st.integers(0, 320), st.integers(0, 320)), min_size=1, max_size=8),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_bytes_are_found_where_they_are_said_to_lie(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, ranges: list[tuple[int, int]], is_packed: bool
) -> None:
    content = b"x" + content
    path = tmp_path_factory.getbasetemp() / "places"
    path.write_bytes(packed(content) if is_packed else content)
    with open_bytes(path) as source:
        for offset, n_bytes in ranges:
            held, at = source.locate(offset, n_bytes)
            assert held[at : at + n_bytes] == content[offset : offset + n_bytes]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux tells which files are open")
def test_the_file_is_closed_however_the_reading_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    n_open = len(list(Path("/proc/self/fd").iterdir()))
    for content in (b"", b"x", b"\x1f\x8bno gzip"):
        path.write_bytes(content)
        with suppress(ApStarError, KeyError), open_bytes(path) as source:
            source.size()
            raise KeyError
    assert len(list(Path("/proc/self/fd").iterdir())) == n_open


@given(st.binary(max_size=60), st.integers(1, 9), st.integers(0, 9), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_gzip_data_are_the_same_in_pieces_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, piece: int, n_repeated: int, n_members: int
) -> None:
    whole = b"x" + content + b"y" * n_repeated * piece
    path = tmp_path_factory.getbasetemp() / "pieces"
    path.write_bytes(packed(whole) * n_members + bytes(n_repeated))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_ranges, "INFLATE_BYTES", piece)
        patch.setattr(byte_ranges, "FIRST_READ_BYTES", 2 + piece)
        with open_bytes(path) as source:
            assert source.size() == len(whole) * n_members
            assert source.read(0, 10_000) == whole * n_members
        path.write_bytes(packed(whole)[:-1])
        assert reason(path) is RejectReason.TRUNCATED


def test_gzip_members_one_after_the_other_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(packed(b"SIMPLE") + packed(b"  = T"))
    with open_bytes(path) as source:
        assert source.read(0, 100) == b"SIMPLE  = T"


def test_a_name_does_not_make_a_gzip_file(tmp_path: Path) -> None:
    path = tmp_path / "a.fits.gz"
    path.write_bytes(b"SIMPLE")
    with open_bytes(path) as source:
        assert source.read(0, 10) == b"SIMPLE"


def test_a_gzip_bomb_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_ranges, "MAX_FILE_BYTES", 3 << 20)
    path = tmp_path / "bomb.fits.gz"
    path.write_bytes(gzip.compress(bytes(30 << 20)))
    with open_bytes(path) as source:
        assert len(source.read(0, 100)) == 100
        with pytest.raises(ApStarError, match="larger than any apStar file"):
            source.size()
    assert reason(path) is RejectReason.TOO_LARGE


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    with path.open("wb") as file:
        file.truncate(byte_ranges.MAX_FILE_BYTES + 1)
    assert reason(path) is RejectReason.TOO_LARGE


def test_damaged_gzip_data_are_told_from_short_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    content = packed(os.urandom(5000))
    path.write_bytes(content[:-2])
    assert reason(path) is RejectReason.TRUNCATED
    path.write_bytes(content[:-8] + b"\0\0\0\0" + content[-4:])
    assert reason(path) is RejectReason.UNREADABLE


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "apStar-r8-A.fits"
    os.mkfifo(path)
    assert reason(path) is RejectReason.UNREADABLE


def test_a_file_that_became_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "apStar-r8-A.fits"
    os.mkfifo(path)
    was = tmp_path / "was.fits"
    was.touch()
    status = was.stat()
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda *_: status)
        with pytest.raises(ApStarError, match="not a regular file"), open_bytes(path):
            pass


@pytest.mark.parametrize("name", [".", "absent.fits", "null\0character.fits", "x" * 300])
def test_what_cannot_be_opened_is_unreadable(tmp_path: Path, name: str) -> None:
    assert reason(tmp_path / name) is RejectReason.UNREADABLE


def test_a_device_is_not_opened() -> None:
    assert reason(Path(os.devnull)) is RejectReason.UNREADABLE


def test_a_link_to_itself_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "a")
    assert reason(tmp_path / "a") is RejectReason.UNREADABLE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(b"SIMPLE")
    path.chmod(0)
    assert reason(path) is RejectReason.UNREADABLE


def test_a_read_error_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(b"SIMPLE")

    def fail(*_: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    assert reason(path) is RejectReason.UNREADABLE


def test_a_file_in_pieces_is_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(bytes(range(200)))
    original = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, offset: original(fd, min(n, 7), offset))
    with open_bytes(path) as source:
        assert source.read(0, 200) == bytes(range(200))
