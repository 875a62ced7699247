"""The fused kernel computes what torch does, on every variant, for every star by itself."""

from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.errors import UsageError
from apogee_batch.inference import kernel, kernel_engine
from apogee_batch.inference.engines import Precision, StarBatch
from apogee_batch.inference.kernel import REVISION
from apogee_batch.inference.kernel_engine import KernelEngine, kernel_variants, load_variant, why_not
from apogee_batch.inference.noise import NoiseKey, derive_noise_key, draw_normals, words_per_realization
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.network.model import SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import InputTransform, LabelScaler
from apogee_batch.schema import DoubleArray
from apogee_batch.survey.pixels import N_PIXELS

SCALER = LabelScaler((2.9, 4700.0, -0.2), (1.1, 700.0, 0.3))
CONTRAST, RAW = InputTransform("contrast"), InputTransform("raw")
N_WORDS = words_per_realization(N_PIXELS)

VARIANTS = kernel_variants()
FUSED = tuple(name for name in VARIANTS if name != "portable")  # those that surely have fused multiply-add
needs_kernel = pytest.mark.skipif(bool(why_not("exact")), reason=why_not("exact") or "-")
needs_fast = pytest.mark.skipif(bool(why_not("fast")), reason=why_not("fast") or "-")


@pytest.fixture(scope="module")
def model() -> SpectrumNet:
    net = SpectrumNet()
    generator = torch.Generator().manual_seed(11)
    initialise_kaiming(net, generator)
    with torch.no_grad():
        for i in range(1, 13):  # a bias that is 0 everywhere would hide that it was forgotten
            net.get_parameter(f"conv{i}.bias").normal_(0, 0.05, generator=generator)
        for i in range(1, 4):
            net.get_parameter(f"fc{i}.bias").normal_(0, 0.05, generator=generator)
    return net


def make_stars(n_stars: int, *, snr: float = 50, seed: int = 0) -> StarBatch:
    rng = np.random.default_rng(seed)
    level = rng.uniform(50, 5000, (n_stars, 1))
    flux = (level * rng.normal(1, 0.05, (n_stars, N_PIXELS))).astype(np.float32)
    err = (level / snr * rng.uniform(0.5, 2, flux.shape)).astype(np.float32)
    flux[:, 3310:3546] = err[:, 3310:3546] = 0  # a gap
    flux[:, -100:] = err[:, -100:] = 0
    err[:, 500:520] = 0  # measured, without noise
    return StarBatch(flux, err, tuple(derive_noise_key(seed, f"star{i}") for i in range(n_stars)))


def take(stars: StarBatch, order: list[int]) -> StarBatch:
    return StarBatch(stars.flux[order], stars.err[order], tuple(stars.keys[i] for i in order))


def spread(labels: DoubleArray) -> DoubleArray:
    return labels[:, 1:].std(axis=1, ddof=1)


def assert_equal(found: DoubleArray, wanted: DoubleArray) -> None:
    assert found.tobytes() == wanted.tobytes()


@pytest.fixture(scope="module", params=[CONTRAST, RAW], ids=["contrast", "raw"])
def torch_labels(request: pytest.FixtureRequest, model: SpectrumNet) -> tuple[InputTransform, DoubleArray]:
    return request.param, TorchEngine(model, request.param, SCALER).predict(make_stars(2), 15)


@needs_kernel
@pytest.mark.parametrize("variant", VARIANTS)
def test_labels_are_those_of_torch(
    model: SpectrumNet, torch_labels: tuple[InputTransform, DoubleArray], variant: str
) -> None:
    transform, wanted = torch_labels
    found = KernelEngine(model, transform, SCALER, variant=variant).predict(make_stars(2), 15)
    assert found.shape == (2, 16, 3)
    size = np.abs(wanted).max(axis=(0, 1)) + spread(wanted).max(axis=0)
    assert (np.abs(found - wanted) < 1e-5 * size).all()
    np.testing.assert_allclose(spread(found), spread(wanted), rtol=2e-4)


@needs_kernel
@pytest.mark.parametrize("n_realizations", [2, 15, 16, 17, 100])
def test_any_number_of_realizations_fills_vectors(model: SpectrumNet, n_realizations: int) -> None:
    stars = make_stars(1)
    wanted = TorchEngine(model, CONTRAST, SCALER).predict(stars, n_realizations)
    found = KernelEngine(model, CONTRAST, SCALER).predict(stars, n_realizations)
    np.testing.assert_allclose(found, wanted, atol=1e-3 * spread(wanted).max(), rtol=1e-5)
    np.testing.assert_allclose(spread(found), spread(wanted), rtol=2e-4)


@needs_kernel
@pytest.mark.parametrize("precision", ["exact", pytest.param("fast", marks=needs_fast)])
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_a_star_is_alone(model: SpectrumNet, precision: Precision, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(4)))[: data.draw(st.integers(1, 4))]
    n_realizations = data.draw(st.integers(1, 20))
    threads = data.draw(st.integers(1, 3))
    stars = take(make_stars(4), order)
    engine = KernelEngine(model, CONTRAST, SCALER, precision=precision, threads=threads)
    together = engine.predict(stars, n_realizations)
    one = KernelEngine(model, CONTRAST, SCALER, precision=precision)
    alone = [one.predict(stars.part(i, i + 1), n_realizations) for i in range(len(order))]
    assert_equal(together, np.concatenate(alone))


@needs_kernel
@pytest.mark.parametrize("precision", ["exact", pytest.param("fast", marks=needs_fast)])
def test_many_stars_of_few_realizations_keep_apart(model: SpectrumNet, precision: Precision) -> None:
    stars = make_stars(18)  # more than a vector has lanes, and more than two would find room in one
    engine = KernelEngine(model, CONTRAST, SCALER, precision=precision)
    together = engine.predict(stars, 2)
    for i in (0, 1, 15, 16, 17):
        assert_equal(together[i : i + 1], engine.predict(stars.part(i, i + 1), 2))


@needs_kernel
@pytest.mark.skipif(len(FUSED) < 2, reason="this CPU runs one variant with fused multiply-add at most")
@pytest.mark.parametrize("transform", [CONTRAST, RAW], ids=["contrast", "raw"])
def test_variants_agree_in_every_bit(model: SpectrumNet, transform: InputTransform) -> None:
    stars = make_stars(2)
    first, *others = (
        KernelEngine(model, transform, SCALER, variant=name).predict(stars, 19) for name in FUSED
    )
    for other in others:
        assert_equal(other, first)


@needs_kernel
@pytest.mark.parametrize("variant", VARIANTS)
def test_noise_is_the_one_that_all_engines_share(variant: str) -> None:
    key, n_rows = NoiseKey(2**64 - 12345, 0x9E3779B97F4A7C15), 19
    normals, words = np.zeros((n_rows, 2 * N_WORDS), np.float32), np.zeros((n_rows, N_WORDS), np.uint64)
    load_variant(variant).draw_noise(key.seed, key.gamma, normals, words)
    for row, word in ((0, 0), (1, 0), (18, N_WORDS - 1)):
        assert words[row, word] == split_mix(key, row * N_WORDS + word + 1)
    wanted = draw_normals(key, n_rows, N_PIXELS)
    np.testing.assert_allclose(normals[:, :N_PIXELS], wanted, rtol=1e-6, atol=2e-6)


def split_mix(key: NoiseKey, n: int) -> int:
    z = (key.seed + n * key.gamma) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


@needs_kernel
def test_no_error_means_no_scatter(model: SpectrumNet) -> None:
    stars = make_stars(2)
    quiet = StarBatch(stars.flux, np.zeros_like(stars.err), stars.keys)
    labels = KernelEngine(model, CONTRAST, SCALER).predict(quiet, 5)
    assert_equal(labels, np.repeat(labels[:, :1], 6, axis=1))


@needs_fast
@pytest.mark.parametrize("snr", [30, 1000])
def test_fast_scatters_as_exact_does(model: SpectrumNet, snr: float) -> None:
    stars = make_stars(4, snr=snr)
    exact = KernelEngine(model, CONTRAST, SCALER).predict(stars, 60)
    fast = KernelEngine(model, CONTRAST, SCALER, precision="fast").predict(stars, 60)
    assert_equal(fast[:, 0].copy(), exact[:, 0].copy())
    excess = spread(fast) / spread(exact) - 1
    shift = (fast[:, 1:].mean(axis=1) - exact[:, 1:].mean(axis=1)) / spread(exact)
    assert abs(excess.mean()) < 0.005
    assert np.sqrt((excess**2).mean()) < 0.005
    assert np.sqrt((shift**2).mean()) < 0.03
    assert (fast[:, 1:] != exact[:, 1:]).any()


@needs_kernel
@pytest.mark.parametrize("precision", ["exact", pytest.param("fast", marks=needs_fast)])
@pytest.mark.parametrize("transform", [CONTRAST, RAW], ids=["contrast", "raw"])
def test_a_star_that_is_not_finite_harms_no_other(
    model: SpectrumNet, precision: Precision, transform: InputTransform
) -> None:
    stars = make_stars(3)
    engine = KernelEngine(model, transform, SCALER, precision=precision)
    wanted = engine.predict(stars, 20)
    flux, err = stars.flux.copy(), stars.err.copy()
    flux[1, 1000], flux[1, 2000], err[1, 3000] = np.nan, np.inf, 3e38
    found = engine.predict(StarBatch(flux, err, stars.keys), 20)
    assert not np.isfinite(found[1]).any()
    assert_equal(found[[0, 2]], wanted[[0, 2]])


@needs_kernel
@pytest.mark.parametrize(
    "change",
    [
        lambda s: StarBatch(s.flux[:, :-1], s.err[:, :-1], s.keys),
        lambda s: StarBatch(s.flux.astype(np.float64), s.err, s.keys),
        lambda s: StarBatch(s.flux, s.err.astype(">f4"), s.keys),
        lambda s: StarBatch(s.flux.T, s.err.T, s.keys * N_PIXELS),
    ],
)
def test_spectra_of_another_shape_or_type_are_refused(model: SpectrumNet, change) -> None:
    engine = KernelEngine(model, CONTRAST, SCALER)
    with pytest.raises(ValueError, match=r"float32 of shape \(n_stars, 8575\) is needed"):
        engine.predict(change(make_stars(1)), 2)
    with pytest.raises(ValueError, match="ask for 1 or more"):
        engine.predict(make_stars(1), 0)


@needs_kernel
@pytest.mark.parametrize("variant", VARIANTS)
def test_compiled_code_reads_nothing_that_is_too_short(model: SpectrumNet, variant: str) -> None:
    kernel = load_variant(variant)
    weights = tuple(p.detach().numpy() for p in model.parameters())
    with pytest.raises(ValueError, match="30 parameters"):
        kernel.load_network(weights[:-1], False)
    with pytest.raises(ValueError, match="parameter 24: 4358144 values are needed"):
        kernel.load_network((*weights[:24], weights[26], *weights[25:]), False)
    network, workspace = kernel.load_network(weights, False), kernel.new_workspace(False)
    stars = make_stars(2)
    right = [stars.flux, stars.err, np.ones((2, 2), np.uint64), np.ones(2, np.float32)]
    right.append(np.zeros((2, 4, 3), np.float32))
    for i, name in enumerate(("flux", "err", None, "scale", "labels")):
        wrong = [*right]
        wrong[i] = right[i][:1]
        with pytest.raises(ValueError, match=f"{name or 'flux'}: .* values are needed"):
            kernel.predict(network, workspace, (True, 1.0, 5.0), 3, *wrong)
        wrong[i] = right[i].astype(np.float64)
        with pytest.raises(TypeError, match=f"{name or 'keys'}: values of type"):
            kernel.predict(network, workspace, (True, 1.0, 5.0), 3, *wrong)
    with pytest.raises((ValueError, BufferError), match="contiguous"):
        kernel.predict(network, workspace, (True, 1.0, 5.0), 3, np.asfortranarray(stars.flux), *right[1:])
    with pytest.raises(ValueError, match="PyCapsule"):
        kernel.predict(workspace, network, (True, 1.0, 5.0), 3, *right)
    with pytest.raises(ValueError, match="realizations"):
        kernel.predict(network, workspace, (True, 1.0, 5.0), -1, *right)
    kernel.predict(network, workspace, (True, 1.0, 5.0), 3, *right)


@needs_kernel
def test_spectra_whose_type_has_another_name_are_taken(model: SpectrumNet) -> None:
    engine, stars = KernelEngine(model, CONTRAST, SCALER), make_stars(2)
    named = np.dtype(np.float32).newbyteorder("<")
    renamed = StarBatch(stars.flux.view(named), stars.err.view(named), stars.keys)
    np.testing.assert_array_equal(engine.predict(renamed, 2), engine.predict(stars, 2))


@needs_kernel
def test_calls_that_are_cut_give_the_same_labels(model: SpectrumNet, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, stars = KernelEngine(model, CONTRAST, SCALER), make_stars(5)
    whole = engine.predict(stars, 3)
    monkeypatch.setattr(kernel_engine, "MOST_ROWS", 9)  # two stars of 1 + 3
    np.testing.assert_array_equal(engine.predict(stars, 3), whole)


@needs_kernel
@pytest.mark.parametrize("precision", ["exact", pytest.param("fast", marks=needs_fast)])
@pytest.mark.parametrize("most_rows", [2, 16, 40, 41])
def test_calls_are_cut_within_a_star_too(
    model: SpectrumNet, precision: Precision, most_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, stars = KernelEngine(model, CONTRAST, SCALER, precision=precision), make_stars(2)
    whole = engine.predict(stars, 40)
    calls, kernel = [], engine._kernel

    def predict(*arguments: object) -> None:
        calls.append(arguments[3])
        kernel.predict(*arguments)

    monkeypatch.setattr(engine, "_kernel", SimpleNamespace(predict=predict))
    monkeypatch.setattr(kernel_engine, "MOST_ROWS", most_rows)
    assert_equal(engine.predict(stars, 40), whole)
    assert sum(calls) == 80
    assert max(calls) < most_rows


@needs_kernel
def test_no_stars_give_no_labels(model: SpectrumNet) -> None:
    assert KernelEngine(model, CONTRAST, SCALER).predict(make_stars(1).part(0, 0), 5).shape == (0, 6, 3)


def test_without_compiled_code_the_reason_is_told(
    model: SpectrumNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_engine, "_find", lambda _: None)
    assert kernel_variants() == ()
    with pytest.raises(UsageError, match=r"was not compiled .* reinstall apogee-batch where a C\+\+17"):
        KernelEngine(model, CONTRAST, SCALER)


@pytest.mark.parametrize("found", [SimpleNamespace(), SimpleNamespace(REVISION="0123456789ab")])
def test_code_compiled_from_other_sources_is_not_used(
    model: SpectrumNet, monkeypatch: pytest.MonkeyPatch, found: SimpleNamespace
) -> None:
    monkeypatch.setattr(kernel_engine, "_find", lambda _: found)
    assert kernel_variants() == ()
    assert REVISION in why_not("fast")
    told = getattr(found, "REVISION", "none")
    with pytest.raises(UsageError, match=f"was compiled from revision {told} of its sources.*: reinstall"):
        KernelEngine(model, CONTRAST, SCALER)


def test_the_revision_is_that_of_the_sources() -> None:
    folder, found = Path(kernel.__file__).parent, sha256()
    sources = sorted([*folder.glob("*.h"), *folder.glob("*.cpp")])
    if not sources:
        pytest.skip("the package that is tested has no sources with it")
    for path in sources:
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    wanted = found.hexdigest()[:12]
    assert wanted == REVISION, f"the sources changed: write REVISION = {wanted!r} and compile them again"


@needs_kernel
def test_fast_is_refused_by_name_where_the_cpu_cannot(
    model: SpectrumNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = []

    class OlderCpu:
        runnable_variants = staticmethod(lambda: ["portable"])

    def import_variant(name: str) -> type[OlderCpu]:
        imported.append(name)
        return OlderCpu

    monkeypatch.setattr(kernel_engine, "_import_variant", import_variant)
    assert kernel_variants() == ("portable",)
    with pytest.raises(UsageError, match="cannot compute fast here: this CPU has no dot products of"):
        KernelEngine(model, CONTRAST, SCALER, precision="fast")
    with pytest.raises(UsageError, match="'avx2' cannot be used here"):
        load_variant("avx2")
    assert set(imported) == {"portable"}  # loading code of a newer CPU could already end the process


@needs_kernel
def test_a_variant_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"kernel variant 'sse9' cannot be used here .*portable"):
        load_variant("sse9")


@needs_kernel
def test_the_parts_of_the_work_are_told(model: SpectrumNet) -> None:
    engine = KernelEngine(model, CONTRAST, SCALER, threads=2)
    engine.predict(make_stars(2), 3)
    parts = engine.take_parts()
    assert set(parts) == {"noise", "convolutions", "dense", "anchors"}
    assert parts["convolutions"] > parts["noise"] > 0
    assert engine.take_parts()["convolutions"] == 0


@pytest.mark.parametrize(
    ("gain", "told"),
    [
        (2.0, ""),
        (0.5, "slower here than exact: this CPU does 0.5 times as many operations a second in bfloat16"),
    ],
)
def test_where_bfloat16_is_slow_the_fast_pass_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, gain: float, told: str
) -> None:
    peaks = {"fma": 1e11, "bf16": gain * 1e11}
    monkeypatch.setattr(kernel_engine, "why_not", lambda _: "")
    monkeypatch.setattr(
        kernel_engine, "load_variant", lambda _: SimpleNamespace(measure_peaks=lambda _: peaks)
    )
    assert kernel_engine.caution("fast") == told
    assert kernel_engine.caution("exact") == ""


def test_what_cannot_be_used_needs_no_caution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_engine, "why_not", lambda _: "no such CPU")
    assert kernel_engine.caution("fast") == ""


@needs_fast
def test_the_rates_that_caution_goes_by_are_measured() -> None:
    peaks = load_variant(kernel_engine.FAST_VARIANT).measure_peaks(0.001)
    assert min(peaks["fma"], peaks["bf16"]) > 1e8
