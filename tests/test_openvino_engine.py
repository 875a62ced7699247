"""OpenVINO gives torch's labels, keeps a star alone and reports to nobody."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from apogee_batch.errors import UsageError
from apogee_batch.inference.engines import StarBatch
from apogee_batch.inference.noise import derive_noise_key
from apogee_batch.inference.openvino_engine import (
    ROWS_PER_BLOCK,
    ROWS_PER_CONVOLUTION,
    TELEMETRY_PACKAGE,
    OpenVinoEngine,
    why_not,
)
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.network.model import SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import InputTransform, LabelScaler
from apogee_batch.survey.pixels import N_PIXELS

SCALER = LabelScaler((2.9, 4700.0, -0.2), (1.1, 700.0, 0.3))
needs_openvino = pytest.mark.skipif(why_not("exact") != "", reason="OpenVINO is not installed")

# What Python itself would tell of anything that talks to somebody: a socket, a process, a fork.
LISTEN = """
import sys
talk = []
def hear(event, args):
    if event.startswith(("socket.", "subprocess.", "os.fork", "os.exec", "os.posix_spawn", "urllib.")):
        talk.append(event)
sys.addaudithook(hear)
from apogee_batch.inference.openvino_engine import import_openvino
openvino = import_openvino()
assert openvino.Core().available_devices
import threading
assert threading.active_count() == 1, threading.enumerate()
sys.exit(", ".join(talk) or 0)
"""


@pytest.fixture(scope="module")
def network() -> SpectrumNet:
    model = SpectrumNet()
    initialise_kaiming(model, torch.Generator().manual_seed(3))
    return model


@pytest.fixture(scope="module")
def engine(network: SpectrumNet) -> OpenVinoEngine:
    return OpenVinoEngine(network, InputTransform("contrast"), SCALER)


def stars(n_stars: int, *, seed: int = 0, snr: float = 50.0) -> StarBatch:
    """Stars of different brightness with lines and gaps; names tell them apart."""
    rng = np.random.default_rng(seed)
    lines = 1 - 0.3 * (rng.random((n_stars, N_PIXELS)) < 0.1)
    flux = (10 ** rng.uniform(1.5, 3.5, (n_stars, 1)) * lines).astype(np.float32)
    err = flux / np.float32(snr)
    flux[:, 3310:3546], err[:, 3310:3546] = 0, 0
    return StarBatch(flux, err, tuple(derive_noise_key(1, f"star{seed}.{i}") for i in range(n_stars)))


@needs_openvino
@pytest.mark.parametrize(
    ("kind", "snr"),
    # An untrained network on raw flux gives labels of thousands, whose last digits blur a fainter scatter.
    [("contrast", 30.0), ("contrast", 1000.0), ("raw", 30.0), ("raw", 300.0)],
)
def test_labels_and_their_scatter_are_those_of_torch(network: SpectrumNet, kind: str, snr: float) -> None:
    transform = InputTransform(kind)
    batch = stars(2, snr=snr)
    expected = TorchEngine(network, transform, SCALER).predict(batch, 20)
    found = OpenVinoEngine(network, transform, SCALER).predict(batch, 20)
    assert found.shape == expected.shape == (2, 21, 3)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * max(SCALER.std))
    scatter = found[:, 1:].std(axis=1, ddof=1) / expected[:, 1:].std(axis=1, ddof=1)
    np.testing.assert_allclose(scatter, 1, atol=2e-4)


@needs_openvino
def test_a_star_has_the_same_bytes_alone_and_among_others(engine: OpenVinoEngine) -> None:
    batch = stars(3, seed=1)
    together = engine.predict(batch, 10)
    for i in (2, 0, 1):
        alone = engine.predict(batch.part(i, i + 1), 10)
        assert alone.tobytes() == together[i : i + 1].tobytes()


@needs_openvino
def test_what_is_no_number_stays_none_and_harms_no_other_star(engine: OpenVinoEngine) -> None:
    batch = stars(3, seed=2)
    before = engine.predict(batch, 4)
    flux, err = batch.flux.copy(), batch.err.copy()
    flux[0, 5000], err[1, 5000] = np.nan, np.nan
    found = engine.predict(StarBatch(flux, err, batch.keys), 4)
    assert np.isnan(found[0]).all()
    assert np.isnan(found[1, 1:]).all()
    assert found[1, 0].tobytes() == before[1, 0].tobytes()
    assert found[2].tobytes() == before[2].tobytes()


@needs_openvino
@pytest.mark.parametrize("n_realizations", [1, ROWS_PER_CONVOLUTION, ROWS_PER_BLOCK - 1, ROWS_PER_BLOCK + 4])
def test_any_number_of_realizations_fits_into_the_fixed_shapes(
    engine: OpenVinoEngine, n_realizations: int
) -> None:
    batch = stars(1, seed=3)
    most = engine.predict(batch, ROWS_PER_BLOCK + 5)
    found = engine.predict(batch, n_realizations)
    assert found.shape == (1, 1 + n_realizations, 3)
    assert found.tobytes() == most[:, : 1 + n_realizations].tobytes()


@needs_openvino
def test_rows_that_a_star_does_not_fill_hold_zeros(engine: OpenVinoEngine) -> None:
    engine.predict(stars(1), ROWS_PER_BLOCK - 1)
    engine.predict(stars(1), ROWS_PER_CONVOLUTION)
    assert engine._features[ROWS_PER_CONVOLUTION].any()
    assert not engine._features[ROWS_PER_CONVOLUTION + 1 :].any()
    assert not engine._inputs[1:].any()


@needs_openvino
def test_no_error_means_the_clean_prediction_in_every_row(engine: OpenVinoEngine) -> None:
    batch = stars(1, seed=4)
    quiet = StarBatch(batch.flux, np.zeros_like(batch.err), batch.keys)
    labels = engine.predict(quiet, ROWS_PER_BLOCK)
    np.testing.assert_allclose(labels[0, 1:], np.broadcast_to(labels[0, :1], labels[0, 1:].shape), rtol=1e-6)


@needs_openvino
def test_an_engine_keeps_its_weights_when_the_model_changes(network: SpectrumNet) -> None:
    changing = SpectrumNet()
    changing.load_state_dict(network.state_dict())
    engine = OpenVinoEngine(changing, InputTransform("contrast"), SCALER)
    batch = stars(1, seed=5)
    before = engine.predict(batch, 2)
    with torch.no_grad():
        for values in changing.parameters():
            values.zero_()
    assert engine.predict(batch, 2).tobytes() == before.tobytes()


@needs_openvino
def test_tiny_numbers_are_not_flushed_in_the_thread_that_asks(engine: OpenVinoEngine) -> None:
    engine.predict(stars(1), 2)
    assert np.float32(1e-40) * np.float32(0.5) > 0


@needs_openvino
def test_the_package_that_reports_to_the_makers_cannot_be_imported(engine: OpenVinoEngine) -> None:
    with pytest.raises(ImportError):
        importlib.import_module(TELEMETRY_PACKAGE)


@needs_openvino
@pytest.mark.slow
def test_importing_openvino_talks_to_nobody_and_leaves_no_file(tmp_path: Path) -> None:
    outside = {name: value for name, value in os.environ.items() if name != "CI"}  # it sends nothing in CI
    command = [sys.executable, "-W", "error", "-c", LISTEN]
    done = subprocess.run(
        command, env={**outside, "HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "intel").exists()


def test_a_missing_package_is_named_with_the_remedy(
    network: SpectrumNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "pip install openvino" in why_not("exact")
    with pytest.raises(UsageError, match=r"pip install .*openvino.* or use --engine torch"):
        OpenVinoEngine(network, InputTransform("raw"), SCALER)


def test_there_is_no_fast_precision(network: SpectrumNet) -> None:
    assert "float32 only" in why_not("fast")
    with pytest.raises(UsageError, match="use --precision exact"):
        OpenVinoEngine(network, InputTransform("raw"), SCALER, precision="fast")


def test_the_module_imports_openvino_only_when_an_engine_is_made() -> None:
    source = importlib.util.find_spec("apogee_batch.inference.openvino_engine")
    assert source is not None
    assert source.origin is not None
    assert "\nimport openvino" not in Path(source.origin).read_text()
