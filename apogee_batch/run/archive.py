"""Small files of a folder in one archive beside it: `parts/x` is a file, or the member `x` of `parts.tar`.

An ingest writes several small files for each of its shards, each whole or absent. Once it is finished they
are needed only to verify, to mend and to add to the store, and thousands of them are a burden where files are
counted. The archive is a tar, which any program can unpack. A file that is there goes before a member: the
archive is whole before any file is removed, and what is mended later is a file again until it is packed.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tarfile import BLOCKSIZE, NUL, USTAR_FORMAT, HeaderError, TarInfo

from apogee_batch.files import flush_file
from apogee_batch.streams import replace_on_success

END = BLOCKSIZE * 2 * NUL
OURS = re.compile(r"([a-z]+-)?[0-9]+\.(json|parquet)")  # entries of a ledger, parts


@dataclass(frozen=True)
class _Index:
    """Where the members of an archive lie: offset and size by name; and whether nothing but them is in it."""

    places: dict[str, tuple[int, int]]
    is_whole: bool


def archive_path(folder: Path) -> Path:
    """Return the archive of a folder's files."""
    return folder.with_name(f"{folder.name}.tar")


def list_files(folder: Path) -> list[Path]:
    """Return the files of a folder, in the order of their names, be they files or members."""
    names = {path.name for path in _single_files(folder)} | _index(archive_path(folder)).places.keys()
    return [folder / name for name in sorted(names)]


def read_file(path: Path) -> bytes:
    """Return what a file or member holds.

    Raises
    ------
    FileNotFoundError
        If it is neither.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        return path.read_bytes()
    content = read_member(path)
    if content is None:
        raise FileNotFoundError(f"{path}: is missing")
    return content


def read_member(path: Path) -> bytes | None:
    """Return what the member of an archive holds; None where there is none of that name."""
    archive = archive_path(path.parent)
    with suppress(FileNotFoundError, NotADirectoryError):
        while True:
            with archive.open("rb") as file:
                index = _read_index(archive, _identity(os.fstat(file.fileno())))
                if index is None:  # replaced since it was opened, by an ingest that mended something
                    continue
                offset, n_bytes = index.places.get(path.name, (0, None))
                return None if n_bytes is None else os.pread(file.fileno(), n_bytes, offset)
    return None


def is_kept(path: Path) -> bool:
    """Tell whether there is a file or a member."""
    return path.is_file() or size_of_member(path) is not None


def size_of_member(path: Path) -> int | None:
    """Return the bytes of a member; None where there is none of that name."""
    place = _index(archive_path(path.parent)).places.get(path.name)
    return None if place is None else place[1]


def holder_of(path: Path) -> Path:
    """Return what to name to people for a file that is damaged or missing: the file, or the archive."""
    archive = archive_path(path.parent)
    is_single = path.is_file() or (not archive.is_file() and _single_files(path.parent))
    return path if is_single else archive


def is_there(folder: Path) -> bool:
    """Tell whether a folder of files, or its archive, was made."""
    return folder.is_dir() or archive_path(folder).is_file()


def needs_packing(folder: Path) -> bool:
    """Tell whether a folder has files that its archive should hold, or an archive that is torn."""
    return bool(_single_files(folder)) or is_torn(folder)


def is_torn(folder: Path) -> bool:
    """Tell whether the archive of a folder is damaged but in what its members hold, which has hashes."""
    return not _index(archive_path(folder)).is_whole


def pack(folder: Path, *, staging: Path) -> None:
    """Put the files of a folder into its archive, then remove them; killed at any point, nothing is lost.

    Members that are no files any more stay; the same files give the same bytes.

    Parameters
    ----------
    folder : Path
        The folder; it goes, too, when it is empty.
    staging : Path
        Folder for the unfinished archive.
    """
    archive, packed = archive_path(folder), _single_files(folder)
    with replace_on_success(archive, staging=staging) as file:
        for path in list_files(folder):
            content = read_file(path)
            file.write(_header(path.name, len(content)))
            file.write(content + _padding(len(content)))
        file.write(END)
    for path in packed:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # something that is not ours lies there
        folder.rmdir()
    flush_file(archive)


def _single_files(folder: Path) -> list[Path]:
    """Return the files of ours that lie in a folder itself; unfinished ones are not."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return [path for path in folder.iterdir() if path.is_file() and OURS.fullmatch(path.name)]
    return []


def _header(name: str, n_bytes: int) -> bytes:
    """Return the header of a member; it tells no time and no owner."""
    info = TarInfo(name)
    info.size = n_bytes
    return info.tobuf(USTAR_FORMAT)


def _padding(n_bytes: int) -> bytes:
    """Return what follows so many bytes, to a whole block."""
    return NUL * (-n_bytes % BLOCKSIZE)


def _index(archive: Path) -> _Index:
    """Return where the members of an archive lie; one that is not there has none."""
    with suppress(FileNotFoundError, NotADirectoryError):
        while True:
            index = _read_index(archive, _identity(archive.stat()))
            if index is not None:
                return index
    return _Index({}, is_whole=True)


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    """Return by what an archive is told from the one that replaces it: inode, time, size."""
    return found.st_ino, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=16)
def _read_index(archive: Path, identity: tuple[int, int, int]) -> _Index | None:
    """Find the members of an archive, those behind a damaged header, too; None if it is another one now."""
    descriptor = os.open(archive, os.O_RDONLY)
    try:
        if _identity(os.fstat(descriptor)) != identity:
            return None
        n_bytes, places, at, is_whole = identity[2], dict[str, tuple[int, int]](), 0, True
        for name, start, size in _members(descriptor, n_bytes):
            places[name] = (start, size)
            padding = _padding(size)
            is_whole &= start == at + BLOCKSIZE
            is_whole &= os.pread(descriptor, len(padding), start + size) == padding
            at = start + size + len(padding)
        return _Index(places, is_whole and os.pread(descriptor, len(END) + 1, at) == END)
    finally:
        os.close(descriptor)


def _members(descriptor: int, n_bytes: int) -> Iterator[tuple[str, int, int]]:
    """Give name, offset and size of each member; a block that is no header is passed over."""
    at = 0
    while at + BLOCKSIZE <= n_bytes:
        start = at + BLOCKSIZE
        try:
            info = TarInfo.frombuf(os.pread(descriptor, BLOCKSIZE, at), "utf-8", "strict")
        except (HeaderError, UnicodeDecodeError):
            at = start
            continue
        if not 0 <= info.size <= n_bytes - start:  # cut; or negative, which would lead back here for ever
            at = start
            continue
        yield info.name, start, info.size
        at = start + info.size + len(_padding(info.size))
