"""The command line as a user starts it: a process of its own, of which a test sees everything."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pids import Pid, wait_for

PATIENCE_S = 90.0


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and all it said, standard error included."""

    code: int
    said: str
    wall_s: float


class Program:
    """A running command; what it says, on both streams, is in a file."""

    def __init__(self, process: "subprocess.Popen[bytes]", arguments: list[str], log: Path) -> None:
        self.process = process
        self.arguments = arguments
        self.log = log
        self.started_s = time.monotonic()

    @property
    def said(self) -> str:
        """What it said until now."""
        return self.log.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def story(self, problem: str) -> str:
        """Return a problem with everything that is known about the command."""
        code = self.process.poll()
        how = "still runs" if code is None else f"ended with {code}"
        command = shlex.join(["apogee-batch", *self.arguments])
        wall_s = time.monotonic() - self.started_s
        return f"{problem}\n$ {command}\n{how} after {wall_s:.1f} s; it said:\n{self.said}"

    def wait_until(
        self, happens: Callable[[], object], what: str, timeout_s: float = PATIENCE_S, poll_s: float = 0.05
    ) -> None:
        """Wait until something happens while it runs; its end, or too long a time, is an AssertionError."""
        if not wait_for(lambda: happens() or not self.is_running, timeout_s, poll_s):
            raise AssertionError(self.story(f"after {timeout_s} s not yet: {what}"))
        assert happens(), self.story(f"ended before: {what}")

    def wait_said(self, text: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until it says this."""
        self.wait_until(lambda: text in self.said, f"says {text!r}", timeout_s)

    def send(self, signal_: signal.Signals) -> None:
        """Send it, and not its children, a signal."""
        self.process.send_signal(signal_)

    def end(self, timeout_s: float = PATIENCE_S) -> Ended:
        """Wait for its end."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.story(f"no end within {timeout_s} s")) from None
        return Ended(code, self.said, time.monotonic() - self.started_s)

    def succeed(self, timeout_s: float = PATIENCE_S) -> Ended:
        """Wait for its end with code 0."""
        return self.end_with(0, timeout_s)

    def end_with(self, code: int, timeout_s: float = PATIENCE_S) -> Ended:
        """Wait for its end with this code; another is an AssertionError that tells all it said."""
        ended = self.end(timeout_s)
        assert ended.code == code, self.story(f"the exit code should be {code}")
        return ended


class CommandLine:
    """Starts the program in an environment, and notes what it says in a folder."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment = dict(environment)
        self.folder = folder
        self._n_started = 0

    @contextmanager
    def program(self, *arguments: object, environment: Mapping[str, str] | None = None) -> Iterator[Program]:
        """Start a command in a session of its own; with the block it ends, and what it started here with it.

        Parameters
        ----------
        arguments : object
            Command and options; paths and numbers may be given as they are.
        environment : mapping, optional
            Variables to add, as PATH with a folder of other commands in front.
        """
        self._n_started += 1
        words = [str(argument) for argument in arguments]
        log = self.folder / f"said-{self._n_started}.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "apogee_batch", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=self.environment | dict(environment or {}),
                cwd=self.folder,
            )
        try:
            yield Program(process, words, log)
        finally:
            _end(process)

    def __call__(
        self,
        *arguments: object,
        code: int = 0,
        timeout_s: float = PATIENCE_S,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a command to its end and see that its exit code is this one."""
        with self.program(*arguments, environment=environment) as program:
            return program.end_with(code, timeout_s)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a command, and the children that it had, if it still runs."""
    pid = Pid.of(process.pid) if process.poll() is None else None
    if pid is not None:
        children = pid.descendants()
        os.kill(process.pid, signal.SIGKILL)
        for child in children:
            child.send(signal.SIGKILL)
    process.wait()
