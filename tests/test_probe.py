"""What differs between a node and the driver is found before a worker gets work, each with its remedy."""

import json
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from pathlib import Path
from typing import Any

import pytest

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters import SerialExecutor, probe
from apogee_batch.run.clusters.node_differences import Mismatch, compare
from apogee_batch.run.clusters.probe import check_first_worker, memory_limit_bytes, probe_node
from apogee_batch.run.job_settings import JobSettings

JOB = JobSettings(walltime="01:00:00", memory="4GiB", gres="gpu:1")
NODE = probe_node([], "") | {"host": "n7", "job_id": "42", "memory_bytes": 4 << 30}


class OtherNode(Executor):
    """Runs tasks here and changes what they tell."""

    def __init__(self, change: Callable[[dict[str, Any]], object]) -> None:
        self._change = change

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            told = fn(*args, **kwargs)
            self._change(told)
            future.set_result(told)
        except Exception as error:  # noqa: BLE001  as an executor does
            future.set_exception(error)
        return future


class Failing(Executor):
    """Gives one error for each task, or nothing at all."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self._error is not None:
            future.set_exception(self._error)
        return future


def with_versions(**versions: str | None) -> dict[str, Any]:
    named = {name.replace("_", "-"): found for name, found in versions.items()}
    return NODE | {"versions": NODE["versions"] | named}


def only(mismatches: list[Mismatch]) -> Mismatch:
    (mismatch,) = mismatches
    assert "\n" not in mismatch.text
    return mismatch


def test_what_a_node_tells_can_be_sent_and_is_no_mismatch_here(tmp_path: Path) -> None:
    node = probe_node([], "t")
    assert json.loads(json.dumps(node)) == node
    assert compare(node, NODE, JOB, "cpu") == []


def test_another_python_is_fatal_and_a_patch_release_is_not() -> None:
    found = only(compare(NODE, NODE | {"python": "3.9.2", "executable": "/usr/bin/python3"}, JOB, "cpu"))
    assert found.is_fatal
    assert found.text.startswith(f"the node has Python 3.9.2 (/usr/bin/python3), the driver {NODE['python']}")
    assert f"set `python` of the job to {NODE['executable']}" in found.text
    patch = ".".join([*NODE["python"].split(".")[:2], "99"])
    assert compare(NODE, NODE | {"python": patch}, JOB, "cpu") == []


@pytest.mark.parametrize(
    ("package", "there", "is_fatal"),
    [
        ("distributed", "2020.1", True),
        ("apogee_batch", "0.0.1", True),
        ("cloudpickle", None, True),
        ("numpy", "1.0", False),
        ("torch", None, True),
        ("lz4", "0.1", False),
    ],
)
def test_packages_that_differ_are_named(package: str, there: str | None, is_fatal: bool) -> None:
    found = only(compare(NODE, with_versions(**{package: there}), JOB, "cpu"))
    name = package.replace("_", "-")
    assert found.is_fatal == is_fatal
    assert (f"no {name}" if there is None else f"{name} {there}") in found.text
    assert "install the same" in found.text
    assert ("last digits" in found.text) == (not is_fatal)


def test_an_optional_package_may_be_missing_with_a_warning() -> None:
    found = only(compare(with_versions(lz4="4.3"), with_versions(lz4=None), JOB, "cpu"))
    assert not found.is_fatal


def test_another_processor_is_warned_of() -> None:
    assert not only(compare(NODE, NODE | {"machine": "vax"}, JOB, "cpu")).is_fatal


@pytest.mark.parametrize(
    ("count", "version", "device", "gres", "said", "is_fatal"),
    [
        (0, "12.8", "cuda", None, "ask for one with `gres`", True),
        (0, "12.8", "cuda", "gpu:1", "check `gres`", True),
        (0, None, "cuda", "gpu:1", "install a torch with CUDA", True),
        (0, "12.8", "auto", "gpu:1", "too old", False),
        (1, "12.8", "auto", "gpu:2", "2 processes and 1 GPUs", False),
    ],
)
def test_gpus_that_are_not_there_are_told(
    count: int, version: str | None, device: Any, gres: str | None, said: str, is_fatal: bool
) -> None:
    cuda = {"count": count, "version": version, "trouble": "The driver is too old"}
    job = JOB.model_copy(update={"gres": gres, "processes": 2})
    found = only(compare(NODE, NODE | {"cuda": cuda}, job, device))
    assert said in found.text
    assert found.is_fatal == is_fatal


def test_a_job_that_asked_for_no_gpu_needs_none() -> None:
    node = NODE | {"cuda": {"count": 0, "version": None, "trouble": ""}}
    assert compare(NODE, node, JOB.model_copy(update={"gres": None}), "auto") == []


def test_gpus_are_asked_for_without_an_error_where_there_are_none() -> None:
    cuda = probe_node([], "t", wants_cuda=True)["cuda"]
    assert set(cuda) == {"count", "version", "trouble"}


def test_less_memory_than_the_job_asks_for_is_warned_of() -> None:
    found = only(compare(NODE, NODE | {"memory_bytes": 2 << 30}, JOB, "cpu"))
    assert "asks for 4.0 GiB of memory and its node gives 2.0 GiB" in found.text
    assert not found.is_fatal
    assert compare(NODE, NODE | {"memory_bytes": 1}, JobSettings(), "cpu") == []


def test_the_least_limit_of_the_control_groups_is_the_memory(tmp_path: Path) -> None:
    groups, proc = tmp_path / "groups", tmp_path / "cgroup"
    (groups / "job" / "step").mkdir(parents=True)
    (groups / "job" / "memory.max").write_text("5000000\n")
    (groups / "job" / "step" / "memory.max").write_text("max\n")
    proc.write_text("0::/job/step\n")
    assert memory_limit_bytes(proc, groups) == 5_000_000
    (groups / "memory" / "slurm").mkdir(parents=True)
    (groups / "memory" / "slurm" / "memory.limit_in_bytes").write_text("4000000\n")
    proc.write_text("9:cpu,cpuacct:/x\n4:memory:/slurm\n")
    assert memory_limit_bytes(proc, groups) == 4_000_000
    assert memory_limit_bytes(tmp_path / "none", groups) > 1 << 28


def test_a_first_worker_that_fits_says_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    job = JobSettings()
    check_first_worker(SerialExecutor(), folders, job, "cpu", said.append)
    assert said == []
    assert [list(Path(folder).iterdir()) for folder in folders] == [[], []]


def test_a_warning_is_said_and_what_is_fatal_is_raised_with_the_node(tmp_path: Path) -> None:
    def change(told: dict[str, Any]) -> None:
        told.update(host="n7", job_id="42", python="3.9.2", machine="vax")

    said: list[str] = []
    with pytest.raises(ClusterError, match=r"^node n7, job 42: the node has Python 3\.9\.2") as raised:
        check_first_worker(OtherNode(change), [str(tmp_path)], JobSettings(), "cpu", said.append)
    assert "vax" not in str(raised.value)
    (warning,) = said
    assert warning.startswith("WARNING: node n7, job 42: the node is a vax")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_the_node_sees_otherwise_is_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "SEE_S", 0.05)
    folder = tmp_path / "shared"

    def lose(pattern: str) -> Callable[[dict[str, Any]], None]:
        return lambda _: [path.unlink() for path in folder.glob(pattern)] and None

    with pytest.raises(ClusterError, match=r"shared cannot be used from the node \(the driver does not see"):
        check_first_worker(OtherNode(lose(".probe-*-node")), [str(folder)], JobSettings(), "cpu", print)
    monkeypatch.setattr(probe, "left_by_node", lambda _: "missing/file")
    with pytest.raises(ClusterError, match=r"\(No such file or directory: file\): put it on a file system"):
        check_first_worker(SerialExecutor(), [str(folder)], JobSettings(), "cpu", print)
    assert list(folder.iterdir()) == []


def test_a_node_without_the_folder_or_with_another_of_its_name_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "SEE_S", 0.05)
    folders = [str(tmp_path / "none"), str(tmp_path)]
    told = probe_node(folders, "t")["folders"]
    assert told[folders[0]].startswith("No such file or directory")
    assert told[folders[1]] == "does not show what the driver wrote: not the same file system"


def test_a_folder_in_which_the_driver_cannot_write_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match="file: the driver cannot write there"):
        check_first_worker(SerialExecutor(), [str(tmp_path / "file")], JobSettings(), "cpu", print)


@pytest.mark.parametrize(
    "error",
    [ModuleNotFoundError("No module named 'apogee_batch'"), AttributeError("no attribute 'probe_node'")],
)
def test_a_node_without_this_package_is_told_in_one_line(error: Exception) -> None:
    with pytest.raises(
        ClusterError, match=r"cannot load this apogee-batch .*: set `python` of the job to /"
    ) as raised:
        check_first_worker(Failing(error), [], JobSettings(), "cpu", print)
    assert "\n" not in str(raised.value)


def test_a_worker_that_does_not_answer_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PROBE_S", 0.05)
    start = time.monotonic()
    with pytest.raises(ClusterError, match="has not told of its node"):
        check_first_worker(Failing(None), [], JobSettings(), "cpu", print)
    assert time.monotonic() - start < 2


def test_a_worker_that_is_lost_while_it_is_asked_is_no_reason_to_stop() -> None:
    said: list[str] = []
    check_first_worker(Failing(CancelledError()), [], JobSettings(), "cpu", said.append)
    assert said == [
        "WARNING: the first worker was lost while it was asked about its node, which is not checked"
    ]
    with pytest.raises(ZeroDivisionError):  # a bug stays one
        check_first_worker(Failing(ZeroDivisionError()), [], JobSettings(), "cpu", said.append)
