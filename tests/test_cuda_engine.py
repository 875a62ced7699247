"""The engine of the GPU, its steps computed on the CPU: all but the launch."""

import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
from training_sets import make_training_set

from apogee_batch.inference import cuda_engine
from apogee_batch.inference.cuda_engine import CudaEngine, why_not
from apogee_batch.inference.device_noise import key_tensor
from apogee_batch.inference.engines import Precision, StarBatch
from apogee_batch.inference.gate import check_engine
from apogee_batch.inference.noise import derive_noise_key
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.network.model import SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform
from apogee_batch.survey.pixels import N_PIXELS

CONTRAST = InputTransform("contrast")
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
PRECISIONS: tuple[Precision, ...] = ("exact", "fast")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for one another take long where other work is going on."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> SpectrumNet:
    model = SpectrumNet().eval().requires_grad_(False)
    initialise_kaiming(model, torch.Generator().manual_seed(5))
    return model


def stars_at(snr: float, n_stars: int = 3) -> StarBatch:
    flux = make_training_set().flux[:n_stars]
    err = np.where(flux > 0, np.median(flux, axis=1, keepdims=True) / snr, 0).astype(np.float32)
    return StarBatch(flux, err, tuple(derive_noise_key(1, f"star {i}") for i in range(n_stars)))


def on_cpu(model: SpectrumNet, precision: Precision, **options: object) -> CudaEngine:
    transform = options.pop("transform", CONTRAST)
    return CudaEngine(model, transform, OFFICIAL_SCALER, precision=precision, device="cpu", **options)


def in_units(labels: np.ndarray) -> np.ndarray:
    """Return standardised labels."""
    return (labels - np.array(OFFICIAL_SCALER.mean)) / np.array(OFFICIAL_SCALER.std)


@pytest.mark.parametrize("kind", ["raw", "contrast"])
def test_exact_labels_are_those_of_plain_torch(model: SpectrumNet, kind: str) -> None:
    transform = InputTransform(kind)
    stars = stars_at(100)
    wanted = TorchEngine(model, transform, OFFICIAL_SCALER).predict(stars, 4)
    found = on_cpu(model, "exact", transform=transform, batch_stars=2).predict(stars, 4)
    assert found.shape == (3, 5, 3)
    assert found.dtype == np.float64
    size = np.abs(in_units(wanted)).max()
    np.testing.assert_allclose(in_units(found) / size, in_units(wanted) / size, atol=3e-6)


@pytest.mark.parametrize(
    ("kind", "snr"), [("raw", 200), *(("contrast", snr) for snr in (2, 30, 100, 200, 500, 1000))]
)
def test_the_scatter_of_fast_labels_is_that_of_exact_ones(model: SpectrumNet, kind: str, snr: float) -> None:
    stars, transform = stars_at(snr, 1), InputTransform(kind)
    exact = TorchEngine(model, transform, OFFICIAL_SCALER).predict(stars, 8)
    fast = on_cpu(model, "fast", transform=transform, batch_stars=1).predict(stars, 8)
    sigma = exact[:, 1:].std(axis=1, ddof=1)
    np.testing.assert_allclose(fast[:, 1:].std(axis=1, ddof=1) / sigma, 1, atol=5e-3)
    assert np.abs((fast[:, 1:].mean(axis=1) - exact[:, 1:].mean(axis=1)) / sigma).max() < 0.03
    assert np.abs((fast[:, 0] - exact[:, 0]) / sigma).max() < 0.01


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_star_does_not_depend_on_its_neighbours(model: SpectrumNet, precision: Precision) -> None:
    engine, stars = on_cpu(model, precision, batch_stars=2), stars_at(50)
    together = engine.predict(stars, 3)
    np.testing.assert_array_equal(engine.predict(stars.part(2, 3), 3)[0], together[2])
    moved = engine.predict(stars.part(1, 3), 3)  # to other places of a batch: on a CPU, rounding may differ
    np.testing.assert_allclose(in_units(moved), in_units(together[1:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_batches_have_one_shape(
    model: SpectrumNet, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []

    def watched(keys: torch.Tensor, *sizes: int) -> torch.Tensor:
        shapes.append((len(keys), *sizes))
        return torch.zeros(len(keys), *sizes)

    monkeypatch.setattr(cuda_engine, "draw_normals_where_keys_are", watched)
    labels = on_cpu(model, precision, batch_stars=2).predict(stars_at(50), 2)
    assert shapes == [(2, 2, N_PIXELS)] * 2
    np.testing.assert_allclose(in_units(labels[:, 1]), in_units(labels[:, 0]), atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_step_of_a_batch_leaves_its_device(model: SpectrumNet, precision: Precision) -> None:
    engine = CudaEngine(model, CONTRAST, OFFICIAL_SCALER, precision=precision, device="meta", compiled=False)
    flux, err = (torch.empty((32, N_PIXELS), device="meta") for _ in range(2))
    keys = key_tensor([derive_noise_key(1, "star")] * 32, "meta")
    scale = torch.empty((32, 1), device="meta")
    program = engine._fast if precision == "fast" else engine._exact
    labels, features = program(flux, err, keys, scale, scale, 100)
    assert (labels.shape, labels.dtype, labels.device.type) == ((32, 101, 3), torch.float64, "meta")
    assert (features.shape, features.dtype, features.device.type) == ((32, 1024), torch.float32, "meta")
    assert engine._reduce(labels).shape == (32, 3, 3)


def test_the_advice_to_use_tf32_is_not_shown(model: SpectrumNet, monkeypatch: pytest.MonkeyPatch) -> None:
    def advise(keys: torch.Tensor, *sizes: int) -> torch.Tensor:
        warnings.warn("TensorFloat32 tensor cores for float32 matrix multiplication available", stacklevel=1)
        return torch.zeros(len(keys), *sizes)

    monkeypatch.setattr(cuda_engine, "draw_normals_where_keys_are", advise)
    assert np.isfinite(on_cpu(model, "exact", batch_stars=1).predict(stars_at(50, 1), 1)).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_more_realizations_make_a_batch_of_fewer_stars_and_no_other_labels(
    model: SpectrumNet, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    stars = stars_at(50)
    whole = on_cpu(model, precision).predict(stars, 4)
    monkeypatch.setattr(cuda_engine, "MOST_ROWS", 9)  # one star of 1 + 4
    np.testing.assert_allclose(
        in_units(on_cpu(model, precision).predict(stars, 4)), in_units(whole), atol=1e-3
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_error_means_no_scatter(model: SpectrumNet, precision: Precision) -> None:
    stars = stars_at(50, 1)
    labels = on_cpu(model, precision, batch_stars=1).predict(
        StarBatch(stars.flux, np.zeros_like(stars.err), stars.keys), 2
    )
    np.testing.assert_allclose(in_units(labels[0]), in_units(labels[0, :1]).repeat(3, axis=0), atol=1e-5)


def test_a_star_whose_differences_overflow_is_computed_exactly(model: SpectrumNet) -> None:
    steep = SpectrumNet().requires_grad_(False)
    steep.load_state_dict(model.state_dict())
    for name in ("conv1", "conv2", "conv3"):
        steep.get_submodule(name).weight *= 100
    stars = stars_at(50, 2)
    quiet = StarBatch(stars.flux, stars.err * np.float32([[1], [0]]), stars.keys)
    fast = on_cpu(steep, "fast", batch_stars=1).predict(quiet, 2)
    exact = on_cpu(steep, "exact", batch_stars=1).predict(quiet, 2)
    assert np.isfinite(fast).all()
    np.testing.assert_array_equal(fast[0], exact[0])
    assert (fast[1, 1:] == fast[1, :1]).all()


def test_the_model_that_was_given_stays_as_it_is(model: SpectrumNet) -> None:
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    engine = on_cpu(model, "exact")
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == before
    assert engine._model is not model


def test_cudnn_computes_without_tf32_and_then_as_before(
    model: SpectrumNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flags() -> tuple[bool, ...]:
        products = torch.backends.cuda.matmul
        return (
            torch.backends.cudnn.enabled,
            torch.backends.cudnn.allow_tf32,
            products.allow_tf32,
            products.allow_fp16_reduced_precision_reduction,
        )

    seen: list[tuple[bool, ...]] = []
    real = cuda_engine.draw_normals_where_keys_are
    monkeypatch.setattr(
        cuda_engine, "draw_normals_where_keys_are", lambda *a: (seen.append(flags()), real(*a))[1]
    )
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):  # as torch has it
        before = flags()
        on_cpu(model, "exact", batch_stars=1).predict(stars_at(50, 1), 2)
        assert flags() == before
    assert before[:2] == (True, True)
    assert seen == [(True, False, False, False)]


@pytest.mark.slow
def test_the_steps_can_be_compiled_as_one_graph(
    model: SpectrumNet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    stars = stars_at(50, 2)
    fused = on_cpu(model, "fast", batch_stars=1, compiled=True).predict(stars, 2)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
    np.testing.assert_array_equal(fused, on_cpu(model, "fast", batch_stars=1).predict(stars, 2))


def test_where_compiling_fails_the_steps_run_one_by_one(
    model: SpectrumNet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("Cannot find a working triton installation.\nMore of it")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    stars = stars_at(50, 2)
    with caplog.at_level(logging.WARNING):
        labels = on_cpu(model, "fast", batch_stars=1, compiled=True).predict(stars, 2)
    assert [r.getMessage().partition(": ")[2] for r in caplog.records] == [
        "Cannot find a working triton installation."
    ]
    np.testing.assert_array_equal(labels, on_cpu(model, "fast", batch_stars=1).predict(stars, 2))


@pytest.mark.slow
def test_more_numbers_of_realizations_than_torch_compiles_for_are_slower_and_no_failure(
    model: SpectrumNet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    stars = stars_at(50, 1)
    fused, plain = (on_cpu(model, "exact", batch_stars=1, compiled=way) for way in (True, False))
    for n in range(2, 13):
        np.testing.assert_array_equal(fused.predict(stars, n), plain.predict(stars, n))
    warned = [record for record in caplog.records if "torch.compile cannot be used" in record.getMessage()]
    assert 0 < len(warned) < 11


def test_a_mistake_in_the_program_is_not_hidden(model: SpectrumNet, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise TypeError("our own")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    with pytest.raises(TypeError, match="our own"):
        on_cpu(model, "fast", batch_stars=1, compiled=True).predict(stars_at(50, 1), 2)


@pytest.mark.parametrize("error", [RuntimeError("a launch failed"), torch.OutOfMemoryError("it is full")])
def test_a_program_that_has_run_or_has_no_memory_is_not_taken_for_another(
    model: SpectrumNet, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    n_calls = 0

    def compile_(program: Callable[..., torch.Tensor], **_: object) -> Callable[..., torch.Tensor]:
        def run(*arguments: object) -> torch.Tensor:
            nonlocal n_calls
            n_calls += 1
            if n_calls == 2 or isinstance(error, torch.OutOfMemoryError):
                raise error
            return program(*arguments)

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    engine = on_cpu(model, "exact", batch_stars=1, compiled=True)
    with pytest.raises(type(error), match=str(error)):
        engine.predict(stars_at(50, 2), 2)


@NO_CUDA
@pytest.mark.parametrize("precision", PRECISIONS)
def test_without_a_gpu_it_says_so_and_never_computes_elsewhere(
    model: SpectrumNet, precision: Precision
) -> None:
    assert why_not(precision)
    assert "\n" not in why_not(precision)
    with pytest.raises((AssertionError, RuntimeError)):
        CudaEngine(model, CONTRAST, OFFICIAL_SCALER, precision=precision)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gpu_gives_the_labels_of_plain_torch(model: SpectrumNet, precision: Precision) -> None:
    engine = CudaEngine(model, CONTRAST, OFFICIAL_SCALER, precision=precision)
    check_engine(engine, TorchEngine(model, CONTRAST, OFFICIAL_SCALER), n_realizations=20)
