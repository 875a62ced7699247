"""A run by a job array: each shard by a process of its own, and the bytes of any other run in the end."""

import os
import re
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from apogee_batch import files
from apogee_batch.errors import IncompleteRunError, IntegrityError, LockedError, UsageError
from apogee_batch.files import read_sealed_json, sha256_of_file
from apogee_batch.run import array, commands
from apogee_batch.run.array import run_shard
from apogee_batch.run.array_plan import index_ranges
from apogee_batch.run.config import RunConfig
from apogee_batch.run.lock import hold_lock
from apogee_batch.run.progress import SilentView

FILES = ("catalog/catalog.parquet", "catalog/catalog.fits", "rejects.parquet")
N_SHARDS = 3
TASK = """
import sys
from pathlib import Path
from apogee_batch.run.array import run_shard
sys.stdin.readline()
print(*run_shard(Path(sys.argv[1]), int(sys.argv[2]), device="cpu"))
"""


class Heard(SilentView):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Site:
    """A store, a model and settings, and the commands of a run by an array."""

    def __init__(self, store: Path, model: Path, config: RunConfig, run: Path) -> None:
        self.store, self.model, self.config, self.run = store, model, config, run

    def command(self, **options: bool) -> list[str]:
        return commands.make_catalog(
            self.store,
            self.run,
            model=self.model,
            config=self.config,
            is_dry_run=False,
            progress=SilentView(),
            **options,
        )

    def plan(self) -> list[str]:
        return self.command(is_plan_only=True)

    def finalise(self) -> list[str]:
        return self.command(is_finalise=True)

    def hashes(self) -> dict[str, str]:
        return {name: sha256_of_file(self.run / name) for name in FILES}


@pytest.fixture
def site(
    labelled_store: Path,
    finished_run: Path,
    serial_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return Site(labelled_store, finished_run / "model", serial_config, tmp_path / "run")


@pytest.fixture(scope="module")
def expected(
    labelled_store: Path,
    finished_run: Path,
    serial_config: RunConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """What the same run gives without an array."""
    run = tmp_path_factory.mktemp("serial") / "run"
    serial = Site(labelled_store, finished_run / "model", serial_config, run)
    serial.command()
    return serial.hashes()


def entry_of(run: Path, shard: int) -> Path:
    return run / "ledger" / f"{shard:05d}.json"


def test_an_array_gives_the_bytes_of_a_serial_run(site: Site, expected: dict[str, str]) -> None:
    site.plan()
    for index in (2, 0, 1):  # in any order, by the run or by its plan
        told = run_shard(site.run if index else site.run / "plan.json", index, device="cpu")
        assert f"shard {index} (index {index} of 0 to 2): 16 stars" in told[0]
    site.finalise()
    assert site.hashes() == expected
    assert not list((site.run / "staging").iterdir())


def test_a_shard_that_is_done_is_not_done_again(site: Site) -> None:
    site.plan()
    run_shard(site.run, 1, device="cpu")
    before = entry_of(site.run, 1).read_bytes()
    (site.run / "paths.json").unlink()  # not looked at any more
    assert "shard 1 (index 1 of 0 to 2) is done already" in run_shard(site.run, 1)[0]
    assert entry_of(site.run, 1).read_bytes() == before


def test_a_shard_whose_part_is_damaged_is_done_again(site: Site, expected: dict[str, str]) -> None:
    site.plan()
    for index in range(N_SHARDS):
        run_shard(site.run, index, device="cpu")
    part = site.run / "parts" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(IncompleteRunError, match=r"1 of 3 shards are missing: 1;"):
        site.finalise()
    assert "16 stars" in run_shard(site.run, 1, device="cpu")[0]
    site.finalise()
    assert site.hashes() == expected


def test_copies_of_one_task_at_the_same_time_do_no_harm(site: Site, expected: dict[str, str]) -> None:
    site.plan()
    with ThreadPoolExecutor(3) as threads:
        tasks = [threads.submit(run_shard, site.run, index, device="cpu") for index in (0, 1, 1, 1, 2)]
    for task in tasks:
        assert re.search(r"16 stars|is done already", task.result()[0])
    site.finalise()
    assert site.hashes() == expected


@pytest.mark.fault
def test_copies_of_one_task_in_several_processes_do_no_harm(site: Site, expected: dict[str, str]) -> None:
    site.plan()
    tasks = [
        subprocess.Popen(
            [sys.executable, "-c", TASK, str(site.run), str(index)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1, 1, 1, 2)
    ]
    for task in tasks:  # all have begun, and wait for a line
        assert task.stdin is not None
        task.stdin.write("go\n")
        task.stdin.flush()
    told = [task.communicate(timeout=120)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0] * len(tasks)
    assert all(re.search(r"16 stars|is done already", line) for line in told)
    site.finalise()
    assert site.hashes() == expected


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_beside_the_shards_is_refused_with_their_range(site: Site, index: int) -> None:
    site.plan()
    with pytest.raises(UsageError, match=f"--index {index}: .* has the shards 0 to 2"):
        run_shard(site.run, index)


def test_an_error_names_node_and_job(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.plan()
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    with pytest.raises(UsageError, match=f"^on {socket.gethostname()}, Slurm job 71: --index"):
        run_shard(site.run, 9)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "9")
    with pytest.raises(UsageError, match=", Slurm job 70_9: "):
        run_shard(site.run, 9)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(28, "No space left on device", "part"), IncompleteRunError, "free some space"),
        (OSError(13, "Permission denied", "part"), array.ApogeeBatchError, "check its permissions"),
        (MemoryError(), IncompleteRunError, "out of memory"),
    ],
)
def test_what_the_machine_could_not_do_is_told_with_its_node(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], text: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    site.plan()
    monkeypatch.setattr(array, "infer_shard", fail)
    with pytest.raises(kind, match=f"^on {socket.gethostname()}: .*{text}") as caught:
        run_shard(site.run, 0)
    assert type(caught.value) is kind
    assert not entry_of(site.run, 0).exists()


def test_where_it_runs_is_said_before_it_runs(site: Site) -> None:
    site.plan()
    heard = Heard()
    run_shard(site.run, 0, device="cpu", progress=heard)
    assert heard.lines == [f"{site.run}: shard 0 (index 0 of 0 to 2) on {socket.gethostname()}"]


def test_no_task_works_beside_a_driver(site: Site) -> None:
    site.plan()
    with hold_lock(site.run / "lock", site.run) as lock:
        with pytest.raises(LockedError, match=f"in use by .*pid {os.getpid()} on") as caught:
            run_shard(site.run, 0)
        assert caught.value.exit_code == 6
        assert lock.still_held()
    assert not (site.run / "parts").exists()


def test_the_lock_of_a_driver_on_another_node_stops_a_task_and_that_of_a_dead_one_does_not(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.plan()
    lock = site.run / "lock"
    text = '{"host": "%s", "pid": %d, "start": "2026-01-02T03:04:05Z", "program": "apogee-batch 0"}'
    lock.write_text(text % ("node17", 4))
    with pytest.raises(LockedError, match=r"on node17, since .*; if it is gone, '.*--break-lock'"):
        run_shard(site.run, 0)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    lock.write_text(text % (socket.gethostname(), child.pid))
    run_shard(site.run, 0, device="cpu")
    assert lock.exists(), "it is not the task's to take"


def test_a_task_whose_unfinished_file_is_cleaned_away_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clean(step: str, path: Path) -> None:
        if step == "flushed" and path.name == "part-00000.parquet":
            assert files.remove_leftovers(site.run / "staging") == 1  # as a driver does that begins now

    site.plan()
    monkeypatch.setattr(files, "on_commit_step", clean)
    with pytest.raises(IncompleteRunError, match=r"part-00000\.parquet: was removed .*start the task again"):
        run_shard(site.run, 0, device="cpu")
    monkeypatch.undo()
    run_shard(site.run, 0, device="cpu")
    assert entry_of(site.run, 0).exists()


def test_a_task_whose_file_is_cleaned_away_once_another_did_its_shard_is_content(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.plan()
    run_shard(site.run, 0, device="cpu")
    kept = entry_of(site.run, 0)
    hidden = kept.rename(kept.with_suffix(".hidden"))

    def clean(step: str, path: Path) -> None:
        if step == "flushed" and path.name == "part-00000.parquet":
            files.remove_leftovers(site.run / "staging")
            hidden.rename(kept)

    monkeypatch.setattr(files, "on_commit_step", clean)
    assert "was done by another process meanwhile" in run_shard(site.run, 0, device="cpu")[0]


def test_planning_and_finalising_spare_the_unfinished_files_of_tasks(site: Site) -> None:
    site.plan()
    staged = site.run / "staging" / ".part-00000.parquet.0123.partial"
    staged.parent.mkdir(exist_ok=True)
    staged.touch()
    site.plan()
    with pytest.raises(IncompleteRunError):
        site.finalise()
    assert staged.exists()
    for index in range(N_SHARDS):
        run_shard(site.run, index, device="cpu")
    site.finalise()
    assert not staged.exists()


def test_a_part_that_changes_behind_its_entry_is_noticed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def disturb(step: str, path: Path) -> None:
        if step == "committed" and path.name == "00000.json":
            (site.run / "parts" / "part-00000.parquet").write_bytes(b"of a GPU")

    site.plan()
    monkeypatch.setattr(files, "on_commit_step", disturb)
    with pytest.raises(IncompleteRunError, match="shard 0 was written by another process meanwhile"):
        run_shard(site.run, 0, device="cpu")


def test_a_run_that_is_begun_anew_takes_no_shards_of_the_old_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_anew(step: str, path: Path) -> None:
        if step == "committed" and path.name == "part-00000.parquet":
            monkeypatch.undo()
            inference = site.config.inference.model_copy(update={"seed": 5})
            config = site.config.model_copy(update={"inference": inference})
            other = Site(site.store, site.model, config, site.run)
            other.command(is_plan_only=True, going=commands.Going(force_new_plan=True))

    site.plan()
    monkeypatch.setattr(files, "on_commit_step", begin_anew)
    with pytest.raises(UsageError, match="another run was begun in it meanwhile"):
        run_shard(site.run, 0, device="cpu")
    assert not entry_of(site.run, 0).exists()


@pytest.mark.parametrize(
    ("name", "now", "told"),
    [
        ("software_versions", {"torch": "9"}, "version of torch: .* -> 9"),
        ("catalog_version", "0", "version of the catalogue's columns: "),
        ("store_fingerprint", "0" * 64, "the store holds other spectra"),
    ],
)
def test_other_software_or_another_store_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str, now: object, told: str
) -> None:
    site.plan()
    monkeypatch.setattr(array, name, lambda *_: now)
    with pytest.raises(UsageError, match=f"was planned otherwise .*{told}"):
        run_shard(site.run, 0)


def test_another_model_is_refused(site: Site, tmp_path: Path) -> None:
    site.model = Path(shutil.copytree(site.model, tmp_path / "model"))
    site.plan()
    for name in ("model.safetensors", "model.json"):
        (site.model / name).unlink()
    with pytest.raises((IntegrityError, UsageError), match=str(site.model)):
        run_shard(site.run, 0)
    assert not entry_of(site.run, 0).exists()


def test_a_damaged_copy_of_a_table_is_named(site: Site) -> None:
    site.plan()
    labels = site.run / "inputs" / "labels.parquet"
    labels.write_bytes(b"")
    with pytest.raises(IntegrityError, match=f"{labels}: is missing or damaged"):
        run_shard(site.run, 0)
    site.plan()
    run_shard(site.run, 0, device="cpu")


def test_a_store_that_moved_is_found_after_planning_again(
    site: Site, tmp_path: Path, expected: dict[str, str]
) -> None:
    site.store = Path(shutil.copytree(site.store, tmp_path / "first.zarr"))
    site.plan()
    site.store = site.store.rename(tmp_path / "second.zarr")
    with pytest.raises(UsageError, match=r"first\.zarr: is not there; if it was moved"):
        run_shard(site.run, 0)
    site.plan()
    for index in range(N_SHARDS):
        run_shard(site.run, index, device="cpu")
    site.finalise()
    assert site.hashes() == expected


def test_a_run_without_or_with_damaged_paths_says_how_to_get_them(site: Site, finished_run: Path) -> None:
    site.plan()
    paths = site.run / "paths.json"
    assert read_sealed_json(paths) == {"store": str(site.store), "model": str(site.model)}
    paths.write_text(paths.read_text().replace(".zarr", ".zar"))
    with pytest.raises(IntegrityError, match=r"is damaged; .* --plan-only' again"):
        run_shard(site.run, 0)
    paths.unlink()
    with pytest.raises(UsageError, match=r"is missing; .* --plan-only' again"):
        run_shard(site.run, 0)
    with pytest.raises(UsageError, match=r"begun without a model; .*train first"):
        run_shard(finished_run, 0)
    with pytest.raises(UsageError, match="is no run"):
        run_shard(site.model, 0)


def test_numbers_are_written_as_sbatch_takes_them() -> None:
    assert index_ranges([5, 0, 4, 7, 6]) == "0,4-7"
    assert index_ranges([3]) == "3"
    assert index_ranges(range(257)) == "0-256"
