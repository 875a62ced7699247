"""Messages of the ranks of a training: a fixed header, then bytes, through an encrypted socket.

Nothing that comes out of a socket is unpickled or evaluated: headers are checked, arrays have the length that
the receiver expects.
"""

import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

MAGIC = b"AbRk"
VERSION = 1
HEADER = struct.Struct("!4sHH16sQQ")  # magic, version, kind, attempt, number of the exchange, length
CHUNK_BYTES = 1 << 18
TICK_S = 1.0  # how often one who waits says so
MAX_TEXT_BYTES = 1 << 12
MAX_VALUES_BYTES = 1 << 28


class Kind(IntEnum):
    """What a message is."""

    HELLO = 1
    WELCOME = 2
    REFUSED = 3
    GRADIENT = 4
    SUM = 5
    VALUES = 6
    ALL_VALUES = 7


class PeerLostError(Exception):
    """The other end of a socket is gone, silent, or no rank of this training."""


@dataclass(frozen=True)
class Patience:
    """How long the other end may be silent.

    Attributes
    ----------
    stall_s : float
        Without a single byte.
    on_wait : callable
        Called about every second while there is nothing to do but wait.
    """

    stall_s: float
    on_wait: Callable[[], None]


class Channel:
    """A connection between two ranks.

    Parameters
    ----------
    connection : SSLSocket
        After the handshake.
    attempt : bytes, length 16
        Which training it belongs to; messages of another one are refused.
    name : str
        The other end, for messages.
    patience : Patience
    """

    def __init__(self, connection: ssl.SSLSocket, attempt: bytes, name: str, patience: Patience) -> None:
        connection.settimeout(min(TICK_S, patience.stall_s / 4))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._attempt = attempt
        self.name = name
        self.patience = patience

    def send(self, kind: Kind, number: int, content: bytes | memoryview = b"") -> None:
        """Send a message.

        Raises
        ------
        PeerLostError
            If the other end is gone or takes nothing.
        """
        view = memoryview(content).cast("B")
        header = HEADER.pack(MAGIC, VERSION, kind, self._attempt, number, view.nbytes)
        self._send_all(memoryview(header))
        self._send_all(view)

    def receive(self, kind: Kind, number: int, *, max_bytes: int) -> bytearray:
        """Receive a message of at most `max_bytes`."""
        content = bytearray(self._receive_header(kind, number, range(max_bytes + 1)))
        self._fill(memoryview(content))
        return content

    def receive_into(self, kind: Kind, number: int, view: memoryview) -> None:
        """Receive a message that fills `view` exactly.

        Raises
        ------
        PeerLostError
            If the other end is gone, silent, or sends something else.
        """
        self._receive_header(kind, number, range(view.nbytes, view.nbytes + 1))
        self._fill(view)

    def close(self) -> None:
        """Let the other end see that there is nothing more to come, and a thread that waits here, too."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _receive_header(self, kind: Kind, number: int, lengths: range) -> int:
        raw = bytearray(HEADER.size)
        self._fill(memoryview(raw))
        magic, version, found_kind, attempt, found_number, length = HEADER.unpack(raw)
        if (magic, version, attempt) != (MAGIC, VERSION, self._attempt):
            raise PeerLostError(f"{self.name} sent a message of another training, or none of ours")
        if found_kind == Kind.REFUSED and length <= MAX_TEXT_BYTES:
            reason = bytearray(length)
            self._fill(memoryview(reason))
            raise PeerLostError(f"{self.name} refused: {reason.decode(errors='replace')}")
        if (found_kind, found_number) != (kind, number) or length not in lengths:
            raise PeerLostError(
                f"{self.name} sent message {found_kind} of exchange {found_number} with {length} bytes "
                f"where {kind.name} of exchange {number} was due"
            )
        return int(length)

    def _send_all(self, view: memoryview) -> None:
        while view:
            chunk = view[:CHUNK_BYTES]  # a chunk that was stopped half way must be offered again as it was
            view = view[self._try(partial(self._connection.send, chunk), "takes nothing") :]

    def _fill(self, view: memoryview) -> None:
        while view:
            count = self._try(partial(self._connection.recv_into, view), "sends nothing")
            if count == 0:
                raise PeerLostError(f"{self.name} is gone")
            view = view[count:]

    def _try(self, call: Callable[[], int], what: str) -> int:
        """Move some bytes, however long it takes within the patience."""
        began = time.monotonic()
        while True:
            try:
                return call()
            except TimeoutError as error:
                self.patience.on_wait()
                silence = time.monotonic() - began
                if silence > self.patience.stall_s:
                    raise PeerLostError(f"{self.name} {what} since {silence:.0f} s") from error
            except OSError as error:  # SSLError is one
                raise PeerLostError(f"{self.name} is gone ({error})") from error
