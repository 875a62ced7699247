"""Files that are written piece by piece and are whole or absent; what fits into memory goes by `files`."""

import ctypes
import hashlib
import io
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from apogee_batch import files
from apogee_batch.files import FileDigest, flush_file, force_to_disk, make_folder, sha256_of_file

SEND_DIRTY_PAGES = 2  # SYNC_FILE_RANGE_WRITE of Linux's fcntl.h


@cache
def _find_send() -> Callable[[int, int, int, int], int] | None:
    """Return Linux's `sync_file_range`; None where there is none."""
    send = getattr(ctypes.CDLL(None, use_errno=False), "sync_file_range", None)
    if send is not None:
        send.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    found: Callable[[int, int, int, int], int] | None = send
    return found


class StagedFile(io.RawIOBase):
    """A file that nobody sees yet; see `replace_on_success`.

    Attributes
    ----------
    digest : FileDigest or None
        What was written, once it is there.
    """

    def __init__(self, temporary: Path) -> None:
        super().__init__()
        self._descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._temporary = temporary
        self._size = 0
        self._hash: Any = hashlib.sha256()
        self.digest: FileDigest | None = None

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._size

    def write(self, content: Any) -> int:
        """Append all of some bytes; a call of the system may take a part only."""
        self._refuse_if_closed()
        left = memoryview(content).cast("B")
        n_bytes = len(left)
        if self._hash is not None:
            self._hash.update(left)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self._size += n_bytes
        return n_bytes

    def overwrite_start(self, content: bytes) -> None:
        """Replace the first bytes: for a header that holds a checksum of what follows it."""
        self._refuse_if_closed()
        n_written = 0
        while n_written < len(content):
            n_written += os.pwrite(self._descriptor, content[n_written:], n_written)
        self._hash = None

    def start_flush(self, start: int) -> None:
        """Send what lies behind a byte to the disk without waiting for it, so that less is left for the end.

        Where the system has no call for that, all of it is left: `settle` does not depend on it.
        """
        self._refuse_if_closed()
        send = _find_send()
        if send is not None:
            send(self._descriptor, start, self._size - start, SEND_DIRTY_PAGES)

    def close(self) -> None:
        """Let go of the file, which stays where it is."""
        if not self.closed:
            super().close()  # first: a descriptor is let go of once, also if that fails
            os.close(self._descriptor)

    def _refuse_if_closed(self) -> None:
        # What another library has left to write may come late: the number may be another file's by then.
        if self.closed:
            raise ValueError("the file is closed")

    def settle(self, path: Path) -> None:
        """Force the file to the disk, and give it its name there."""
        files.on_commit_step("staged", path)
        force_to_disk(self._descriptor)
        sha256 = sha256_of_file(self._temporary) if self._hash is None else self._hash.hexdigest()
        files.on_commit_step("flushed", path)
        os.replace(self._temporary, path)  # noqa: PTH105  tests let this call fail
        files.on_commit_step("renamed", path)
        flush_file(path)
        files.on_commit_step("committed", path)
        self.digest = FileDigest(path, self._size, sha256)


@contextmanager
def replace_on_success(path: Path, *, staging: Path | None = None) -> Iterator[StagedFile]:
    """Give a file to write into; it becomes `path` when the block ends without an error.

    The promises are those of `files.write_bytes`, but for the hash of a file whose start was overwritten: it
    is that of what the disk gives back.

    Parameters
    ----------
    path : Path
        The file, replaced whole or not at all. Missing folders are made.
    staging : Path, optional
        Folder for the unfinished file, on the same file system; default the folder of `path`.

    Yields
    ------
    StagedFile
        Its `digest` is there after the block.

    Raises
    ------
    OSError
        If it cannot be written; `filename` is always set. One of the block that names another file is
        passed on as it is.
    """
    folder = path.parent if staging is None else staging
    make_folder(folder)
    make_folder(path.parent)
    temporary = folder / f".{path.name}.{uuid.uuid4().hex}.partial"
    try:
        with StagedFile(temporary) as file:
            yield file
            file.settle(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno is None or str(error.filename or temporary) != str(temporary):
            raise  # of another file, which it names
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
