"""Each worker process sees a GPU of its own and has a log of its own, and works without a log too."""

import faulthandler
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.plugins import (
    REGISTER_TRIES,
    VISIBLE,
    log_plugin,
    pin_plugin,
    place_on_host,
    register,
    remove_empty_logs,
    visible_gpus,
)


def new_worker(name: object) -> SimpleNamespace:
    return SimpleNamespace(name=name, id="Worker-c85ae408-1111")


@pytest.mark.parametrize(
    ("name", "place"), [("w7-2", 2), ("w7", 0), ("3", 3), ("w12-0", 0), ("tls://10.0.0.1:5", 0), ("w1-x", 0)]
)
def test_the_place_of_a_worker_in_its_job_is_the_end_of_its_name(name: str, place: int) -> None:
    assert place_on_host(name) == place


@pytest.mark.parametrize(
    ("given", "name", "seen"),
    [
        ("0,1", "w7-0", "0"),
        ("0,1", "w7-1", "1"),
        ("0,1", "w7-3", "1"),
        ("GPU-5a,GPU-6b", "w7-1", "GPU-6b"),
        ("3", "w7-1", "3"),
        ("", "w7-1", ""),
    ],
)
def test_processes_of_a_job_share_out_the_gpus_of_the_job(
    monkeypatch: pytest.MonkeyPatch, given: str, name: str, seen: str
) -> None:
    monkeypatch.setenv(VISIBLE, given)
    for _ in range(2):  # a worker that meets the plugin again keeps its GPU
        pin_plugin(()).setup(new_worker(name))
    assert os.environ[VISIBLE] == seen


def test_without_gpus_nothing_is_said_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    pin_plugin(()).setup(new_worker("w7-1"))
    assert VISIBLE not in os.environ


def test_local_workers_are_given_the_gpus_that_the_driver_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "4,6")
    plugin = pin_plugin(visible_gpus())
    monkeypatch.setenv(VISIBLE, "")
    plugin.setup(new_worker(1))
    assert os.environ[VISIBLE] == "6"


@pytest.fixture
def quiet_handlers() -> Iterator[None]:
    """Whatever a worker's plugin changes in a process is undone."""
    before = signal.getsignal(signal.SIGINT)
    was_on = faulthandler.is_enabled()
    memory = logging.getLogger("distributed.worker.memory")
    known = memory.level, memory.propagate
    yield
    signal.signal(signal.SIGINT, before)
    memory.setLevel(known[0])
    memory.propagate = known[1]
    if was_on:
        faulthandler.enable()


@pytest.mark.usefixtures("quiet_handlers")
def test_a_worker_in_a_job_has_a_log_and_its_ctrl_c_is_left_alone(tmp_path: Path) -> None:
    before, plugin = signal.getsignal(signal.SIGINT), log_plugin(tmp_path / "logs", takes_stderr=False)
    plugin.setup(new_worker("w1"))
    logging.getLogger("somebody").warning("trouble")
    plugin.teardown(new_worker("w1"))
    (log,) = (tmp_path / "logs").glob("worker-*-c85ae408.log")
    assert "trouble" in log.read_text()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("quiet_handlers")
def test_a_worker_that_cannot_write_a_log_works_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    plugin = log_plugin(tmp_path / "file" / "logs", takes_stderr=False)
    plugin.setup(new_worker("w1"))
    plugin.teardown(new_worker("w1"))


def test_logs_that_say_nothing_are_removed(tmp_path: Path) -> None:
    for name, text in (("worker-a-1-x.log", ""), ("worker-b-2-y.log", "crash"), ("job-5.log", "")):
        (tmp_path / name).write_text(text)
    remove_empty_logs(tmp_path)
    remove_empty_logs(None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job-5.log", "worker-b-2-y.log"]


class Client:
    """Reaches its workers after some failures."""

    def __init__(self, n_failures: int) -> None:
        self.n_failures, self.n_calls = n_failures, 0

    def register_plugin(self, plugin: Any) -> None:
        self.n_calls += 1
        if self.n_calls <= self.n_failures:
            raise OSError("connection closed")


def test_a_worker_that_dies_meanwhile_does_not_keep_a_plugin_from_the_others() -> None:
    client = Client(REGISTER_TRIES - 1)
    register(client, object())
    assert client.n_calls == REGISTER_TRIES


def test_workers_that_cannot_be_told_anything_end_the_run() -> None:
    client = Client(REGISTER_TRIES)
    with pytest.raises(ClusterError, match="cannot be told how to start: connection closed"):
        register(client, object())
    assert client.n_calls == REGISTER_TRIES
