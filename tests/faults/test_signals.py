"""SIGTERM and Ctrl-C: a command leaves in time, and the same command then goes on to the same bytes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from apogee_batch.run.config import RunConfig

pytestmark = pytest.mark.fault

PROMISED_S = 10.0
POLL_S = 0.02
PATIENCE_S = 100.0  # of a busy machine
REALIZATIONS = 100  # seconds a shard: the signal comes in the middle of one
RESUME = "the same command goes on where it stopped"
TERMINATED = (signal.SIGTERM, 75, f"error: terminated; {RESUME}\n")
INTERRUPTED = (signal.SIGINT, 130, f"error: interrupted; {RESUME}\n")
CLUSTERS = {"serial": "kind = 'serial'", "local": "kind = 'local'\nworkers = 2"}

Program = subprocess.Popen[str]
Ending = tuple[signal.Signals, int, str]


@contextmanager
def program(*arguments: object) -> Iterator[Program]:
    """Start the command line, as a shell does: in a process group of its own."""
    command = [sys.executable, "-m", "apogee_batch", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(*arguments: object) -> None:
    with program(*arguments) as process:
        told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, told


def wait_until(happens: Callable[[], object], process: Program | None = None) -> None:
    until = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < until
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(POLL_S)


def parents() -> dict[int, int]:
    """Return the parent of each process that lives; one that waits to be reaped does not."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it ended meanwhile
        if state not in "ZX":
            found[int(path.parent.name)] = int(parent)
    return found


def descendants(pid: int) -> set[int]:
    of, found = parents(), {pid}
    while more := {child for child, parent in of.items() if parent in found} - found:
        found |= more
    return found - {pid}


def stop(process: Program, ending: Ending, send: Callable[[], object]) -> None:
    """Stop a program by `send`, and see that it keeps what is promised for that ending."""
    children = descendants(process.pid)
    started = time.monotonic()
    send()
    _, told = process.communicate(timeout=PATIENCE_S)
    assert time.monotonic() - started < PROMISED_S
    assert (process.returncode, told) == (ending[1], ending[2])
    wait_until(lambda: not children & parents().keys())


def write_config(path: Path, cluster: str, recipe: str) -> Path:
    path.write_text(
        f"[training]\nrecipe = '{recipe}'\nthreads = 1\n[inference]\nrealizations = {REALIZATIONS}\n"
        f"[cluster]\n{CLUSTERS[cluster]}\ndevice = 'cpu'\n"
    )
    return path


def hashes(run: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in (run / "catalog").iterdir()}


def entries(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "ledger").glob("[0-9]*.json")}


@pytest.fixture(scope="module")
def command(
    labelled_store: Path,
    finished_run: Path,
    serial_config: RunConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, Path], list[object]]:
    """Give the command that makes a catalogue, by the kind of its cluster and the folder of the run."""
    folder = tmp_path_factory.mktemp("config")

    def build(cluster: str, run: Path) -> list[object]:
        config = write_config(folder / f"{cluster}.toml", cluster, serial_config.training.recipe)
        model = finished_run / "model"
        return ["run-catalog", labelled_store, "--model", model, "--out", run, "--config", config]

    return build


Command = Callable[[str, Path], list[object]]


@pytest.fixture(scope="module")
def undisturbed(command: Command, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of the catalogue that nobody disturbs."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(*command("serial", run))
    return hashes(run)


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("ending", [TERMINATED, INTERRUPTED], ids=["SIGTERM", "SIGINT"])
def test_a_run_that_is_stopped_goes_on_to_the_same_bytes(
    command: Command, undisturbed: dict[str, str], tmp_path: Path, cluster: str, ending: Ending
) -> None:
    run = tmp_path / "run"
    with program(*command(cluster, run)) as process:
        wait_until(lambda: entries(run), process)
        stop(process, ending, lambda: process.send_signal(ending[0]))
    before = entries(run)
    assert 0 < len(before) < 3
    assert not (run / "manifest.json").exists()
    finish(*command(cluster, run))
    assert hashes(run) == undisturbed
    assert before.items() <= entries(run).items(), "what was committed is not done again"


def test_ctrl_c_at_a_terminal_reaches_the_workers_too_and_is_still_one_line(
    command: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with program(*command("local", run)) as process:
        wait_until(lambda: entries(run), process)
        stop(process, INTERRUPTED, lambda: os.killpg(process.pid, signal.SIGINT))


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_more_sigterm_does_not_disturb_the_clean_up(command: Command, tmp_path: Path, cluster: str) -> None:
    run = tmp_path / "run"
    with program(*command(cluster, run)) as process:

        def send_many() -> None:
            while process.poll() is None:
                process.send_signal(signal.SIGTERM)
                time.sleep(POLL_S)

        wait_until(lambda: entries(run), process)
        stop(process, TERMINATED, send_many)


@pytest.mark.parametrize("first", [TERMINATED, INTERRUPTED], ids=["SIGTERM", "SIGINT"])
def test_a_second_ctrl_c_ends_at_once_with_the_code_of_the_first_signal(
    command: Command, tmp_path: Path, first: Ending
) -> None:
    run = tmp_path / "run"
    with program(*command("local", run)) as process:

        def send_two() -> None:
            process.send_signal(first[0])
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)

        wait_until(lambda: entries(run), process)
        stop(process, first, send_two)


@pytest.fixture(scope="module")
def long_recipe(tiny_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "long.toml"
    path.write_text(re.sub("max_epochs = 2\n", "max_epochs = 8\n", Path(tiny_recipe).read_text(), count=1))
    return str(path)


@pytest.fixture(scope="module")
def undisturbed_model(
    labelled_store: Path, long_recipe: str, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    folder = tmp_path_factory.mktemp("training")
    config = write_config(folder / "c.toml", "serial", long_recipe)
    finish("train", labelled_store, "--out", folder / "model", "--config", config)
    return (folder / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_training_that_is_terminated_goes_on_to_the_same_weights(
    labelled_store: Path, long_recipe: str, undisturbed_model: bytes, tmp_path: Path, cluster: str
) -> None:
    model = tmp_path / "model"
    config = write_config(tmp_path / "c.toml", cluster, long_recipe)
    training = ("train", labelled_store, "--out", model, "--config", config)
    with program(*training) as process:
        wait_until((model / "state.json").is_file, process)
        stop(process, TERMINATED, lambda: process.send_signal(signal.SIGTERM))
    finish(*training)
    assert not (model / "state.json").exists()
    assert (model / "model.safetensors").read_bytes() == undisturbed_model
