"""Copies between the host and a GPU that nobody waits for before they are needed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from apogee_batch.schema import FloatArray


class Event(Protocol):
    """A place in a device's queue of work."""

    def synchronize(self) -> None:
        """Wait until the work before it is done."""
        ...


class SideStream:
    """A second queue of work of a GPU, for what the next batch needs; on a CPU there is but one.

    A copy in the queue of the computing would wait for all that was begun before, and so would whoever asks
    for a number that follows from it.

    Parameters
    ----------
    device : torch.device
    cuda : module, optional
        `torch.cuda`, or what stands for it in a test.
    """

    def __init__(self, device: torch.device, *, cuda: Any = torch.cuda) -> None:
        self._cuda = cuda
        self._stream = cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def entered(self) -> Iterator[list[Tensor]]:
        """Queue the work of the block here; what is queued after it elsewhere comes after it.

        Yields
        ------
        list of Tensor
            To be filled with what the block makes for the others: its memory is not given out again before
            they are done with it.
        """
        made: list[Tensor] = []
        if self._stream is None:
            yield made
            return
        with self._cuda.stream(self._stream):
            yield made
        current = self._cuda.current_stream()
        current.wait_stream(self._stream)
        for tensor in made:
            tensor.record_stream(current)


class Departure:
    """Tensors on their way to the host.

    Parameters
    ----------
    tensors : sequence of Tensor
        What is to leave the device.
    device : torch.device
        Where they are; from a CPU there is no way to go.
    cuda : module, optional
        As for `SideStream`.
    """

    def __init__(self, tensors: Sequence[Tensor], device: torch.device, *, cuda: Any = torch.cuda) -> None:
        self._event: Event | None = None
        self._arriving = list(tensors)
        if device.type == "cuda":
            self._arriving = [_copy_later(tensor) for tensor in tensors]
            self._event = cuda.Event(blocking=True)  # who waits for it leaves the core to others
            cuda.current_stream().record_event(self._event)

    def arrive(self) -> list[Tensor]:
        """Wait for the tensors and return them, on the CPU."""
        if self._event is not None:
            self._event.synchronize()
        return self._arriving


def pin(array: FloatArray) -> FloatArray:
    """Copy an array into memory that is never moved or swapped; torch gives freed blocks out again."""
    pinned: FloatArray = torch.from_numpy(array).pin_memory().numpy()
    return pinned


def _copy_later(tensor: Tensor) -> Tensor:
    """Return where a tensor will be, in memory to which a GPU copies by itself."""
    return torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda).copy_(tensor, non_blocking=True)
