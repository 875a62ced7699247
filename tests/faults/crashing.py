"""Processes that die on purpose: at a chosen step of a chosen commit, or where a name changes on the disk."""

import os
import re
import signal
import sys
import traceback
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apogee_batch import files
from apogee_batch.files import parse_sealed_json
from apogee_batch.run.archive import list_files, read_file
from apogee_batch.run.ledger import Ledger, WrittenFile, find_damage

KILLED = -signal.SIGKILL
STAGED = "staged"
NAME_CALLS = ("mkdir", "rename", "unlink", "rmdir")  # of os; `replace` and the rest are steps of commits
Call = Callable[[], object]
Told = Callable[[str, Path], None]


@dataclass(frozen=True)
class Point:
    """A moment of a command: after which step, of which file, and how many moments there were before."""

    number: int
    step: str
    kind: str


def fork(call: Call) -> int:
    """Run `call` in a child of this warm process; return its exit code, negative if a signal ended it."""
    return wait_for(start(call))


def start(call: Call) -> int:
    """Begin to run `call` in a child of this warm process; return its pid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads that wait for work; none holds a lock
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            call()
            code = 0
        except BaseException:  # noqa: BLE001  nothing may come back into the copy of pytest
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    return pid


def wait_for(pid: int) -> int:
    """Wait for a child and return its exit code; it does not outlive a test that is given up."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except BaseException:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise


@contextmanager
def telling(tell: Told) -> Iterator[None]:
    """Call `tell` after each step of each commit."""
    before = files.on_commit_step
    files.on_commit_step = tell
    try:
        yield
    finally:
        files.on_commit_step = before


@contextmanager
def telling_names(tell: Told) -> Iterator[None]:
    """Call `tell` after each call of the system that makes, moves or removes a name outside commits."""
    before = {name: getattr(os, name) for name in NAME_CALLS}

    def tells(name: str) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            result = before[name](path, *args, **kwargs)
            tell(name, Path(path))
            return result

        return call

    for name in NAME_CALLS:
        setattr(os, name, tells(name))
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(os, name, function)


Telling = Callable[[Told], Any]  # one of the two above


def record(call: Call, base: Path, how: Telling = telling) -> list[Point]:
    """Run a command undisturbed and return its moments at files below `base`."""
    points: list[Point] = []

    def note(step: str, path: Path) -> None:
        if path.is_relative_to(base):
            points.append(Point(len(points), step, kind_of(path, base)))

    with how(note):
        call()
    for i, point in enumerate(points):
        if point.step == STAGED:  # told of the file with the unique name; the next step says what it is for
            points[i] = replace(point, kind=points[i + 1].kind)
    return points


def kind_of(path: Path, base: Path) -> str:
    """Return the name of a file without numbers of shards and unique parts."""
    name = path.relative_to(base).as_posix()
    return re.sub(r"\d+", "N", re.sub(r"[0-9a-f]{32}", "U", name))


def crash(call: Call, base: Path, point: Point, how: Telling = telling) -> int:
    """Run a command in a child that kills itself at `point`; return how the child ended."""

    def run() -> None:
        reached = 0

        def die(step: str, path: Path) -> None:
            nonlocal reached
            if not path.is_relative_to(base):
                return
            if reached == point.number:
                if step not in (STAGED, *NAME_CALLS):  # Zarr makes its folders in several threads
                    assert (step, kind_of(path, base)) == (point.step, point.kind), "not what was recorded"
                os.kill(os.getpid(), signal.SIGKILL)
            reached += 1

        with how(die):
            call()

    return fork(run)


def choose(points: Sequence[Point], n_most: int = 3) -> list[Point]:
    """Take every moment; where many files are of one kind, those of the first, the middle and the last."""
    alike: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in points:
        alike[point.step, point.kind].append(point)
    chosen = []
    for group in alike.values():
        few = group if len(group) <= n_most else [group[0], group[len(group) // 2], group[-1]]
        chosen += few
    return sorted(chosen, key=lambda point: point.number)


def entries(ledger: Path) -> dict[str, bytes]:
    """Return the ledger's entries as they lie on the disk."""
    return {path.name: read_file(path) for path in list_files(ledger)}


def check_committed(ledger: Path, base: Path, planned: Sequence[int]) -> dict[str, bytes]:
    """Check that what is committed is planned, and true to its hash; return the entries."""
    assert Ledger(ledger, base, "").damaged() == []
    for path in list_files(ledger):
        entry = parse_sealed_json(read_file(path), path)
        assert entry["shard"] in planned
        for file in entry["files"]:
            assert find_damage(WrittenFile(**file), base) is None
    return entries(ledger)


def living() -> dict[tuple[int, int], int]:
    """Return the parent of each process that lives, by its pid and the time when it began."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            if fields[0] not in "ZX":
                found[int(path.parent.name), int(fields[19])] = int(fields[1])
    return found


def descendants(pid: int) -> set[tuple[int, int]]:
    """Return the children of a process, their children and so on, each with the time when it began."""
    of, found, pids = living(), set[tuple[int, int]](), {pid}
    while more := {child for child, parent in of.items() if parent in pids} - found:
        found |= more
        pids |= {child for child, _ in more}
    return found
