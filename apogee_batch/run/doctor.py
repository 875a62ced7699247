"""Whether the engines of this machine compute what they should."""

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from apogee_batch.errors import ApogeeBatchError, UsageError
from apogee_batch.inference.choose import EngineOffer, available_engines, make_engine
from apogee_batch.inference.engines import EngineChoice, Precision
from apogee_batch.inference.gate import GATE_SNRS, judge, predict_at_snrs
from apogee_batch.inference.gate_report import GateReport
from apogee_batch.inference.gate_spectra import simulate_spectra, train_stand_in
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.network.checkpoint import load_checkpoint
from apogee_batch.network.memory import keep_freed_memory
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.scaling import InputTransform, LabelScaler
from apogee_batch.run.clusters import available_cores

STAND_IN = "a stand-in trained on simulated spectra"
REFERENCE = ("torch", "exact", "cpu")
Trained = tuple[SpectrumNet, InputTransform, LabelScaler]
Say = Callable[[str], None]


@dataclass(frozen=True)
class GateRequest:
    """What to try.

    Attributes
    ----------
    model : Path or None
        Folder of a model, or of a run; None trains a stand-in.
    engine : {"auto", "kernel", "openvino", "torch", "cuda"}
        "auto" tries all that can be used here, but for the reference.
    precision : {"exact", "fast"} or None
        None tries both.
    n_stars : int
    n_realizations : int
    """

    model: Path | None = None
    engine: str = "auto"
    precision: str | None = None
    n_stars: int = 16
    n_realizations: int = 100


@dataclass(frozen=True)
class GateResult:
    """What came of it.

    Attributes
    ----------
    network : str
        Which network was used.
    reports : tuple of GateReport
        One for each engine that could be tried.
    broken : dict of str
        Engines that ended with an error, by name and precision.
    """

    network: str
    reports: tuple[GateReport, ...]
    broken: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether every engine that was tried may make catalogues."""
        return not self.broken and all(report.passed for report in self.reports)

    def lines(self) -> list[str]:
        """Return the result for people."""
        lines = [f"network: {self.network}"]
        if self.reports:
            first = self.reports[0]
            stars = f"{len(first.stars)} simulated stars ({first.stars[0]} to {first.stars[-1]})"
            lines.append(f"spectra: {stars}, {first.n_realizations} realizations")
            lines.append("against torch in exact float32, with the same noise:")
        for report in self.reports:
            lines += ["", *report.lines()]
        for name, error in self.broken.items():
            lines += ["", f"{name}: FAILED", f"  {error}"]
        if not self.reports and not self.broken:
            lines.append("nothing to compare: torch, the reference, is the only engine that can be used here")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        reports = [report.to_json() for report in self.reports]
        return {"network": self.network, "passed": self.passed, "reports": reports, "broken": self.broken}


def try_engines(request: GateRequest, *, say: Say) -> GateResult:
    """Run the gate for the engines of a request.

    Parameters
    ----------
    request : GateRequest
    say : callable
        Called with a line about each thing that takes seconds.

    Raises
    ------
    UsageError
        If there is no such engine here, or no model.
    IntegrityError
        If the model is damaged.
    """
    offers = engines_to_try(request)
    trained, network = load_network(request.model, say=say)
    with _as_in_a_worker():
        return _compare(offers, trained, network, request, say)


def _compare(
    offers: list[EngineOffer], trained: Trained, network: str, request: GateRequest, say: Say
) -> GateResult:
    """Let the reference and each engine predict the same stars."""
    spectra = simulate_spectra(request.n_stars)
    reports, broken = [], {}
    if offers:
        say(f"torch exact, the reference: {request.n_stars} stars at {len(GATE_SNRS)} SNRs")
        wanted = predict_at_snrs(TorchEngine(*trained), spectra, n_realizations=request.n_realizations)
    for offer in offers:
        name = f"{offer.name} {offer.precision}"
        say(f"{name}: the same")
        try:
            engine = make_engine(offer, *copy.deepcopy(trained))  # engines may move a model to their device
            found = predict_at_snrs(engine, spectra, n_realizations=request.n_realizations)
        except (ApogeeBatchError, RuntimeError, ValueError, OSError, ImportError) as error:
            broken[name] = f"{type(error).__name__}: {error}"
            continue
        reports.append(judge(engine, found, wanted, spectra))
    return GateResult(network, tuple(reports), broken)


@contextmanager
def _as_in_a_worker() -> Iterator[None]:
    """Compute with one thread and keep freed memory."""
    keep_freed_memory()
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)


def engines_to_try(request: GateRequest) -> list[EngineOffer]:
    """Return the engines of a request that can be used here; the reference only if it is asked for.

    Raises
    ------
    UsageError
        If an engine or precision is asked for by name and cannot be used.
    """
    for option, value, known in (
        ("--engine", request.engine, get_args(EngineChoice)),
        ("--precision", request.precision or "exact", get_args(Precision)),
    ):
        if value not in known:
            raise UsageError(f"{option} {value}: choose one of {', '.join(known)}")
    offers = [
        offer
        for offer in available_engines()
        if request.engine in ("auto", offer.name) and request.precision in (None, offer.precision)
    ]
    usable = [offer for offer in offers if not offer.reason]
    is_asked_for = request.engine != "auto" or request.precision == "fast"
    if is_asked_for and not usable:
        reasons = "; ".join(f"{offer.name} {offer.precision}: {offer.reason}" for offer in offers)
        raise UsageError(f"no such engine can be used here ({reasons or 'none computes that'})")
    if request.engine == "torch":
        return usable
    return [offer for offer in usable if (offer.name, offer.precision, offer.device) != REFERENCE]


def load_network(model: Path | None, *, say: Say) -> tuple[Trained, str]:
    """Return a network to try engines with, and what it is: that of a model or a run, or a stand-in.

    Raises
    ------
    UsageError
        If there is no model in the folder.
    IntegrityError
        If it is damaged.
    """
    if model is None:
        say("training a network on simulated spectra, some 10 s; --model takes yours instead")
        return train_stand_in(n_threads=available_cores()), STAND_IN
    inside = model / "model"  # a run keeps its model there
    folder = inside if inside.is_dir() else model
    checkpoint = load_checkpoint(folder)
    return (checkpoint.model, checkpoint.transform, checkpoint.scaler), os.fspath(folder)
