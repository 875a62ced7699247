"""The convolutions of a GPU in fused tiles: plans, weights as the tiles want them, and launching.

One kernel computes a block of the network: two convolutions and the pooling after them, on differences from
the clean spectrum (`anchored`). What lies between the two never leaves the GPU's processor. In memory a
block's numbers lie star by star, pixel by pixel, realization by realization, channel by channel: a tile of
one pixel and many realizations is one piece of memory. docs/gpu.md explains it; nothing here needs Triton
until a tile is launched.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from apogee_batch.errors import UsageError
from apogee_batch.network.model import CHANNELS, KERNEL_SIZE

LEAST_PRODUCT = 16  # a matrix product of float16 sums over no fewer numbers
WIDE = 16  # intermediate channels from which on a single pixel is wide enough
OVERLAP = KERNEL_SIZE - 1  # input pixels that a tile needs beside its own


class TilePlan(NamedTuple):
    """How one block is cut into tiles.

    Attributes
    ----------
    n_in, n_mid, n_out : int
        Channels before, between and after its two convolutions.
    k : int
        Numbers that the first product sums over: input pixels side by side, filled up to a power of two.
    step : int
        Intermediate pixels of a tile.
    steps : int
        Tiles that a program makes, one after the other.
    rows : int
        Realizations of a tile.
    rows_first : bool
        Whether the outputs lie realization by realization, as the next matrix product wants them.
    n_warps, n_stages : int
        32 threads each; how many loads are on their way at once.
    """

    n_in: int
    n_mid: int
    n_out: int
    k: int
    step: int
    steps: int
    rows: int
    rows_first: bool
    n_warps: int
    n_stages: int

    @property
    def is_narrow(self) -> bool:
        """Whether several pixels lie side by side in a tile (`run_narrow_block`)."""
        return self.n_mid < WIDE

    def constants(self) -> dict[str, int | bool]:
        """Return what a kernel is compiled for, by the names of its parameters."""
        channels = {"n_in": self.n_in, "n_mid": self.n_mid, "n_out": self.n_out}
        tile = {"k_size": self.k, "step": self.step, "steps": self.steps, "tile_rows": self.rows}
        return {**channels, **tile, "rows_first": self.rows_first}

    def n_segments(self, length: int) -> int:
        """Return into how many pieces spectra of some length are cut, each a program's work."""
        return -(-(length // 2) // (self.steps * self.step // 2))

    def n_programs(self, n_stars: int, n_rows: int, length: int) -> int:
        """Return how many programs a launch has."""
        return n_stars * -(-n_rows // self.rows) * self.n_segments(length)


# Of each block, chosen by what the compiler says of registers, shared memory and instructions per output
# (tests/bench/bench_gpu_tiles.py --compile-only): pixels of a step, steps, the most rows, loads on their way.
_CHOICES = (
    (4, 32, 128, 3),
    (2, 32, 128, 3),
    (2, 32, 128, 3),
    (2, 32, 128, 3),
    (2, 16, 64, 3),
    (2, 16, 64, 2),
)
LEAST_ROWS = 64  # a warp group's product has no fewer
N_WARPS = 4


def plan_blocks(n_rows: int) -> tuple[TilePlan, ...]:
    """Return the plans of the six blocks.

    Parameters
    ----------
    n_rows : int
        Realizations of a star. Tiles have 64 rows instead of 128 where that leaves fewer of them empty.
    """
    plans = []
    for i, (step, steps, most_rows, n_stages) in enumerate(_CHOICES):
        n_in, n_mid, n_out = CHANNELS[2 * i : 2 * i + 3]
        k = max(LEAST_PRODUCT, 1 << ((step + OVERLAP) * n_in - 1).bit_length())
        rows = min(most_rows, LEAST_ROWS, key=lambda size: -(-n_rows // size) * size)
        is_last = i == len(_CHOICES) - 1
        plans.append(TilePlan(n_in, n_mid, n_out, k, step, steps, rows, is_last, N_WARPS, n_stages))
    return tuple(plans)


def pack_first(weight: Tensor, plan: TilePlan) -> Tensor:
    """Return the weights of a block's first convolution as matrices.

    Parameters
    ----------
    weight : Tensor, shape (n_mid, n_in, 1, 3)
    plan : TilePlan

    Returns
    -------
    Tensor, shape (k, step * n_mid) of a narrow block, (2, k, n_mid) of a wide one
        From pixels i ... i + step + 1 side by side to the pixels i + 1 ... i + step.
    """
    bands = _place_taps(weight, [[p, p + 1, p + 2] for p in range(plan.step)], plan.step + OVERLAP)
    matrix = functional.pad(bands, (0, 0, 0, plan.k - len(bands)))  # (k, step * n_mid)
    if plan.is_narrow:
        return matrix.contiguous()
    return matrix.view(plan.k, plan.step, plan.n_mid).transpose(0, 1).contiguous()


def pack_second(weight: Tensor, plan: TilePlan) -> Tensor:
    """Return the weights of a block's second convolution as matrices.

    Parameters
    ----------
    weight : Tensor, shape (n_out, n_mid, 1, 3)
    plan : TilePlan

    Returns
    -------
    Tensor, shape (4, step * n_mid, step / 2 * n_out) of a narrow block, (3, n_mid, n_out) of a wide one
        Wide: of the left, the middle and the right pixel. Narrow: to the even pixels from the intermediate
        pixels of the step before and from those of this step, then the same to the odd ones.
    """
    if not plan.is_narrow:
        return weight[:, :, 0].permute(2, 1, 0).contiguous()
    # Of the step before and this one, pixel p needs the intermediate pixels p - 1, p, p + 1, and those of a
    # step are one further on: its place among the 2 * step of both is step + p - 2.
    places = [[plan.step + p - 2 + tap for tap in range(KERNEL_SIZE)] for p in range(plan.step)]
    halves = [_place_taps(weight, places[parity::2], 2 * plan.step) for parity in range(2)]
    return torch.stack(halves).view(4, plan.step * plan.n_mid, -1).contiguous()


def _place_taps(weight: Tensor, places: Sequence[Sequence[int]], n_pixels: int) -> Tensor:
    """Return a matrix from pixels to pixels, (n_pixels * n_in, len(places) * n_out).

    `places` names, for each pixel that is made, the three that it is made of.
    """
    n_out, n_in, _, _ = weight.shape
    matrix = weight.new_zeros(n_pixels, n_in, len(places), n_out)
    for column, taps in enumerate(places):
        for tap, place in enumerate(taps):
            matrix[place, :, column] = weight[:, :, 0, tap].T
    return matrix.view(n_pixels * n_in, -1)


class Tiles:
    """The convolutions of a network on differences, in fused tiles.

    Parameters
    ----------
    weights : sequence of Tensor of float16
        Of the twelve convolutions, shape (n_out, n_in, 1, 3), where they are to run.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._packed = []
        for plan, (first, second) in zip(plan_blocks(1), _by_block(weights), strict=True):
            self._packed += [pack_first(first, plan), pack_second(second, plan)]

    def run(self, differences: Tensor, anchors: Sequence[Tensor], scales: Tensor) -> Tensor:
        """Return how the features of realizations differ from those of their clean spectrum.

        Parameters
        ----------
        differences : Tensor of float16, shape (n_stars, n_pixels, n_realizations)
            At the input, times the scale of their star.
        anchors : sequence of Tensor of float32, shape (n_stars, length, n_channels)
            What each convolution makes of the clean spectra, before ReLU.
        scales : Tensor of float32, shape (n_stars, 1)

        Returns
        -------
        Tensor of float16, shape (n_stars, n_realizations, n_features)
            Pixel by pixel, unlike `SpectrumNet.extract_features`.

        Raises
        ------
        UsageError
            If Triton cannot compile a tile or the GPU cannot run it.
        """
        features: Tensor = _run_blocks(differences, list(anchors), self._packed, scales)
        return features


def _by_block(values: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return what belongs to the first and to the second convolution of each block."""
    return list(zip(values[::2], values[1::2], strict=True))


@torch.library.custom_op("apogee_batch::fused_tiles", mutates_args=())
def _run_blocks(differences: Tensor, anchors: list[Tensor], weights: list[Tensor], scales: Tensor) -> Tensor:
    """Launch the six blocks; for `torch.compile`, which fuses what comes before, this is one step."""
    d = differences
    blocks = zip(plan_blocks(d.shape[2]), _by_block(anchors), _by_block(weights), strict=True)
    with torch.cuda.device(d.get_device()):
        for plan, clean, packed in blocks:
            d = launch(plan, d, clean, scales, packed)
    return d.flatten(2)


@_run_blocks.register_fake
def _(differences: Tensor, anchors: list[Tensor], *_unread: object) -> Tensor:
    _, n_pixels, n_channels = anchors[-1].shape
    n_stars, _, n_realizations = differences.shape
    return differences.new_empty(n_stars, n_realizations, n_pixels // 2 * n_channels)


def launch(
    plan: TilePlan,
    differences: Tensor,
    anchors: tuple[Tensor, Tensor],
    scales: Tensor,
    weights: tuple[Tensor, Tensor],
) -> Tensor:
    """Run one block.

    Parameters
    ----------
    plan : TilePlan
    differences : Tensor of float16, shape (n_stars, length, n_realizations[, n_in])
    anchors : two Tensor of float32, shapes (n_stars, length, n_mid) and (n_stars, length, n_out)
    scales : Tensor of float32, shape (n_stars, 1)
    weights : two Tensor of float16
        From `pack_first` and `pack_second`.

    Returns
    -------
    Tensor of float16, shape (n_stars, length // 2, n_realizations, n_out)
        Realizations before pixels if the plan has `rows_first`.

    Raises
    ------
    UsageError
        If Triton cannot compile it or the GPU cannot run it.
    """
    n_stars, length, n_rows = differences.shape[:3]
    places = (n_rows, length // 2) if plan.rows_first else (length // 2, n_rows)
    outputs = differences.new_empty(n_stars, *places, plan.n_out)
    tensors = (differences, outputs, *anchors, scales, *weights)
    if not all(tensor.is_contiguous() for tensor in tensors):
        raise ValueError("tiles read what lies in one piece")
    from apogee_batch.inference import triton_kernels  # Triton is not everywhere

    kernel = triton_kernels.run_narrow_block if plan.is_narrow else triton_kernels.run_wide_block
    try:
        kernel[(plan.n_programs(n_stars, n_rows, length),)](
            *tensors,
            length,
            n_rows,
            plan.n_segments(length),
            **plan.constants(),
            num_warps=plan.n_warps,
            num_stages=plan.n_stages,
        )
    except triton_kernels.FAULTS as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"the tiles of --engine tiles cannot be compiled or run here ({type(error).__name__}: {reason});"
            " use --engine cuda"
        ) from error
    return outputs
