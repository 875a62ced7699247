"""A job array without a driver, and the driver as a job that is begun again: the bytes of a serial run."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import CommandLine
from night import assert_nothing_is_left
from pids import wait_for
from rig import Slurm
from small_survey import SmallSurvey

from apogee_batch.files import read_json, read_sealed_json
from apogee_batch.run.array import run_shard

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--mem=800M", "--time=10")  # the nodes of the rig have 4 GB
LONG = 100  # realizations: a shard takes a second or two
WAIT_S = 120.0
WORKER_JOBS = "apogee-gpu-"


@pytest.fixture
def sbatch(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Submit as a user with the program on the PATH, in the folder of the project."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    monkeypatch.chdir(ROOT)

    def submit(*words: object) -> str:
        command = ["sbatch", "--parsable", *SMALL, *map(str, words)]
        environment = slurm.environment() | {"PATH": path}  # --export may let slurmd ask `su` for it, slowly
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout.strip()

    return submit


def entries(run: Path) -> list[Path]:
    return sorted((run / "ledger").glob("[0-9]*.json"))


def wait_for_entries(slurm: Slurm, run: Path, n_most: int, job: str, log: Path) -> None:
    """Wait until some shards are done, and see that others are not."""
    assert wait_for(lambda: entries(run), WAIT_S, 0.05), (slurm.show(job), log.read_text())
    assert len(entries(run)) <= n_most


def command_in(text: str) -> list[str]:
    """Return the words after `sbatch` of the command that a text tells."""
    found = re.search(r"sbatch ([^'\n]+)", text)
    assert found is not None, text
    return shlex.split(found.group(1))


def test_an_array_on_both_nodes_gives_the_bytes_of_a_serial_run(
    apogee: CommandLine,
    slurm: Slurm,
    sbatch: Callable[..., str],
    small_survey: SmallSurvey,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    config = small_survey.write_config(tmp_path / "c.toml", "serial")
    words = [*small_survey.run_words(run, model=small_survey.model), "--config", config]
    planned = command_in(apogee(*words, "--plan-only").said)
    assert planned[0] == "--array=0-5%50"
    for index in (3, 4):
        run_shard(run, index, device="cpu")  # as by hand
    sbatch("--array=0,2", *planned[1:])
    slurm.wait_empty()
    missing = command_in(apogee(*words, "--finalise", code=75).said)
    assert missing == ["--array=1,5%50", *planned[1:]]
    sbatch(*missing)
    slurm.wait_empty()
    hosts = {read_json(path)["host"] for path in entries(run)}
    assert hosts >= set(slurm.nodes)
    apogee(*words, "--finalise")
    small_survey.assert_same_catalog(run, is_model_given=True)
    logs = [path.read_text() for path in (run / "logs").glob("array-*.log")]
    assert len(logs) == 4
    assert all("Slurm job" in log for log in logs)


def test_a_task_whose_node_crashes_is_begun_again_on_the_other(
    apogee: CommandLine,
    slurm: Slurm,
    sbatch: Callable[..., str],
    small_survey: SmallSurvey,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    config = small_survey.write_config(tmp_path / "c.toml", "serial")
    words = [*small_survey.run_words(run, model=small_survey.model), "--config", config]
    planned = command_in(apogee(*words, "--plan-only").said)
    for index in range(5):
        run_shard(run, index, device="cpu")  # which takes less time than a job for each
    sbatch("--array=5", *planned[1:])
    lost = slurm.wait_jobs(1)[0]
    # Slurm must know that it began: else it is begun again at once, and may be on the same node.
    assert wait_for(lambda: list((run / "logs").glob("array-*.log")), WAIT_S)
    slurm.crash(lost.node)
    slurm.wait_empty(timeout_s=WAIT_S)
    assert int(slurm.show(lost.job_id)["Restarts"]) >= 1
    apogee(*words, "--finalise")
    small_survey.assert_same_catalog(run, is_model_given=True)


def test_a_driver_that_gets_sigterm_begins_again_with_new_workers_and_ends_in_the_same_bytes(
    slurm: Slurm, sbatch: Callable[..., str], small_survey: SmallSurvey, tmp_path: Path
) -> None:
    run, log = tmp_path / "a run", tmp_path / "driver.log"
    config = small_survey.write_config(tmp_path / "c.toml", realizations=LONG)
    small_survey.reference(LONG, is_model_given=True)
    words = ["jobs/run.sbatch", small_survey.store, run, "--model", small_survey.model]
    job = sbatch(f"--output={log}", *words, "--config", config)
    wait_for_entries(slurm, run, 5, job, log)
    workers = {each.job_id for each in slurm.jobs(WORKER_JOBS)}
    assert workers
    slurm.call("scancel", "--signal=TERM", "--batch", job)  # as Slurm does 120 s before its time is over
    assert slurm.wait_state(job, "PENDING") == "PENDING"
    left = {each.job_id for each in (*slurm.pending(WORKER_JOBS), *slurm.running(WORKER_JOBS))}
    assert not left & workers, "it takes its workers along"
    kept = {path: path.read_bytes() for path in entries(run)}
    assert len(kept) < 6
    assert not (run / "lock").exists()
    assert slurm.wait_state(job, "COMPLETED", timeout_s=WAIT_S) == "COMPLETED", log.read_text()
    assert {path: path.read_bytes() for path in kept} == kept, "what was done is not done again"
    small_survey.assert_same_catalog(run, LONG, is_model_given=True)
    assert slurm.show(job)["Restarts"] == "1"
    assert "terminated; the same command goes on" in log.read_text()
    assert_nothing_is_left(slurm, run, run / "logs")


def test_a_driver_whose_node_crashes_takes_over_its_own_lock_on_the_other(
    slurm: Slurm, sbatch: Callable[..., str], small_survey: SmallSurvey, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "driver.log"
    config = small_survey.write_config(tmp_path / "c.toml", "serial", realizations=LONG)
    small_survey.reference(LONG, is_model_given=True)
    job = sbatch(
        *(f"--output={log}", "jobs/run.sbatch", small_survey.store, run),
        *("--model", small_survey.model, "--config", config, "--cluster", "serial"),
    )
    wait_for_entries(slurm, run, 5, job, log)
    lost = slurm.running()[0].node
    slurm.crash(lost)
    left = read_json(run / "lock")
    assert (left["host"], left["job"], left["restart"]) == (lost, f"{job} of rig", 0)
    assert slurm.wait_state(job, "COMPLETED", "FAILED", timeout_s=WAIT_S) == "COMPLETED", log.read_text()
    messages = (run / "logs" / "driver.jsonl").read_text()
    assert not (run / "lock").exists()
    assert read_sealed_json(run / "manifest.json")["stars"] == 96
    small_survey.assert_same_catalog(run, LONG, is_model_given=True)
    assert messages.count('"begin"') == 2


def test_a_driver_that_is_cancelled_stays_cancelled(
    slurm: Slurm, sbatch: Callable[..., str], small_survey: SmallSurvey, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "driver.log"
    config = small_survey.write_config(tmp_path / "c.toml", "serial", realizations=2000)
    job = sbatch(
        *(f"--output={log}", "jobs/run.sbatch", small_survey.store, run),
        *("--model", small_survey.model, "--config", config, "--cluster", "serial"),
    )
    assert wait_for((run / "lock").exists, WAIT_S)
    slurm.cancel(job)
    assert slurm.wait_state(job) == "CANCELLED"
    slurm.wait_empty()
    assert slurm.show(job)["Restarts"] == "0"
