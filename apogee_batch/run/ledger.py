"""What is done: one entry a shard, written by the driver alone after the shard's files are on the disk."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apogee_batch.errors import IntegrityError
from apogee_batch.files import read_json, sha256_of_file, write_json


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
        Numbers of the stage's own.
    """

    shard: int
    n_inputs: int
    n_stars: int
    n_rejected: int
    files: tuple[WrittenFile, ...]
    seconds: float
    host: str
    extra: dict[str, Any]


def describe_file(path: Path, base: Path) -> WrittenFile:
    """Measure a file that was just written."""
    return WrittenFile(path.relative_to(base).as_posix(), path.stat().st_size, sha256_of_file(path))


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
        write_json(self._folder / f"{report.shard:05d}.json", entry)

    def entries(self) -> list[ShardReport]:
        """Read the entries of this key, in the order of their shards."""
        reports = []
        for path in sorted(self._folder.glob("[0-9]*.json")):
            entry = _read_entry(path)
            if entry.pop("key", None) == self._key:
                del entry["committed"]
                entry["files"] = tuple(WrittenFile(**file) for file in entry["files"])
                reports.append(ShardReport(**entry))
        return reports

    def done(self, *, check_bytes: bool = True) -> dict[int, ShardReport]:
        """Return the shards whose files are all there, with the bytes that were recorded.

        Parameters
        ----------
        check_bytes : bool
            Whether to compare hashes (default) or only sizes.
        """
        return {report.shard: report for report in self.entries() if self._is_whole(report, check_bytes)}

    def _is_whole(self, report: ShardReport, check_bytes: bool) -> bool:
        for file in report.files:
            path = self._base / file.path
            if not path.is_file() or path.stat().st_size != file.size:
                return False
            if check_bytes and sha256_of_file(path) != file.sha256:
                return False
        return True


def _read_entry(path: Path) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = read_json(path)
    except ValueError as error:
        raise IntegrityError(
            f"{path}: damaged ledger entry ({error}); delete it to redo its shard"
        ) from error
    return entry
