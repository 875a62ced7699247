"""Compare programs that do the same: rounds in which each one has its turn, and ratios within a round.

A contender is a command that serves: it reads a number of items on standard input, does them, and answers
with a line of JSON (`serve`). Its processes start once, with an environment of their own, since the settings
of malloc must be there before a process is, and each may be bound to a core. In a round every contender does
its share and the others wait; so what else happens on the machine comes over all alike, and start-up is no
part of it. Nothing is left out: a round during which somebody else took the machine is marked and counted.
"""

import contextlib
import fcntl
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

DISTURBED = 0.10  # share of the machine that others take in a quiet turn at most


@dataclass(frozen=True)
class Contender:
    """A command, and how it is run.

    Attributes
    ----------
    name : str
    command : tuple of str
        What serves.
    n_processes, n_threads : int
        Processes bound to a core each if there are several; threads of each.
    environment : dict
        Variables beside the usual ones; no settings of malloc are inherited.
    """

    name: str
    command: tuple[str, ...]
    n_processes: int
    n_threads: int = 1
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Turn:
    """What a contender did in one round.

    Attributes
    ----------
    n_items, seconds : int, float
    elsewhere : float
        Share of the machine's processors that others used meanwhile.
    """

    n_items: int
    seconds: float
    elsewhere: float

    @property
    def rate(self) -> float:
        """Items a second."""
        return self.n_items / self.seconds


class Team:
    """The running processes of a contender."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        n_threads = str(contender.n_threads)
        threads = {"OMP_NUM_THREADS": n_threads, "MKL_NUM_THREADS": n_threads}
        self._processes = []
        for number in range(contender.n_processes):
            with _bound_to(number if contender.n_processes > 1 else None):
                process = subprocess.Popen(
                    contender.command,
                    env=clean | threads | contender.environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            self._processes.append(process)
        self.ready = [self._answer(process) for process in self._processes]
        self.share = 1  # items of a process in a round

    def take_turn(self) -> Turn:
        """Do the share of one round."""
        busy, own = _busy_seconds(), self._cpu_seconds()
        started = time.perf_counter()
        for process in self._processes:
            _pipe(process.stdin).write(f"{self.share}\n")
            _pipe(process.stdin).flush()
        for process in self._processes:
            self._answer(process)
        seconds = time.perf_counter() - started
        others = (_busy_seconds() - busy) - (self._cpu_seconds() - own)
        return Turn(self.share * len(self._processes), seconds, max(0.0, others) / seconds / _n_cpus())

    def fit_share(self, seconds: float, multiple: int = 1) -> Turn:
        """Choose the share so that a turn takes about so long, a multiple of a number, by trying one turn."""
        self.share = max(self.share, multiple)
        trial = self.take_turn()
        self.share = multiple * max(1, round(self.share * seconds / trial.seconds / multiple))
        return trial

    def close(self) -> None:
        """Let the processes end."""
        for process in self._processes:
            _pipe(process.stdin).close()
        for process in self._processes:
            process.wait()

    def _answer(self, process: "subprocess.Popen[str]") -> Any:
        line = _pipe(process.stdout).readline()
        if not line:
            raise RuntimeError(f"{self.contender.name}: a process ended with {process.wait()}")
        return json.loads(line)

    def _cpu_seconds(self) -> float:
        times = [psutil.Process(process.pid).cpu_times() for process in self._processes]
        return sum(each.user + each.system for each in times)


def serve(ready: object, work: Callable[[int], object]) -> None:
    """Be a contender's process: say that one is ready, then do as many items as each line of input says."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    for answer in _answers(ready, work):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answers(ready: object, work: Callable[[int], object]) -> Iterator[object]:
    yield ready
    for line in sys.stdin:
        yield work(int(line))


def play(teams: Sequence[Team], n_rounds: int, *, lock: Path | None = None) -> list[dict[str, Turn]]:
    """Let every team have its turn in each round, forwards and backwards by turns.

    Parameters
    ----------
    teams : sequence of Team
    n_rounds : int
    lock : Path, optional
        A file to lock during each round.

    Returns
    -------
    list of dict
        The turn of each contender by its name, a dict a round.
    """
    rounds = []
    for number in range(n_rounds):
        order = teams if number % 2 == 0 else teams[::-1]
        with locked(lock):
            rounds.append({team.contender.name: team.take_turn() for team in order})
    return rounds


def is_quiet(turns: dict[str, Turn]) -> bool:
    """Tell whether nobody else took the machine during a round."""
    return all(turn.elsewhere <= DISTURBED for turn in turns.values())


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ratio_text(rounds: Sequence[dict[str, Turn]], name: str, base: str) -> str:
    """Return by how much one was faster than another, in each round: median and quartiles."""
    low, middle, high = quartiles([turns[name].rate / turns[base].rate for turns in rounds])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def _n_cpus() -> int:
    return psutil.cpu_count() or 1


def _busy_seconds() -> float:
    """Return the time that all processors together have worked since the machine started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


@contextlib.contextmanager
def _bound_to(number: int | None) -> Iterator[None]:
    """Let processes that are started now stay on one of the cores, where the system can do that."""
    if number is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[number % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextlib.contextmanager
def locked(path: Path | None) -> Iterator[None]:
    """Hold a lock file, if one is given, so that several comparisons on a machine take turns."""
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
