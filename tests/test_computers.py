"""What a command computes on is known before a worker is there, mostly without torch."""

import ctypes
import sys

import pytest

from apogee_batch.errors import UsageError
from apogee_batch.run import computers
from apogee_batch.run.clusters import available_cores, default_workers
from apogee_batch.run.clusters.workers import tasks_each
from apogee_batch.run.computers import count_gpus, refuse_impossible
from apogee_batch.run.config import load_config


def no_library(_: str) -> None:
    raise OSError("no such library")


@pytest.mark.skipif(sys.platform != "linux" or computers.AMD_GPUS.exists(), reason="elsewhere torch is asked")
def test_without_a_driver_there_is_no_gpu_and_torch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    monkeypatch.setitem(sys.modules, "torch", None)  # an import of it fails
    assert count_gpus() == 0
    assert default_workers("auto") == available_cores()
    assert tasks_each("auto") == 1


def test_where_a_driver_may_be_torch_says_how_many_gpus_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(computers, "_has_gpu_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert count_gpus() == 3
    assert default_workers("cuda") == 3
    assert tasks_each("auto") == 2
    assert default_workers("cpu") == available_cores()
    assert tasks_each("cpu") == 1


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_what_is_possible_anywhere_is_not_looked_into(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apogee_batch.inference.choose", None)
    refuse_impossible(load_config(None, {"cluster": {"device": device}}))


@pytest.mark.parametrize(("engine", "precision"), [("torch", "fast"), ("cuda", "exact")])
def test_an_engine_that_is_not_for_the_device_is_refused(engine: str, precision: str) -> None:
    sections = {"inference": {"engine": engine, "precision": precision}, "cluster": {"device": "cpu"}}
    with pytest.raises(UsageError):
        refuse_impossible(load_config(None, sections))
