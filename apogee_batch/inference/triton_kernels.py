# mypy: disable-error-code="untyped-decorator"
"""The kernels of a GPU's tiles, in Triton: convolution, convolution and pooling in one, on differences.

`triton_tiles` plans and launches them; docs/gpu.md explains algebra and layout. Everywhere the rows of a tile
are realizations of one star, at the same pixels, and its columns are channels: clean activations and weights
are then the same for all rows, and the neighbours of a pixel are other tiles, not other rows of the same one.
"""

import subprocess

import triton  # type: ignore[import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, unused-ignore]

# What ends a launch that cannot be: Triton's own errors, no C compiler, one that fails, no driver.
FAULTS = (triton.TritonError, RuntimeError, OSError, subprocess.CalledProcessError)
ALL = tl.constexpr(tl.PropagateNan.ALL)  # what overflowed has to reach the labels: it is looked for there


@triton.jit
def _differ_after_relu(
    sums: tl.tensor,
    z: tl.tensor,
) -> tl.tensor:
    """Return by how much activations differ, `sums` from a convolution and z clean ones before ReLU.

    max(sums + (z - relu(z)), -relu(z)); where z is -infinity nothing can pass, and the difference is 0.
    """
    least = tl.minimum(-z, 0.0, propagate_nan=ALL)
    stopped = tl.minimum(z, 0.0, propagate_nan=ALL)
    return tl.maximum(sums + stopped, least, propagate_nan=ALL).to(tl.float16)


@triton.jit
def _differ_after_pooling(
    even: tl.tensor,
    odd: tl.tensor,
    z_even: tl.tensor,
    z_odd: tl.tensor,
) -> tl.tensor:
    """Return by how much the larger of two neighbouring pixels differs after ReLU."""
    clean = tl.maximum(tl.maximum(z_even, z_odd, propagate_nan=ALL), 0.0, propagate_nan=ALL)
    highest = tl.maximum(even + (z_even - clean), odd + (z_odd - clean), propagate_nan=ALL)
    return tl.maximum(highest, -clean, propagate_nan=ALL).to(tl.float16)


@triton.jit
def _load_inputs(
    inputs: tl.tensor,
    first: tl.tensor,
    rows: tl.tensor,
    length: tl.tensor,
    n_rows: tl.tensor,
    n_channels: tl.constexpr,
    n_wanted: tl.constexpr,
    k_size: tl.constexpr,
) -> tl.tensor:
    """Return pixels first, first + 1, ... side by side, (rows, k_size); 0 outside of the spectrum."""
    k = tl.arange(0, k_size)
    pixel = first + k // n_channels
    is_there = (pixel >= 0) & (pixel < length) & (k < n_wanted * n_channels)
    columns = pixel * (n_rows * n_channels) + k % n_channels
    return tl.load(
        inputs + (rows * n_channels)[:, None] + columns[None, :],
        mask=(rows < n_rows)[:, None] & is_there[None, :],
        other=0.0,
    )


@triton.jit
def _load_clean(
    anchors: tl.tensor,
    scale: tl.tensor,
    first: tl.tensor,
    length: tl.tensor,
    n_channels: tl.constexpr,
    n_side: tl.constexpr,
    stride: tl.constexpr,
    outside: tl.constexpr,
) -> tl.tensor:
    """Return clean pre-activations of pixels first, first + stride, ..., (1, n_side * n_channels)."""
    column = tl.arange(0, n_side * n_channels)
    pixel = first + stride * (column // n_channels)
    is_there = (pixel >= 0) & (pixel < length)
    z = tl.load(anchors + pixel * n_channels + column % n_channels, mask=is_there, other=outside)
    return (z * scale)[None, :]


@triton.jit
def _differ_between(
    x: tl.tensor,
    weights: tl.tensor,
    anchors: tl.tensor,
    scale: tl.tensor,
    first: tl.tensor,
    length: tl.tensor,
    n_channels: tl.constexpr,
    n_side: tl.constexpr,
) -> tl.tensor:
    """Return what the first convolution makes of inputs at pixels first, first + 1, ...; 0 outside."""
    z = _load_clean(anchors, scale, first, length, n_channels, n_side, 1, float("-inf"))
    return _differ_after_relu(tl.dot(x, weights), z)


@triton.jit
def _store_outputs(
    outputs: tl.tensor,
    difference: tl.tensor,
    first: tl.tensor,
    rows: tl.tensor,
    n_pixels: tl.tensor,
    n_rows: tl.tensor,
    n_channels: tl.constexpr,
    n_side: tl.constexpr,
    rows_first: tl.constexpr,
) -> None:
    """Write pixels first, first + 1, ... of the rows."""
    column = tl.arange(0, n_side * n_channels)
    pixel = first + column // n_channels
    mask = (rows < n_rows)[:, None] & (pixel < n_pixels)[None, :]
    channel = column % n_channels
    if rows_first:
        place = (rows * (n_pixels * n_channels))[:, None] + (pixel * n_channels + channel)[None, :]
    else:
        place = (rows * n_channels)[:, None] + (pixel * (n_rows * n_channels) + channel)[None, :]
    tl.store(outputs + place, difference, mask=mask)


@triton.jit
def _matrix(
    weights: tl.tensor,
    place: tl.tensor,
    k_size: tl.constexpr,
    width: tl.constexpr,
) -> tl.tensor:
    """Return one of several matrices that lie one behind the other."""
    k, n = tl.arange(0, k_size), tl.arange(0, width)
    return tl.load(weights + place * (k_size * width) + k[:, None] * width + n[None, :])


@triton.jit
def _place_of_program(
    n_rows: tl.tensor,
    n_segments: tl.tensor,
    tile_rows: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Return star, segment of the spectrum and rows of this program; neighbours share star and segment."""
    n_tiles = (n_rows + tile_rows - 1) // tile_rows
    program = tl.program_id(0)
    rows = (program % n_tiles) * tile_rows + tl.arange(0, tile_rows)
    segment = (program // n_tiles) % n_segments
    star = (program // (n_tiles * n_segments)).to(tl.int64)  # the offsets of a batch may need it
    return star, segment, rows


@triton.jit
def run_narrow_block(
    inputs: tl.tensor,
    outputs: tl.tensor,
    anchors_a: tl.tensor,
    anchors_b: tl.tensor,
    scales: tl.tensor,
    weights_a: tl.tensor,
    weights_b: tl.tensor,
    length: tl.tensor,
    n_rows: tl.tensor,
    n_segments: tl.tensor,
    n_in: tl.constexpr,
    n_mid: tl.constexpr,
    n_out: tl.constexpr,
    k_size: tl.constexpr,
    step: tl.constexpr,
    steps: tl.constexpr,
    tile_rows: tl.constexpr,
    rows_first: tl.constexpr,
) -> None:
    """Run a block whose channels are too few for a matrix product: `step` pixels lie side by side.

    The weights are then matrices from several pixels to several pixels, with zeros where pixels are no
    neighbours (`triton_tiles.pack_second`). A step makes the intermediate pixels i + 1 ... i + step, and with
    those of the step before it the outputs of pixels i ... i + step - 1.
    """
    star, segment, rows = _place_of_program(n_rows, n_segments, tile_rows)
    n_pooled = length // 2
    inputs += star * n_rows * length * n_in
    outputs += star * n_rows * n_pooled * n_out
    anchors_a += star * length * n_mid
    anchors_b += star * length * n_out
    scale = tl.load(scales + star)
    half: tl.constexpr = step // 2  # pooled pixels of a step
    first_weights = _matrix(weights_a, 0, k_size, step * n_mid)
    even_before = _matrix(weights_b, 0, step * n_mid, half * n_out)
    even_now = _matrix(weights_b, 1, step * n_mid, half * n_out)
    odd_before = _matrix(weights_b, 2, step * n_mid, half * n_out)
    odd_now = _matrix(weights_b, 3, step * n_mid, half * n_out)
    start = segment * steps
    x = _load_inputs(inputs, (start - 1) * step, rows, length, n_rows, n_in, step + 2, k_size)
    before = _differ_between(x, first_weights, anchors_a, scale, (start - 1) * step + 1, length, n_mid, step)
    for i in range(steps):
        pixel = (start + i) * step
        x = _load_inputs(inputs, pixel, rows, length, n_rows, n_in, step + 2, k_size)
        now = _differ_between(x, first_weights, anchors_a, scale, pixel + 1, length, n_mid, step)
        even = tl.dot(now, even_now, tl.dot(before, even_before))
        odd = tl.dot(now, odd_now, tl.dot(before, odd_before))
        z_even = _load_clean(anchors_b, scale, pixel, length, n_out, half, 2, 0.0)
        z_odd = _load_clean(anchors_b, scale, pixel + 1, length, n_out, half, 2, 0.0)
        d = _differ_after_pooling(even, odd, z_even, z_odd)
        _store_outputs(outputs, d, pixel // 2, rows, n_pooled, n_rows, n_out, half, rows_first)
        before = now


@triton.jit
def run_wide_block(
    inputs: tl.tensor,
    outputs: tl.tensor,
    anchors_a: tl.tensor,
    anchors_b: tl.tensor,
    scales: tl.tensor,
    weights_a: tl.tensor,
    weights_b: tl.tensor,
    length: tl.tensor,
    n_rows: tl.tensor,
    n_segments: tl.tensor,
    n_in: tl.constexpr,
    n_mid: tl.constexpr,
    n_out: tl.constexpr,
    k_size: tl.constexpr,
    step: tl.constexpr,
    steps: tl.constexpr,
    tile_rows: tl.constexpr,
    rows_first: tl.constexpr,
) -> None:
    """Run a block with 16 or more intermediate channels: a tile is one pixel, a step a pooled pair of them.

    With the input pixels i ... i + 3 side by side, two products give the intermediate pixels i + 1 and
    i + 2. With i - 1 and i of the step before, three products each give the outputs of pixels i and i + 1.
    """
    tl.static_assert(step == 2)
    star, segment, rows = _place_of_program(n_rows, n_segments, tile_rows)
    n_pooled = length // 2
    inputs += star * n_rows * length * n_in
    outputs += star * n_rows * n_pooled * n_out
    anchors_a += star * length * n_mid
    anchors_b += star * length * n_out
    scale = tl.load(scales + star)
    to_first, to_second = _matrix(weights_a, 0, k_size, n_mid), _matrix(weights_a, 1, k_size, n_mid)
    left, middle = _matrix(weights_b, 0, n_mid, n_out), _matrix(weights_b, 1, n_mid, n_out)
    right = _matrix(weights_b, 2, n_mid, n_out)
    start = segment * steps
    x = _load_inputs(inputs, 2 * start - 2, rows, length, n_rows, n_in, 4, k_size)
    h0 = _differ_between(x, to_first, anchors_a, scale, 2 * start - 1, length, n_mid, 1)
    h1 = _differ_between(x, to_second, anchors_a, scale, 2 * start, length, n_mid, 1)
    for i in range(steps):
        pixel = 2 * (start + i)
        x = _load_inputs(inputs, pixel, rows, length, n_rows, n_in, 4, k_size)
        h2 = _differ_between(x, to_first, anchors_a, scale, pixel + 1, length, n_mid, 1)
        h3 = _differ_between(x, to_second, anchors_a, scale, pixel + 2, length, n_mid, 1)
        even = tl.dot(h2, right, tl.dot(h1, middle, tl.dot(h0, left)))
        odd = tl.dot(h3, right, tl.dot(h2, middle, tl.dot(h1, left)))
        z_even = _load_clean(anchors_b, scale, pixel, length, n_out, 1, 1, 0.0)
        z_odd = _load_clean(anchors_b, scale, pixel + 1, length, n_out, 1, 1, 0.0)
        d = _differ_after_pooling(even, odd, z_even, z_odd)
        _store_outputs(outputs, d, pixel // 2, rows, n_pooled, n_rows, n_out, 1, rows_first)
        h0, h1 = h2, h3
