"""Blocks of the network small enough to try: weights, clean spectra, differences, and what is to come out."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from apogee_batch.inference import triton_tiles
from apogee_batch.inference.triton_tiles import TilePlan, pack_first, pack_second

MODULE = "apogee_batch.inference.triton_kernels"
HALF = 2.0**-11  # relative rounding of float16


def import_kernels(monkeypatch: pytest.MonkeyPatch, *, interpreted: bool) -> ModuleType:
    """Import the kernels anew: whether they are interpreted is decided when they are read."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1" if interpreted else "0")
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    package = importlib.import_module("apogee_batch.inference")
    monkeypatch.delattr(package, "triton_kernels", raising=False)
    kernels = importlib.import_module(MODULE)
    monkeypatch.setitem(sys.modules, MODULE, kernels)
    return kernels


def small(plan: TilePlan, rows: int = 16, steps: int = 3) -> TilePlan:
    """Return a plan with tiles that an interpreter is not long at."""
    return plan._replace(rows=rows, steps=steps)


@dataclass
class Block:
    """One block, several stars.

    Attributes
    ----------
    plan : TilePlan
    weights, biases : two Tensor each
        Of its convolutions; the weights are float16.
    clean : Tensor of float32, shape (n_stars, n_in, length)
        Activations of the clean spectra.
    differences : Tensor of float16, shape (n_stars, n_realizations, n_in, length)
        Times `scales`.
    scales : Tensor of float32, shape (n_stars, 1)
    """

    plan: TilePlan
    weights: tuple[Tensor, Tensor]
    biases: tuple[Tensor, Tensor]
    clean: Tensor
    differences: Tensor
    scales: Tensor

    def prepare(self) -> Callable[[], Tensor]:
        """Return what launches the tiles, as often as it is called."""
        z_a = self._convolve(self.clean.float(), 0)
        z_b = self._convolve(z_a.relu(), 1)
        anchors = z_a.transpose(1, 2).contiguous(), z_b.transpose(1, 2).contiguous()
        packed = pack_first(self.weights[0], self.plan), pack_second(self.weights[1], self.plan)
        d = self.differences.permute(0, 3, 1, 2).contiguous()
        return partial(triton_tiles.launch, self.plan, d, anchors, self.scales, packed)

    def launch(self) -> Tensor:
        """Return what the tiles make of it, (n_stars, n_realizations, n_out, length // 2)."""
        found = self.prepare()()
        return found.permute(0, 1, 3, 2) if self.plan.rows_first else found.permute(0, 2, 3, 1)

    def wanted(self) -> Tensor:
        """Return by how much the block's outputs differ, times the scales, in float64."""
        scales = self.scales.double()[..., None, None]
        noisy = self.clean.double()[:, None] + self.differences.double() / scales
        outputs = self._run(noisy.flatten(0, 1)).unflatten(0, noisy.shape[:2])
        return (outputs - self._run(self.clean.double())[:, None]) * scales

    def _run(self, x: Tensor) -> Tensor:
        return functional.max_pool1d(self._convolve(self._convolve(x, 0).relu(), 1).relu(), 2)

    def _convolve(self, x: Tensor, which: int) -> Tensor:
        weight, bias = (
            self.weights[which].squeeze(2).to(self.clean.device, x.dtype),
            self.biases[which].to(x.dtype),
        )
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return functional.conv1d(x, weight, bias, padding=1)


def make_block(
    plan: TilePlan,
    length: int,
    n_realizations: int,
    scales: tuple[float, ...] = (8.0, 0.5, 1024.0),
    *,
    device: str = "cpu",
) -> Block:
    """Return a block with random weights, and differences a third as large as the activations."""
    generator = torch.Generator().manual_seed(length)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    n_stars = len(scales)
    weights = (
        draw(plan.n_mid, plan.n_in, 1, 3) * (3 * plan.n_in) ** -0.5,
        draw(plan.n_out, plan.n_mid, 1, 3) * (3 * plan.n_mid) ** -0.5,
    )
    units = torch.tensor(scales)[:, None]
    differences = 0.3 * draw(n_stars, n_realizations, plan.n_in, length) * units[..., None, None]
    return Block(
        plan,
        (weights[0].half().to(device), weights[1].half().to(device)),
        (0.1 * draw(plan.n_mid).to(device), 0.1 * draw(plan.n_out).to(device)),
        draw(n_stars, plan.n_in, length).relu().to(device),
        differences.half().to(device),
        units.to(device),
    )
