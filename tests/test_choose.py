"""The engine is the fastest that can be used; one that cannot says why."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from apogee_batch.errors import UsageError
from apogee_batch.inference import choose, kernel_engine
from apogee_batch.inference.choose import EngineOffer, available_engines, choose_engine, make_engine
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.scaling import InputTransform, LabelScaler

SCALER = LabelScaler((2.9, 4700.0, -0.2), (1.1, 700.0, 0.3))
OFFERS = (
    EngineOffer("cuda", "exact", "cuda", "torch sees no CUDA device"),
    EngineOffer("cuda", "fast", "cuda", "torch sees no CUDA device"),
    EngineOffer("kernel", "exact", "cpu", ""),
    EngineOffer("kernel", "fast", "cpu", "this CPU has no AVX512-BF16"),
    EngineOffer("openvino", "exact", "cpu", "not installed; pip install openvino"),
    EngineOffer("torch", "exact", "cpu", ""),
)


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "available_engines", lambda: OFFERS)


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize(("wanted", "found"), [("auto", "kernel"), ("kernel", "kernel"), ("torch", "torch")])
def test_the_first_that_can_be_used_is_taken(wanted: str, found: str) -> None:
    assert choose_engine(wanted, "exact", "cpu").name == found


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize(
    ("wanted", "precision", "device", "said"),
    [
        (
            "openvino",
            "exact",
            "cpu",
            "--engine openvino --precision exact .*pip install openvino.*--engine auto",
        ),
        ("auto", "fast", "cpu", "kernel: this CPU has no AVX512-BF16.*--precision exact"),
        ("auto", "exact", "cuda", "torch sees no CUDA"),
        ("torch", "fast", "cpu", "no engine does that"),
        ("kernel", "exact", "cuda", "kernel computes on cpu and not on cuda; use --device cpu"),
        ("cuda", "exact", "cpu", "cuda computes on cuda and not on cpu: torch sees no CUDA"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(
    wanted: str, precision: str, device: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        choose_engine(wanted, precision, device)


@pytest.fixture(params=["raise ImportError('libtbb.so.12: not\\nfound')", "raise RuntimeError('no plugins')"])
def broken_openvino(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """OpenVINO is installed, but its import fails; and the kernel was not compiled."""
    (tmp_path / "openvino.py").write_text(request.param)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(kernel_engine, "why_not", lambda _: "was not compiled")
    for found in (choose._loading_fault, choose._pass_over):
        found.cache_clear()
    yield
    for found in (choose._loading_fault, choose._pass_over):
        found.cache_clear()


@pytest.mark.usefixtures("broken_openvino")
def test_an_engine_that_cannot_be_loaded_is_passed_over_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(3):
        assert choose_engine("auto", "exact", "cpu").name == "torch"
    [warning] = caplog.messages
    assert "the engine openvino is installed but cannot be used" in warning
    assert "\n" not in warning


@pytest.mark.usefixtures("broken_openvino")
def test_an_engine_asked_for_by_name_is_refused_if_it_cannot_be_loaded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(UsageError, match=r"(?s)openvino \((ImportError: libtbb|RuntimeError: no plugins)"):
        choose_engine("openvino", "exact", "cpu")
    assert caplog.messages == []


def test_every_engine_is_listed_and_what_can_be_used_can_be_made() -> None:
    offers = available_engines()
    assert {offer.name for offer in offers} == {"cuda", "tiles", "kernel", "openvino", "torch"}
    model, transform = SpectrumNet(), InputTransform()
    for offer in offers:
        assert "\n" not in offer.reason
        if not offer.reason:
            engine = make_engine(offer, model, transform, SCALER)
            assert (engine.name, engine.precision) == (offer.name, offer.precision)
            assert engine.stars_per_call >= 1
    assert choose_engine("torch", "exact", "cpu").reason == ""
