"""What a worker does for a training of several ranks: start one in a process of its own, and watch it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal, NoReturn

from apogee_batch import errors
from apogee_batch.errors import ApogeeBatchError
from apogee_batch.run.gang.spec import GangSpec

Cause = Literal["failed", "killed", "frozen", "left", "alone", "given up"]
POLL_S = 0.2
LOOK_S = 1.0  # how often the shared folder is looked at
START_S = 600.0  # as long as the ranks wait for one another
STDERR_LINES = 5
LONGEST_LINE = 300  # of them
END_S = 5.0


class RankLostError(ApogeeBatchError):
    """A rank of a training ended before its time; the others cannot go on without it.

    Parameters
    ----------
    rank : int
        Which one.
    where : str
        Its node, and its job if it has one.
    cause : {"failed", "killed", "frozen", "left", "alone", "given up"}
        "left": its worker did; "alone": it was another rank that was lost.
    text : str
        What is known of its end.
    """

    def __init__(self, rank: int, where: str, cause: Cause, text: str) -> None:
        super().__init__(f"rank {rank} on {where} {text}")
        self.rank = rank
        self.where = where
        self.cause: Cause = cause
        self.text = text

    def __reduce__(self) -> tuple[type["RankLostError"], tuple[int, str, Cause, str]]:
        """Pickle by the arguments."""
        return type(self), (self.rank, self.where, self.cause, self.text)


def run_rank(spec_path: str, rank: int) -> None:
    """Let a child process be one rank of a training, until it ends: a task.

    Parameters
    ----------
    spec_path : str
        What `GangSpec.write` wrote.
    rank : int

    Raises
    ------
    RankLostError
        If it was killed, froze, failed, or lost another rank.
    ApogeeBatchError, OSError
        What it raised, where the user can mend it.
    """
    from apogee_batch.run.clusters import worker_address

    where = describe_place()
    try:
        spec = GangSpec.read(Path(spec_path))
        _claim(spec, rank)
    except FileNotFoundError as error:
        raise RankLostError(rank, where, "given up", "came after the attempt had ended") from error
    except FileExistsError as error:
        raise RankLostError(rank, where, "given up", "was started a second time") from error
    command = rank_command(spec_path, rank, worker_address())
    with _stderr_path(spec, rank).open("wb") as stderr:
        process = subprocess.Popen(  # noqa: S603  our own module, with paths and numbers
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
        )
    _Watch(spec, rank, where, process).follow()


def rank_command(spec_path: str, rank: int, host: str) -> list[str]:
    """Return what is run for a rank; `host` is the address that it may listen on."""
    return [sys.executable, "-P", "-m", "apogee_batch.run.gang.rank", spec_path, str(rank), host]


def describe_place() -> str:
    """Return the name of this node, and of the job that this process belongs to."""
    job = os.environ.get("SLURM_JOB_ID")
    return os.uname().nodename + (f" (job {job})" if job else "")


def _claim(spec: GangSpec, rank: int) -> None:
    """See that nobody starts a rank twice: a cluster may repeat a task whose worker it has lost."""
    (spec.folder / f"rank-{rank}.started").open("x").close()


def _stderr_path(spec: GangSpec, rank: int) -> Path:
    return spec.folder / f"rank-{rank}.log"


class _Watch:
    """One look at a rank after the other, until it ends."""

    def __init__(self, spec: GangSpec, rank: int, where: str, process: "subprocess.Popen[bytes]") -> None:
        self._spec = spec
        self._rank = rank
        self._where = where
        self._process = process
        self._last, self._doing = time.monotonic(), "start"
        self._told: dict[str, Any] | None = None
        assert process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._reader.start()

    def follow(self) -> None:
        """Wait for the end, bring it about where it must be, and raise what it means."""
        looked = time.monotonic()
        try:
            while self._process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(POLL_S)
                now = time.monotonic()
                if now - self._last > self._limit_s():
                    self._raise("frozen", f"has said nothing for {now - self._last:.0f} s and was ended")
                if now - looked > LOOK_S:
                    looked = now
                    if self._spec.is_given_up():
                        self._raise("given up", "was ended with the attempt")
        finally:
            self._end()
        self._judge(self._process.returncode)

    def _limit_s(self) -> float:
        return self._spec.stall_s if self._doing == "step" else max(START_S, self._spec.stall_s)

    def _read(self, stdout: IO[bytes]) -> None:
        with stdout:
            for line in stdout:
                self._last = time.monotonic()
                with suppress(ValueError):
                    said = json.loads(line)
                    self._doing = said.get("doing", self._doing)
                    self._told = said if "error" in said else self._told

    def _end(self) -> None:
        """Leave no process behind, also none that the rank has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(END_S)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _judge(self, code: int) -> None:
        if code == 0:
            return
        if code < 0:
            self._raise("killed", f"was ended by {signal.Signals(-code).name}")
        if self._told is None:
            self._raise("failed", f"ended with exit code {code}")
        name, text = self._told["error"], self._told["text"]
        if name == "PeerLostError":
            self._raise("alone", f"lost the others: {text}")
        if self._told.get("errno"):
            raise OSError(self._told["errno"], os.strerror(self._told["errno"]), self._told["filename"])
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, ApogeeBatchError) and kind is not errors.ApStarError:
            raise kind(text)
        self._raise("failed", f"failed: {name}: {text}")

    def _raise(self, cause: Cause, text: str) -> NoReturn:
        lines = []
        if cause in ("failed", "killed", "frozen"):
            with suppress(OSError):
                lines = _stderr_path(self._spec, self._rank).read_text(errors="replace").splitlines()
        clean = ("".join(c if c.isprintable() else " " for c in line).strip() for line in lines)
        last = [line[:LONGEST_LINE] for line in clean if line][-STDERR_LINES:]
        told = f"; its last lines: {' | '.join(last)}" if last else ""
        raise RankLostError(self._rank, self._where, cause, text + told)
