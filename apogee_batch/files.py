"""Files that are whole or absent, and the hashes that tell.

Everything that a run commits passes through `write_bytes`, or, piece by piece, through the same steps in
`streams`: what happens to a file when the machine is switched off is read here, and here tests crash.
"""

import errno
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

HASH_BLOCK_BYTES = 1 << 20
CHECKSUM = "checksum"  # key of sealed JSON: SHA-256 of the canonical JSON of the rest
LEFTOVERS = ".*.partial"  # names of files that were never finished

_FLUSH_DRIVE: int | None = getattr(fcntl, "F_FULLFSYNC", None)  # macOS only
_UNKNOWN_THERE = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL)  # file systems without it

CommitStep = Literal["staged", "flushed", "renamed", "committed"]


@dataclass(frozen=True)
class FileDigest:
    """What was written: the file, its bytes and their SHA-256 in hexadecimal."""

    path: Path
    size: int
    sha256: str


def _go_on(step: CommitStep, path: Path) -> None:
    """Do nothing."""


on_commit_step: Callable[[CommitStep, Path], None] = _go_on
"""Called after each step of each commit. Tests put a crash here; nothing else does."""


def write_bytes(path: Path, content: bytes | memoryview, *, staging: Path | None = None) -> FileDigest:
    """Write or replace a file, whole or not at all.

    The bytes go into a file of a unique name, so two writers never mix; it is flushed to the disk
    before the rename and the folder after it, so a power cut leaves the old file or the new one. The mode
    is what the umask makes of 0666.

    Parameters
    ----------
    path : Path
        The file. Missing folders are made.
    content : bytes or memoryview
        All of it.
    staging : Path, optional
        Folder for the unfinished file, on the same file system; default the folder of `path`. For
        folders whose readers choke on any other file.

    Returns
    -------
    FileDigest
        The hash is that of `content`, not of what a faulty disk made of it.

    Raises
    ------
    OSError
        If it cannot be written; `filename` is always set.
    """
    folder = path.parent if staging is None else staging
    make_folder(folder)
    make_folder(path.parent)
    temporary = folder / f".{path.name}.{uuid.uuid4().hex}.partial"
    try:
        _write_all(temporary, content, path)
        on_commit_step("flushed", path)
        os.replace(temporary, path)  # noqa: PTH105  tests let this call fail
        on_commit_step("renamed", path)
        _flush(path.parent)
        on_commit_step("committed", path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, os.strerror(error.errno or errno.EIO), str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return FileDigest(path, memoryview(content).nbytes, sha256_of_bytes(content))


def _write_all(temporary: Path, content: bytes | memoryview, path: Path) -> None:
    """Write a new file and force it to the disk; a call of the system may take a part only."""
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        left = memoryview(content).cast("B")
        while left:
            left = left[os.write(descriptor, left) :]
        on_commit_step("staged", path)
        force_to_disk(descriptor)
    finally:
        os.close(descriptor)


def force_to_disk(descriptor: int) -> None:
    """Force what an open file or folder holds to the disk; `fsync` of macOS stops at the drive's memory."""
    if _FLUSH_DRIVE is not None:
        try:
            fcntl.fcntl(descriptor, _FLUSH_DRIVE)
        except OSError as error:
            if error.errno not in _UNKNOWN_THERE:
                raise
        else:
            return
    os.fsync(descriptor)


def flush_file(path: Path) -> None:
    """Force to the disk a file, or a folder's names, that another library wrote; and its own name."""
    for target in (path, path.parent):
        _flush(target)


def _flush(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        force_to_disk(descriptor)
    except OSError as error:
        if error.errno == errno.EINVAL and path.is_dir():
            return  # some network file systems cannot flush a folder, and need not
        raise OSError(error.errno, os.strerror(error.errno or errno.EIO), str(path)) from error
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each with its name forced to the disk."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    try:
        _flush(path.parent)
    except OSError:
        with suppress(OSError):  # else the next call would take it for one that is on the disk
            path.rmdir()
        raise


def remove_leftovers(folder: Path) -> int:
    """Remove the unfinished files that killed writers left in a folder; return how many.

    Only for whoever holds the lock: a living writer's file looks the same.
    """
    found = list(folder.glob(LEFTOVERS))
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def canonical_json(value: Any) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_json(path: Path, value: Any) -> FileDigest:
    """Write `value` as indented JSON with sorted keys, whole or not at all."""
    return write_text(path, json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n")


def write_sealed_json(path: Path, value: dict[str, Any]) -> FileDigest:
    """Write an object as JSON with a checksum of itself among its keys."""
    return write_json(path, value | {CHECKSUM: sha256_of_text(canonical_json(value))})


def read_sealed_json(path: Path) -> dict[str, Any]:
    """Read what `write_sealed_json` wrote, without the checksum.

    Raises
    ------
    ValueError
        If it is not what was written.
    """
    return parse_sealed_json(path.read_bytes(), path)


def parse_sealed_json(content: bytes, path: Path) -> dict[str, Any]:
    """Do what `read_sealed_json` does with what a file holds; `path` is for the message of an error."""
    value = json.loads(content.decode("utf-8"))
    if not isinstance(value, dict) or value.pop(CHECKSUM, None) != sha256_of_text(canonical_json(value)):
        raise ValueError(f"{path}: its {CHECKSUM} does not fit it")
    return value


def write_text(path: Path, text: str) -> FileDigest:
    """Write a text file in UTF-8, whole or not at all."""
    return write_bytes(path, text.encode("utf-8"))


def write_table(
    path: Path, table: Any, *, staging: Path | None = None, row_group_size: int | None = None
) -> FileDigest:
    """Write an Arrow table as Parquet, whole or not at all; for the bytes see `encode_table`."""
    return write_bytes(path, encode_table(table, row_group_size=row_group_size), staging=staging)


def encode_table(table: Any, *, row_group_size: int | None = None) -> memoryview:
    """Return a Parquet file with checksums of its pages; the same table gives the same bytes."""
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream, compression="zstd", write_page_checksum=True, row_group_size=row_group_size)
    return memoryview(stream.getvalue())


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_bytes(content: bytes | memoryview) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_text(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hexadecimal."""
    return sha256_of_bytes(text.encode("utf-8"))
