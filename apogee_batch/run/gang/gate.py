"""How the ranks of a training meet: the first one listens, the others knock, and nobody else comes in.

Both ends show a certificate of this training's own authority: a stranger does not get beyond the handshake.
"""

import json
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any

from apogee_batch.run.gang.frames import MAX_TEXT_BYTES, Channel, Kind, Patience, PeerLostError

GREETING_S = 15.0  # for a handshake and a name; strangers who say nothing cost a thread for so long
MAX_GREETINGS = 64
RETRY_S = 0.5
ACCEPT_S = 0.2
KEEPALIVE = {
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
}  # a node that lost its power says nothing


class Gate:
    """Where the first rank waits for the others.

    Parameters
    ----------
    context : SSLContext
        Of a server that demands a certificate.
    host : str
        Address to listen on, at a free port.
    attempt : bytes, length 16
        What the others must know.
    n_ranks : int
        How many ranks there are, with this one.
    patience : Patience
        With the ranks, once they are in.
    """

    def __init__(
        self, context: ssl.SSLContext, host: str, attempt: bytes, n_ranks: int, patience: Patience
    ) -> None:
        self._context = context
        self._attempt = attempt
        self._n_ranks = n_ranks
        self._patience = patience
        self._listener = socket.create_server((host, 0), family=_family(host), backlog=MAX_GREETINGS)
        self._listener.settimeout(ACCEPT_S)
        self._room = threading.Semaphore(MAX_GREETINGS)
        self._lock = threading.Lock()
        self._found: dict[int, Channel] = {}

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def admit(self, timeout_s: float) -> dict[int, Channel]:
        """Wait until all ranks are there, then listen no more.

        Returns
        -------
        dict of int to Channel
            By rank.

        Raises
        ------
        PeerLostError
            If they are not there in time.
        """
        end = time.monotonic() + timeout_s
        with self._listener:
            while len(self._found) < self._n_ranks - 1:
                if time.monotonic() > end:
                    missing = sorted(set(range(1, self._n_ranks)) - self._found.keys())
                    raise PeerLostError(f"ranks {missing} did not come within {timeout_s:.0f} s")
                self._patience.on_wait()
                with suppress(TimeoutError):
                    self._open_to(self._listener.accept()[0])
        return self._found

    def _open_to(self, stranger: socket.socket) -> None:
        """Greet whoever knocks in a thread, so that nobody can keep the others waiting."""
        if self._room.acquire(blocking=False):
            threading.Thread(target=self._greet, args=(stranger,), daemon=True).start()
        else:
            stranger.close()

    def _greet(self, stranger: socket.socket) -> None:
        try:
            stranger.settimeout(GREETING_S)
            self._welcome(self._context.wrap_socket(stranger, server_side=True))
        except OSError:  # no TLS, or no certificate of ours
            stranger.close()
        finally:
            self._room.release()

    def _welcome(self, connection: ssl.SSLSocket) -> None:
        """Listen to who it is; let in a rank, and send everybody else away."""
        _keep_alive(connection)
        guest = Channel(connection, self._attempt, "a guest", Patience(GREETING_S, lambda: None))
        try:
            refusal = self._judge(bytes(guest.receive(Kind.HELLO, 0, max_bytes=MAX_TEXT_BYTES)), connection)
            if refusal:
                guest.send(Kind.REFUSED, 0, refusal.encode())
                guest.close()
        except PeerLostError:
            guest.close()

    def _judge(self, hello: bytes, connection: ssl.SSLSocket) -> str:
        """Take a rank in and welcome it, or return why not."""
        said = _read_hello(hello)
        if said is None or said[1] != self._n_ranks or not 0 < said[0] < self._n_ranks:
            return f"this training has {self._n_ranks} ranks, and you are none of them"
        rank = said[0]
        channel = Channel(connection, self._attempt, f"rank {rank}", self._patience)
        with self._lock:
            if rank in self._found:
                return f"rank {rank} is there already"
            channel.send(Kind.WELCOME, 0)
            self._found[rank] = channel
        return ""


def knock(
    context: ssl.SSLContext,
    address: tuple[str, int],
    attempt: bytes,
    *,
    rank: int,
    n_ranks: int,
    patience: Patience,
    timeout_s: float,
) -> Channel:
    """Connect with the first rank.

    Parameters
    ----------
    context : SSLContext
        Of a client with a certificate.
    address : (str, int)
        Host and port of the `Gate`.
    attempt : bytes, length 16
    rank, n_ranks : int
        Who this is, and of how many.
    patience : Patience
    timeout_s : float
        How long to try where nobody answers.

    Raises
    ------
    PeerLostError
        If the first rank is not reached, or does not want this one.
    """
    end = time.monotonic() + timeout_s
    hello = json.dumps({"rank": rank, "n_ranks": n_ranks}).encode()
    while True:
        try:
            plain = socket.create_connection(address, timeout=GREETING_S)
            connection = context.wrap_socket(plain)  # closes `plain` if it fails
        except OSError as error:
            if time.monotonic() > end:
                raise PeerLostError(
                    f"rank 0 at {address[0]}:{address[1]} does not answer ({error})"
                ) from error
            patience.on_wait()
            time.sleep(RETRY_S)
            continue
        _keep_alive(connection)
        channel = Channel(connection, attempt, "rank 0", patience)
        try:
            channel.send(Kind.HELLO, 0, hello)
            channel.receive(Kind.WELCOME, 0, max_bytes=0)
        except PeerLostError:
            channel.close()
            raise
        return channel


def _read_hello(hello: bytes) -> tuple[int, int] | None:
    try:
        said: Any = json.loads(hello)
        rank, n_ranks = said["rank"], said["n_ranks"]
    except (ValueError, TypeError, KeyError):
        return None
    return (rank, n_ranks) if type(rank) is int and type(n_ranks) is int else None


def _keep_alive(connection: ssl.SSLSocket) -> None:
    """Notice within a minute that the other end's machine is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):  # Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
