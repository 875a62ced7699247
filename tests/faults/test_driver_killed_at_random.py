"""The program killed by SIGKILL at random moments, while workers of its own work, until it has ended."""

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from crashing import KILLED, check_committed, descendants, living
from scenes import Scene, catalog_hashes, hash_all

from apogee_batch.files import read_json
from apogee_batch.run.ingest_plan import read_ingest

pytestmark = pytest.mark.fault

N_KILLS = 5  # of each command
SHARD_STARS = 16  # 15 shards: a kill comes before all are done
START_S = 4.0  # about what the program takes until its workers work
SHARD_S = 0.3
PATIENCE_S = 50.0
POLL_S = 0.02


@pytest.fixture(scope="module")
def fine(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The scene in shards of 16 stars, made by nobody's disturbance in this process."""
    folder = tmp_path_factory.mktemp("fine")
    ingest = scene.config.ingest.model_copy(update={"shard_stars": SHARD_STARS})
    config = scene.config.model_copy(update={"ingest": ingest})
    found = Scene(scene.survey, config, folder / "s.zarr", folder / "run", scene.model)
    found.ingest(found.store)
    return found


@pytest.fixture(scope="module")
def config_file(fine: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same settings, but for two worker processes."""
    path = tmp_path_factory.mktemp("config") / "run.toml"
    path.write_text(
        f"[ingest]\nshard_stars = {SHARD_STARS}\n[training]\nrecipe = '{fine.config.training.recipe}'\n"
        "threads = 1\n[inference]\nrealizations = 2\n[cluster]\nkind = 'local'\nworkers = 2\ndevice = 'cpu'\n"
    )
    return path


def kill_at_random(
    arguments: Sequence[object], ledger: Path, moments: random.Random, *, at_work: bool
) -> int:
    """Run the program and kill it some time after its start, or after the next commit; return its exit code.

    The workers that it leaves must end by themselves.
    """
    command = [sys.executable, "-m", "apogee_batch", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    orphans: set[tuple[int, int]] = set()
    try:
        if at_work:
            _wait(process, ledger, n_entries=len(list(ledger.glob("[0-9]*.json"))))
        time.sleep(moments.uniform(0, SHARD_S if at_work else START_S))
        orphans = descendants(process.pid)
    finally:
        process.kill()
        process.communicate()
    until = time.monotonic() + PATIENCE_S
    while orphans & living().keys():
        assert time.monotonic() < until, "workers outlive their driver"
        time.sleep(POLL_S)
    return process.returncode


def _wait(process: subprocess.Popen[bytes], ledger: Path, *, n_entries: int) -> None:
    """Wait until a program has committed a shard, or ended."""
    until = time.monotonic() + PATIENCE_S
    while process.poll() is None and len(list(ledger.glob("[0-9]*.json"))) == n_entries:
        assert time.monotonic() < until
        time.sleep(POLL_S)


def kill_often(
    arguments: Sequence[object], ledger: Path, base: Path, planned: Sequence[int], seed: int
) -> None:
    """Kill a command again and again, then let it end; what it commits stays as it is."""
    moments, committed = random.Random(seed), dict[str, bytes]()
    for i in range(N_KILLS):
        code = kill_at_random(arguments, ledger, moments, at_work=i % 2 == 0)
        assert code in (0, KILLED)
        now = check_committed(ledger, base, planned)
        assert committed.items() <= now.items()
        committed = now
    assert committed, "no kill came while it worked"
    command = [sys.executable, "-m", "apogee_batch", *map(str, arguments)]
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=PATIENCE_S, check=True)
    assert committed.items() <= check_committed(ledger, base, planned).items()


def test_an_ingest_killed_at_random_goes_on_to_the_same_store(
    fine: Scene, config_file: Path, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    command = ["ingest", fine.survey.spectra, "--allstar", fine.survey.allstar, "--store", store]
    planned = read_ingest(fine.store / "ingest" / "0001").shards
    kill_often([*command, "--config", config_file], store / "ingest/0001/ledger", store, planned, seed=1)
    assert hash_all(store) == hash_all(fine.store)
    assert [path.name for path in tmp_path.iterdir()] == [store.name]


def test_a_run_killed_at_random_goes_on_to_the_same_catalogue(
    fine: Scene, config_file: Path, tmp_path: Path
) -> None:
    fine.make_catalog(fine.run)
    run, planned = tmp_path / "run", read_json(fine.run / "plan.json")["shards"]
    command = ["run-catalog", fine.store, "--model", fine.model, "--out", run, "--config", config_file]
    kill_often(command, run / "ledger", run, planned, seed=2)
    assert catalog_hashes(run) == catalog_hashes(fine.run)
    expected, found = hash_all(fine.run), hash_all(run)
    differ = {name for name in expected | found if expected.get(name) != found.get(name)}
    assert differ <= {"settings.json"}, "which names the cluster"
