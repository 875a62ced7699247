"""Processes: which is which, what they started, what they listen at.

A pid alone may meanwhile belong to somebody else; with the time of its start it cannot.
"""

import ipaddress
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.02
LISTENING = "0A"  # state of a socket in /proc/net/tcp


@dataclass(frozen=True)
class Pid:
    """A process that cannot be taken for another.

    Attributes
    ----------
    number : int
        As seen from outside of all namespaces of the rig.
    started : int
        Clock ticks from the boot of the machine to its start.
    """

    number: int
    started: int

    @classmethod
    def of(cls, number: int) -> "Pid | None":
        """Return the process that has this number now; None if it is gone or waits to be reaped."""
        found = _stat(number)
        return None if found is None else cls(number, found[1])

    @classmethod
    def read(cls, path: Path) -> "Pid | None":
        """Return the process that a file names, if it lives."""
        try:
            number, started = map(int, path.read_text().split())
        except (OSError, ValueError):
            return None
        found = cls(number, started)
        return found if found.is_alive else None

    def write(self, path: Path) -> None:
        """Note it in a file for `read`."""
        new = path.with_name(f"{path.name}.new")
        new.write_text(f"{self.number} {self.started}\n")
        new.replace(path)

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return Pid.of(self.number) == self

    def send(self, signal_: signal.Signals) -> bool:
        """Send a signal to this process and never to a later one of its number; False if it is gone."""
        try:
            handle = os.pidfd_open(self.number)
        except ProcessLookupError:
            return False
        try:
            if not self.is_alive:
                return False
            signal.pidfd_send_signal(handle, signal_)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is gone; False if it is not in time."""
        return wait_for(lambda: not self.is_alive, timeout_s)

    @property
    def command(self) -> list[str]:
        """Its command line; empty if it is gone."""
        try:
            return Path(f"/proc/{self.number}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            return []

    def children(self, name: str | None = None) -> list["Pid"]:
        """Return what it started itself, or those of them that run a program of that name."""
        return [
            Pid(number, stat[1])
            for number, stat in _stats().items()
            if stat[0] == self.number and name in (None, stat[2])
        ]

    def descendants(self) -> list["Pid"]:
        """Return what it started, and what these started."""
        stats = _stats()
        found = {self.number}
        while more := {number for number, stat in stats.items() if stat[0] in found} - found:
            found |= more
        return [Pid(number, stats[number][1]) for number in sorted(found - {self.number})]


@dataclass(frozen=True)
class Listener:
    """A TCP port that a process listens at."""

    pid: Pid
    address: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.address).is_loopback


def listeners(processes: list[Pid]) -> list[Listener]:
    """Return where these processes listen; all must be in this network namespace."""
    sockets = _listening_sockets()
    found = []
    for pid in processes:
        held = {sockets[inode] for inode in _socket_inodes(pid.number) if inode in sockets}
        found += [Listener(pid, *place) for place in sorted(held)]
    return found


def wait_for(happens: Callable[[], object], timeout_s: float, poll_s: float = POLL_S) -> bool:
    """Wait until it happens; False if it does not in time."""
    until = time.monotonic() + timeout_s
    while not happens():
        if time.monotonic() > until:
            return False
        time.sleep(poll_s)
    return True


def _stat(number: int) -> tuple[int, int, str] | None:
    """Return parent, start and name of a process that lives."""
    try:
        before, _, after = Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")
    except OSError:
        return None
    fields = after.split()
    return None if fields[0] in "ZX" else (int(fields[1]), int(fields[19]), before.partition("(")[2])


def _stats() -> dict[int, tuple[int, int, str]]:
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return {number: stat for number in numbers if (stat := _stat(number)) is not None}


def _listening_sockets() -> dict[str, tuple[str, int]]:
    """Return address and port of each socket that listens, by its inode."""
    found = {}
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # a machine without IPv6
        for line in lines:
            fields = line.split()
            if fields[3] == LISTENING:
                address, port = fields[1].split(":")
                found[fields[9]] = (_address(address), int(port, 16))
    return found


def _address(text: str) -> str:
    """Read an address as the kernel prints it: 32-bit words, each in the order of this machine's bytes."""
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return str(getattr(address, "ipv4_mapped", None) or address)


def _socket_inodes(number: int) -> set[str]:
    found = set()
    try:
        for path in Path(f"/proc/{number}/fd").iterdir():
            try:
                target = str(path.readlink())
            except OSError:
                continue  # closed meanwhile
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass  # the process ended meanwhile
    return found
