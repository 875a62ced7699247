"""Copies beside the computing, with a stand-in for the calls to CUDA that writes down their order."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from apogee_batch.inference.device_copies import Departure, SideStream

GPU, CPU = torch.device("cuda"), torch.device("cpu")


class Stream:
    def __init__(self, name: str, calls: list[str]) -> None:
        self._name, self._calls = name, calls

    def wait_stream(self, other: "Stream") -> None:
        self._calls.append(f"{self._name} waits for {other._name}")

    def record_event(self, event: "Event") -> None:
        event.place = f"{len(self._calls)} calls"
        self._calls.append(f"event on {self._name}")


class Event:
    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def synchronize(self) -> None:
        self._calls.append(f"host waits for what followed {self.place}")


class Cuda:
    """Stands for `torch.cuda`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._current = Stream("computing", self.calls)

    def Stream(self, device: torch.device) -> Stream:  # noqa: N802
        assert device == GPU
        return Stream("side", self.calls)

    def Event(self, *, blocking: bool) -> Event:  # noqa: N802
        assert blocking
        return Event(self.calls)

    def current_stream(self) -> Stream:
        return self._current

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self._current = self._current, stream
        self.calls.append(f"enter {stream._name}")
        yield
        self._current = before
        self.calls.append(f"leave {stream._name}")


class Made:
    """Stands for a tensor of a GPU."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda

    def record_stream(self, stream: Stream) -> None:
        self._cuda.calls.append(f"kept for {stream._name}")


def test_what_follows_waits_for_the_side_stream_and_its_memory_is_kept() -> None:
    cuda = Cuda()
    side = SideStream(GPU, cuda=cuda)
    with side.entered() as made:
        cuda.calls.append("copy")
        made.extend([Made(cuda), Made(cuda)])
    kept = ["kept for computing"] * 2
    assert cuda.calls == ["enter side", "copy", "leave side", "computing waits for side", *kept]


def test_on_a_cpu_there_is_no_side_stream() -> None:
    cuda = Cuda()
    with SideStream(CPU, cuda=cuda).entered() as made:
        made.append(torch.zeros(1))
    assert cuda.calls == []


def test_only_who_asks_for_what_left_a_gpu_waits_for_it() -> None:
    cuda = Cuda()
    departure = Departure([torch.arange(3.0), torch.ones(2)], GPU, cuda=cuda)
    assert cuda.calls == ["event on computing"]
    first, second = departure.arrive()
    assert cuda.calls[1:] == ["host waits for what followed 0 calls"]
    assert first.tolist() == [0, 1, 2]
    assert second.tolist() == [1, 1]


def test_nothing_leaves_a_cpu() -> None:
    cuda, values = Cuda(), torch.ones(2)
    assert Departure([values], CPU, cuda=cuda).arrive()[0] is values
    assert cuda.calls == []
