"""What a file was when it was read: its size, and a hash of the bytes that were fetched from it."""

import hashlib
import struct
from dataclasses import dataclass
from typing import Literal, Protocol

from blake3 import blake3

HashName = Literal["blake3", "blake2b"]

HASH_BYTES = 16
# BLAKE3 works on many blocks of 1 KiB at once: in pieces of some tens of kB it takes twice as long.
UPDATE_BYTES = 256 * 1024
LARGEST_OFFSET = (1 << 64) - 1  # a header may promise more; nothing lies there


@dataclass(frozen=True)
class FileContent:
    """What a file was when it was read.

    Attributes
    ----------
    size : int
        Bytes on disk (of a gzip file as it is); 0 where no regular file could be opened.
    digest : str or None
        Hash, in hexadecimal, of the ranges of bytes that were fetched from disk, each with its offset
        and length, in order (of a gzip file as it is); None where none was. Whatever is said of a file
        depends on its path, its size and these bytes alone. The ranges depend on the content and on the rows
        wanted: hashes of different rows cannot be compared, nor those of different algorithms.
    """

    size: int
    digest: str | None


class ContentHash(Protocol):
    """Hash of a file that is made while the file is read.

    Attributes
    ----------
    size : int
        Bytes of the file; set by who opens it.
    """

    size: int

    def add(self, offset: int, content: bytes) -> None:
        """Add a range that was fetched."""

    def content(self) -> FileContent:
        """Return what was read until now."""


class Blake3ContentHash:
    """BLAKE3 of all ranges one after the other, then of where each began, of their lengths and their number.

    Ranges wait until many can be hashed at once. The file that they are from keeps them anyway.
    """

    def __init__(self) -> None:
        self.size = 0
        self._hash = blake3()
        self._waiting: list[bytes] = []
        self._n_waiting = 0
        self._places: list[int] = []

    def add(self, offset: int, content: bytes) -> None:
        """Add a range that was fetched."""
        self._places += (min(offset, LARGEST_OFFSET), len(content))
        self._waiting.append(content)
        self._n_waiting += len(content)
        if self._n_waiting >= UPDATE_BYTES:
            for piece in self._waiting if len(content) >= UPDATE_BYTES else (b"".join(self._waiting),):
                self._hash.update(piece)
            self._waiting, self._n_waiting = [], 0

    def content(self) -> FileContent:
        """Return what was read until now."""
        if not self._places:
            return FileContent(self.size, None)
        n_numbers = len(self._places)
        places = struct.pack(f"<{n_numbers + 1}Q", *self._places, n_numbers // 2)
        whole = self._hash.copy() if n_numbers > 2 * len(self._waiting) else blake3()
        whole.update(b"".join([*self._waiting, places]))
        return FileContent(self.size, whole.hexdigest(HASH_BYTES))


class Blake2bContentHash:
    """BLAKE2b of each range after its offset and length: what stores of earlier versions hold."""

    def __init__(self) -> None:
        self.size = 0
        self._hash = hashlib.blake2b(digest_size=HASH_BYTES, usedforsecurity=False)
        self._is_empty = True

    def add(self, offset: int, content: bytes) -> None:
        """Add a range that was fetched."""
        self._hash.update(struct.pack("<QQ", min(offset, LARGEST_OFFSET), len(content)))
        self._hash.update(content)
        self._is_empty = False

    def content(self) -> FileContent:
        """Return what was read until now."""
        return FileContent(self.size, None if self._is_empty else self._hash.hexdigest())


def begin_hash(name: HashName) -> ContentHash:
    """Return the hash of a file of which nothing was read yet."""
    return Blake3ContentHash() if name == "blake3" else Blake2bContentHash()
