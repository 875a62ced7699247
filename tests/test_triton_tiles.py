"""The plans, the weights and the choice of a GPU's tiles: all of them that needs no Triton."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from apogee_batch.errors import UsageError
from apogee_batch.inference import choose, cuda_engine, tiles_engine, triton_tiles
from apogee_batch.inference.anchored import AnchoredNet, choose_scales
from apogee_batch.inference.choose import EngineOffer, available_engines, choose_engine
from apogee_batch.inference.tiles_engine import TilesEngine, why_not
from apogee_batch.inference.triton_tiles import TilePlan, pack_first, pack_second, plan_blocks
from apogee_batch.network.model import CHANNELS, SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform
from apogee_batch.survey.pixels import N_PIXELS

PLANS = plan_blocks(100)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_blocks_are_those_of_the_network() -> None:
    assert [plan.n_in for plan in PLANS] == list(CHANNELS[:-1:2])
    assert [plan.n_mid for plan in PLANS] == list(CHANNELS[1::2])
    assert [plan.n_out for plan in PLANS] == list(CHANNELS[2::2])
    assert [plan.rows_first for plan in PLANS] == [False] * 5 + [True]


@pytest.mark.parametrize("plan", PLANS)
def test_a_tile_has_a_shape_that_a_matrix_product_can_take(plan: TilePlan) -> None:
    sums = (plan.k, plan.n_mid * (plan.step if plan.is_narrow else 1))
    widths = (plan.n_mid, plan.n_out)
    for number in (*sums, *widths, plan.rows, plan.step):
        assert number & (number - 1) == 0
    assert min(sums) >= 16
    assert min(widths) >= 8
    assert plan.rows >= 64
    assert (plan.step + 2) * plan.n_in <= plan.k


@given(n_rows=st.integers(1, 1000))
@settings(max_examples=50, deadline=None)
def test_no_more_than_63_rows_are_computed_in_vain(n_rows: int) -> None:
    for plan in plan_blocks(n_rows):
        assert -(-n_rows // plan.rows) * plan.rows - n_rows < 64 or plan.rows == 64


@given(length=st.integers(2, 9000), n_rows=st.integers(1, 300), n_stars=st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_the_programs_cover_every_pixel_and_realization_once(length: int, n_rows: int, n_stars: int) -> None:
    for plan in plan_blocks(n_rows):
        pooled_of_program = plan.steps * plan.step // 2
        n_segments = plan.n_segments(length)
        assert (n_segments - 1) * pooled_of_program < length // 2 <= n_segments * pooled_of_program
        n_tiles = plan.n_programs(n_stars, n_rows, length) / (n_stars * n_segments)
        assert (n_tiles - 1) * plan.rows < n_rows <= n_tiles * plan.rows


def convolve_in_steps(plan: TilePlan, weights: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    """Run the two convolutions, with nothing between, as a program does: step by step, by packed weights.

    `x` is one realization, (n_in, length); returned are all pixels of the second, (n_out, length).
    """
    length = x.shape[1]
    n_steps = -(-length // plan.step)
    side_by_side = functional.pad(x, (plan.step, 2 * plan.step + 2)).T  # (pixels, n_in), from -step on
    first, second = pack_first(weights[0], plan), pack_second(weights[1], plan)
    first = first if plan.is_narrow else first.transpose(0, 1).flatten(1)
    outputs = []
    before = torch.zeros(plan.step * plan.n_mid, dtype=x.dtype)
    for start in range(-plan.step, n_steps * plan.step, plan.step):
        window = side_by_side[start + plan.step :][: plan.step + 2].flatten()
        now = (functional.pad(window, (0, plan.k - len(window))) @ first).view(plan.step, -1)
        now[[not 0 <= start + 1 + i < length for i in range(plan.step)]] = 0
        if plan.is_narrow:
            now = now.flatten()
            even, odd = before @ second[0] + now @ second[1], before @ second[2] + now @ second[3]
            made = torch.stack((even.view(-1, plan.n_out), odd.view(-1, plan.n_out)), dim=1).flatten(0, 1)
        else:
            pixels = torch.cat((before.view(2, -1), now))
            made = sum(pixels[tap : tap + 2] @ second[tap] for tap in range(3))
            now = now.flatten()
        outputs.append(made)
        before = now
    return torch.cat(outputs[1:])[:length].T


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("length", [21, 22])
def test_the_packed_weights_are_those_of_the_convolutions(plan: TilePlan, length: int) -> None:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    weights = draw(plan.n_mid, plan.n_in, 1, 3), draw(plan.n_out, plan.n_mid, 1, 3)
    x = draw(plan.n_in, length)
    wanted = functional.conv1d(x, weights[0].squeeze(2), padding=1)
    wanted = functional.conv1d(wanted, weights[1].squeeze(2), padding=1)
    torch.testing.assert_close(convolve_in_steps(plan, weights, x), wanted)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> SpectrumNet:
    """A network, and in the place of the tiles the steps that they stand for, in plain torch."""
    model = SpectrumNet().eval().requires_grad_(False)
    initialise_kaiming(model, torch.Generator().manual_seed(5))
    weights = iter([layer.half for layer in AnchoredNet(model)._convolutions] * 9)

    def launch(
        plan: TilePlan, d: Tensor, anchors: tuple[Tensor, Tensor], scales: Tensor, _packed: object
    ) -> Tensor:
        d = d.view(*d.shape[:3], -1).permute(0, 2, 3, 1).float()  # (n_stars, n_realizations, n_in, length)
        for anchor in anchors:
            y = functional.conv1d(d.flatten(0, 1), next(weights).squeeze(2).float(), padding=1)
            z = (anchor * scales[:, None]).transpose(1, 2)[:, None]
            d = (y.unflatten(0, d.shape[:2]) + z).relu() - z.relu()
        noisy, clean = d + z.relu(), z.relu()
        d = functional.max_pool2d(noisy, (1, 2)) - functional.max_pool2d(clean, (1, 2))
        return d.permute(*((0, 1, 3, 2) if plan.rows_first else (0, 3, 1, 2))).half().contiguous()

    monkeypatch.setattr(triton_tiles, "launch", launch)
    return model


def test_the_tiles_are_given_what_they_need_and_read_as_they_answer(model: SpectrumNet) -> None:
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn((2, N_PIXELS), generator=generator)
    inputs = clean[:, None] + 0.1 * torch.randn((2, 3, N_PIXELS), generator=generator)
    scales = choose_scales(InputTransform("raw"), torch.full((2, 1), 0.1), torch.ones(2, 1))
    wanted = AnchoredNet(model).predict(clean, inputs, scales)
    found = AnchoredNet(model, tiles=True).predict(clean, inputs, scales)
    torch.testing.assert_close(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1], rtol=0, atol=float(5e-3 * wanted[1].abs().max()))
    torch.testing.assert_close(found[2], wanted[2])


@pytest.mark.long  # torch.compile is slow to begin
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_the_tiles_are_one_step_of_a_compiled_program(model: SpectrumNet) -> None:
    net = AnchoredNet(model, tiles=True)
    clean, scales = torch.randn(1, N_PIXELS), torch.full((1, 1), 8.0)
    inputs = clean[:, None] + 0.1
    with torch.inference_mode():
        wanted = net.predict(clean, inputs, scales)
        compiled = torch.compile(net.predict, backend="aot_eager", fullgraph=True, dynamic=False)
        for found, other in zip(compiled(clean, inputs, scales), wanted, strict=True):
            torch.testing.assert_close(found, other)


def test_tiles_that_are_not_in_one_piece_are_refused() -> None:
    plan = PLANS[1]
    d = torch.zeros(1, 3, 9, plan.n_in).half().transpose(1, 2)
    anchors = (torch.zeros(1, 9, plan.n_mid), torch.zeros(1, 9, plan.n_out))
    with pytest.raises(ValueError, match="one piece"):
        triton_tiles.launch(plan, d, anchors, torch.ones(1, 1), (torch.zeros(1), torch.zeros(1)))


def test_the_tiles_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--precision fast" in why_not("exact")
    monkeypatch.setattr(cuda_engine, "why_not", lambda _: "torch sees no CUDA device")
    assert why_not("fast") == "torch sees no CUDA device"
    monkeypatch.setattr(cuda_engine, "why_not", lambda _: "")
    monkeypatch.setattr(tiles_engine.importlib.util, "find_spec", lambda _: None)
    assert "Triton is not installed" in why_not("fast")
    monkeypatch.setattr(tiles_engine.importlib.util, "find_spec", lambda _: object())
    assert why_not("fast") == ""


def test_the_tiles_are_taken_only_by_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = (EngineOffer("tiles", "fast", "cuda", ""), EngineOffer("cuda", "fast", "cuda", ""))
    monkeypatch.setattr(choose, "available_engines", lambda: offers)
    assert choose_engine("auto", "fast", "cuda").name == "cuda"
    assert choose_engine("tiles", "fast", "cuda").name == "tiles"
    monkeypatch.setattr(choose, "available_engines", lambda: offers[:1])
    with pytest.raises(UsageError, match="no engine does that"):
        choose_engine("auto", "fast", "cuda")


def test_the_tiles_are_offered_and_refuse_to_be_exact() -> None:
    offers = [offer for offer in available_engines() if offer.name == "tiles"]
    assert [offer.precision for offer in offers] == ["exact", "fast"]
    with pytest.raises(UsageError, match=r"tiles.* use --precision fast"):
        choose_engine("tiles", "exact", "cuda")
    with pytest.raises(ValueError, match="exact they cannot"):
        TilesEngine(SpectrumNet(), InputTransform(), OFFICIAL_SCALER, precision="exact", device="cpu")
    engine = TilesEngine(SpectrumNet(), InputTransform(), OFFICIAL_SCALER, device="cpu")
    assert (engine.name, engine.precision) == ("tiles", "fast")
