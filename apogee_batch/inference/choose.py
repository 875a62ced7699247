"""Which engines there are, which of them can be used here, and how one is made."""

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import get_args

import torch

from apogee_batch.errors import UsageError
from apogee_batch.inference.engines import Engine, EngineChoice, Precision
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.scaling import InputTransform, LabelScaler

Loader = Callable[..., Engine]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineOffer:
    """An engine at a precision, and whether it can be used on this machine.

    Attributes
    ----------
    name : str
    precision : {"exact", "fast"}
    device : {"cpu", "cuda"}
        Where it computes.
    reason : str
        Why it cannot be used, and what helps; empty where it can.
    """

    name: str
    precision: Precision
    device: str
    reason: str


# Best first. Of each: module, class, device; the module tells with `why_not(precision)` what is missing,
# and, where only an import can tell whether what is there works, with `loading_fault()`.
_ENGINES = {
    "cuda": ("cuda_engine", "CudaEngine", "cuda"),
    "tiles": ("tiles_engine", "TilesEngine", "cuda"),
    "kernel": ("kernel_engine", "KernelEngine", "cpu"),
    "openvino": ("openvino_engine", "OpenVinoEngine", "cpu"),
}

_ONLY_BY_NAME = ("tiles",)  # has not been measured: for those who ask for it


def available_engines() -> tuple[EngineOffer, ...]:
    """Return what engines there are, best first, also those that cannot be used here."""
    offers = [
        EngineOffer(name, precision, device, importlib.import_module(_module(name)).why_not(precision))
        for name, (_, _, device) in _ENGINES.items()
        for precision in get_args(Precision)
    ]
    plain = (EngineOffer("torch", "exact", "cpu", ""), EngineOffer("torch", "exact", "cuda", _no_cuda()))
    return (*offers, *plain)


def choose_engine(wanted: EngineChoice, precision: Precision, device: str) -> EngineOffer:
    """Return the engine to use on a device.

    Parameters
    ----------
    wanted : {"auto", "kernel", "openvino", "torch", "cuda", "tiles"}
        "auto" takes the first that can be used, "tiles" never; one that is installed but cannot be loaded
        is passed over with a warning.
    precision : {"exact", "fast"}
    device : {"cpu", "cuda"}
        Where it is to compute.

    Raises
    ------
    UsageError
        If there is none; says what each wants.
    """
    offers = [
        offer
        for offer in available_engines()
        if (wanted == offer.name or (wanted == "auto" and offer.name not in _ONLY_BY_NAME))
        and (offer.precision, offer.device) == (precision, device)
    ]
    for i, offer in enumerate(offers):
        if offer.reason:
            continue
        if not (fault := _loading_fault(offer.name)):
            return offer
        offers[i] = replace(offer, reason=fault)
        if wanted == "auto":
            _pass_over(offer.name, fault)
    elsewhere = [
        offer for offer in available_engines() if (offer.name, offer.precision) == (wanted, precision)
    ]
    if elsewhere and not offers:
        where = elsewhere[0]
        told = f": {where.reason}" if where.reason else f"; use --device {where.device}"
        raise UsageError(f"--engine {wanted} computes on {where.device} and not on {device}{told}")
    reasons = "; ".join(f"{offer.name}: {offer.reason}" for offer in offers)
    asked = "" if wanted == "auto" else f"--engine {wanted} "
    remedy = "use --precision exact" if precision == "fast" else "use --engine auto"
    raise UsageError(
        f"{asked}--precision {precision} cannot be computed on {device} here"
        f" ({reasons or 'no engine does that'}); {remedy}"
    )


def caution_of(offer: EngineOffer) -> str:
    """Return what to know before an engine is used that can be; "" if nothing."""
    if offer.reason or offer.name not in _ENGINES:
        return ""
    find = getattr(importlib.import_module(_module(offer.name)), "caution", None)
    return "" if find is None else str(find(offer.precision))


def make_engine(
    offer: EngineOffer, model: SpectrumNet, transform: InputTransform, scaler: LabelScaler
) -> Engine:
    """Make an engine that `choose_engine` gave."""
    if offer.name == "torch":
        return TorchEngine(model, transform, scaler, device=offer.device)
    _, class_name, _ = _ENGINES[offer.name]
    load: Loader = getattr(importlib.import_module(_module(offer.name)), class_name)
    return load(model, transform, scaler, precision=offer.precision)


@lru_cache
def _loading_fault(name: str) -> str:
    """Return what only loading an engine can tell against it; asked for once in a process."""
    if name not in _ENGINES:
        return ""
    find = getattr(importlib.import_module(_module(name)), "loading_fault", None)
    return "" if find is None else str(find())


@lru_cache  # the tasks of a worker choose again and again
def _pass_over(name: str, fault: str) -> None:
    logger.warning("the engine %s is installed but cannot be used, and is passed over: %s", name, fault)


def _module(name: str) -> str:
    return f"apogee_batch.inference.{_ENGINES[name][0]}"


def _no_cuda() -> str:
    return "" if torch.cuda.is_available() else "torch sees no CUDA device"
