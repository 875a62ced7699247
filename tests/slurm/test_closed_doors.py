"""Nobody without the key of a run gets into it, nobody reads the key, and no setting becomes a command."""

import os
import ssl
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from commandline import CommandLine, Program
from doors import (
    ALERT,
    DASK,
    HTTP,
    Doors,
    ask_plainly,
    client_refusal,
    handshake,
    keys_of,
)
from pids import Listener, Pid
from rig import Slurm
from small_survey import SmallSurvey

from apogee_batch.run.clusters.keys import RunKeys, run_keys

ENDLESS = 500  # realizations of a run that is not waited for: a shard takes 5-10 s
FORBIDDEN = ("PRIVATE KEY",)


@pytest.fixture
def other_keys(tmp_path: Path) -> Iterator[RunKeys]:
    """Keys that another run has made."""
    with run_keys(tmp_path / "other keys") as keys:
        yield keys


@contextmanager
def umask(bits: int) -> Iterator[None]:
    before = os.umask(bits)
    try:
        yield
    finally:
        os.umask(before)


def places(doors: Iterable[Listener]) -> set[tuple[int, int]]:
    """Return processes and ports; who listens at all addresses does so twice, of the old and the new kind."""
    return {(door.pid.number, door.port) for door in doors}


def assert_all_shut(doors: Doors, keys: RunKeys, other: RunKeys) -> None:
    """See that all that others can reach opens for the keys of the run alone."""
    assert all(door.is_loopback for door in doors.inner), "dashboards are for this host alone"
    with ThreadPoolExecutor() as knocking:
        for _ in knocking.map(lambda door: assert_shut(door, keys, other), doors.shut):
            pass


def assert_shut(door: Listener, keys: RunKeys, other: RunKeys) -> None:
    """See that a door opens for the run's keys only."""
    for text in (HTTP, DASK):
        answer = ask_plainly(door, text)
        assert answer == b"" or answer[0] == ALERT, (door, answer)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        handshake(door, None)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        handshake(door, other)
    assert handshake(door, keys), (door, "else it is shut for everybody, and nothing is shown")


def endless_run(small_survey: SmallSurvey, folder: Path, run: Path) -> list[object]:
    config = small_survey.write_config(
        folder / "c.toml", realizations=ENDLESS, cluster={"workers": 1}, job={"memory": "3GB"}
    )
    return [*small_survey.run_words(run, model=small_survey.model), "--config", config]


def wait_for_worker(driver: Program, run: Path) -> None:
    """Wait until a worker is connected and has its task."""
    logs = run / "logs"
    begun = "Starting established connection"
    driver.wait_until(lambda: any(begun in log.read_text() for log in logs.glob("job-*.log")), "it works")


def test_scheduler_worker_and_nanny_open_to_the_keys_of_the_run_alone(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path, other_keys: RunKeys
) -> None:
    run = tmp_path / "run"
    with apogee.program(*endless_run(small_survey, tmp_path, run)) as driver:
        wait_for_worker(driver, run)
        keys = keys_of(run)
        doors = Doors.of(slurm, driver.process.pid)
        assert_all_shut(doors, keys, other_keys)
        assert len(places(doors.driver) & places(doors.shut)) == 1, "the scheduler"
        assert len(places(doors.jobs) & places(doors.shut)) == 2, "worker and nanny"
        for door in doors.shut:
            assert client_refusal(door, "tcp", None)
            assert client_refusal(door, "tls", other_keys)
        scheduler = next(door for door in doors.shut if door in doors.driver)
        assert client_refusal(scheduler, "tls", keys) == ""
        assert driver.is_running, driver.story("strangers should not disturb it")


def test_the_ranks_of_a_training_open_to_the_keys_of_the_run_alone(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path, other_keys: RunKeys
) -> None:
    model, recipe = tmp_path / "model", tmp_path / "long.toml"
    short = Path(small_survey.recipe).read_text()
    recipe.write_text(short.replace("\nmax_epochs = 2\n", "\nmax_epochs = 5000\npatience = 5000\n"))
    assert "patience" in recipe.read_text()
    config = small_survey.write_config(tmp_path / "c.toml")
    config.write_text(config.read_text().replace(small_survey.recipe, str(recipe)))
    words = ["train", small_survey.store, "--out", model, "--config", config, "--train-workers", 2]
    with apogee.program(*words) as driver:
        driver.wait_until(lambda: "epochs, " in driver.said, "two ranks train")
        doors = Doors.of(slurm, driver.process.pid)
        assert len(places(doors.jobs) & places(doors.shut)) >= 4, "two workers, two nannies"
        assert_all_shut(doors, keys_of(model), other_keys)
        assert driver.is_running, driver.story("strangers should not disturb it")


def test_the_key_is_in_no_file_script_log_or_command_line_but_its_own(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = endless_run(small_survey, tmp_path, run)
    with umask(0), apogee.program(*words) as driver:
        wait_for_worker(driver, run)
        keys = keys_of(run)
        secrets = [line for line in keys.key.read_text().splitlines() if line and not line.startswith("--")]
        assert secrets
        modes = {path: path.stat().st_mode & 0o777 for path in (run / "keys", *(run / "keys").rglob("*"))}
        assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items()), modes
        scripts = list((run / "logs").glob("job-*.sh"))
        assert [path.stat().st_mode & 0o777 for path in scripts] == [0o600]
        own = Pid.of(driver.process.pid)
        assert own is not None
        processes = [own, *own.descendants()]
        processes += [pid for job in slurm.running() for pid in slurm.processes(job.job_id)]
        texts = {
            str(path): path.read_bytes() for path in run.rglob("*") if path.is_file() and path != keys.key
        }
        for pid in processes:
            for name in ("cmdline", "environ"):
                texts[f"{pid.number} {name}"] = Path(f"/proc/{pid.number}/{name}").read_bytes()
        texts["squeue"] = slurm.call("scontrol", "show", "job").encode()
    for secret in (*secrets, *FORBIDDEN):
        assert [name for name, text in texts.items() if secret.encode() in text] == []
    assert driver.said.count("BEGIN") == 0


def test_no_tls_must_be_said_twice(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = small_survey.write_config(tmp_path / "c.toml")
    words = [*small_survey.run_words(run, model=small_survey.model), "--config", config, "--no-tls"]
    refused = apogee(*words, code=2).said
    assert "--i-know" in refused
    assert slurm.jobs() == []
    assert not run.exists()
    apogee(*words, "--i-know")
    small_survey.assert_same_catalog(run, is_model_given=True)


# What a setting says is never a command


HOSTILE = ("$(touch canary)", "`touch canary`", "x;touch canary", "x'\";touch canary;'\"", "x\ntouch canary")
NAMES = ("partition", "account", "qos", "gres", "constraint", "reservation", "nodelist", "exclude")
COMMANDS = "$(touch canary)`touch canary`;touch canary"


def canaries(*folders: Path) -> list[Path]:
    """Return what commands would have made: jobs and driver work in the folder of the test."""
    return [path for folder in folders for path in folder.rglob("canary*")]


@pytest.mark.parametrize("value", HOSTILE, ids=["dollar", "backtick", "semicolon", "quotes", "newline"])
def test_a_name_that_holds_a_command_is_refused(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path, value: str
) -> None:
    config = small_survey.write_config(tmp_path / "c.toml")
    words = [*small_survey.run_words(tmp_path / "run", model=small_survey.model), "--config", config]
    ended = apogee(*words, *(word for key in NAMES for word in ("--job", f"{key}={value}")), code=2)
    assert all(f"cluster.gpu.{key}: " in ended.said for key in NAMES), ended.said
    assert len(ended.said.splitlines()) == 1
    assert slurm.jobs() == []
    assert canaries(tmp_path) == []


def test_a_folder_or_a_path_that_holds_commands_is_a_folder_or_a_path(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    odd = f"a %j {COMMANDS};'\"&"
    run, scratch = tmp_path / odd, tmp_path / f"scratch {odd}"
    config = small_survey.write_config(tmp_path / "c.toml")
    words = [*small_survey.run_words(run, model=small_survey.model), "--config", config]
    apogee(*words, "--job", f"local_directory={scratch}", "--job", f"directives=--comment='{COMMANDS}'")
    small_survey.assert_same_catalog(run, is_model_given=True)
    assert len(list((run / "logs").glob("job-*.log"))) == 2, "Slurm writes into this folder, too"
    assert scratch.is_dir()
    assert canaries(tmp_path, slurm.daemons.root / "spool") == []


def test_a_run_folder_with_a_newline_is_refused(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    run = tmp_path / "run\n#SBATCH --wrap=touch canary\ntouch canary"
    config = small_survey.write_config(tmp_path / "c.toml")
    words = [*small_survey.run_words(run, model=small_survey.model), "--config", config]
    ended = apogee(*words, code=2)
    assert "control character" in ended.said
    assert len(ended.said.splitlines()) == 1
    assert slurm.jobs() == []
    assert canaries(tmp_path) == []


def test_a_python_or_an_option_that_holds_a_command_is_taken_by_its_letters(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    config = small_survey.write_config(tmp_path / "c.toml", cluster={"max_lost_jobs": 1})
    words = ["cluster", "test", "--config", config, "--job", f"worker_args=--preload={COMMANDS}"]
    ended = apogee(*words, "--job", f"python={tmp_path}/{COMMANDS}", code=4)
    assert "No such file or directory" in ended.said, "that is the name of no program"
    slurm.wait_empty(timeout_s=20)
    assert canaries(tmp_path, slurm.daemons.root / "spool") == []


def test_a_shell_or_a_number_that_holds_a_command_is_refused(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    config = small_survey.write_config(tmp_path / "c.toml")
    keys = ("walltime", "memory", "job_memory", "shebang", "cores", "processes")
    words = ["cluster", "test", "--config", config]
    ended = apogee(*words, *(word for key in keys for word in ("--job", f"{key}=1{COMMANDS}")), code=2)
    assert all(f"cluster.gpu.{key}: " in ended.said for key in keys), ended.said
    assert slurm.jobs() == []
    assert canaries(tmp_path) == []


@pytest.mark.parametrize(
    "directive", ["--exclusive evil.sh", '--wrap="touch canary"', "--comment=$(touch canary)"]
)
def test_a_directive_starts_no_other_script(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path, directive: str
) -> None:
    (tmp_path / "evil.sh").write_text("#!/bin/sh\ntouch canary\n")
    config = small_survey.write_config(tmp_path / "c.toml")
    with apogee.program("cluster", "test", "--config", config, "--job", f"directives={directive}") as tried:
        ended = tried.end()
    assert ended.code == (0 if "wrap" in directive else 4), ended.said
    slurm.wait_empty(timeout_s=20)
    assert canaries(tmp_path, slurm.daemons.root / "spool") == []
