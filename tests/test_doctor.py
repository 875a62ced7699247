"""What `doctor` tells of a machine, and how it ends."""

import copy
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from apogee_batch.cli_doctor import doctor
from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.inference.choose import EngineOffer
from apogee_batch.inference.engines import Engine, StarBatch
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.network.checkpoint import save_checkpoint
from apogee_batch.network.header import CheckpointHeader
from apogee_batch.network.model import SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform, LabelScaler
from apogee_batch.run import doctor as run_doctor
from apogee_batch.run import machine as run_machine
from apogee_batch.run.doctor import GateRequest, try_engines
from apogee_batch.run.machine import cpu_features, cpu_model, describe_machine, machine_lines

KERNEL_FAST = EngineOffer("kernel", "fast", "cpu", "")
KERNEL_EXACT = EngineOffer("kernel", "exact", "cpu", "")
CUDA = EngineOffer(
    "cuda", "exact", "cuda", "torch sees no CUDA device, or one that is too old to be of any use"
)
TORCH = EngineOffer("torch", "exact", "cpu", "")
SMALL = {"n_stars": 2, "n_realizations": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a model."""
    network = SpectrumNet()
    initialise_kaiming(network, torch.Generator().manual_seed(5))
    run = tmp_path_factory.mktemp("run")
    header = CheckpointHeader("trained", InputTransform(), OFFICIAL_SCALER)
    save_checkpoint(run / "model", network.state_dict(), header)
    return run


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[EngineOffer]:
    """The engines that the machine has; the kernel adds one percent to everything at `fast`."""

    def make(
        offer: EngineOffer, model: SpectrumNet, transform: InputTransform, scaler: LabelScaler
    ) -> Engine:
        made = TorchEngine(model, transform, scaler)
        if offer == KERNEL_FAST:
            return Doubling(made)
        if offer.name == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available")
        return made

    offers = [KERNEL_FAST, KERNEL_EXACT, CUDA, TORCH]
    monkeypatch.setattr(run_doctor, "available_engines", lambda: tuple(offers))
    monkeypatch.setattr(run_machine, "available_engines", lambda: tuple(offers))
    monkeypatch.setattr(run_machine, "caution_of", lambda _: "")
    monkeypatch.setattr(run_doctor, "make_engine", make)
    monkeypatch.setattr(run_doctor, "GateRequest", partial(GateRequest, n_realizations=2))  # for the command
    return offers


class Doubling:
    name, precision, stars_per_call = "kernel", "fast", 2

    def __init__(self, right: TorchEngine) -> None:
        self.right = right

    def predict(self, stars: StarBatch, n_realizations: int) -> np.ndarray:
        return 2 * self.right.predict(stars, n_realizations)


def silent(line: str) -> None:
    pass


def call(arguments: Sequence[str]) -> tuple[int, str, str]:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(doctor)
    result = CliRunner().invoke(app, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_every_engine_but_the_reference_is_tried(engines: list[EngineOffer], model: Path) -> None:
    said: list[str] = []
    result = try_engines(GateRequest(model, **SMALL), say=said.append)
    assert [(report.engine, report.precision) for report in result.reports] == [
        ("kernel", "fast"),
        ("torch", "exact"),  # what the kernel of this test calls itself
    ]
    assert [report.passed for report in result.reports] == [False, True]
    assert not result.passed
    assert result.network == str(model / "model")
    assert len(said) == 3
    assert "kernel fast: FAILED" in result.lines()


def test_one_engine_or_precision_can_be_asked_for(engines: list[EngineOffer], model: Path) -> None:
    for request, expected in (
        (GateRequest(model, "kernel", "exact", **SMALL), [True]),
        (GateRequest(model, "torch", **SMALL), [True]),
        (GateRequest(model, precision="fast", **SMALL), [False]),
    ):
        assert [report.passed for report in try_engines(request, say=silent).reports] == expected


def test_a_model_can_be_named_by_its_own_folder(engines: list[EngineOffer], model: Path) -> None:
    assert try_engines(GateRequest(model / "model", "torch", **SMALL), say=silent).passed


def test_an_engine_that_ends_with_an_error_fails_alone(engines: list[EngineOffer], model: Path) -> None:
    engines[:] = [KERNEL_EXACT, EngineOffer("cuda", "exact", "cuda", "")]
    result = try_engines(GateRequest(model, **SMALL), say=silent)
    assert [report.passed for report in result.reports] == [True]
    assert result.broken == {"cuda exact": "RuntimeError: CUDA error: no kernel image is available"}
    assert not result.passed
    assert "cuda exact: FAILED" in result.lines()


def test_torch_alone_has_nothing_to_fail(engines: list[EngineOffer], model: Path) -> None:
    engines[:] = [CUDA, TORCH]
    result = try_engines(GateRequest(model, **SMALL), say=silent)
    assert result.passed
    assert "nothing to compare" in result.lines()[-1]


@pytest.mark.parametrize(
    ("engine", "precision", "told"),
    [
        ("cuda", None, "torch sees no CUDA device"),
        ("torch", "fast", "none computes that"),
        ("abacus", None, "--engine abacus: choose one of auto, kernel"),
        ("auto", "rough", "--precision rough: choose one of exact, fast"),
    ],
)
def test_an_engine_that_is_asked_for_must_be_there(
    engines: list[EngineOffer], engine: str, precision: str | None, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        try_engines(GateRequest(None, engine, precision), say=silent)


def test_a_folder_without_a_model_is_refused(engines: list[EngineOffer], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model here"):
        try_engines(GateRequest(tmp_path), say=silent)


def test_without_a_model_one_is_trained(engines: list[EngineOffer], monkeypatch: pytest.MonkeyPatch) -> None:
    network = SpectrumNet().eval()
    initialise_kaiming(network, torch.Generator().manual_seed(5))
    stand_in = (network, InputTransform(), OFFICIAL_SCALER)
    monkeypatch.setattr(run_doctor, "train_stand_in", lambda **_: stand_in)
    said: list[str] = []
    result = try_engines(GateRequest(None, "torch", **SMALL), say=said.append)
    assert "trained on simulated spectra" in result.network
    assert "--model takes yours instead" in said[0]


def test_trying_leaves_the_number_of_threads_as_it_was(engines: list[EngineOffer], model: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        try_engines(GateRequest(model, "torch", **SMALL), say=silent)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_an_engine_does_to_its_model_is_nothing_to_the_next(
    engines: list[EngineOffer], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_and_spoil(offer: EngineOffer, network: SpectrumNet, *others: object) -> Engine:
        made = TorchEngine(copy.deepcopy(network), *others)
        network.fc3.weight.zero_()
        return made

    engines[:] = [KERNEL_EXACT, EngineOffer("openvino", "exact", "cpu", "")]
    monkeypatch.setattr(run_doctor, "make_engine", make_and_spoil)
    result = try_engines(GateRequest(model, **SMALL), say=silent)
    assert [report.passed for report in result.reports] == [True, True]


def test_the_machine_is_described_in_a_terminal_and_in_json(engines: list[EngineOffer]) -> None:
    machine = describe_machine()
    lines = machine_lines(machine)
    assert all(len(line) < 80 for line in lines)
    told = "\n".join(lines)
    assert "  kernel fast     cpu   can be used" in lines
    assert "torch sees no CUDA device" in told
    assert f"torch {torch.__version__}" in told
    assert json.loads(json.dumps(machine, allow_nan=False)) == machine
    assert machine["cores"] >= 1
    assert machine["memory_gib"] > 0


def test_an_engine_that_is_slow_here_is_said_to_be(
    engines: list[EngineOffer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_machine, "caution_of", lambda offer: "slower" * (offer.precision == "fast"))
    lines = machine_lines(describe_machine())
    assert "  kernel fast     cpu   can be used, but is slower" in lines
    assert "  kernel exact    cpu   can be used" in lines


def test_the_processor_is_read_from_what_the_system_tells(tmp_path: Path) -> None:
    x86, arm = tmp_path / "x86", tmp_path / "arm"
    x86.write_text(
        "processor\t: 0\nmodel name\t: AMD EPYC 9654\nflags\t\t: fpu sse2 avx2 fma avx512f\n\n"
        "processor\t: 1\nmodel name\t: another\nflags\t\t:\n"
    )
    arm.write_text("processor\t: 0\nFeatures\t: fp asimd bf16\nCPU part\t: 0xd40\n")
    assert (cpu_model(x86), cpu_features(x86)) == ("AMD EPYC 9654", ["avx2", "fma", "avx512f"])
    assert (cpu_model(arm), cpu_features(arm)) == ("0xd40", ["asimd", "bf16"])
    nowhere = tmp_path / "nowhere"
    assert cpu_model(nowhere)
    assert len(cpu_features(nowhere)) == 1


def test_the_command_prints_what_the_machine_offers(engines: list[EngineOffer]) -> None:
    code, told, _ = call([])
    assert code == 0
    assert "engines:  best first" in told
    assert "spectra:" not in told


@pytest.mark.parametrize(("engine", "code"), [("kernel", IntegrityError.exit_code), ("torch", 0)])
def test_the_exit_code_tells_whether_the_gate_was_passed(
    engines: list[EngineOffer], model: Path, engine: str, code: int
) -> None:
    arguments = ["--gate", "--model", str(model), "--engine", engine, "--stars", "2"]
    ended, told, progress = call(arguments)
    assert ended == code
    assert ("FAILED" if code else "torch exact: passed") in told
    assert progress.startswith("... ")


def test_json_is_all_that_goes_to_stdout(engines: list[EngineOffer], model: Path) -> None:
    engines[:] = [KERNEL_FAST, TORCH]
    ended, told, _ = call(["--json", "--gate", "--model", str(model), "--stars", "2"])
    found = json.loads(told)
    assert ended == IntegrityError.exit_code
    assert found["gate"]["passed"] is False
    assert found["gate"]["reports"][0]["engine"] == "kernel"
    assert found["machine"]["engines"][0] == {
        "name": "kernel",
        "precision": "fast",
        "device": "cpu",
        "reason": "",
        "caution": "",
    }
