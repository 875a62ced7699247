"""No engine passes the gate whose labels or uncertainties are not those of exact float32."""

import dataclasses
import json
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from rounding_engines import AutocastEngine, RoundingEngine, to_bfloat16, to_tf32
from torch import Tensor

from apogee_batch.errors import IntegrityError
from apogee_batch.inference import gate
from apogee_batch.inference.engines import Precision, StarBatch
from apogee_batch.inference.gate import GATE_SNRS, check_engine, judge, predict_at_snrs, run_gate
from apogee_batch.inference.gate_report import ALLOWED_EXACT, ALLOWED_FAST, GateReport, GateRow
from apogee_batch.inference.gate_spectra import GateSpectra, simulate_spectra, train_stand_in
from apogee_batch.inference.noise import derive_noise_key
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.network.model import SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform
from apogee_batch.schema import LABEL_NAMES
from apogee_batch.survey.pixels import GAP_ERR, N_PIXELS

N_STARS, N_REALIZATIONS = 4, 6
TRANSFORM = InputTransform("contrast")
Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # so small, passes are not faster with more, and wait for busy cores
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> SpectrumNet:
    model = SpectrumNet().eval().requires_grad_(False)
    initialise_kaiming(model, torch.Generator().manual_seed(5))
    return model


@pytest.fixture(scope="module")
def reference(model: SpectrumNet) -> TorchEngine:
    return TorchEngine(model, TRANSFORM, OFFICIAL_SCALER)


@pytest.fixture(scope="module")
def spectra() -> GateSpectra:
    return simulate_spectra(N_STARS)


@pytest.fixture(scope="module")
def wanted(reference: TorchEngine, spectra: GateSpectra) -> np.ndarray:
    labels = predict_at_snrs(reference, spectra, n_realizations=N_REALIZATIONS)
    labels.setflags(write=False)
    return labels


def rounding(model: SpectrumNet, rounded: Callable[[Tensor], Tensor], precision: Precision) -> RoundingEngine:
    engine = RoundingEngine(model, TRANSFORM, OFFICIAL_SCALER, rounded)
    engine.precision = precision
    return engine


@dataclasses.dataclass
class ChangedEngine:
    """An engine that gives something else than it should."""

    right: TorchEngine
    change: Change
    precision: Precision = "fast"
    name: str = "changed"
    stars_per_call: int = 3

    def predict(self, stars: StarBatch, n_realizations: int) -> np.ndarray:
        return self.change(self.right.predict(stars, n_realizations).copy())


def changed(wanted: np.ndarray, change: Change, precision: Precision = "fast") -> GateReport:
    """Judge labels of the gate that were changed; shape (n_snrs, n_stars, 1 + n_realizations, n_labels)."""
    engine = ChangedEngine(None, change, precision)
    return judge(engine, change(wanted.copy()), wanted, simulate_spectra(N_STARS))


def failed_measures(report: GateReport) -> set[str]:
    return {name for row in report.rows for name in report.failures(row)}


def scaled(factor: float) -> Change:
    """Make the scatter of all realizations larger, and leave their means."""

    def change(labels: np.ndarray) -> np.ndarray:
        draws = labels[..., 1:, :]
        mean = draws.mean(axis=-2, keepdims=True)
        labels[..., 1:, :] = mean + factor * (draws - mean)
        return labels

    return change


def shifted(n_sigma: float, rows: slice) -> Change:
    def change(labels: np.ndarray) -> np.ndarray:
        labels[..., rows, :] += n_sigma * labels[..., 1:, :].std(axis=-2, ddof=1, keepdims=True)
        return labels

    return change


def test_torch_agrees_with_itself(reference: TorchEngine, spectra: GateSpectra) -> None:
    report = run_gate(reference, reference, spectra, n_realizations=3)
    assert report.passed
    assert all(row.sigma_rms == row.mean_shift == row.clean_shift == 0 for row in report.rows)
    assert [(row.snr, row.label) for row in report.rows] == [(s, k) for s in GATE_SNRS for k in LABEL_NAMES]


def test_exact_float32_in_another_order_of_summation_passes(
    model: SpectrumNet, spectra: GateSpectra, wanted: np.ndarray
) -> None:
    engine = rounding(model, lambda values: values, "exact")
    found = predict_at_snrs(engine, spectra, n_realizations=N_REALIZATIONS)
    assert (found != wanted).any()
    report = judge(engine, found, wanted, spectra)
    assert report.passed
    assert all(row.sigma_rms < ALLOWED_EXACT["sigma_rms"] / 5 for row in report.rows)


def test_plain_bfloat16_autocast_fails_and_the_brighter_the_worse(
    model: SpectrumNet, spectra: GateSpectra, wanted: np.ndarray
) -> None:
    engine = AutocastEngine(model, TRANSFORM, OFFICIAL_SCALER)
    report = judge(engine, predict_at_snrs(engine, spectra, n_realizations=N_REALIZATIONS), wanted, spectra)
    assert not report.passed
    shift = {snr: max(row.mean_shift for row in report.rows if row.snr == snr) for snr in GATE_SNRS}
    assert shift[1000] > 3 * shift[100] > 3 * shift[30]
    assert {row.snr for row in report.rows if report.failures(row)} >= {200, 500, 1000}


def test_rounded_activations_fail(model: SpectrumNet, spectra: GateSpectra, wanted: np.ndarray) -> None:
    engine = rounding(model, to_bfloat16, "fast")
    found = predict_at_snrs(engine, spectra, n_realizations=N_REALIZATIONS)
    report = judge(engine, found, wanted, spectra)
    assert failed_measures(report) == set(ALLOWED_FAST)


def test_tf32_is_not_exact(model: SpectrumNet, spectra: GateSpectra, wanted: np.ndarray) -> None:
    engine = rounding(model, to_tf32, "exact")
    found = predict_at_snrs(engine, spectra, n_realizations=N_REALIZATIONS)
    assert not judge(engine, found, wanted, spectra).passed


def test_other_noise_fails(reference: TorchEngine, spectra: GateSpectra, wanted: np.ndarray) -> None:
    class OtherNoise:
        name, precision, stars_per_call = "other", "fast", 2

        def predict(self, stars: StarBatch, n_realizations: int) -> np.ndarray:
            keys = tuple(derive_noise_key(1, str(key)) for key in stars.keys)
            return reference.predict(StarBatch(stars.flux, stars.err, keys), n_realizations)

    found = predict_at_snrs(OtherNoise(), spectra, n_realizations=N_REALIZATIONS)
    report = judge(OtherNoise(), found, wanted, spectra)
    assert failed_measures(report) >= {"sigma_rms", "mean_shift"}
    assert all(row.clean_shift == 0 for row in report.rows)


@pytest.mark.parametrize(
    ("change", "measures"),
    [
        (scaled(1.0049), set()),
        (scaled(1.0051), {"sigma_bias", "sigma_rms"}),
        (scaled(0.9949), {"sigma_bias", "sigma_rms"}),
        (shifted(0.029, slice(1, None)), set()),
        (shifted(0.031, slice(1, None)), {"mean_shift"}),
        (shifted(-0.031, slice(0, 1)), {"clean_shift"}),
        (lambda labels: labels[..., [1, 0, 2]], set(ALLOWED_FAST)),
        (lambda labels: labels[:, ::-1], set(ALLOWED_FAST)),
        (lambda labels: np.full_like(labels, np.inf), set(ALLOWED_FAST)),
    ],
    ids=["scatter", "scatter+", "scatter-", "mean", "mean+", "clean-", "labels", "stars", "infinite"],
)
def test_each_measure_has_its_limit(wanted: np.ndarray, change: Change, measures: set[str]) -> None:
    report = changed(wanted, change)
    assert failed_measures(report) == measures
    assert report.passed == (not measures)


def test_stars_that_err_in_opposite_ways_fail_by_their_rms(wanted: np.ndarray) -> None:
    def change(labels: np.ndarray) -> np.ndarray:
        labels[:, ::2], labels[:, 1::2] = scaled(1.01)(labels[:, ::2]), scaled(0.99)(labels[:, 1::2])
        return labels

    assert failed_measures(changed(wanted, change)) == {"sigma_rms"}


def test_exact_engines_may_differ_ten_times_less(wanted: np.ndarray) -> None:
    assert changed(wanted, scaled(1.001), "fast").passed
    assert not changed(wanted, scaled(1.001), "exact").passed


@pytest.mark.parametrize("realization", [0, 1, N_REALIZATIONS])
def test_one_number_that_is_none_fails(wanted: np.ndarray, realization: int) -> None:
    def change(labels: np.ndarray) -> np.ndarray:
        labels[2, 3, realization, 1] = np.nan
        return labels

    report = changed(wanted, change)
    (row,) = [row for row in report.rows if report.failures(row)]
    assert (row.snr, row.label) == (GATE_SNRS[2], LABEL_NAMES[1])
    if realization > 0:
        assert row.worst_star == report.stars[3]
    json.dumps(report.to_json(), allow_nan=False)
    assert "nan" in "\n".join(report.lines())


def test_a_reference_that_is_not_a_number_fails(wanted: np.ndarray, spectra: GateSpectra) -> None:
    engine = ChangedEngine(None, lambda labels: labels)
    assert not judge(engine, wanted, np.full_like(wanted, np.nan), spectra).passed


def test_a_network_whose_outputs_stand_still_shows_nothing(wanted: np.ndarray, spectra: GateSpectra) -> None:
    still = np.ones_like(wanted)
    report = judge(ChangedEngine(None, lambda labels: labels), still, still, spectra)
    assert not report.passed
    assert "sigma of 4 stars is 0: nothing to compare" in "\n".join(report.lines())


def test_a_star_without_scatter_is_equal_only_to_one_without(
    wanted: np.ndarray, spectra: GateSpectra
) -> None:
    still = wanted.copy()
    still[:, 0] = still[:, 0, :1]
    engine = ChangedEngine(None, lambda labels: labels)
    report = judge(engine, still, still, spectra)
    assert report.passed
    assert all(row.n_scattering == N_STARS - 1 for row in report.rows)
    assert not judge(engine, wanted, still, spectra).passed
    rounded = still * (1 + 1e-8 * np.random.default_rng(1).normal(size=still.shape))
    assert judge(engine, rounded, still, spectra).passed


def test_labels_of_another_shape_are_refused(reference: TorchEngine, spectra: GateSpectra) -> None:
    engine = ChangedEngine(reference, lambda labels: labels[:, :-1])
    with pytest.raises(IntegrityError, match=r"engine changed fast: gave labels of shape \(3, 3, 3\)"):
        run_gate(engine, reference, spectra, n_realizations=3)


def test_a_scatter_needs_two_realizations(reference: TorchEngine, spectra: GateSpectra) -> None:
    with pytest.raises(ValueError, match="2 or more"):
        run_gate(reference, reference, spectra, n_realizations=1)


def test_a_report_fits_a_terminal_and_json(wanted: np.ndarray) -> None:
    for change in (scaled(1.0), scaled(-50.0), shifted(-1e-7, slice(None)), shifted(1e9, slice(None))):
        report = changed(wanted, change)
        assert all(len(line) <= 80 for line in report.lines())
        table = report.lines()[3 : 3 + len(GATE_SNRS)]
        assert all(len(line.split()) == 1 + len(ALLOWED_FAST) * len(LABEL_NAMES) for line in table)
        values = json.loads(json.dumps(report.to_json(), allow_nan=False))
        assert values["passed"] is report.passed
        assert [row["clean_shift"] for row in values["rows"]] == [row.clean_shift for row in report.rows]
        assert values["allowed"] == ALLOWED_FAST


def test_a_failure_is_explained_where_it_is_worst() -> None:
    good = GateRow(30.0, "teff", 0.0, 0.0, 0.0, 0.0, 16, "a", 1.0)
    bad = GateRow(500.0, "teff", 0.1, 0.2, 0.0, 0.0, 16, "b", 1.4)
    worst = dataclasses.replace(bad, snr=1000.0, sigma_rms=2.0, worst_star="c", worst_ratio=3.04)
    report = GateReport("net", "fast", ("a", "b", "c"), 100, (good, bad, worst))
    assert report.lines()[-4:] == [
        "teff at SNR 1000:",
        "  bias of sigma 10 %, at most 0.5 % allowed",
        "  rms of sigma 200 %, at most 0.5 % allowed",
        "  worst star c: sigma x 3.04",
    ]


def test_nothing_compared_is_not_passed() -> None:
    assert not GateReport("net", "fast", (), 100, ()).passed


def test_a_worker_takes_an_engine_that_is_right(model: SpectrumNet, reference: TorchEngine) -> None:
    check_engine(reference, reference)
    check_engine(rounding(model, lambda values: values, "exact"), reference)


@pytest.mark.parametrize("rounded", [to_bfloat16, to_tf32])
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_a_worker_refuses_an_engine_that_rounds(
    model: SpectrumNet, reference: TorchEngine, rounded: Callable[[Tensor], Tensor], precision: Precision
) -> None:
    remedy = {"exact": "use --engine torch", "fast": "begin a new run with --precision exact"}[precision]
    with pytest.raises(IntegrityError, match=f"engine torch {precision}: .*teff 0.*; {remedy}"):
        check_engine(rounding(model, rounded, precision), reference)


@pytest.mark.parametrize("star", range(len(gate.CHECK_SNRS)))
@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e4])
def test_a_worker_refuses_an_engine_for_one_wrong_number(
    reference: TorchEngine, star: int, wrong: float
) -> None:
    def change(labels: np.ndarray) -> np.ndarray:
        labels[star, 4, 2] = wrong
        return labels

    with pytest.raises(IntegrityError, match="fe_h"):
        check_engine(ChangedEngine(reference, change), reference)


def test_the_spectra_are_the_same_every_time_and_of_all_temperatures() -> None:
    one, two = simulate_spectra(12), simulate_spectra(12)
    np.testing.assert_array_equal(one.flux, two.flux)
    np.testing.assert_array_equal(one.err, two.err)
    teff = [float(name.split()[-2]) for name in one.names]
    assert teff == sorted(teff)
    assert teff[0] < 3500
    assert teff[-1] > 6000
    assert len({key.seed for key in one.at_snr(30).keys}) == 12


@pytest.mark.parametrize("snr", GATE_SNRS)
def test_errors_have_the_ratio_asked_for_and_none_in_gaps(spectra: GateSpectra, snr: float) -> None:
    stars = spectra.at_snr(snr)
    is_gap = spectra.err == GAP_ERR
    assert (stars.err[is_gap] == 0).all()
    assert (stars.err[~is_gap] > 0).all()
    for flux, err in zip(stars.flux, stars.err, strict=True):
        has_noise = err > 0
        assert np.median(flux[has_noise]) / np.median(err[has_noise]) == pytest.approx(snr, rel=1e-3)
        assert err.max() == pytest.approx(5 * np.median(err[has_noise]), rel=1e-3)
        assert err[has_noise].min() < 0.9 * np.median(err[has_noise])


def test_each_star_can_have_its_own_ratio(spectra: GateSpectra) -> None:
    mixed = spectra.at_snr([30.0, 100.0, 200.0, 500.0])
    np.testing.assert_array_equal(mixed.err[1], spectra.at_snr(100.0).err[1])


def test_spectra_without_stars_or_pixels_are_refused() -> None:
    nothing = np.zeros((1, N_PIXELS), np.float32)
    with pytest.raises(ValueError, match="no star"):
        GateSpectra((), nothing[:0], nothing[:0])
    with pytest.raises(ValueError, match="same stars"):
        GateSpectra(("a", "b"), nothing, nothing)
    with pytest.raises(ValueError, match="without a measured pixel"):
        GateSpectra(("a",), nothing, nothing + np.float32(GAP_ERR)).at_snr(30)


def test_the_stand_in_learns_and_is_the_same_every_time() -> None:
    sizes = {"n_stars": 32, "epochs": 1, "steps_per_epoch": 2, "n_threads": 1}
    (one, transform, scaler), (two, _, _) = train_stand_in(**sizes), train_stand_in(**sizes)
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert transform == TRANSFORM
    assert 3800 < scaler.mean[1] < 5500
    assert not one.training


@pytest.mark.slow
def test_the_stand_in_follows_the_labels_and_tells_bfloat16_from_float32() -> None:
    model, transform, scaler = train_stand_in()
    spectra = simulate_spectra(8)
    engine, reference = AutocastEngine(model, transform, scaler), TorchEngine(model, transform, scaler)
    wanted = predict_at_snrs(reference, spectra, n_realizations=100)
    teff = np.array([float(name.split()[-2]) for name in spectra.names])
    assert np.sqrt(np.mean((wanted[-1, :, 0, 1] - teff) ** 2)) < 250
    report = judge(engine, predict_at_snrs(engine, spectra, n_realizations=100), wanted, spectra)
    assert all("sigma_bias" in report.failures(row) for row in report.rows if row.snr >= 500)
