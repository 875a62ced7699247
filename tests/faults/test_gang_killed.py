"""Whatever ends a rank of a training, or its worker, the weights are those of an undisturbed training."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
from crashing import start, wait_for

from apogee_batch.network.metrics import METRICS_FILE, read_metrics
from apogee_batch.run.clusters import open_workers
from apogee_batch.run.config import ClusterSettings, RunConfig
from apogee_batch.run.lock import hold_lock
from apogee_batch.run.progress import SilentView
from apogee_batch.run.train import begin_training, run_training

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

N_RANKS = 2
FROZEN_AFTER_S = 4.0
PATIENCE_S = 40.0
ENDS_AFTER_S = 20.0


class Listener(SilentView):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def gang_config(serial_config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Settings for two ranks and epochs that take about half a second."""
    tiny = Path(serial_config.training.recipe).read_text().replace("max_epochs = 2\n", "max_epochs = 4\n", 1)
    recipe = tmp_path_factory.mktemp("gang-recipe") / "gang.toml"
    recipe.write_text(tiny + "min_steps_per_epoch = 6\ndropout = 0.1\nnoise = 0.05\n")
    training = {"recipe": str(recipe), "workers": N_RANKS}
    return serial_config.model_copy(update={"training": serial_config.training.model_copy(update=training)})


def with_cluster(config: RunConfig, kind: str) -> RunConfig:
    cluster = ClusterSettings(kind=kind, workers=N_RANKS, device="cpu", frozen_after_s=FROZEN_AFTER_S)
    return config.model_copy(update={"cluster": cluster})


def train(store: Path, out: Path, config: RunConfig) -> list[str]:
    view = Listener()
    with hold_lock(out / "lock", out) as lock:
        begin_training(store, out, config)
        with open_workers(config.cluster, logs=out / "logs") as workers:
            run_training(store, out, config, workers, view, lock=lock)
    return view.said


@pytest.fixture(scope="module")
def undisturbed(
    labelled_store: Path, gang_config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("gang-undisturbed") / "model"
    assert not [
        line for line in train(labelled_store, out, with_cluster(gang_config, "serial")) if "ank" in line
    ]
    return out


def own_ranks() -> dict[int, psutil.Process]:
    """The rank processes among this process's own descendants, by rank."""
    found = {}
    for child in psutil.Process().children(recursive=True):
        try:
            line = child.cmdline()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if "apogee_batch.run.gang.rank" in line:
            found[int(line[-2])] = child
    return found


@contextmanager
def once_trained(out: Path, n_epochs: int, harm: Callable[[], object]) -> Iterator[list[object]]:
    """Do harm, once, as soon as so many epochs are over."""
    over, done = threading.Event(), list[object]()

    def work() -> None:
        end = time.monotonic() + PATIENCE_S
        while not over.wait(0.02) and time.monotonic() < end:
            if len(read_metrics(out / METRICS_FILE)) >= n_epochs:
                done.append(harm())
                return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


def check_model(out: Path, undisturbed: Path) -> None:
    for name in ("model.safetensors", "model.json"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes()
    epochs = [
        [line["epoch"] for line in read_metrics(folder / METRICS_FILE)] for folder in (out, undisturbed)
    ]
    assert epochs[0] == epochs[1]
    assert not (out / "gang").exists()
    assert not own_ranks()


def check_losses(said: list[str], *words: str) -> None:
    losses = [line for line in said if "all ranks go on from epoch" in line]
    assert len(losses) == 1, said
    assert all(word in losses[0] for word in words), losses


@pytest.mark.parametrize("rank", range(N_RANKS))
def test_a_killed_rank_costs_an_epoch(
    labelled_store: Path, gang_config: RunConfig, undisturbed: Path, tmp_path: Path, rank: int
) -> None:
    out = tmp_path / "model"

    def kill_rank() -> None:
        own_ranks()[rank].kill()

    with once_trained(out, 2, kill_rank) as done:
        said = train(labelled_store, out, with_cluster(gang_config, "serial"))
    assert done
    check_losses(said, f"rank {rank} on ", "was ended by SIGKILL")
    check_model(out, undisturbed)


@pytest.mark.parametrize("rank", range(N_RANKS))
def test_a_frozen_rank_is_noticed(
    labelled_store: Path, gang_config: RunConfig, undisturbed: Path, tmp_path: Path, rank: int
) -> None:
    out = tmp_path / "model"
    with once_trained(out, 2, lambda: own_ranks()[rank].send_signal(signal.SIGSTOP)) as done:
        said = train(labelled_store, out, with_cluster(gang_config, "serial"))
    assert done
    check_losses(said, f"rank {rank} on ", "has said nothing for")
    check_model(out, undisturbed)


@pytest.mark.parametrize("rank", range(N_RANKS))
def test_a_worker_that_dies_takes_its_rank_along(
    labelled_store: Path, gang_config: RunConfig, undisturbed: Path, tmp_path: Path, rank: int
) -> None:
    out = tmp_path / "model"

    def kill_worker() -> None:
        worker = own_ranks()[rank].parent()
        assert worker is not None
        assert worker.pid != psutil.Process().pid
        worker.kill()

    with once_trained(out, 2, kill_worker) as done:
        said = train(labelled_store, out, with_cluster(gang_config, "local"))
    assert done
    check_losses(said)
    check_model(out, undisturbed)


def test_a_driver_that_is_killed_leaves_no_rank_and_its_training_goes_on(
    labelled_store: Path, gang_config: RunConfig, undisturbed: Path, tmp_path: Path
) -> None:
    out, config = tmp_path / "model", with_cluster(gang_config, "serial")
    driver = start(partial(train, labelled_store, out, config))
    end = time.monotonic() + PATIENCE_S
    while len(read_metrics(out / METRICS_FILE)) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    ranks = own_ranks()
    assert len(ranks) == N_RANKS
    psutil.Process(driver).kill()
    wait_for(driver)
    assert not psutil.wait_procs(list(ranks.values()), timeout=ENDS_AFTER_S)[1]
    train(labelled_store, out, config)
    check_model(out, undisturbed)


def test_a_training_that_cannot_keep_its_ranks_ends_as_one_to_resume(
    labelled_store: Path, gang_config: RunConfig, tmp_path: Path
) -> None:
    from apogee_batch.errors import IncompleteRunError

    out, over = tmp_path / "model", threading.Event()

    def kill_all() -> None:
        while not over.wait(0.1):
            for rank in own_ranks().values():
                rank.kill()

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with pytest.raises(IncompleteRunError, match="3 attempts in a row have finished no epoch"):
            train(labelled_store, out, with_cluster(gang_config, "serial"))
    finally:
        over.set()
        killer.join()
    assert not (out / "gang").exists()
