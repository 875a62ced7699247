"""Engines that round as common ways to speed up a network do: what the gate is there to refuse."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from apogee_batch.inference.engines import Precision
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.network.model import N_CONVOLUTIONS, SpectrumNet
from apogee_batch.network.scaling import InputTransform, LabelScaler


class AutocastEngine(TorchEngine):
    """What a user gets who wraps the forward pass in plain bfloat16 autocast."""

    precision: Precision = "fast"

    def _predict_rows(self, rows: Tensor, rows_per_forward: int) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super()._predict_rows(rows, rows_per_forward)


class RoundingEngine(TorchEngine):
    """Rounds the operands of every layer, and sums in float32, as matrix units do."""

    def __init__(
        self,
        model: SpectrumNet,
        transform: InputTransform,
        scaler: LabelScaler,
        rounded: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__(model, transform, scaler)
        self._rounded = rounded

    def _predict_rows(self, rows: Tensor, rows_per_forward: int) -> Tensor:
        x = self._transform.apply(rows, self._transform.scale(rows[:1]))[:, None]
        for i in range(1, N_CONVOLUTIONS + 1):
            layer = self._model.get_submodule(f"conv{i}")
            x = functional.conv1d(
                self._rounded(x), self._rounded(layer.weight), layer.bias, padding=1
            ).relu_()
            x = functional.max_pool1d(x, 2) if i % 2 == 0 else x
        x = x.flatten(1)
        for layer in (self._model.fc1, self._model.fc2):
            x = functional.linear(self._rounded(x), self._rounded(layer.weight), layer.bias).relu_()
        last = self._model.fc3
        x = functional.linear(self._rounded(x), self._rounded(last.weight), last.bias)
        return self._scaler.to_physical(x)


def to_bfloat16(values: Tensor) -> Tensor:
    return values.to(torch.bfloat16).float()


def to_tf32(values: Tensor) -> Tensor:
    """Keep 10 bits of the mantissa, rounded to the nearest."""
    bits = values.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)
