"""What a lock file says: who holds the lock, and whether that process lives."""

import json
import math
import os
import socket
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from apogee_batch import __version__

CONTENT_BYTES = 4096  # what is longer was not written here
NAME_WAIT_S = 1.0  # the owner writes its name just after it has taken the lock
NAME_POLL_S = 0.02
CLOCK_SLACK_S = 60.0  # clocks are set now and then; no pid comes round again so soon


@dataclass(frozen=True)
class Owner:
    """What a lock file says: who holds the lock.

    Attributes
    ----------
    host : str
        Name of the machine.
    pid : int
        Process on that machine.
    start : str
        When it took the lock: ISO 8601, UTC.
    program : str
        Name and version.
    job : str
        Slurm job that it is in, with the name of the cluster; empty outside Slurm.
    restart : int
        How often Slurm had begun that job again.
    """

    host: str
    pid: int
    start: str
    program: str
    job: str = ""
    restart: int = 0

    def __str__(self) -> str:
        in_job = f" in Slurm job {self.job}" if self.job else ""
        return f"{self.program}, pid {self.pid} on {self.host}{in_job}, since {self.start}"


def this_process() -> Owner:
    """Return this process as the owner of a lock that it takes now."""
    start = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    job, restart = _slurm_job()
    return Owner(socket.gethostname(), os.getpid(), start, f"apogee-batch {__version__}", job, restart)


def _slurm_job() -> tuple[str, int]:
    """Return the Slurm job that this process is in, and how often that was begun again."""
    number = os.environ.get("SLURM_JOB_ID", "")
    cluster = os.environ.get("SLURM_CLUSTER_NAME", "")
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")  # not set before the first restart
    is_sound = number.isdecimal() and restarts.isdecimal()
    return (f"{number} of {cluster}" if cluster else number, int(restarts)) if is_sound else ("", 0)


def read_owner(descriptor: int) -> Owner | None:
    """Return what a lock file says; None if it is empty or damaged."""
    try:
        said = json.loads(os.pread(descriptor, CONTENT_BYTES, 0))
        owner = Owner(
            host=str(said["host"]),
            pid=int(said["pid"]),
            start=str(said["start"]),
            program=str(said["program"]),
            job=str(said.get("job", "")),
            restart=int(said.get("restart", 0)),
        )
        is_sound = 0 < owner.pid < 2**31 and datetime.fromisoformat(owner.start).tzinfo is not None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return owner if is_sound else None


def await_owner(descriptor: int) -> Owner | None:
    """Read the owner of a lock that somebody may just have taken, and be about to sign."""
    until = time.monotonic() + NAME_WAIT_S
    while (owner := read_owner(descriptor)) is None and time.monotonic() < until:
        time.sleep(NAME_POLL_S)
    return owner


def write_owner(descriptor: int, owner: Owner) -> None:
    """Make an opened lock file say who its owner is."""
    said = asdict(owner)
    if not owner.job:
        del said["job"], said["restart"]
    content = (json.dumps(said, indent=2) + "\n").encode()
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], written)
    os.ftruncate(descriptor, len(content))


def is_here(owner: Owner) -> bool:
    """Tell whether the owner is, or was, a process of this host."""
    return owner.host == socket.gethostname()


def is_predecessor(owner: Owner) -> bool:
    """Tell whether the owner was the driver of this very Slurm job, before Slurm began the job again.

    Slurm does so only once it has ended the former copy or has given up its node. On a node that is cut off
    that copy may still run; it stops as soon as it looks at its lock.
    """
    job, restart = _slurm_job()
    return owner.job != "" and owner.job == job and owner.restart < restart


def lives(owner: Owner) -> bool:
    """Tell whether a process of this host lives and is not a later one with the same pid."""
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, and is another user's
    return _began(owner.pid) <= datetime.fromisoformat(owner.start).timestamp() + CLOCK_SLACK_S


def _began(pid: int) -> float:
    """Return when a process began, in seconds since 1970: -inf if nobody knows, inf if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        lines = Path("/proc/stat").read_text().splitlines()
        booted = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
        ticks = int(fields[19])
    except (OSError, ValueError, IndexError, StopIteration):
        return -math.inf
    return math.inf if fields[0] in "ZX" else booted + ticks / os.sysconf("SC_CLK_TCK")
