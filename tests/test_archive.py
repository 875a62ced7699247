import os
import tarfile
from pathlib import Path

import pytest
from torn import tear

from apogee_batch.run import archive
from apogee_batch.run.archive import (
    archive_path,
    holder_of,
    is_kept,
    is_there,
    is_torn,
    list_files,
    needs_packing,
    pack,
    read_file,
)

CONTENTS = {
    "00000.json": b"{}",
    "00001.json": b"x" * 512,
    "stars-00000.parquet": os.urandom(1300),
    "z-00009.parquet": b"",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of small files."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    return folder


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: read_file(path) for path in list_files(folder)}


def test_what_is_packed_is_read_as_before_and_is_one_file(folder: Path, tmp_path: Path) -> None:
    assert needs_packing(folder)
    pack(folder, staging=tmp_path / "staging")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.tar", "staging"]
    assert list((tmp_path / "staging").iterdir()) == []
    assert held(folder) == CONTENTS
    assert is_there(folder)
    assert is_kept(folder / "z-00009.parquet")
    assert not is_kept(folder / "y")
    assert not needs_packing(folder)
    with pytest.raises(FileNotFoundError, match="y: is missing"):
        read_file(folder / "y")


def test_any_program_can_unpack_an_archive(folder: Path, tmp_path: Path) -> None:
    pack(folder, staging=tmp_path)
    with tarfile.open(archive_path(folder)) as members:
        assert {info.name: members.extractfile(info).read() for info in members} == CONTENTS  # type: ignore[union-attr]


def test_the_same_files_give_the_same_archive_whenever_they_were_packed(folder: Path, tmp_path: Path) -> None:
    pack(folder, staging=tmp_path)
    whole = archive_path(folder).read_bytes()
    for names in (["00001.json"], ["z-00009.parquet", "00000.json"], CONTENTS):
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(CONTENTS[name])
        os.utime(folder / names[0] if isinstance(names, list) else folder / "z-00009.parquet", (1, 1))
        pack(folder, staging=tmp_path)
        assert archive_path(folder).read_bytes() == whole


def test_a_file_goes_before_a_member_and_takes_its_place(folder: Path, tmp_path: Path) -> None:
    pack(folder, staging=tmp_path)
    folder.mkdir()
    (folder / "00000.json").write_bytes(b"new")
    changed = CONTENTS | {"00000.json": b"new"}
    assert held(folder) == changed
    assert holder_of(folder / "00000.json") == folder / "00000.json"
    assert holder_of(folder / "00001.json") == archive_path(folder)
    pack(folder, staging=tmp_path)
    assert held(folder) == changed
    assert not folder.exists()


def test_unfinished_files_are_not_packed(folder: Path, tmp_path: Path) -> None:
    (folder / ".x.partial").write_bytes(b"half")
    pack(folder, staging=tmp_path)
    assert held(folder) == CONTENTS
    assert [path.name for path in folder.iterdir()] == [".x.partial"]


@pytest.mark.parametrize("at", range(4))
def test_killed_between_the_archive_and_the_last_file_nothing_is_lost(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    unlink, left = Path.unlink, iter(range(at))

    def dies(path: Path, missing_ok: bool = False) -> None:
        next(left)
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dies)
        with pytest.raises(StopIteration):
            pack(folder, staging=tmp_path)
    assert len(list(folder.iterdir())) == 4 - at
    assert held(folder) == CONTENTS
    assert needs_packing(folder)
    pack(folder, staging=tmp_path)
    assert held(folder) == CONTENTS


def test_every_damaged_byte_is_seen_and_costs_one_member_at_most(folder: Path, tmp_path: Path) -> None:
    pack(folder, staging=tmp_path)
    path = archive_path(folder)
    whole = path.read_bytes()
    for at in range(0, len(whole), 23):
        torn = bytearray(whole)
        torn[at] ^= 4
        path.write_bytes(torn)
        archive._read_index.cache_clear()  # else two changes within a tick of the clock would look like one
        found = held(folder)
        same = {name for name in CONTENTS if found.get(name) == CONTENTS[name]}
        assert len(same) >= len(CONTENTS) - 1, at
        assert is_torn(folder) or len(same) < len(CONTENTS), at


def test_of_an_archive_that_was_cut_the_first_members_are_left(folder: Path, tmp_path: Path) -> None:
    pack(folder, staging=tmp_path)
    tear(archive_path(folder), "truncate")
    assert set(held(folder)) == {"00000.json", "00001.json"}
    assert is_torn(folder)
    for name in ("stars-00000.parquet", "z-00009.parquet"):
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(CONTENTS[name])
    pack(folder, staging=tmp_path)
    assert held(folder) == CONTENTS
    assert not is_torn(folder)


def with_size(content: bytes, size: int) -> bytes:
    """Return an archive whose first member says another size, with a checksum that fits."""
    header = bytearray(content[:512])
    header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content[512:]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("size", [-512, -1, -(1 << 60), 1 << 60])
def test_a_size_that_leads_backwards_or_out_of_an_archive_costs_that_member(
    size: int, folder: Path, tmp_path: Path
) -> None:
    pack(folder, staging=tmp_path)
    path = archive_path(folder)
    path.write_bytes(with_size(path.read_bytes(), size))
    assert is_torn(folder)
    assert held(folder) == {name: content for name, content in CONTENTS.items() if name != "00000.json"}


def test_an_archive_that_is_replaced_while_it_is_read_gives_one_or_the_other(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(folder, staging=tmp_path)
    other = tmp_path / "other" / "parts"
    other.mkdir(parents=True)
    (other / "00000.json").write_bytes(b"a long one" * 100)
    (other / "z-00009.parquet").write_bytes(b"new")
    pack(other, staging=tmp_path)
    archive._read_index.cache_clear()
    read_index, calls = archive._read_index, []

    def replaced_before_it_is_looked_at(path: Path, identity: tuple[int, int, int]) -> object:
        calls.append(identity)
        if len(calls) == 1:
            archive_path(other).replace(path)
        return read_index(path, identity)

    monkeypatch.setattr(archive, "_read_index", replaced_before_it_is_looked_at)
    assert read_file(folder / "z-00009.parquet") == b"new"
    assert len(calls) == 2


def test_a_folder_that_was_never_made_holds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    assert list_files(folder) == []
    assert not is_there(folder)
    assert not needs_packing(folder)
    assert holder_of(folder / "00000.json") == archive_path(folder)
