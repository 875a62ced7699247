"""What is done: one entry a shard, written after the shard's files are on the disk.

The driver writes it, or the task of a job array that has made the shard. Those of a finished ingest lie
in an archive (`run.archive`), and so do some of the files that they tell of.

An entry carries a checksum of itself. One that does not fit it is as good as none: its shard is done again.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apogee_batch.files import (
    FileDigest,
    parse_sealed_json,
    sha256_of_bytes,
    sha256_of_file,
    write_sealed_json,
)
from apogee_batch.run.archive import is_kept, list_files, read_file, read_member, size_of_member

WORKER = "worker"  # name of the process that did a shard, among the numbers of its own
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WrittenFile:
    """A file as a task left it: path relative to the run or store, bytes, SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ShardReport:
    """What a task says of its shard.

    Attributes
    ----------
    shard : int
        Number of the shard.
    n_inputs, n_stars, n_rejected : int
        Inputs it was given; rows it wrote; inputs it rejected.
    files : tuple of WrittenFile
        Everything it wrote.
    seconds : float
        Time it took.
    host : str
        Where it ran.
    extra : dict
        Numbers of the stage's own, and under `WORKER` which process it was.
    """

    shard: int
    n_inputs: int
    n_stars: int
    n_rejected: int
    files: tuple[WrittenFile, ...]
    seconds: float
    host: str
    extra: dict[str, Any]


def name_worker() -> str:
    """Return the name of this process among all workers: that of its host, and its number there."""
    return f"{socket.gethostname()}:{os.getpid()}"


def relative_digest(written: FileDigest, base: Path) -> WrittenFile:
    """Name a file that was just written by its path below `base`."""
    return WrittenFile(written.path.relative_to(base).as_posix(), written.size, written.sha256)


def find_damage(file: WrittenFile, base: Path, *, check_bytes: bool = True) -> str | None:
    """Say what is wrong with a file; None if it is as it was written.

    Parameters
    ----------
    file : WrittenFile
        What was written.
    base : Path
        What its path is relative to.
    check_bytes : bool
        Whether to compare hashes, or only sizes.
    """
    path = base / file.path
    try:
        return _compare(file, path, check_bytes=check_bytes)
    except FileNotFoundError:
        return _compare_member(file, path, check_bytes=check_bytes)


def _compare(file: WrittenFile, path: Path, *, check_bytes: bool) -> str | None:
    """Say what is wrong with a file; raise FileNotFoundError where it is none, or becomes none meanwhile."""
    if not path.is_file():
        raise FileNotFoundError(path)
    n_bytes = path.stat().st_size
    if n_bytes != file.size:
        return f"has {n_bytes} bytes, not {file.size}"
    if check_bytes and sha256_of_file(path) != file.sha256:
        return "has other bytes than were written"
    return None


def _compare_member(file: WrittenFile, path: Path, *, check_bytes: bool) -> str | None:
    """Say what is wrong with a file that lies in an archive."""
    n_bytes = size_of_member(path)
    if n_bytes is None:
        return "is missing"
    content = read_member(path) if check_bytes else None
    if n_bytes != file.size or (content is not None and sha256_of_bytes(content) != file.sha256):
        return "has other bytes than were written"
    return None


class Ledger:
    """The entries of one plan.

    Parameters
    ----------
    folder : Path
        Where the entries are.
    base : Path
        What the paths in entries are relative to.
    key : str
        Identity of what the shards are made with; entries of another key do not count.
    """

    def __init__(self, folder: Path, base: Path, key: str) -> None:
        self._folder = folder
        self._base = base
        self._key = key

    def commit(self, report: ShardReport) -> None:
        """Record that a shard is done."""
        entry = asdict(report) | {"key": self._key, "committed": time.time()}
        write_sealed_json(self._path(report.shard), entry)

    def entries(self) -> list[ShardReport]:
        """Read the entries of this key, in the order of their shards; damaged ones are left out."""
        reports = (self._read(path) for path in self._paths())
        return [report for report in reports if report is not None]

    def entry(self, shard: int) -> ShardReport | None:
        """Read the entry of one shard; None where there is none of this key, or it is damaged."""
        path = self._path(shard)
        return self._read(path) if is_kept(path) else None

    def _read(self, path: Path) -> ShardReport | None:
        entry = _read_entry(path)
        if entry is None:
            logger.info("%s: damaged ledger entry; its shard counts as not done", path)
            return None
        if entry.pop("key") != self._key:
            return None
        del entry["committed"]
        entry["files"] = tuple(WrittenFile(**file) for file in entry["files"])
        return ShardReport(**entry)

    def damaged(self) -> list[Path]:
        """Return the entries, of any key, that are not as they were written."""
        return [path for path in self._paths() if _read_entry(path) is None]

    def problems(self, done: Mapping[int, ShardReport]) -> list[str]:
        """Say what is wrong with entries and files of shards that were committed and are not done.

        Parameters
        ----------
        done : mapping of int to ShardReport
            What `done` returned.
        """
        whole = {self._path(shard) for shard in done}
        suspects = [path for path in self._paths() if path not in whole]
        lines = [f"{path}: damaged ledger entry" for path in suspects if _read_entry(path) is None]
        for report in filter(None, map(self._read, suspects)):
            problems = ((file, find_damage(file, self._base)) for file in report.files)
            lines += [f"{self._base / file.path}: {text}" for file, text in problems if text is not None]
        return lines

    def _path(self, shard: int) -> Path:
        return self._folder / f"{shard:05d}.json"

    def _paths(self) -> list[Path]:
        return [path for path in list_files(self._folder) if path.match("[0-9]*.json")]

    def done(self, *, check_bytes: bool = True) -> dict[int, ShardReport]:
        """Return the shards whose files are all there, with the bytes that were recorded.

        Parameters
        ----------
        check_bytes : bool
            Whether to compare hashes (default) or only sizes.
        """
        return {
            report.shard: report
            for report in self.entries()
            if not any(find_damage(file, self._base, check_bytes=check_bytes) for file in report.files)
        }


def _read_entry(path: Path) -> dict[str, Any] | None:
    """Return an entry without its checksum; None where the two do not fit."""
    try:
        entry = parse_sealed_json(read_file(path), path)
    except (OSError, ValueError):
        return None
    if path.stem != f"{entry['shard']:05d}":  # a copy of another shard's entry
        return None
    return entry
