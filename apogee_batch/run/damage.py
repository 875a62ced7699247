"""What is not as it was written: how it is noted while the files of a store or a run are looked at."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from apogee_batch.errors import IntegrityError
from apogee_batch.files import read_sealed_json
from apogee_batch.run.archive import holder_of
from apogee_batch.run.ledger import WrittenFile, find_damage

T = TypeVar("T")
MISSING = "is missing"
INGEST = "ingest/"  # how the paths of what an ingest notes beside the arrays begin
TORN = "is damaged (what it holds is not what was written)"


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was written.

    Attributes
    ----------
    path : Path
        The file.
    problem : str
        What is wrong with it.
    remedy : str
        What mends it.
    """

    path: Path
    problem: str
    remedy: str

    def __str__(self) -> str:
        """Return the line for the user."""
        return f"{self.path}: {self.problem}; {self.remedy}"


@dataclass
class Findings:
    """What was found so far.

    Attributes
    ----------
    damages : list of Damage
        In the order in which they were found, which is always the same.
    notes : list of str
        What is no damage but should be known: work that has not finished.
    n_files, n_bytes : int
        Files whose bytes were compared with a hash, and their size.
    """

    damages: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_files: int = 0
    n_bytes: int = 0

    def add(self, path: Path, problem: str, remedy: str) -> None:
        """Note a damage."""
        self.damages.append(Damage(path, problem, remedy))

    def add_of_ingest(self, path: Path, problem: str, remedy: str) -> None:
        """Note a damage of an entry or a part, which may lie in an archive: one line is enough for that."""
        holder = holder_of(path)
        if holder == path:
            self.add(path, problem, remedy)
        elif holder not in [damage.path for damage in self.damages]:
            self.add(holder, problem if problem == MISSING and not holder.exists() else TORN, remedy)

    def check(self, file: WrittenFile, base: Path, remedy: str) -> bool:
        """Compare a file with what was noted when it was written; tell whether it is whole."""
        problem = find_damage(file, base)
        if problem is not None:
            add = self.add_of_ingest if file.path.startswith(INGEST) else self.add
            add(base / file.path, problem, remedy)
        self.n_files += 1
        self.n_bytes += file.size
        return problem is None

    def attempt(self, read: Callable[[], T], path: Path, remedy: str) -> T | None:
        """Read something; note that it is damaged, and return None, where its reader says so."""
        try:
            return read()
        except IntegrityError as error:
            self.add(path, describe_problem(error, path), remedy)
            return None

    def read_sealed(self, path: Path, remedy: str) -> dict[str, Any] | None:
        """Read JSON with a checksum of itself; None, and a damage, where it does not fit."""
        try:
            return read_sealed_json(path)
        except FileNotFoundError:
            self.add(path, MISSING, remedy)
        except (OSError, ValueError):
            self.add(path, "is damaged (its checksum does not fit it)", remedy)
        return None


def describe_problem(error: IntegrityError, path: Path) -> str:
    """Return what an error says, without the file's name before it and the remedy behind it."""
    if not path.exists():
        return MISSING
    text = str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ")
    return text.rpartition("; ")[0] or text


def is_leftover(path: Path) -> bool:
    """Tell whether a file was never finished: no damage, the next command removes it."""
    return path.name.startswith(".") and path.name.endswith(".partial")
