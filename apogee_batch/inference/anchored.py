"""The network in 16 bits that carry only differences from the clean spectrum.

A realization is the clean spectrum and a little noise, and the scatter of its labels is small against the
labels. Rounding the activations of a realization to 16 bits is an error relative to the flux, which at a high
signal-to-noise ratio exceeds the noise itself. So each layer's clean pre-activations z are computed once a
star, in float32, and what goes from layer to layer is by how much a realization differs from them: rounding
is then relative to the noise. With d the difference, y = conv(d), which needs no bias, and p = relu(z), the
next difference is

    relu(z + y) - p = max(y + (z - p), -p),

and where pairs (a, b) of pixels are pooled, with p = relu(max(z_a, z_b)),

    max(y_a + (z_a - p), y_b + (z_b - p), -p).

This is exact algebra, and nothing large is subtracted from something large: z - p is 0 wherever the clean
activation passes. All of it is homogeneous: with d and z multiplied by s > 0, every next difference is
multiplied by s. Each star gets the power of two that brings its noise into the middle of float16's range, so
that faint differences do not vanish and strong ones do not overflow.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from apogee_batch.network.model import CHANNELS, N_CONVOLUTIONS, SpectrumNet
from apogee_batch.network.scaling import InputTransform

if TYPE_CHECKING:  # few need them
    from apogee_batch.inference.triton_tiles import Tiles

LARGEST_NORMAL = 6.77  # sqrt(66 ln 2): `noise` draws none beyond it
INPUT_EXPONENT = 4  # the largest difference at the input is below 2**4: layers may enlarge it 4000 times
LARGEST_EXPONENT = 40
EXPONENT_BIAS, MANTISSA_BITS = 127, 23  # of float32


def choose_scales(transform: InputTransform, err: Tensor, flux_scale: Tensor) -> Tensor:
    """Return the power of two of each star by which its differences are multiplied.

    Parameters
    ----------
    transform : InputTransform
    err : Tensor of float32, shape (n_stars, n_pixels)
        Standard deviation of the noise.
    flux_scale : Tensor of float32, shape (n_stars, 1)
        What `transform.scale` gave.

    Returns
    -------
    Tensor of float32, shape (n_stars, 1)
    """
    largest = LARGEST_NORMAL * err.amax(dim=1, keepdim=True)
    if transform.kind == "contrast":
        largest = (transform.gain * largest / flux_scale).clamp(max=2 * transform.gain * transform.clip)
    # Read from and written to the bits of the numbers: exact everywhere, which a device's exp2 need not be.
    exponent = (largest.view(torch.int32) >> MANTISSA_BITS) - EXPONENT_BIAS
    wanted = (INPUT_EXPONENT - 1 - exponent).clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT)
    return ((wanted + EXPONENT_BIAS) << MANTISSA_BITS).view(torch.float32)


class _Layer(NamedTuple):
    """Parameters of a layer in float32, and its weights rounded to float16."""

    weight: Tensor
    bias: Tensor
    half: Tensor


class AnchoredNet:
    """A network whose realizations are differences from their clean spectrum, in float16.

    Products of float16 numbers are summed in float32. On a CPU this is emulated: operands are rounded to
    float16, multiplied and added as float32, and the sums rounded to float16.

    Parameters
    ----------
    model : SpectrumNet
        On the device where it is to run; its parameters are shared, not copied.
    tiles : bool
        Whether the convolutions of differences run in the fused tiles of `triton_tiles`, which wants Triton
        and a GPU, or Triton's interpreter.
    """

    def __init__(self, model: SpectrumNet, *, tiles: bool = False) -> None:
        self._convolutions = [_read_layer(model, f"conv{i}") for i in range(1, N_CONVOLUTIONS + 1)]
        self._hidden = [_read_layer(model, name) for name in ("fc1", "fc2")]
        self._last = _read_layer(model, "fc3")
        self._tiles: Tiles | None = None
        if tiles:
            from apogee_batch.inference import triton_tiles

            self._tiles = triton_tiles.Tiles([layer.half for layer in self._convolutions])
            first, *others = self._hidden
            self._hidden = [first._replace(half=_reorder_features(first.half)), *others]

    def predict(self, clean: Tensor, inputs: Tensor, scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict standardised labels of clean spectra, and how those of their realizations differ.

        Parameters
        ----------
        clean : Tensor of float32, shape (n_stars, n_pixels)
            Transformed clean spectra.
        inputs : Tensor of float32, shape (n_stars, n_realizations, n_pixels)
            Transformed realizations.
        scales : Tensor of float32, shape (n_stars, 1)
            From `choose_scales`.

        Returns
        -------
        clean : Tensor of float32, shape (n_stars, n_labels)
        differences : Tensor of float32, shape (n_stars, n_realizations, n_labels)
            Not finite where float16 overflowed.
        activations : Tensor of float32, shape (n_stars, 2 * hidden_width)
            Of the clean spectra: the outputs of `fc1` before its ReLU, and those of `fc2` after it.
        """
        differences = ((inputs - clean[:, None]) * scales[:, None]).half()
        extract = self._extract_features if self._tiles is None else self._extract_in_tiles
        x, d = extract(clean, differences, scales)
        zs = []
        for layer in self._hidden:
            z = functional.linear(x, layer.weight, layer.bias)  # (n_stars, hidden_width)
            zs.append(z)
            x = z.relu()
            y = _linear_half(d, layer.half)  # (n_stars, n_realizations, hidden_width)
            d = _next_difference((y,), (z[:, None],), x[:, None], scales[:, None])
        labels = functional.linear(x, self._last.weight, self._last.bias)  # (n_stars, n_labels)
        activations = torch.cat((zs[0], x), dim=1)
        return labels, functional.linear(d.float(), self._last.weight) / scales[:, None], activations

    def _extract_features(self, clean: Tensor, differences: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
        """Run the convolutions.

        Parameters
        ----------
        clean : Tensor of float32, shape (n_stars, n_pixels)
        differences : Tensor of float16, shape (n_stars, n_realizations, n_pixels)
        scales : Tensor of float32, shape (n_stars, 1)

        Returns
        -------
        Tensor of float32, shape (n_stars, n_features)
        Tensor of float16, shape (n_stars, n_realizations, n_features)
        """
        n_stars, n_realizations, _ = differences.shape
        x, d = clean[:, None, None, :], differences.flatten(0, 1)[:, None, None, :]
        scales = scales[:, :, None, None, None]
        for i, layer in enumerate(self._convolutions, start=1):
            z = functional.conv2d(x, layer.weight, layer.bias, padding=(0, 1))
            y = _convolve_half(d, layer.half)
            y = y.view(n_stars, -1, *y.shape[1:])
            x = z.relu()  # (n_stars, n_channels, 1, length)
            ys: Sequence[Tensor] = (y,)
            zs: Sequence[Tensor] = (z[:, None],)
            if i % 2 == 0:
                x = functional.max_pool2d(x, (1, 2))  # (n_stars, n_channels, 1, length // 2)
                ys, zs = _pairs(y, x.shape[-1]), _pairs(z[:, None], x.shape[-1])
            d = _next_difference(ys, zs, x[:, None], scales).flatten(0, 1)
        return x.flatten(1), d.reshape(n_stars, n_realizations, -1)

    def _extract_in_tiles(self, clean: Tensor, differences: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
        """Do what `_extract_features` does, but the differences of features come pixel by pixel."""
        assert self._tiles is not None
        x, anchors = clean[:, None, None, :], []
        for i, layer in enumerate(self._convolutions, start=1):
            z = functional.conv2d(x, layer.weight, layer.bias, padding=(0, 1))
            anchors.append(z.squeeze(2).transpose(1, 2).contiguous())  # (n_stars, length, n_channels)
            x = z.relu()
            if i % 2 == 0:
                x = functional.max_pool2d(x, (1, 2))
        return x.flatten(1), self._tiles.run(differences.transpose(1, 2).contiguous(), anchors, scales)


def _read_layer(model: SpectrumNet, name: str) -> _Layer:
    """Return the parameters of a layer, those of a convolution as of a two-dimensional one of height 1."""
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Conv1d | nn.Linear)
    assert layer.bias is not None
    weight = layer.weight.detach()
    if isinstance(layer, nn.Conv1d):
        weight = weight[:, :, None, :].contiguous(memory_format=torch.channels_last)
    return _Layer(weight, layer.bias.detach(), weight.half())


def _reorder_features(weight: Tensor) -> Tensor:
    """Return the weights of `fc1` for features that come pixel by pixel instead of channel by channel."""
    by_channel = weight.view(len(weight), CHANNELS[-1], -1)  # (hidden_width, n_channels, pooled_pixels)
    return by_channel.transpose(1, 2).flatten(1).contiguous()


def _pairs(values: Tensor, n_pairs: int) -> tuple[Tensor, Tensor]:
    """Return the first and the second pixel of each pair; an odd last one is dropped, as pooling does."""
    return values[..., 0 : 2 * n_pairs : 2], values[..., 1 : 2 * n_pairs : 2]


def _next_difference(
    differences: Sequence[Tensor], anchors: Sequence[Tensor], clean: Tensor, scales: Tensor
) -> Tensor:
    """Return by how much the next activations differ from their clean ones.

    Parameters
    ----------
    differences, anchors : sequence of Tensor, one or two of each
        What a layer makes of the last differences (float16), and its clean pre-activations (float32): of each
        pixel, or of the two pixels that are pooled.
    clean : Tensor of float32
        The next clean activations.
    scales : Tensor of float32
        Of the stars; the shapes broadcast to those of the differences.

    Returns
    -------
    Tensor of float16, in the shape of a difference
    """
    highest = clean * -scales
    for difference, anchor in zip(differences, anchors, strict=True):
        highest = torch.maximum(highest, difference + (anchor - clean) * scales)
    return highest.half()


def _convolve_half(values: Tensor, weight: Tensor) -> Tensor:
    """Convolve float16 numbers, adding up in float32; the result is float16."""
    if values.is_cuda:
        return functional.conv2d(values, weight, padding=(0, 1))
    return functional.conv2d(values.float(), weight.float(), padding=(0, 1)).half()


def _linear_half(values: Tensor, weight: Tensor) -> Tensor:
    """Multiply float16 numbers by a matrix, adding up in float32; the result is float16."""
    if values.is_cuda:
        return functional.linear(values, weight)
    return functional.linear(values.float(), weight.float()).half()
