"""Ranges of bytes of a file, plain or gzip, whatever its name says."""

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from apogee_batch.errors import ApStarError, RejectReason

GZIP_START = b"\x1f\x8b"
FIRST_READ_BYTES = 64 * 1024  # both first headers and the flux of a star with a few visits
INFLATE_BYTES = 1 << 20
MAX_FILE_BYTES = 256 << 20  # a float64 file of 500 visits


class ByteSource(Protocol):
    """The uncompressed bytes of one file."""

    path: Path

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return the bytes from `offset`; fewer than `n_bytes` only where the file ends."""

    def size(self) -> int:
        """Return the number of bytes in all."""


class FileBytes:
    """Bytes of an open file; every range that was fetched is kept until the file is closed.

    Headers are read before the values that follow them, so most ranges are asked for twice, and a
    request costs a wait on a network file system.
    """

    def __init__(self, path: Path, descriptor: int, n_bytes: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._n_bytes = n_bytes
        self._fetched: list[tuple[int, bytes]] = []

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return a range of the file."""
        for start, content in self._fetched:
            if start <= offset and offset + n_bytes <= start + len(content):
                return content[offset - start : offset - start + n_bytes]
        content = self._pread(offset, n_bytes)
        self._fetched.append((offset, content))
        return content

    def _pread(self, offset: int, n_bytes: int) -> bytes:
        """Return a range from the disk, which may give it in pieces."""
        n_bytes = min(n_bytes, max(0, self._n_bytes - offset))
        pieces = []
        while n_bytes > 0 and (piece := os.pread(self._descriptor, n_bytes, offset)):
            pieces.append(piece)
            offset, n_bytes = offset + len(piece), n_bytes - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def size(self) -> int:
        """Return the size that the file system states."""
        return self._n_bytes


class GzipBytes:
    """Bytes of a gzip file, inflated only as far as somebody asked.

    A few megabytes of gzip can hold gigabytes, so no more than `MAX_FILE_BYTES` are ever kept.
    """

    def __init__(self, path: Path, file: gzip.GzipFile) -> None:
        self.path = path
        self._file = file
        self._inflated = bytearray()
        self._is_at_end = False

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return a range of the inflated bytes."""
        while len(self._inflated) < offset + n_bytes and not self._is_at_end:
            self._inflate()
        with memoryview(self._inflated) as view:
            return bytes(view[offset : offset + n_bytes])

    def size(self) -> int:
        """Return the inflated size; the whole file is read for it, and its checksum verified."""
        while not self._is_at_end:
            self._inflate()
        return len(self._inflated)

    def _inflate(self) -> None:
        """Inflate one more piece."""
        try:
            piece = self._file.read(INFLATE_BYTES)
        except EOFError as error:
            raise ApStarError(self.path, RejectReason.TRUNCATED, "the gzip data are cut short") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            text = f"the gzip data are damaged: {error}"
            raise ApStarError(self.path, RejectReason.UNREADABLE, text) from error
        self._inflated += piece
        self._is_at_end = not piece
        if len(self._inflated) > MAX_FILE_BYTES:
            raise _too_large(self.path)


def _too_large(path: Path) -> ApStarError:
    """Return the error for a file that no apStar file is as large as."""
    text = f"more than {MAX_FILE_BYTES >> 20} MiB, larger than any apStar file"
    return ApStarError(path, RejectReason.TOO_LARGE, text)


@contextmanager
def open_bytes(path: Path) -> Iterator[ByteSource]:
    """Open a file for reading by byte range; gzip is known by its first bytes.

    Raises
    ------
    ApStarError
        UNREADABLE for what is no regular file (opening a pipe would wait for ever) or cannot be
        opened or read; EMPTY; TOO_LARGE.
    """
    descriptor = _open(path)
    try:
        yield _source(path, descriptor)
    except OSError as error:
        raise ApStarError(path, RejectReason.UNREADABLE, error.strerror or str(error)) from error
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """Open a regular file; raise UNREADABLE for anything else."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ApStarError(path, RejectReason.UNREADABLE, "not a regular file")
        # It may have become a pipe since: O_NONBLOCK keeps open() from waiting for a writer.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        text = getattr(error, "strerror", None) or str(error)
        raise ApStarError(path, RejectReason.UNREADABLE, text) from error


def _source(path: Path, descriptor: int) -> ByteSource:
    """Return the bytes of an open file, as they are or inflated."""
    n_bytes = os.fstat(descriptor).st_size
    if n_bytes == 0:
        raise ApStarError(path, RejectReason.EMPTY, "the file has no bytes")
    if n_bytes > MAX_FILE_BYTES:
        raise _too_large(path)
    plain = FileBytes(path, descriptor, n_bytes)
    if plain.read(0, FIRST_READ_BYTES).startswith(GZIP_START):
        file = os.fdopen(descriptor, "rb", closefd=False)
        return GzipBytes(path, gzip.GzipFile(fileobj=file, mode="rb"))
    return plain
