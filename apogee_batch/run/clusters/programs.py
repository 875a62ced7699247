"""Run a program of a queue system: never through a shell, never without an end."""

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from apogee_batch.errors import ClusterError

REAP_S = 5.0  # a killed program that does not die is left to the system: it waits for a disk
MAX_TOLD = 400  # characters of an answer that a message repeats
_PREFIX = re.compile(r"^([a-z_]+: )?((error|fatal): )?(Batch job submission failed: )?")


@dataclass(frozen=True)
class Answer:
    """How a program ended.

    Attributes
    ----------
    code : int or None
        Exit code; None where it was killed because it did not end in time.
    out, err : str
        What it wrote.
    """

    code: int | None
    out: str
    err: str

    @property
    def is_good(self) -> bool:
        """Tell whether it did what it was asked."""
        return self.code == 0

    def told(self) -> str:
        """Return what it said of a failure, in one line without its own name in front of each sentence."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        sentences = [_PREFIX.sub("", line) for line in lines if not line.startswith("Try ")]
        text = "; ".join(dict.fromkeys(sentences)) or f"exit code {self.code} without a word"
        printable = "".join(char if char.isprintable() else " " for char in text)
        return printable if len(printable) <= MAX_TOLD else printable[:MAX_TOLD] + " ..."


def run_program(
    arguments: Sequence[str], *, environment: Mapping[str, str], timeout_s: float, stdin: str = ""
) -> Answer:
    """Run a program to its end, or to the end of its time; then it and all that it started are killed.

    Parameters
    ----------
    arguments : sequence of str
        The program, looked up on the PATH of `environment`, and its arguments.
    environment : mapping
        All of its environment.
    timeout_s : float
        How long it may take.
    stdin : str, optional
        What it reads.

    Raises
    ------
    ClusterError
        If there is no such program here.
    """
    try:
        process = subprocess.Popen(  # noqa: S603  a list of arguments: nothing is read by a shell
            list(arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # a group to kill; and Ctrl-C at the terminal is for the driver alone
        )
    except FileNotFoundError as error:
        raise ClusterError(_missing(arguments[0])) from error
    except OSError as error:
        raise ClusterError(f"{arguments[0]}: cannot be run on this host: {error.strerror}") from error
    try:
        out, err = process.communicate(stdin, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return Answer(None, *_kill(process))
    except BaseException:
        _kill(process)
        raise
    return Answer(process.returncode, out, err)


def _missing(program: str) -> str:
    return (
        f"{program}: not found on this host (PATH); run on a login node of the cluster or use --cluster local"
    )


def _kill(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Kill a program with its children; return what it had written."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    out = err = ""
    with suppress(subprocess.TimeoutExpired):
        out, err = process.communicate(timeout=REAP_S)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    return out, err


def keep_script(folder: Path, job_id: str, script: str) -> Path | None:
    """Keep what is submitted as `folder/job-<id>.sh`, for its owner alone.

    Returns
    -------
    Path or None
        The file; None if it cannot be written, which is no reason to lose a job that was taken.
    """
    path = folder / f"job-{job_id}.sh"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(script)
    except OSError:
        return None
    return path
