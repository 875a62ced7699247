"""What the ledger of a stage tells whoever only looks on: when which worker has done what.

An entry is read once, however often somebody looks: on a shared file system reading thousands costs seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apogee_batch.files import parse_sealed_json
from apogee_batch.run.archive import list_files, read_file
from apogee_batch.run.ledger import WORKER


@dataclass(frozen=True)
class Commit:
    """A shard that is done.

    Attributes
    ----------
    at_s : float
        When it was recorded, in seconds since 1970.
    n_inputs, n_stars, n_rejected : int
        As in `ShardReport`.
    seconds : float
        How long it took.
    worker : str
        Who did it: host and process, or the host alone in ledgers that do not tell more.
    """

    at_s: float
    n_inputs: int
    n_stars: int
    n_rejected: int
    seconds: float
    worker: str


class CommitReader:
    """Reads the entries of a ledger, each once.

    Parameters
    ----------
    folder : Path
        Where the entries are.
    key : str
        How the key of those that count begins.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key = folder, key
        self._seen: dict[str, tuple[tuple[int, int] | None, Commit | None]] = {}

    def read(self) -> list[Commit]:
        """Return what is done now, in the order in which it was done."""
        found = {}
        for path in list_files(self._folder):
            if path.match("[0-9]*.json"):
                stamp = _stamp(path)
                before = self._seen.get(path.name)
                found[path.name] = (
                    before if before is not None and before[0] == stamp else (stamp, self._parse(path))
                )
        self._seen = found
        return sorted((commit for _, commit in found.values() if commit is not None), key=_time_of)

    def _parse(self, path: Path) -> Commit | None:
        """Read an entry; None where it is damaged, of another key, or gone again."""
        try:
            entry = parse_sealed_json(read_file(path), path)
            if not str(entry["key"]).startswith(self._key):
                return None
            return Commit(
                at_s=float(entry["committed"]),
                n_inputs=int(entry["n_inputs"]),
                n_stars=int(entry["n_stars"]),
                n_rejected=int(entry["n_rejected"]),
                seconds=float(entry["seconds"]),
                worker=str(entry["extra"].get(WORKER, entry["host"])),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def workers_since(commits: Sequence[Commit], since_s: float) -> list[str]:
    """Return the workers that have done something since a time, each once."""
    return sorted({commit.worker for commit in commits if commit.at_s >= since_s})


def _time_of(commit: Commit) -> float:
    return commit.at_s


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when an entry is written again; None for one that lies in an archive."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
