"""What torch computes on, where a task happens to run."""

import torch

from apogee_batch.errors import UsageError
from apogee_batch.inference.engines import Engine
from apogee_batch.inference.kernel_engine import PORTABLE
from apogee_batch.run.config import Device


def choose_device(wanted: Device) -> str:
    """Return the torch device to compute on.

    Raises
    ------
    UsageError
        If CUDA is demanded and this machine has none.
    """
    if wanted == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device auto or cpu")
    return "cpu"


def device_name(device: str) -> str:
    """Return the kind of a device for the records: torch gives equal bytes on one kind only."""
    return (
        torch.cuda.get_device_name() if device == "cuda" else f"cpu {torch.backends.cpu.get_cpu_capability()}"
    )


def describe_computer(engine: Engine, device: str) -> str:
    """Return what the run's records call that which computed: bytes are equal on the same kind only.

    Parameters
    ----------
    engine : Engine
    device : {"cpu", "cuda"}
    """
    # The kernel adds in the same order, and rounds alike, on all CPUs that it has a variant for.
    # How dot products of bfloat16 round is not defined as well.
    is_alike = engine.precision == "exact" and getattr(engine, "variant", PORTABLE) != PORTABLE
    version = f" {version}" if (version := getattr(engine, "version", "")) else ""
    return f"{'cpu' if is_alike else device_name(device)}, {engine.name}{version} {engine.precision}"
