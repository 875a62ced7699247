"""Ranges of bytes of a file, plain or gzip, whatever its name says, hashed while they are read."""

import errno
import os
import stat
import zlib
from pathlib import Path
from types import TracebackType
from typing import Protocol

from apogee_batch.errors import ApStarError, RejectReason
from apogee_batch.survey.content_hash import ContentHash

GZIP_START = b"\x1f\x8b"
FIRST_READ_BYTES = 64 * 1024  # both first headers and the flux of a star with a few visits
INFLATE_BYTES = 1 << 20
MAX_FILE_BYTES = 256 << 20  # a float64 file of 500 visits
MAX_GZIP_MEMBERS = 1 << 16  # bgzip makes one of each 64 KiB; millions of empty ones would take minutes
ZLIB_GZIP = 31  # zlib's word for a gzip header, the largest window, and a checksum that is verified
# What a server or the machine suffers from: it passes, and no file is to blame for it.
PASSING = {errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOLCK}


class ByteSource(Protocol):
    """The uncompressed bytes of one file."""

    path: Path

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return the bytes from `offset`; fewer than `n_bytes` only where the file ends."""

    def locate(self, offset: int, n_bytes: int) -> tuple[bytes, int]:
        """Return bytes that hold what `read` would return, and where in them it begins."""

    def size(self) -> int:
        """Return the number of bytes in all."""


class FileBytes:
    """Bytes of an open file; every range that was fetched is kept until the file is closed.

    Headers are read before the values that follow them, so most ranges are asked for twice, and a
    request costs a wait on a network file system.
    """

    def __init__(self, path: Path, descriptor: int, n_bytes: int, content: ContentHash | None) -> None:
        self.path = path
        self._descriptor = descriptor
        self._n_bytes = n_bytes
        self._content = content
        self._fetched: list[tuple[int, bytes]] = []

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return a range of the file; where its beginning is kept, only the rest of it is fetched."""
        kept = b""
        for start, content in reversed(self._fetched):  # later ones are longer
            if start <= offset < start + len(content):
                kept = content[offset - start : offset - start + n_bytes]
                break
        if len(kept) == n_bytes:
            return kept
        content = kept + self.fetch(offset + len(kept), n_bytes - len(kept))
        self._fetched.append((offset, content))
        return content

    def locate(self, offset: int, n_bytes: int) -> tuple[bytes, int]:
        """Return bytes that hold a range, without a copy where they are kept."""
        for start, content in self._fetched:
            if start <= offset and offset + n_bytes <= start + len(content):
                return content, offset - start
        return self.read(offset, n_bytes), 0

    def fetch(self, offset: int, n_bytes: int) -> bytes:
        """Return a range from the disk, which may give it in pieces, and do not keep it."""
        n_bytes = min(n_bytes, self._n_bytes - offset)
        content = piece = os.pread(self._descriptor, n_bytes, offset) if n_bytes > 0 else b""
        while piece and len(content) < n_bytes:
            piece = os.pread(self._descriptor, n_bytes - len(content), offset + len(content))
            content += piece
        if self._content is not None:
            self._content.add(offset, content)
        return content

    def size(self) -> int:
        """Return the size that the file system states."""
        return self._n_bytes


class GzipBytes:
    """Bytes of a gzip file, inflated only as far as somebody asked.

    A few megabytes of gzip can hold gigabytes, so no more than `MAX_FILE_BYTES` are ever kept.
    """

    def __init__(self, file: FileBytes) -> None:
        self.path = file.path
        self._file = file
        self._packed = file.read(0, FIRST_READ_BYTES)  # what was fetched and is not inflated yet
        self._offset = len(self._packed)
        self._member = zlib.decompressobj(ZLIB_GZIP)
        self._n_members = 1
        self._inflated = bytearray()
        self._is_at_end = False

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return a range of the inflated bytes."""
        while len(self._inflated) < offset + n_bytes and not self._is_at_end:
            self._inflate()
        with memoryview(self._inflated) as view:
            return bytes(view[offset : offset + n_bytes])

    def locate(self, offset: int, n_bytes: int) -> tuple[bytes, int]:
        """Return a range, which begins where it begins."""
        return self.read(offset, n_bytes), 0

    def size(self) -> int:
        """Return the inflated size; the whole file is read for it, and its checksum verified."""
        while not self._is_at_end:
            self._inflate()
        return len(self._inflated)

    def _inflate(self) -> None:
        """Inflate one more piece, if only to learn that there is none."""
        if self._member.eof and not self._begin_member():
            self._is_at_end = True
            return
        packed = self._packed or self._fetch()
        try:
            piece = self._member.decompress(packed, INFLATE_BYTES)
        except zlib.error as error:
            raise self._damaged(str(error)) from error
        self._packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        if not (packed or piece or self._member.eof):
            raise ApStarError(self.path, RejectReason.TRUNCATED, "the gzip data are cut short")
        self._inflated += piece
        if len(self._inflated) > MAX_FILE_BYTES:
            raise _too_large(self.path)

    def _begin_member(self) -> bool:
        """Go on to the next gzip member; there is none where only zeros, as tapes have them, follow."""
        self._packed = self._packed.lstrip(b"\0")
        while not self._packed:
            if not (block := self._fetch()):
                return False
            self._packed = block.lstrip(b"\0")
        if self._n_members == MAX_GZIP_MEMBERS:
            raise self._damaged(f"more than {MAX_GZIP_MEMBERS} gzip members")
        self._member = zlib.decompressobj(ZLIB_GZIP)
        self._n_members += 1
        return True

    def _fetch(self) -> bytes:
        """Return the next compressed bytes, none at the end of the file."""
        block = self._file.fetch(self._offset, FIRST_READ_BYTES)
        self._offset += len(block)
        return block

    def _damaged(self, text: str) -> ApStarError:
        """Return the error for gzip data that cannot be inflated."""
        return ApStarError(self.path, RejectReason.UNREADABLE, f"the gzip data are damaged: {text}")


def _too_large(path: Path) -> ApStarError:
    """Return the error for a file that no apStar file is as large as."""
    text = f"more than {MAX_FILE_BYTES >> 20} MiB, larger than any apStar file"
    return ApStarError(path, RejectReason.TOO_LARGE, text)


class open_bytes:  # noqa: N801  called as open() is; a generator would take 2 us more of each file's 100
    """Open a file for reading by byte range, in a `with`; gzip is known by its first bytes.

    Parameters
    ----------
    path : Path
        The file.
    content : ContentHash, optional
        Told what is read, as far as reading came.

    Raises
    ------
    ApStarError
        UNREADABLE for what is no regular file (opening a pipe would wait for ever) or cannot be
        opened or read; EMPTY; TOO_LARGE.
    """

    def __init__(self, path: Path, content: ContentHash | None = None) -> None:
        self._path, self._content = path, content

    def __enter__(self) -> ByteSource:
        """Open the file, and read its beginning."""
        self._descriptor = _open(self._path)
        try:
            return _source(self._path, self._descriptor, self._content)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise

    def __exit__(self, _: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file, and say what an error of the system means."""
        os.close(self._descriptor)
        if isinstance(error, OSError):
            _raise_if_passing(error, self._path)
            text = error.strerror or str(error)
            raise ApStarError(self._path, RejectReason.UNREADABLE, text) from error


def _open(path: Path) -> int:
    """Open a regular file; raise UNREADABLE for anything else."""
    try:
        _check_regular(path, os.stat(path))  # noqa: PTH116  takes half the time of Path's
        # It may have become a pipe since: O_NONBLOCK keeps open() from waiting for a writer.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        if isinstance(error, OSError):
            _raise_if_passing(error, path)
        text = getattr(error, "strerror", None) or str(error)
        raise ApStarError(path, RejectReason.UNREADABLE, text) from error


def _raise_if_passing(error: OSError, path: Path) -> None:
    """Raise an error that ends the command, which goes on later, instead of costing a star."""
    if error.errno in PASSING:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _check_regular(path: Path, status: os.stat_result) -> None:
    """Raise UNREADABLE for a folder, pipe, socket or device."""
    if not stat.S_ISREG(status.st_mode):
        raise ApStarError(path, RejectReason.UNREADABLE, "not a regular file")


def _source(path: Path, descriptor: int, content: ContentHash | None) -> ByteSource:
    """Return the bytes of an open file, as they are or inflated."""
    status = os.fstat(descriptor)
    _check_regular(path, status)  # a device that took the place of the file would give bytes for ever
    n_bytes = status.st_size
    if content is not None:
        content.size = n_bytes
    if n_bytes == 0:
        raise ApStarError(path, RejectReason.EMPTY, "the file has no bytes")
    if n_bytes > MAX_FILE_BYTES:
        raise _too_large(path)
    plain = FileBytes(path, descriptor, n_bytes, content)
    return GzipBytes(plain) if plain.read(0, FIRST_READ_BYTES).startswith(GZIP_START) else plain
