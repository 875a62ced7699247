"""The tiles of a GPU, in Triton's interpreter: what they compute is what the network computes."""

import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from apogee_batch.inference import triton_tiles
from apogee_batch.inference.triton_tiles import plan_blocks
from tests.tile_examples import HALF, import_kernels, make_block, small

pytest.importorskip("triton")
pytestmark = pytest.mark.long  # a tile in the interpreter takes milliseconds
PLANS = plan_blocks(100)
BLOCKS = range(len(PLANS))


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import_kernels(monkeypatch, interpreted=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Each star within the rounding of float16, relative to its own largest difference."""
    for one, other in zip(found.double(), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=float(2 * HALF * other.abs().max()))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("length", [19, 8])
def test_a_block_gives_the_differences_of_the_network(block: int, length: int) -> None:
    """Stars with their own scales, an odd last pixel, realizations that do not fill a tile, several tiles."""
    example = make_block(small(PLANS[block]), length, 17 if length == 8 else 3)
    assert_close(example.launch(), example.wanted())


@pytest.mark.parametrize("block", BLOCKS)
def test_where_a_spectrum_is_cut_does_not_show(block: int) -> None:
    long, short = (make_block(small(PLANS[block], steps=steps), 26, 2, (4.0,)) for steps in (7, 2))
    assert torch.equal(long.launch(), short.launch())


@pytest.mark.parametrize("block", [0, 1, 5])
def test_pixels_beyond_the_ends_differ_by_nothing(block: int) -> None:
    """At the ends a clean pre-activation is as large as elsewhere, but there is no pixel that could pass."""
    example = make_block(small(PLANS[block]), 9, 2, (1.0,))
    example.differences[:] = 0
    example.differences[..., [0, -1]] = 1
    assert_close(example.launch(), example.wanted())
    example.differences[:] = 0
    assert (example.launch() == 0).all()


@pytest.mark.parametrize("block", [0, 3])
def test_a_star_and_a_realization_are_alone(block: int) -> None:
    example = make_block(small(PLANS[block]), 11, 20)
    together = example.launch()
    example.clean, example.scales = example.clean[1:2], example.scales[1:2]
    example.differences = example.differences[1:2, 18:19]
    assert_close(example.launch(), together[1:2, 18:19].double())  # not to the bit: NumPy's products are not


@pytest.mark.parametrize("block", [0, 1, 5])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_comes_out_not_finite(block: int, value: float) -> None:
    """In its own realization alone: there it is looked for, and the star computed again."""
    example = make_block(small(PLANS[block]), 9, 3, (1.0,))
    example.weights[0].abs_(), example.weights[1].abs_()
    example.differences[0, 1, 0, 4] = value
    with np.errstate(invalid="ignore"):
        is_finite = example.launch().isfinite().flatten(2).all(dim=2)
    assert is_finite.tolist() == [[True, False, True]]


@pytest.mark.parametrize("block", [0, 4])
def test_what_is_too_large_for_float16_overflows(block: int) -> None:
    example = make_block(small(PLANS[block]), 9, 2, (1.0,))
    example.weights[0].abs_(), example.weights[1].abs_()
    example.differences[0, 0] = 60_000.0
    with np.errstate(invalid="ignore", over="ignore"):
        found = example.launch()
    assert not found[0, 0].isfinite().all()
    assert found[0, 1].isfinite().all()


@pytest.mark.parametrize("block", [0, 1])
def test_a_clean_spectrum_that_is_not_finite_is_seen(block: int) -> None:
    example = make_block(small(PLANS[block]), 9, 2, (1.0, 1.0))
    example.clean[1, 0, 3] = float("nan")
    with np.errstate(invalid="ignore"):
        found = example.launch()
    assert found[0].isfinite().all()
    assert not found[1].isfinite().all()


def test_a_tile_that_cannot_be_compiled_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from apogee_batch.errors import UsageError

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify")

    kernels = sys.modules["apogee_batch.inference.triton_kernels"]
    monkeypatch.setattr(kernels, "run_wide_block", {(6,): fail})
    with pytest.raises(UsageError, match=r"engine tiles .* Failed to find C compiler.*--engine cuda$"):
        make_block(small(PLANS[2]), 9, 2).launch()


def test_the_whole_stack_of_a_short_spectrum_is_that_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """All six blocks one after the other, as `AnchoredNet` runs them, and its steps without tiles."""
    from apogee_batch.inference.anchored import AnchoredNet
    from apogee_batch.network.model import SpectrumNet, initialise_kaiming

    monkeypatch.setattr(triton_tiles, "plan_blocks", lambda _: tuple(small(plan) for plan in PLANS))
    model = SpectrumNet().eval().requires_grad_(False)
    initialise_kaiming(model, torch.Generator().manual_seed(5))
    clean = torch.randn((2, 131), generator=torch.Generator().manual_seed(1))
    scales = torch.tensor([[16.0], [2.0]])
    noise = torch.randn((2, 3, 131), generator=torch.Generator().manual_seed(2))
    differences = (noise * torch.tensor([0.1, 1.0])[:, None, None] * scales[:, None]).half()
    steps, tiles = AnchoredNet(model), AnchoredNet(model, tiles=True)
    wanted_clean, wanted = steps._extract_features(clean, differences, scales)
    found_clean, found = tiles._extract_in_tiles(clean, differences, scales)
    assert torch.equal(found_clean, wanted_clean)
    found = found.view(2, 3, -1, 64).transpose(2, 3).flatten(2)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=float(6 * HALF * other.abs().max()))


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a busy machine
def test_the_engine_in_the_interpreter_passes_the_check_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole spectra, with noise, transform and all: what a worker asks of its GPU before the first star."""
    from apogee_batch.inference.gate import check_engine
    from apogee_batch.inference.tiles_engine import TilesEngine
    from apogee_batch.inference.torch_engine import TorchEngine
    from apogee_batch.network.model import SpectrumNet, initialise_kaiming
    from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform

    long_programs = tuple(small(plan, steps=plan.steps) for plan in PLANS)
    monkeypatch.setattr(triton_tiles, "plan_blocks", lambda _: long_programs)
    model, transform = SpectrumNet().eval().requires_grad_(False), InputTransform("contrast")
    initialise_kaiming(model, torch.Generator().manual_seed(5))
    engine = TilesEngine(model, transform, OFFICIAL_SCALER, device="cpu", batch_stars=2)
    check_engine(engine, TorchEngine(model, transform, OFFICIAL_SCALER))
