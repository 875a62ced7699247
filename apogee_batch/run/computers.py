"""What a command computes on, as far as it can be known before a worker is there."""

import ctypes
import sys
from pathlib import Path

from apogee_batch.run.config import ClusterSettings, RunConfig

CUDA_DRIVER = "libcuda.so.1"
AMD_GPUS = Path("/dev/kfd")


def for_training(cluster: ClusterSettings, n_ranks: int) -> ClusterSettings:
    """Return the settings for a training.

    Training alone needs no local workers but its own, which share the cores; no fewer anywhere.
    """
    if cluster.kind == "local":
        return cluster.model_copy(update={"workers": n_ranks})
    return cluster.model_copy(update={"workers": max(cluster.workers or 1, n_ranks)})


def refuse_impossible(config: RunConfig) -> None:
    """Look whether the engine and the device that are asked for are here.

    Raises
    ------
    UsageError
        If they are not; says what each wants.
    """
    wanted, device = config.inference, config.cluster.device
    if wanted.engine == "auto" and wanted.precision == "exact" and device != "cuda":
        return  # torch itself does that anywhere, and need not be imported here to be asked
    from apogee_batch.inference.choose import choose_engine
    from apogee_batch.run.devices import choose_device

    choose_engine(wanted.engine, wanted.precision, choose_device(device))


def count_gpus() -> int:
    """Return how many GPUs torch sees here; it is not asked where there is no driver of one."""
    if not _has_gpu_driver():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _has_gpu_driver() -> bool:
    if sys.platform != "linux" or AMD_GPUS.exists():
        return True
    try:
        ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return False
    return True
