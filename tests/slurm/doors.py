"""Knock at a port as a stranger does who has no key of the run, or another one."""

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client, Security
from distributed.comm.core import CommClosedError
from pids import Listener, Pid, listeners
from rig import Slurm

from apogee_batch.run.clusters.keys import RunKeys

KNOCK_S = 5.0
ALERT = 0x15  # the first byte of a TLS alert
HTTP = b"GET /info/main/workers.html HTTP/1.1\r\nHost: localhost\r\n\r\n"
DASK = b"\x00" * 64


@dataclass(frozen=True)
class Doors:
    """Where the processes of a run listen.

    Attributes
    ----------
    driver, jobs : list of Listener
        All doors of the driver; of the jobs in the queue.
    shut : list of Listener
        Those that other hosts could reach, and all that speak TLS: a host without network has no other.
    inner : list of Listener
        The others: dashboards, and what a process tells its own children.
    """

    driver: list[Listener]
    jobs: list[Listener]
    shut: list[Listener]
    inner: list[Listener]

    @classmethod
    def of(cls, slurm: Slurm, driver: int) -> "Doors":
        """Find those of a driver and of all jobs in the queue."""
        pid = Pid.of(driver)
        assert pid is not None
        of_driver, of_jobs = listeners([pid, *pid.descendants()]), slurm.listeners()
        doors = [*of_driver, *of_jobs]
        with ThreadPoolExecutor() as knocking:
            are_tls = knocking.map(lambda door: not door.is_loopback or speaks_tls(door), doors)
        shut = [door for door, is_tls in zip(doors, are_tls, strict=True) if is_tls]
        return cls(of_driver, of_jobs, shut, [door for door in doors if door not in shut])


def address(door: Listener, scheme: str) -> str:
    """Return a door's address as Dask writes it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(door.address, door.address)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{door.port}"


def _place(door: Listener) -> tuple[str, int]:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(door.address, door.address)
    return host, door.port


def ask_plainly(door: Listener, text: bytes) -> bytes:
    """Return what is answered to plain bytes; nothing if the door stays shut or silent."""
    answer = b""
    with socket.create_connection(_place(door), timeout=KNOCK_S) as connection:
        connection.settimeout(1.0)
        with suppress(OSError):
            connection.sendall(text)
            while piece := connection.recv(4096):
                answer += piece
    return answer


def context(keys: RunKeys | None) -> ssl.SSLContext:
    """Return what a client speaks TLS with that believes everybody, and shows a key if it has one."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if keys is not None:
        made.load_cert_chain(keys.cert, keys.key)
    return made


def speaks_tls(door: Listener) -> bool:
    """Tell whether a door greets a client by TLS, whatever it thinks of it then."""
    try:
        handshake(door, None, timeout_s=1.0)
    except ssl.SSLError as error:
        return "WRONG_VERSION_NUMBER" not in str(error) and "UNEXPECTED_EOF" not in str(error)
    except OSError:
        return False
    return True


def handshake(door: Listener, keys: RunKeys | None, timeout_s: float = KNOCK_S) -> bytes:
    """Begin to speak TLS, say something, and return the answer; a refusal is an ssl.SSLError."""
    with (
        socket.create_connection(_place(door), timeout=timeout_s) as plain,
        context(keys).wrap_socket(plain) as connection,
    ):
        # a client of TLS 1.3 learns only by reading what the server thinks of its certificate
        try:
            return connection.recv(4096)
        except TimeoutError:
            return b"waits"


def client_refusal(door: Listener, scheme: str, keys: RunKeys | None) -> str:
    """Connect a whole `distributed.Client`; return why that failed, "" if it did not."""
    security = Security() if keys is None else keys.security()

    async def knock() -> None:
        async with Client(address(door, scheme), security=security, timeout=KNOCK_S, asynchronous=True):
            pass

    return _refusal(knock())


def _refusal(knock: Any) -> str:
    try:
        asyncio.run(knock)
    except (OSError, CommClosedError, TimeoutError, ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def keys_of(run: Path) -> RunKeys:
    """Return the keys that a run has now."""
    cert = next((run / "keys").glob("*/certificate.pem"))
    return RunKeys(cert, cert, cert.with_name("key.pem"))
