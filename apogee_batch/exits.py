"""How a command ends: what signals and errors of the system become for whoever called it.

A signal raises `Stopped` in the main thread, so that every block on the way cleans up after itself; if that
takes too long, the process leaves without. Nothing depends on the clean-up: what is committed stays whole.
"""

import errno
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Self

from apogee_batch.errors import ApogeeBatchError, IncompleteRunError
from apogee_batch.output import event_line, manner, printable

INTERRUPTED = 130
CLEANUP_S = 8.0  # a caller was promised 10 s, and leaving takes some time too
RESUME = "the same command goes on where it stopped"
SHOW_CURSOR = "\r\x1b[K\x1b[?25h"
EREMOTEIO = getattr(errno, "EREMOTEIO", errno.EIO)  # Linux only

REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    EREMOTEIO: "have the file server looked at",
    errno.EIO: "have the disk looked at",
    errno.ESTALE: "wait until the file server is back",
    errno.ETIMEDOUT: "wait until the file server answers",
    errno.ENOLCK: "wait until the file server gives locks again",
    errno.EROFS: "have the file system made writable",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "wait until the machine has fewer files open",
    errno.ENOMEM: "use fewer workers or a machine with more memory",
}


class Stopped(BaseException):
    """A signal came.

    Parameters
    ----------
    code : int
        Exit code of the command.
    message : str
        For the user.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class SignalWatch:
    """Turn the first SIGTERM or SIGINT that comes in the block into `Stopped`.

    Once stopped, SIGTERM does nothing more, as schedulers like to repeat it; another SIGINT, or the end of
    `CLEANUP_S`, ends the process at once.

    Attributes
    ----------
    stopped : Stopped or None
        What was raised, also if somebody on the way has swallowed or replaced it.
    """

    ENDINGS = {
        signal.SIGTERM: (IncompleteRunError.exit_code, f"terminated; {RESUME}"),
        signal.SIGINT: (INTERRUPTED, f"interrupted; {RESUME}"),
    }

    def __init__(self) -> None:
        self.stopped: Stopped | None = None
        self._is_told, self._is_over = False, False
        self._before = {number: signal.getsignal(number) for number in (*self.ENDINGS, signal.SIGALRM)}

    def __enter__(self) -> Self:
        signal.signal(signal.SIGALRM, self._give_up)
        for number in self.ENDINGS:
            if self._before[number] is not signal.SIG_IGN:  # a shell ignores Ctrl-C for its jobs with '&'
                signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> bool:
        """Give the handlers back; but once stopped, go on watching, and take whatever the clean-up raised."""
        self._is_over = True
        if self.stopped is None:
            for number, handler in self._before.items():
                signal.signal(number, handler)
        return self.stopped is not None

    def ending(self, ended: tuple[int, str] | None) -> tuple[int, str]:
        """Return exit code and message, given those of the block, if it came to its end."""
        if ended is not None and (self.stopped is None or ended[0] == 0):
            return ended
        assert self.stopped is not None, "a block that neither ended nor was stopped has raised"
        self._is_told = True  # by whoever asked
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # handlers end before the interpreter does
        return self.stopped.code, self.stopped.message

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.stopped is None and not self._is_over:
            self.stopped = Stopped(*self.ENDINGS[signal.Signals(number)])
            signal.setitimer(signal.ITIMER_REAL, CLEANUP_S)
            raise self.stopped
        if number == signal.SIGINT:
            self._give_up(number, None)

    def _give_up(self, _number: int, _frame: FrameType | None) -> None:
        """Leave now; workers notice that their driver is gone, the kernel frees the locks."""
        if self.stopped is not None:
            if not self._is_told:
                with suppress(OSError):  # nobody listens
                    os.write(2, (_as_before() + _line(self.stopped.message, self.stopped.code)).encode())
            os._exit(self.stopped.code)


def explain_system_error(error: OSError | MemoryError) -> tuple[int, str] | None:
    """Return exit code and message of what the machine could not do; None if that is not the reason.

    A full disk and the like end a run that can go on later; for that, nothing in it is wrong.
    """
    if isinstance(error, MemoryError):
        problem = f"out of memory ({error})" if str(error) else "out of memory"
        return IncompleteRunError.exit_code, _to_go_on(problem, REMEDIES[errno.ENOMEM])
    where = "" if error.filename is None else f"{_as_text(error.filename)}: "
    remedy = REMEDIES.get(error.errno or 0)
    if remedy is not None:
        problem = where + (error.strerror or os.strerror(error.errno or 0))
        return IncompleteRunError.exit_code, _to_go_on(problem, remedy)
    if where:
        problem = f"{where}{error.strerror}; check its permissions and the space on the disk"
        return ApogeeBatchError.exit_code, problem
    return None


def tell(message: str, code: int = ApogeeBatchError.exit_code) -> None:
    """Write an error to stderr: one line, and nothing in it that would steer a terminal.

    Parameters
    ----------
    message : str
        For the user.
    code : int
        The exit code that follows, which `--log-json` tells too.
    """
    if sys.stderr is not None:
        with suppress(OSError):  # nobody listens
            sys.stderr.write(_line(message, code))
            sys.stderr.flush()


def _as_before() -> str:
    """Return what shows the cursor again, which a live view hides and had no time to show."""
    return SHOW_CURSOR if all(out is not None and out.isatty() for out in (sys.stdout, sys.stderr)) else ""


def _to_go_on(problem: str, remedy: str) -> str:
    return f"{problem}; what was finished is kept: {remedy}, and the same command goes on"


def _as_text(name: object) -> str:
    return os.fsdecode(name) if isinstance(name, bytes) else str(name)


def _line(message: str, code: int) -> str:
    text = " ".join(message.split())
    if manner().is_json:
        return event_line("error", {"text": text, "exit_code": code})
    return f"error: {printable(text)}\n"
