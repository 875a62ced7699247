"""A cluster is tried with one worker, beside whatever runs in the same folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from apogee_batch.errors import ClusterError
from apogee_batch.run import preflight
from apogee_batch.run.clusters import SerialExecutor, Workers
from apogee_batch.run.clusters.workers import Crew
from apogee_batch.run.config import RunConfig, load_config
from apogee_batch.run.progress import SilentView


class Told(SilentView):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def config_of(kind: str, **gpu: Any) -> RunConfig:
    job = {"walltime": "01:00:00", "memory": "1GiB"} | gpu
    return load_config(None, {"cluster": {"kind": kind, "device": "cpu", "cpu": job, "gpu": job}})


def test_a_serial_cluster_is_described_and_leaves_nothing(tmp_path: Path) -> None:
    store, run, view = tmp_path / "store", tmp_path / "later" / "run", Told()
    store.mkdir()
    lines = preflight.test_cluster(store, run, config_of("serial"), view, ("cpu", "gpu"))
    assert [line.partition(":")[0] for line in lines] == ["cpu", "gpu"]
    assert all("Python 3." in line and "3 folders can be read and written" in line for line in lines)
    assert view.lines == []
    assert list(tmp_path.rglob("*")) == [store]


def test_a_test_keeps_out_of_the_keys_and_logs_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys" / "run-1").mkdir(parents=True)
    opened: list[dict[str, Any]] = []

    class AskedCrew(Crew):
        def ask(self, n_workers: int | None) -> None:
            opened[-1]["asked"] = n_workers

    @contextmanager
    def open_workers(settings: Any, **given: Any) -> Iterator[Workers]:
        opened.append(given)
        yield Workers(SerialExecutor(), 1, "a stand-in", None, AskedCrew())

    monkeypatch.setattr(preflight, "open_workers", open_workers)
    view = Told()
    (line,) = preflight.test_cluster(None, tmp_path, config_of("slurm"), view, ("gpu",))
    assert line.startswith("gpu: node ")
    assert opened[0]["logs"].parents[2] == tmp_path
    assert opened[0]["logs"].parents[1].name.startswith("cluster-test-")
    assert opened[0]["role"] == "gpu"
    assert opened[0]["asked"] == 1
    assert any("#SBATCH" in text for text in view.lines)
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_a_cluster_that_cannot_be_used_keeps_its_logs_and_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def open_workers(settings: Any, **given: Any) -> Iterator[Workers]:
        given["logs"].mkdir(parents=True)
        (given["logs"] / "job-1.log").touch()
        raise ClusterError("jobs keep dying")
        yield

    monkeypatch.setattr(preflight, "open_workers", open_workers)
    with pytest.raises(ClusterError, match=r"^jobs keep dying \(logs: .*/cluster-test-") as raised:
        preflight.test_cluster(None, tmp_path, config_of("slurm"), Told(), ("gpu",))
    (log,) = tmp_path.rglob("job-1.log")
    assert str(raised.value).endswith(f"(logs: {log.parents[2]})")


def test_a_node_that_differs_fails_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask: Callable[..., Any] = preflight.ask_node

    def ask_other(*args: Any) -> Any:
        node, _ = ask(*args)
        other = preflight_node(node)
        from apogee_batch.run.clusters.probe import compare

        return other, compare(node, other, args[2], args[3])

    def preflight_node(node: dict[str, Any]) -> dict[str, Any]:
        return node | {"host": "n7", "python": "2.7.18"}

    monkeypatch.setattr(preflight, "ask_node", ask_other)
    with pytest.raises(ClusterError, match=r"node n7: the node has Python 2\.7\.18"):
        preflight.test_cluster(None, tmp_path, config_of("serial"), Told(), ("gpu",))
    assert list(tmp_path.iterdir()) == []  # there are no logs to keep


def test_a_folder_in_which_nothing_can_be_made_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(preflight.tempfile, "mkdtemp", refuse)
    with pytest.raises(ClusterError, match=r"no place for the logs of a test \(Read-only file system\)"):
        preflight.test_cluster(None, tmp_path, config_of("serial"), Told(), ("gpu",))


def test_an_interrupted_test_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(preflight, "ask_node", interrupt)
    with pytest.raises(KeyboardInterrupt):
        preflight.test_cluster(None, tmp_path, config_of("serial"), Told(), ("gpu",))
    assert list(tmp_path.iterdir()) == []
