"""Sums of gradients over the ranks of a training, through mutual TLS.

Every rank is connected with the first one, which adds in the order of the ranks, whatever order things
arrive in: the same ranks give the same bits. The network has 19 MB of gradients, which a wire of 10 Gbit/s
carries in 15 ms.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np

from apogee_batch.network.ranks import RanksDisagreeError
from apogee_batch.run.gang.frames import MAX_VALUES_BYTES, Channel, Kind
from apogee_batch.schema import DoubleArray, FloatArray

MAX_SHOWN = 80
T = TypeVar("T")


class _Exchange:
    """What the first rank and the others have in common.

    Parameters
    ----------
    rank, n_ranks : int
    is_given_up : callable
        Tells whether the driver has given this training up.
    """

    def __init__(self, rank: int, n_ranks: int, is_given_up: Callable[[], bool]) -> None:
        self.rank = rank
        self.n_ranks = n_ranks
        self._is_given_up = is_given_up
        self._number = 0  # of exchanges so far: all ranks count the same ones

    def gather(self, values: DoubleArray) -> list[DoubleArray]:
        """See `Ranks`."""
        found = self._gather(np.ascontiguousarray(values, dtype="<f8").tobytes())
        return [np.frombuffer(content, dtype="<f8") for content in found]

    def agree(self, what: str, text: str) -> None:
        """See `Ranks`."""
        texts = [content.decode(errors="replace") for content in self._gather(text.encode())]
        for rank, found in enumerate(texts):
            if found != texts[0]:
                raise RanksDisagreeError(
                    f"{what}: rank {rank} has {found[:MAX_SHOWN]}, rank 0 has {texts[0][:MAX_SHOWN]}; the "
                    "workers of one training must be nodes of one kind and see the same files"
                )

    def check(self) -> None:
        """See `Ranks`."""
        if self._is_given_up():
            raise RanksDisagreeError("this attempt to train was given up; nothing more is written")

    def _gather(self, content: bytes) -> list[bytes]:
        """Return what every rank gave, in the order of the ranks."""
        raise NotImplementedError


class FirstRank(_Exchange):
    """The rank that adds.

    Parameters
    ----------
    channels : mapping of int to Channel
        To the other ranks.
    is_given_up : callable
        As for all ranks.
    """

    def __init__(self, channels: Mapping[int, Channel], is_given_up: Callable[[], bool]) -> None:
        super().__init__(0, len(channels) + 1, is_given_up)
        self._channels = [channels[rank] for rank in range(1, self.n_ranks)]
        self._threads = ThreadPoolExecutor(len(channels), "rank")  # encryption takes a core a connection
        self._buffers: list[FloatArray] = []

    def sum_gradients(self, gradient: FloatArray) -> None:
        """See `Ranks`."""
        number = self._next()
        if not self._buffers:
            self._buffers = [np.empty_like(gradient) for _ in self._channels]
        self._with_all(
            lambda i, channel: channel.receive_into(Kind.GRADIENT, number, _bytes_of(self._buffers[i]))
        )
        for buffer in self._buffers:
            np.add(gradient, buffer, out=gradient)
        self._with_all(lambda _, channel: channel.send(Kind.SUM, number, _bytes_of(gradient)))

    def _gather(self, content: bytes) -> list[bytes]:
        number = self._next()
        found = [content]
        found += self._with_all(
            lambda _, channel: bytes(channel.receive(Kind.VALUES, number, max_bytes=MAX_VALUES_BYTES))
        )
        for each in found:
            self._with_all(partial(_send_values, number, each))
        return found

    def _with_all(self, call: Callable[[int, Channel], T]) -> Sequence[T]:
        """Do something with all other ranks at the same time; the results come in their order."""
        return list(self._threads.map(call, range(len(self._channels)), self._channels))

    def _next(self) -> int:
        self._number += 1
        return self._number

    def close(self) -> None:
        """Let the others go."""
        for channel in self._channels:
            channel.close()
        self._threads.shutdown(wait=False)


class OtherRank(_Exchange):
    """A rank that sends its gradients to the first one.

    Parameters
    ----------
    rank, n_ranks : int
    channel : Channel
        To the first rank.
    is_given_up : callable
        As for all ranks.
    """

    def __init__(self, rank: int, n_ranks: int, channel: Channel, is_given_up: Callable[[], bool]) -> None:
        super().__init__(rank, n_ranks, is_given_up)
        self._channel = channel

    def sum_gradients(self, gradient: FloatArray) -> None:
        """See `Ranks`."""
        self._number += 1
        view = _bytes_of(gradient)
        self._channel.send(Kind.GRADIENT, self._number, view)
        self._channel.receive_into(Kind.SUM, self._number, view)

    def _gather(self, content: bytes) -> list[bytes]:
        self._number += 1
        self._channel.send(Kind.VALUES, self._number, content)
        return [
            bytes(self._channel.receive(Kind.ALL_VALUES, self._number, max_bytes=MAX_VALUES_BYTES))
            for _ in range(self.n_ranks)
        ]

    def close(self) -> None:
        """Let the first rank go."""
        self._channel.close()


def _send_values(number: int, content: bytes, _: int, channel: Channel) -> None:
    channel.send(Kind.ALL_VALUES, number, content)


def _bytes_of(array: FloatArray) -> memoryview:
    """Return the memory of an array, which must be in one piece."""
    return array.data.cast("B")
