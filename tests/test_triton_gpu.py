"""The tiles on a GPU: the same numbers as without them, and as the gate asks for."""

import os

import numpy as np
import pytest
import torch

from apogee_batch.inference.cuda_engine import CudaEngine
from apogee_batch.inference.gate import check_engine
from apogee_batch.inference.gate_spectra import simulate_spectra
from apogee_batch.inference.tiles_engine import TilesEngine, why_not
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.inference.triton_tiles import plan_blocks
from apogee_batch.network.model import SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform
from apogee_batch.survey.pixels import N_PIXELS
from tests.tile_examples import HALF, import_kernels, make_block

pytestmark = pytest.mark.gpu
TRANSFORM = InputTransform("contrast")
PLANS = plan_blocks(100)


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    if why_not("fast"):
        pytest.skip(why_not("fast"))
    import_kernels(monkeypatch, interpreted=False)
    assert os.environ["TRITON_INTERPRET"] == "0"


@pytest.fixture
def model() -> SpectrumNet:
    model = SpectrumNet().eval().requires_grad_(False)
    initialise_kaiming(model, torch.Generator().manual_seed(5))
    return model


@pytest.mark.parametrize("block", range(len(PLANS)))
@pytest.mark.parametrize("n_realizations", [100, 3])
def test_a_block_on_a_gpu_gives_the_differences_of_the_network(block: int, n_realizations: int) -> None:
    plan = plan_blocks(n_realizations)[block]
    example = make_block(plan, N_PIXELS >> block, n_realizations, (8.0, 0.5, 1024.0), device="cuda")
    for found, wanted in zip(example.launch().double(), example.wanted(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=float(2 * HALF * wanted.abs().max()))


def test_the_engine_passes_the_check_of_a_worker(model: SpectrumNet) -> None:
    engine = TilesEngine(model, TRANSFORM, OFFICIAL_SCALER)
    check_engine(engine, TorchEngine(model, TRANSFORM, OFFICIAL_SCALER), n_realizations=100)


def test_tiles_and_steps_agree_and_a_star_is_alone(model: SpectrumNet) -> None:
    stars = simulate_spectra(6).at_snr(100.0)
    tiles = TilesEngine(model, TRANSFORM, OFFICIAL_SCALER)
    found = tiles.predict(stars, 100)
    steps = CudaEngine(model, TRANSFORM, OFFICIAL_SCALER, precision="fast").predict(stars, 100)
    sigma = steps[:, 1:].std(axis=1, ddof=1)
    assert np.abs((found - steps) / sigma[:, None]).max() < 0.02
    np.testing.assert_array_equal(tiles.predict(stars.part(4, 6), 100), found[4:])
