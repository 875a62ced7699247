"""Disks that fill up or cannot be written to: a small one in memory, which nobody else sees."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PATIENCE_S = 55.0
BLOCK_BYTES = 4096  # what a file in memory takes at least
BALLAST = "ballast"
PROGRAM = (sys.executable, "-m", "apogee_batch")
LIMITED = (
    "import os, resource, sys; size = int(sys.argv[1]); "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)); os.execv(sys.argv[2], sys.argv[2:])"
)
MASKED = "import os, sys; os.umask(int(sys.argv[1], 8)); os.execv(sys.argv[2], sys.argv[2:])"

Ended = subprocess.CompletedProcess[str]


def call(command: Sequence[object]) -> Ended:
    """Run a program to its end, and keep what it says."""
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def with_file_limit(n_bytes: int, *arguments: object) -> Ended:
    """Run the command line where no file may be larger than some bytes."""
    return call([sys.executable, "-c", LIMITED, n_bytes, *PROGRAM, *arguments])


def with_umask(umask: str, *arguments: object) -> Ended:
    """Run the command line with another mask of modes."""
    return call([sys.executable, "-c", MASKED, umask, *PROGRAM, *arguments])


def taken(folder: Path) -> int:
    """Return the bytes that a folder takes of a disk in memory."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // BLOCK_BYTES) * BLOCK_BYTES for size in sizes)


@dataclass(frozen=True)
class SmallDisk:
    """A file system in memory, in a mount namespace of its own.

    Attributes
    ----------
    path : Path
        Where its programs find it.
    holder : int
        Process that keeps the namespace.
    """

    path: Path
    holder: int

    @property
    def seen(self) -> Path:
        """Where this process finds it."""
        return Path(f"/proc/{self.holder}/root{self.path}")

    @property
    def free(self) -> int:
        """Bytes that may still be written."""
        found = os.statvfs(self.seen)
        return found.f_bavail * found.f_frsize

    def used_by(self, name: str) -> int:
        """Bytes that a folder of it takes."""
        return taken(self.seen / name)

    def run(self, *arguments: object) -> Ended:
        """Run the command line where the disk is seen."""
        return call([*_enter(self.holder), *PROGRAM, *arguments])

    def leave(self, n_bytes: int) -> None:
        """Fill the disk but for some bytes."""
        self.clear()
        n_ballast = self.free - max(n_bytes, 0)
        if n_ballast > 0:
            with (self.seen / BALLAST).open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, n_ballast)

    def clear(self) -> None:
        """Take the ballast away."""
        (self.seen / BALLAST).unlink(missing_ok=True)

    def remount(self, mode: Literal["ro", "rw"]) -> None:
        """Forbid, or allow again, to write to it."""
        ended = call([*_enter(self.holder), "mount", "-o", f"remount,{mode}", self.path])
        assert ended.returncode == 0, ended.stderr


def _enter(holder: int) -> list[object]:
    """Return what begins a command that runs in the namespace of a process."""
    return [
        "nsenter",
        *(["-m"] if os.geteuid() == 0 else ["-U", "-m", "--preserve-credentials"]),
        "-t",
        holder,
    ]


@contextmanager
def small_disk(path: Path, n_bytes: int) -> Iterator[SmallDisk | None]:
    """Mount a small disk at a folder, for the time of the block; None where this system does not allow it."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        yield None
        return
    path.mkdir(parents=True, exist_ok=True)
    script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && echo ready && exec cat'
    options = ["-m"] if os.geteuid() == 0 else ["-r", "-m"]
    command = ["unshare", *options, "sh", "-c", script, "sh", str(n_bytes), str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as holder:
        assert holder.stdout is not None
        is_ready = holder.stdout.readline() == "ready\n"
        yield SmallDisk(path, holder.pid) if is_ready else None
        # its standard input closes with the block: `cat` ends, and the disk with it
