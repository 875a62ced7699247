"""How far a run, a training or an ingest is, for whoever looks on from elsewhere: from its files alone.

It works on file systems that other hosts write to: nothing is waited for, locked or changed.
"""

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from apogee_batch.output import printable
from apogee_batch.run.commits import Commit, CommitReader, workers_since
from apogee_batch.run.lock import NOT_FOLLOWED
from apogee_batch.run.lock_owner import Owner, is_here, lives, read_owner
from apogee_batch.run.logs import LOG_FILE
from apogee_batch.run.pace import Pace
from apogee_batch.run.stage_times import StageTime

RECENT_S = 300.0  # workers that did something in this time are seen; or in that of two shards
LOG_BYTES = 2**16  # the end of a log, which is all that is shown
MAX_WARNINGS = 3
STOPPED = "stopped: "


@dataclass(frozen=True)
class Place:
    """Where the files of a run, a training or an ingest are.

    Attributes
    ----------
    kind : {"run", "training", "ingest"}
        What it is.
    folder : Path
        Its own folder, with `stages.jsonl`.
    name : str
        Hash of its plan.
    lock, logs : Path
        The lock of its driver; the folder of its log.
    ledger : CommitReader
        Its shards.
    n_shards, total : int
        Shards there are; stars or files in them.
    unit : str
        What `total` counts.
    """

    kind: str
    folder: Path
    name: str
    lock: Path
    logs: Path
    ledger: CommitReader
    n_shards: int
    total: int
    unit: str


@dataclass(frozen=True)
class LogEnd:
    """What the end of a driver's log says.

    Attributes
    ----------
    is_there : bool
        Whether there is a log.
    at_s : float
        When its last line was written, in seconds since 1970; 0 without one.
    last : str
        The last line.
    warnings : tuple of str
        The last warnings since the driver began.
    """

    is_there: bool = False
    at_s: float = 0.0
    last: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunState:
    """How far something is.

    Attributes
    ----------
    state : {"running", "waiting", "stopped", "finished"}
        "waiting": no driver is known, and none has failed, as while a job array works.
    why : str
        What ended the driver, for "stopped".
    stage : str
        Which stage it is in; empty once it is finished.
    done, total, n_done, n_shards, rejects : int
        Of the stage that goes through shards: inputs and shards done, and all of them; inputs rejected.
    rate_per_s, left_s : float or None
        Of the stage it is in.
    """

    kind: str
    path: str
    run_id: str
    state: str
    why: str
    stage: str
    unit: str
    done: int
    total: int
    shards_done: int
    shards: int
    rejects: int
    rate_per_s: float | None
    left_s: float | None
    workers: list[str]
    driver: Owner | None
    is_driver_seen: bool
    warnings: tuple[str, ...]
    last: str
    times: list[StageTime] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"warnings": list(self.warnings)}


def read_driver(lock: Path) -> Owner | None:
    """Return whom a lock file names; None where there is none, or nobody can tell."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | NOT_FOLLOWED)
    except OSError:
        return None
    try:
        return read_owner(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_log_end(logs: Path) -> LogEnd:
    """Return what the end of a driver's log says; lines that are torn say nothing."""
    path = logs / LOG_FILE
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            lines = file.read().splitlines()
        at_s = path.stat().st_mtime
    except OSError:
        return LogEnd()
    last, warnings = "", list[str]()
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            said = json.loads(line)
            last = printable(str(said["message"]))
            if last == "begin":
                warnings = []
            elif said["level"] == "WARNING":
                warnings.append(last)
    return LogEnd(is_there=True, at_s=at_s, last=last, warnings=tuple(warnings[-MAX_WARNINGS:]))


def judge_state(
    driver: Owner | None, log: LogEnd, commits: list[Commit], *, is_finished: bool
) -> tuple[str, str]:
    """Return the state of something, and why it has stopped if it has."""
    is_gone = driver is not None and is_here(driver) and not lives(driver)
    if driver is not None and not is_gone:
        return ("finished" if is_finished and not is_here(driver) else "running"), ""
    if is_finished:
        return "finished", ""
    if is_gone:
        return "stopped", f"its driver {driver} was killed"
    if not log.is_there or (commits and commits[-1].at_s > log.at_s):
        return "waiting", ""
    if log.last.startswith(STOPPED):
        return "stopped", log.last.removeprefix(STOPPED)
    return "stopped", "its driver is gone" if log.last != "end" else "it ended before its last stage"


def measure(
    commits: list[Commit], times: list[StageTime], stage: str, total: int, now_s: float
) -> tuple[float | None, float | None]:
    """Return speed and time left of a stage: what was done before its driver began last does not count."""
    begun = [time_.begin_s for time_ in times if time_.stage == stage and time_.end_s is None]
    if begun:
        begin_s = begun[-1]
    elif commits:
        begin_s = commits[0].at_s - commits[0].seconds
    else:
        return None, None
    done = sum(commit.n_inputs for commit in commits if commit.at_s < begin_s)
    pace = Pace(total, done, begin_s)
    for commit in commits:
        if commit.at_s >= begin_s:
            done += commit.n_inputs
            pace.note(done, commit.at_s)
    return pace.rate(now_s), pace.left_s(now_s)


def seen_workers(commits: list[Commit], now_s: float) -> list[str]:
    """Return the workers that did something lately."""
    longest_s = max((commit.seconds for commit in commits[-20:]), default=0.0)
    return workers_since(commits, now_s - max(RECENT_S, 2 * longest_s))


def now() -> float:
    """Return the time that files are stamped with."""
    return time.time()
