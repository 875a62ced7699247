"""Whatever ends workers, a run ends by itself, and with the bytes of one that nothing disturbed."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path

import psutil
import pytest
from deadly_tasks import N_INPUTS, die_at_first, end_worker

from apogee_batch.run import commands
from apogee_batch.run.clusters import open_workers
from apogee_batch.run.config import ClusterSettings, RunConfig, load_config
from apogee_batch.run.ledger import Ledger
from apogee_batch.run.progress import SilentView
from apogee_batch.run.stages import run_shards
from apogee_batch.survey.simulate import SimulatedSurvey, simulate_survey

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

SEEDS = range(5)
N_KILLS = 3  # of a stage: fewer than a shard survives alone, so that every seed must end by itself


class Listener(SilentView):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def own_workers() -> list[psutil.Process]:
    """The worker processes that this process has started: its children, and nobody else's."""
    return [child for child in psutil.Process().children() if is_worker(child)]


def is_worker(child: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(child.cmdline())  # the other child is Python's resource tracker
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def kill_one(rng: random.Random) -> bool:
    """Kill a worker, if there is one."""
    victims = own_workers()
    if victims:
        rng.choice(victims).kill()
    return bool(victims)


@contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Let a thread do its worst while the block runs; the event tells it to stop."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def kill_at_random(seed: int, over: threading.Event) -> None:
    """Kill workers at random moments, some while they start."""
    rng = random.Random(seed)
    n_kills = 0
    while n_kills < N_KILLS and not over.wait(rng.uniform(0.1, 1.5)):
        n_kills += kill_one(rng)


def test_stars_that_end_their_worker_are_left_out_with_their_cause(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ledger, view, logs = Ledger(tmp_path / "ledger", tmp_path, "k"), Listener(), tmp_path / "logs"
    task = partial(end_worker, {(1, 2): signal.SIGKILL, (3, 3): signal.SIGABRT})
    with open_workers(ClusterSettings(kind="local", workers=2), logs=logs) as workers:
        run_shards(workers, task, dict.fromkeys(range(6), N_INPUTS), ledger, view)
    assert [report.extra["excluded"] for report in ledger.entries()] == [[], [2], [], [3], [], []]
    killed, crashed = sorted(text for text in view.said if "are rejected as WORKER_KILLED" in text)
    assert killed.startswith(f"WARNING: shard 1: of its {N_INPUTS} inputs those at 2 end every worker")
    assert "most likely killed for want of memory or with its job" in killed
    assert crashed.startswith(f"WARNING: shard 3: of its {N_INPUTS} inputs those at 3 end every worker")
    assert f"crash in native code (Aborted), traceback in {logs}/worker-" in crashed
    log = Path(crashed.rsplit("traceback in ", 1)[1])
    assert "in end_worker" in log.read_text()
    assert all(log.stat().st_size for log in logs.iterdir())
    assert capfd.readouterr() == ("", "")


def test_workers_that_die_while_they_start_are_replaced(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", tmp_path, "k")

    def kill_all_for_a_while(over: threading.Event) -> None:
        end = time.monotonic() + 2
        while time.monotonic() < end and not over.wait(0.02):
            for worker in own_workers():
                worker.kill()

    with open_workers(ClusterSettings(kind="local", workers=2)) as workers:
        with beside(kill_all_for_a_while):
            time.sleep(2.2)
        task = partial(end_worker, {})
        run_shards(workers, task, dict.fromkeys(range(6), N_INPUTS), ledger, SilentView())
        assert len(ledger.entries()) == 6


def test_workers_of_a_running_scheduler_write_logs_only_while_they_are_borrowed(tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    ledger, view, logs = Ledger(tmp_path / "ledger", tmp_path, "k"), Listener(), tmp_path / "logs"
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs="CRITICAL",
    ) as cluster:
        settings = ClusterSettings(kind="address", address=cluster.scheduler_address)
        with open_workers(settings, logs=logs) as workers:
            n_times = 5  # their scheduler tries a task four times before it tells
            task = partial(die_at_first, str(tmp_path), n_times)
            run_shards(workers, task, dict.fromkeys(range(3), N_INPUTS), ledger, view)
            assert len(list(logs.iterdir())) == n_times + 1  # one of them is alive
        assert [report.extra["excluded"] for report in ledger.entries()] == [[], [], []]
        assert any(f"crash in native code (Aborted), traceback in {logs}" in text for text in view.said)
        with Client(cluster) as client:
            client.run(os.getpid)  # the workers live on
        assert len(list(logs.iterdir())) == n_times


@pytest.fixture(scope="module")
def many_stars(tmp_path_factory: pytest.TempPathFactory) -> SimulatedSurvey:
    return simulate_survey(tmp_path_factory.mktemp("survey") / "s", n_stars=240, seed=5)


@pytest.fixture(scope="module")
def local_config(serial_config: RunConfig) -> RunConfig:
    """The settings of the undisturbed run, on two worker processes."""
    local = serial_config.cluster.model_copy(update={"kind": "local", "workers": 2})
    return serial_config.model_copy(update={"cluster": local})


def ingest_and_attach(survey: SimulatedSurvey, store: Path, config: RunConfig) -> None:
    commands.ingest(
        [str(survey.spectra)],
        store,
        allstar=survey.allstar,
        config=config,
        is_dry_run=False,
        progress=SilentView(),
    )
    commands.attach(store, {name: [path] for name, path in survey.labels.items()}, column_map=[])


def make_catalog(store: Path, out: Path, model: Path, config: RunConfig) -> str:
    """Run inference and return the hash of the catalogue."""
    commands.make_catalog(store, out, model=model, config=config, is_dry_run=False, progress=SilentView())
    return sha256((out / "catalog" / "catalog.parquet").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(
    many_stars: SimulatedSurvey,
    finished_run: Path,
    serial_config: RunConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The hash of the catalogue of a run that nothing disturbs."""
    base = tmp_path_factory.mktemp("undisturbed")
    ingest_and_attach(many_stars, base / "s.zarr", serial_config)
    return make_catalog(base / "s.zarr", base / "run", finished_run / "model", serial_config)


@pytest.mark.parametrize("seed", SEEDS)
def test_workers_killed_at_random_moments_change_no_byte(
    seed: int,
    many_stars: SimulatedSurvey,
    undisturbed: str,
    finished_run: Path,
    local_config: RunConfig,
    tmp_path: Path,
) -> None:
    store = tmp_path / "s.zarr"
    with beside(partial(kill_at_random, 2 * seed)):
        ingest_and_attach(many_stars, store, local_config)
    with beside(partial(kill_at_random, 2 * seed + 1)):
        made = make_catalog(store, tmp_path / "run", finished_run / "model", local_config)
    assert made == undisturbed
    assert own_workers() == []


LONG_RECIPE = """
name = "long"
input = "contrast"
initialisation = "kaiming"
optimiser = "adam"
learning_rate = 0.001
adaptation_learning_rate = 0.0001
max_gradient_norm = 1.0
batch_size = 16
max_epochs = 8
adaptation_max_epochs = 1
adaptation_max_rounds = 1
plateau_epochs = 1000
"""


def test_a_training_whose_worker_is_killed_goes_on_and_ends_with_the_same_weights(
    labelled_store: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "long.toml"
    recipe.write_text(LONG_RECIPE)
    sections = {
        "training": {"recipe": str(recipe), "threads": 1},
        "cluster": {"kind": "local", "device": "cpu"},
    }
    config = load_config(None, sections)
    killed, whole, view = tmp_path / "killed", tmp_path / "whole", Listener()

    def kill_in_the_middle(over: threading.Event) -> None:
        metrics = killed / "metrics.jsonl"
        while not over.wait(0.02):
            if metrics.is_file() and len(metrics.read_bytes().splitlines()) >= 2:
                kill_one(random.Random(0))
                return

    with beside(kill_in_the_middle):
        commands.train(labelled_store, killed, config=config, progress=view)
    commands.train(labelled_store, whole, config=config, progress=SilentView())
    assert any(
        text.startswith("WARNING: the training: its worker on ") and text.endswith("; it is tried again")
        for text in view.said
    )
    assert any(text.startswith("train: going on after epoch") for text in view.said)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (killed, whole)]
    assert weights[0] == weights[1]
