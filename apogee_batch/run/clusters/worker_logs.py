"""One log file a worker process: what it warned of, and where native code crashed in it."""

import faulthandler
import logging
import os
import re
import socket
from pathlib import Path
from typing import IO

from apogee_batch.run.logs import JsonFormatter

FATAL = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)  # how faulthandler begins
MEMORY_LOGGER = "distributed.worker.memory"  # the first to know that memory runs out


class WorkerLog:
    """The log file of this process, open from now on.

    Parameters
    ----------
    folder : Path
        Where logs are; made when it does not exist.
    worker_id : str
        What the driver knows the worker by; ends the name of the file.
    takes_stderr : bool
        Whether what native code prints goes to the file as well; else it stays where the process was told.
    """

    def __init__(self, folder: Path, worker_id: str, *, takes_stderr: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"worker-{socket.gethostname()}-{os.getpid()}-{short_id(worker_id)}.log"
        self._file: IO[str] = self.path.open("a", encoding="utf-8")
        self._stderr = os.dup(2) if takes_stderr else None
        if takes_stderr:
            os.dup2(self._file.fileno(), 2)
        faulthandler.enable(self._file)
        self._handler = logging.StreamHandler(self._file)
        self._handler.setLevel(logging.WARNING)
        self._handler.setFormatter(JsonFormatter())
        logging.getLogger().addHandler(self._handler)
        memory = logging.getLogger(MEMORY_LOGGER)  # its parents are silent, or print
        memory.setLevel(logging.WARNING)
        memory.propagate = False
        memory.addHandler(self._handler)

    def close(self) -> None:
        """Stop writing; an empty file is removed."""
        for name in (None, MEMORY_LOGGER):
            logging.getLogger(name).removeHandler(self._handler)
        faulthandler.disable()
        if self._stderr is not None:
            os.dup2(self._stderr, 2)
            os.close(self._stderr)
        self._file.close()
        remove_if_empty(self.path)


def short_id(worker_id: str) -> str:
    """Return what of a worker's id stands in the name of its log."""
    return worker_id.removeprefix("Worker-")[:8]


def find_log(folder: Path, worker_id: str) -> Path | None:
    """Return the log of a worker, or None where it has written none that this host sees."""
    return next(iter(sorted(folder.glob(f"worker-*-{short_id(worker_id)}.log"))), None)


def host_of_log(log: Path) -> str:
    """Return the host that is in the name of a log."""
    return log.stem.removeprefix("worker-").rsplit("-", 2)[0]


def describe_end(log: Path | None) -> str:
    """Say what most likely ended a worker, judged by its log."""
    if log is None:
        return "most likely killed for want of memory or with its job (it left no log)"
    text = log.read_text(encoding="utf-8", errors="replace")
    crash = FATAL.search(text)
    if crash:
        return f"crash in native code ({crash[1]}), traceback in {log}"
    if not text:  # an empty log would be removed, though messages name it
        log.write_text("this worker was lost, and had told of no crash\n", encoding="utf-8")
    return f"most likely killed for want of memory or with its job ({log} tells of no crash)"


def remove_if_empty(log: Path) -> None:
    """Remove a log that says nothing; another process may be about to do the same."""
    try:
        if log.stat().st_size == 0:
            log.unlink()
    except FileNotFoundError:
        pass
