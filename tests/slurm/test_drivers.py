"""The driver of a run is killed, told to stop, or not alone: what becomes of its jobs, keys and bytes."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path

import pytest
from commandline import CommandLine, Program
from pids import wait_for
from rig import Slurm
from small_survey import SmallSurvey

LONG = 100  # realizations: a shard takes a second or two
LEAVE_S = 60.0  # what jobs without a driver may take to leave


@pytest.fixture
def no_umask() -> Iterator[None]:
    """Let everything that is made be for everybody, unless whoever makes it says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def job_events(run: Path, event: str) -> dict[str, str]:
    """Return the jobs of an event in the run's list of jobs: id -> name."""
    path = run / "logs" / "jobs.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {line["job"]: line["name"] for line in lines if line["event"] == event}


def shards_done(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "ledger").glob("[0-9]*.json")}


def loose_keys(run: Path) -> list[str]:
    """Return what of the run's keys somebody else could read or list."""
    found = []
    folder = run / "keys"
    # os.walk, since it bears that a folder goes away while it looks
    below = (Path(base) / name for base, *names in os.walk(folder) for name in chain(*names))
    for path in (folder, *below):
        try:
            mode = path.stat().st_mode
        except OSError:
            continue  # gone meanwhile
        if mode & 0o077:
            found.append(f"{path} {mode:o}")
    return found


@contextmanager
def watching_keys(run: Path) -> Iterator[list[str]]:
    """Look at the keys all the time; what is returned tells of each moment at which others could, too."""
    seen: list[str] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.001):
            seen.extend(loose_keys(run))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


def test_a_killed_driver_leaves_no_jobs_and_its_run_goes_on_to_the_same_bytes(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path, no_umask: None
) -> None:
    run = tmp_path / "run"
    job = {"memory": "3GB"}  # one on each node: the third waits
    config = small_survey.write_config(
        tmp_path / "c.toml", realizations=LONG, cluster={"workers": 3}, job=job
    )
    small_survey.reference(LONG, is_model_given=True)
    words = [*small_survey.run_words(run, model=small_survey.model), "--config", config]
    with watching_keys(run) as loose, ExitStack() as stack:
        driver = stack.enter_context(apogee.program(*words))
        driver.wait_until(lambda: shards_done(run), "a shard is done")
        running, waiting = slurm.running(), slurm.pending()
        assert (len(running), len(waiting)) == (2, 1), driver.story(slurm.squeue())
        old_keys = {path.name for path in (run / "keys").iterdir()}
        assert len(old_keys) == 1
        with slurm.holding():
            driver.send(signal.SIGKILL)
            driver.end_with(-signal.SIGKILL)
            done = shards_done(run)
            assert wait_for(lambda: not slurm.running(), LEAVE_S, 0.2), slurm.squeue()
            assert [each.job_id for each in slurm.pending()] == [waiting[0].job_id]
            second = stack.enter_context(apogee.program(*words))
            second.wait_until(lambda: len(job_events(run, "submitted")) == 6, "three jobs more")
            assert slurm.state(waiting[0].job_id) == "CANCELLED"
            assert not old_keys & {path.name for path in (run / "keys").iterdir()}
        said = second.succeed().said
    assert "cancelled 1 jobs that an earlier driver" in said
    assert loose == []
    assert not (run / "keys").exists()
    assert done.items() <= shards_done(run).items(), "what was done is not done again"
    small_survey.assert_same_catalog(run, LONG, is_model_given=True)
    slurm.wait_empty(timeout_s=15)


@pytest.mark.parametrize(
    ("sent", "code", "are_jobs_waiting"),
    [(signal.SIGTERM, 75, False), (signal.SIGTERM, 75, True), (signal.SIGINT, 130, False)],
)
def test_a_driver_that_is_told_to_stop_gives_its_jobs_back(
    apogee: CommandLine,
    slurm: Slurm,
    small_survey: SmallSurvey,
    tmp_path: Path,
    sent: signal.Signals,
    code: int,
    *,
    are_jobs_waiting: bool,
) -> None:
    run = tmp_path / "run"
    config = small_survey.write_config(tmp_path / "c.toml", realizations=LONG)
    words = [*small_survey.run_words(run, model=small_survey.model), "--config", config]
    if are_jobs_waiting:
        with slurm.holding(), apogee.program(*words) as driver:
            driver.wait_until(lambda: len(slurm.pending()) == 2, "two jobs wait")
            ended = stop(driver, sent)
            slurm.wait_empty(timeout_s=5)
    else:
        with apogee.program(*words) as driver:
            driver.wait_until(lambda: shards_done(run), "it works")
            ended = stop(driver, sent)
            slurm.wait_empty(timeout_s=20)  # those that run are given two seconds to end
    assert ended == code
    jobs = job_events(run, "submitted")
    assert len(jobs) == 2
    assert jobs == job_events(run, "ended")
    assert {slurm.state(job) for job in jobs} == {"CANCELLED"}
    assert not (run / "keys").exists()
    assert not (run / "lock").exists()


def stop(driver: Program, sent: signal.Signals) -> int:
    """Send a signal, as Ctrl-C does to all processes of the terminal; return the exit code."""
    if sent == signal.SIGINT:
        os.killpg(driver.process.pid, sent)
    else:
        driver.send(sent)
    ended = driver.end(timeout_s=10)
    assert "Traceback" not in ended.said, ended.said
    assert "the same command goes on" in ended.said
    return ended.code


def test_two_runs_side_by_side_do_not_touch_each_others_jobs(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    config = small_survey.write_config(tmp_path / "c.toml", realizations=LONG)
    small_survey.reference(LONG, is_model_given=True)
    model = small_survey.model
    words = {run: [*small_survey.run_words(run, model=model), "--config", config] for run in (first, second)}
    with apogee.program(*words[first]) as one, apogee.program(*words[second]) as other:
        one.wait_until(lambda: shards_done(first), "a shard of the first is done")
        other.wait_until(lambda: len(job_events(second, "submitted")) == 2, "the second has its jobs")
        one.send(signal.SIGTERM)
        one.end_with(75)
        assert other.is_running, other.story("the other should not have ended yet")
        with apogee.program(*words[first]) as again:
            again.succeed()
        other.succeed()
    assert len(job_events(second, "submitted")) == 2, "none was lost and replaced"
    assert not job_events(first, "submitted").keys() & job_events(second, "submitted").keys()
    for run in (first, second):
        small_survey.assert_same_catalog(run, LONG, is_model_given=True)
    slurm.wait_empty(timeout_s=20)


def test_a_second_driver_of_a_run_is_refused_and_the_first_goes_on(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = small_survey.write_config(tmp_path / "c.toml", realizations=LONG)
    small_survey.reference(LONG, is_model_given=True)
    words = [*small_survey.run_words(run, model=small_survey.model), "--config", config]
    with apogee.program(*words) as driver:
        driver.wait_until(lambda: len(slurm.running()) == 2, "its jobs run")
        jobs = slurm.jobs()
        assert "in use by" in apogee(*words, code=6).said
        assert {each.job_id for each in slurm.jobs()} <= {each.job_id for each in jobs}
        driver.succeed()
    assert len(job_events(run, "submitted")) == 2
    small_survey.assert_same_catalog(run, LONG, is_model_given=True)
