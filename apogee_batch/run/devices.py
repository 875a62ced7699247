"""What torch computes on, where a task happens to run."""

import torch

from apogee_batch.errors import UsageError
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
    """Return what the run's records call a device: numbers are equal on the same kind only."""
    return (
        torch.cuda.get_device_name() if device == "cuda" else f"cpu {torch.backends.cpu.get_cpu_capability()}"
    )
