"""Ranks meet through TLS, sum in their order, and nobody else comes in or gets a training to end."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

import numpy as np
import pytest

from apogee_batch.network.ranks import Ranks, RanksDisagreeError
from apogee_batch.run.clusters.keys import RunKeys, run_keys
from apogee_batch.run.gang.exchange import FirstRank, OtherRank
from apogee_batch.run.gang.frames import HEADER, MAGIC, VERSION, Channel, Kind, Patience, PeerLostError
from apogee_batch.run.gang.gate import Gate, knock

ATTEMPT, OTHER_ATTEMPT = bytes(range(16)), bytes(16)
HOST = "127.0.0.1"
MEET_S = 10.0
PATIENT = Patience(5.0, lambda: None)
T = TypeVar("T")
RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunKeys]:
    with run_keys(tmp_path_factory.mktemp("keys") / "k") as found:
        yield found


@pytest.fixture(scope="module")
def other_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunKeys]:
    with run_keys(tmp_path_factory.mktemp("other-keys") / "k") as found:
        yield found


def visit(keys: RunKeys, port: int, rank: int, n_ranks: int, attempt: bytes = ATTEMPT) -> Channel:
    return knock(
        keys.client_context(),
        (HOST, port),
        attempt,
        rank=rank,
        n_ranks=n_ranks,
        patience=PATIENT,
        timeout_s=MEET_S,
    )


def with_ranks(
    keys: RunKeys,
    n_ranks: int,
    call: Callable[[Ranks], T],
    *,
    before: Callable[[int], object] = lambda _: None,
    given_up: Callable[[], bool] = lambda: False,
) -> list[T]:
    """Let ranks in threads meet and call a function; `before` gets the port before the others come."""
    gate = Gate(keys.server_context(), HOST, ATTEMPT, n_ranks, PATIENT)

    def run(rank: int) -> T:
        ranks: FirstRank | OtherRank
        if rank == 0:
            ranks = FirstRank(gate.admit(MEET_S), given_up)
        else:
            before(gate.port)
            ranks = OtherRank(rank, n_ranks, visit(keys, gate.port, rank, n_ranks), given_up)
        try:
            return call(ranks)
        finally:
            ranks.close()

    with ThreadPoolExecutor(n_ranks) as threads:
        return list(threads.map(run, range(n_ranks)))


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_gradients_are_added_in_the_order_of_the_ranks(keys: RunKeys, n_ranks: int) -> None:
    parts = (RNG.normal(size=(n_ranks, 300_001)) * 10.0 ** RNG.integers(-6, 6, (n_ranks, 1))).astype(
        np.float32
    )
    expected = parts[0].copy()
    for part in parts[1:]:
        expected += part

    def call(ranks: Ranks) -> list[bytes]:
        found = []
        for _ in range(3):
            mine = parts[ranks.rank].copy()
            ranks.sum_gradients(mine)
            found.append(mine.tobytes())
        return found

    for found in with_ranks(keys, n_ranks, call):
        assert found == [expected.tobytes()] * 3


def test_gathered_arrays_come_in_the_order_of_the_ranks(keys: RunKeys) -> None:
    found = with_ranks(keys, 3, lambda ranks: ranks.gather(np.arange(float(ranks.rank * 2))))
    for arrays in found:
        assert [array.tolist() for array in arrays] == [[], [0.0, 1.0], [0.0, 1.0, 2.0, 3.0]]


def test_ranks_that_disagree_are_told_all_of_them(keys: RunKeys) -> None:
    def call(ranks: Ranks) -> str:
        ranks.agree("the weather", "sun")
        with pytest.raises(RanksDisagreeError, match=r"the device: rank 1 has cpu, rank 0 has cuda"):
            ranks.agree("the device", "cpu" if ranks.rank == 1 else "cuda")
        return "told"

    assert with_ranks(keys, 3, call) == ["told"] * 3


def test_an_attempt_that_was_given_up_writes_nothing_more(keys: RunKeys) -> None:
    def call(ranks: Ranks) -> None:
        with pytest.raises(RanksDisagreeError, match="given up"):
            ranks.check()

    with_ranks(keys, 2, call, given_up=lambda: True)


@contextmanager
def plain(port: int) -> Iterator[socket.socket]:
    with socket.create_connection((HOST, port), timeout=MEET_S) as connection:
        yield connection


def knows_nothing(port: int, keys: RunKeys, other_keys: RunKeys) -> None:
    """A client that speaks no TLS gets no answer that it could read."""
    with plain(port) as connection:
        connection.sendall(HEADER.pack(MAGIC, VERSION, Kind.HELLO, ATTEMPT, 0, 0) + bytes(2000))
        assert Kind.WELCOME.to_bytes(2) not in _read_all(connection)


def _read_all(connection: socket.socket) -> bytes:
    content = b""
    with suppress(OSError):
        while part := connection.recv(4096):
            content += part
    return content


def says_nothing(port: int, keys: RunKeys, other_keys: RunKeys) -> None:
    """Clients that only connect keep nobody waiting."""
    silent = [socket.create_connection((HOST, port), timeout=MEET_S) for _ in range(5)]
    threading.Timer(1.0, lambda: [connection.close() for connection in silent]).start()


def has_other_keys(port: int, keys: RunKeys, other_keys: RunKeys) -> None:
    context = other_keys.client_context()
    context.verify_mode = ssl.CERT_NONE  # somebody who does not care whom he speaks to
    with pytest.raises(PeerLostError, match="is gone"):
        knock(context, (HOST, port), ATTEMPT, rank=1, n_ranks=2, patience=PATIENT, timeout_s=0)
    with pytest.raises(PeerLostError, match="does not answer"):
        knock(
            other_keys.client_context(),
            (HOST, port),
            ATTEMPT,
            rank=1,
            n_ranks=2,
            patience=PATIENT,
            timeout_s=0,
        )


def has_no_certificate(port: int, keys: RunKeys, other_keys: RunKeys) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(keys.ca_file)
    with pytest.raises(PeerLostError, match="is gone"):
        knock(context, (HOST, port), ATTEMPT, rank=1, n_ranks=2, patience=PATIENT, timeout_s=0)


def is_of_another_attempt(port: int, keys: RunKeys, other_keys: RunKeys) -> None:
    with pytest.raises(PeerLostError, match="is gone"):
        visit(keys, port, 1, 2, OTHER_ATTEMPT)


def is_no_rank(port: int, keys: RunKeys, other_keys: RunKeys) -> None:
    for rank, n_ranks in ((0, 2), (2, 2), (1, 3), (-1, 2)):
        with pytest.raises(PeerLostError, match="you are none of them"):
            visit(keys, port, rank, n_ranks)


def sends_garbage(port: int, keys: RunKeys, other_keys: RunKeys) -> None:
    for content in (
        b"",
        b"\0" * 500,
        b"GET / HTTP/1.1\r\n\r\n",
        hello(b"[]"),
        hello(b"{"),
        hello(b"", 1 << 60),
    ):
        context = keys.client_context()
        with plain(port) as connection, context.wrap_socket(connection) as secure:
            secure.sendall(content + bytes(HEADER.size))
            secure.shutdown(socket.SHUT_WR)  # of what is not yet read, nobody waits for more


def hello(content: bytes, length: int | None = None) -> bytes:
    return (
        HEADER.pack(MAGIC, VERSION, Kind.HELLO, ATTEMPT, 0, len(content) if length is None else length)
        + content
    )


@pytest.mark.parametrize(
    "stranger",
    [
        knows_nothing,
        says_nothing,
        has_other_keys,
        has_no_certificate,
        is_of_another_attempt,
        is_no_rank,
        sends_garbage,
    ],
)
def test_a_stranger_is_refused_and_the_ranks_meet_all_the_same(
    keys: RunKeys, other_keys: RunKeys, stranger: Callable[[int, RunKeys, RunKeys], None]
) -> None:
    def call(ranks: Ranks) -> float:
        mine = np.full(1000, 1.0 + ranks.rank, dtype=np.float32)
        ranks.sum_gradients(mine)
        return float(mine[-1])

    assert with_ranks(keys, 2, call, before=lambda port: stranger(port, keys, other_keys)) == [3.0, 3.0]


def test_a_rank_that_is_there_is_not_replaced_by_another(keys: RunKeys) -> None:
    gate = Gate(keys.server_context(), HOST, ATTEMPT, 3, PATIENT)
    with ThreadPoolExecutor(1) as thread:
        met = thread.submit(gate.admit, MEET_S)
        first = visit(keys, gate.port, 1, 3)
        with pytest.raises(PeerLostError, match="rank 1 is there already"):
            visit(keys, gate.port, 1, 3)
        second = visit(keys, gate.port, 2, 3)
        channels = met.result()
    first.send(Kind.VALUES, 1, b"the first")
    assert channels[1].receive(Kind.VALUES, 1, max_bytes=9) == b"the first"
    for channel in (first, second, *channels.values()):
        channel.close()


def test_nothing_listens_once_all_ranks_are_there(keys: RunKeys) -> None:
    ports: list[int] = []

    def call(ranks: Ranks) -> None:
        ranks.agree("a", "b")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, ports[0]), timeout=MEET_S)

    with_ranks(keys, 2, call, before=ports.append)


def test_ranks_that_do_not_come_are_named(keys: RunKeys) -> None:
    gate = Gate(keys.server_context(), HOST, ATTEMPT, 3, PATIENT)
    with pytest.raises(PeerLostError, match=r"ranks \[1, 2\] did not come within 0 s"):
        gate.admit(0.1)


def test_a_rank_that_is_gone_is_noticed_at_once_and_a_silent_one_in_time(keys: RunKeys) -> None:
    waits: list[int] = []
    impatient = Patience(0.2, lambda: waits.append(1))
    gate = Gate(keys.server_context(), HOST, ATTEMPT, 2, impatient)
    with ThreadPoolExecutor(1) as thread:
        met = thread.submit(gate.admit, MEET_S)
        other = visit(keys, gate.port, 1, 2)
        channel = met.result()[1]
    waits.clear()
    with pytest.raises(PeerLostError, match=r"rank 1 sends nothing since"):
        channel.receive(Kind.VALUES, 1, max_bytes=10)
    assert waits
    with pytest.raises(PeerLostError, match=r"rank 1 takes nothing since"):
        channel.send(Kind.SUM, 1, bytes(50_000_000))
    other.close()
    with pytest.raises(PeerLostError, match="rank 1 is gone"):
        channel.receive(Kind.VALUES, 1, max_bytes=10)
    channel.close()


def test_a_message_survives_that_the_other_end_was_busy(keys: RunKeys) -> None:
    waits: list[int] = []
    gate = Gate(keys.server_context(), HOST, ATTEMPT, 2, Patience(4.0, lambda: waits.append(1)))
    content = RNG.integers(0, 256, 20_000_000, dtype=np.uint8)
    with ThreadPoolExecutor(2) as threads:
        met = threads.submit(gate.admit, MEET_S)
        other = visit(keys, gate.port, 1, 2)
        channel = met.result()[1]
        waits.clear()
        sent = threads.submit(channel.send, Kind.SUM, 1, content.data)
        while not waits:
            time.sleep(0.01)
        found = np.zeros_like(content)
        other.receive_into(Kind.SUM, 1, found.data)
        sent.result()
    assert np.array_equal(found, content)
    for end in (channel, other):
        end.close()


@pytest.mark.parametrize(
    ("kind", "number", "length"), [(Kind.SUM, 1, 4), (Kind.GRADIENT, 2, 4), (Kind.GRADIENT, 1, 8)]
)
def test_a_message_that_is_not_due_ends_the_attempt(
    keys: RunKeys, kind: Kind, number: int, length: int
) -> None:
    gate = Gate(keys.server_context(), HOST, ATTEMPT, 2, PATIENT)
    with ThreadPoolExecutor(1) as thread:
        met = thread.submit(gate.admit, MEET_S)
        other = visit(keys, gate.port, 1, 2)
        ranks = FirstRank(met.result(), lambda: False)
    other.send(kind, number, bytes(length))
    with pytest.raises(PeerLostError, match="where GRADIENT of exchange 1 was due"):
        ranks.sum_gradients(np.zeros(1, dtype=np.float32))
    ranks.close()
    other.close()
