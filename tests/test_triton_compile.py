"""The tiles compile for GPUs that are not here, into instructions for matrix products."""

import pytest

from apogee_batch.inference.triton_tiles import TilePlan, plan_blocks
from tests.tile_compilation import SHARED_BYTES, compile_block
from tests.tile_examples import import_kernels

pytest.importorskip("triton")
pytestmark = pytest.mark.long
SHARED_BYTES_OF_A100 = 163 * 1024


@pytest.mark.parametrize("plan", plan_blocks(100))
@pytest.mark.parametrize(
    ("capability", "product", "most_bytes"), [(80, "mma", SHARED_BYTES_OF_A100), (90, "wgmma", SHARED_BYTES)]
)
def test_a_block_becomes_matrix_products_that_fit_into_a_multiprocessor(
    plan: TilePlan, capability: int, product: str, most_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compile_block(import_kernels(monkeypatch, interpreted=False), plan, capability)
    assert compiled.products[product] >= 5
    assert (compiled.n_maxima > 0, compiled.n_forgetful) == (True, 0)  # the interpreter's always keep NaN
    assert compiled.shared_bytes + 1024 <= most_bytes
    assert compiled.spilled_bytes <= 128
    names = {"mma": "HMMA", "wgmma": "HGMMA"}
    assert compiled.loop[names[product]] >= 5
    assert "FFMA" not in compiled.loop or compiled.loop["FFMA"] < compiled.instructions / 5
