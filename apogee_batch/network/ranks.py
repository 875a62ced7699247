"""A training that several processes share: which rows are whose, and what they tell one another.

All ranks hold the same network and draw the same random numbers. Each computes the gradient of its slice of
every batch; the sum over the ranks is the gradient of the batch, so that the training is the one that a
single rank would go through, but for rounding. How the ranks reach one another is not known here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from apogee_batch.errors import ApogeeBatchError
from apogee_batch.files import canonical_json
from apogee_batch.schema import DoubleArray, FloatArray


class RanksDisagreeError(ApogeeBatchError):
    """Ranks that should be equal are not; going on would give weights that nobody could repeat."""


class Ranks(Protocol):
    """What a rank knows of the others; all of them call the same methods in the same order."""

    @property
    def rank(self) -> int:
        """Number of this rank, from 0."""

    @property
    def n_ranks(self) -> int:
        """How many there are."""

    def sum_gradients(self, gradient: FloatArray) -> None:
        """Replace an array of float32 by its sum over all ranks, added in the order of the ranks."""

    def gather(self, values: DoubleArray) -> list[DoubleArray]:
        """Return the arrays of all ranks, in their order; their lengths may differ."""

    def agree(self, what: str, text: str) -> None:
        """Raise `RanksDisagreeError` unless the text of all ranks is the same; `what` says what it is."""

    def check(self) -> None:
        """Raise if the training was taken away from these ranks; called before anything is written."""


class Alone:
    """The only rank of a training."""

    rank = 0
    n_ranks = 1

    def sum_gradients(self, gradient: FloatArray) -> None:
        """Leave the sum of one as it is."""

    def gather(self, values: DoubleArray) -> list[DoubleArray]:
        """Return the only array."""
        return [values]

    def agree(self, what: str, text: str) -> None:
        """Agree."""

    def check(self) -> None:
        """Go on."""


ALONE = Alone()


@dataclass(frozen=True)
class Share:
    """What a rank does of work that is shared: consecutive items, as many as any other rank or one less.

    Attributes
    ----------
    n_items : int
        Of all ranks.
    start, stop : int
        Those of this rank; none where there are fewer items than ranks.
    """

    n_items: int
    start: int
    stop: int

    @classmethod
    def of(cls, n_items: int, ranks: Ranks) -> "Share":
        """Return the share of a rank."""
        start, stop = (n_items * rank // ranks.n_ranks for rank in (ranks.rank, ranks.rank + 1))
        return cls(n_items, start, stop)

    @property
    def slice(self) -> slice:
        """The items of this rank."""
        return slice(self.start, self.stop)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return self.start == self.stop


class SharedGradient:
    """The gradients of all parameters, and the loss behind them, in one row of memory.

    Autograd adds to it in place, and one message carries it.

    Parameters
    ----------
    model : Module
        Its parameters get gradients that are views of that memory.
    """

    def __init__(self, model: nn.Module) -> None:
        parameters = list(model.parameters())
        device = parameters[0].device
        self._all = torch.zeros(sum(p.numel() for p in parameters) + 1, device=device)
        self._host = self._all
        if device.type != "cpu":
            self._host = torch.empty_like(self._all, device="cpu", pin_memory=True)
        start = 0
        for parameter in parameters:
            parameter.grad = self._all[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()

    def clear(self) -> None:
        """Forget the step before."""
        self._all.zero_()

    def sum_over(self, ranks: Ranks, loss: Tensor | None) -> Tensor:
        """Replace the gradients by their sum over the ranks.

        Parameters
        ----------
        ranks : Ranks
        loss : Tensor or None
            This rank's share of the loss; None for nothing.

        Returns
        -------
        Tensor
            The loss of all.
        """
        if loss is not None:
            self._all[-1] = loss.detach()
        if self._host is not self._all:
            self._host.copy_(self._all)
        ranks.sum_gradients(self._host.numpy())
        if self._host is not self._all:
            self._all.copy_(self._host)
        return self._all[-1].clone()


def join(losses: list[DoubleArray]) -> Tensor:
    """Return gathered arrays as one tensor."""
    return torch.from_numpy(np.concatenate(losses))


def digest_of(numbers: object, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of JSON values and of tensors by name."""
    digest = sha256(canonical_json(numbers).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
