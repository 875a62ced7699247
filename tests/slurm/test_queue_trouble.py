"""The queue is not there, refuses, does not answer or says nothing: a clear end, or a run that goes on."""

import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from commandline import CommandLine, Ended
from pids import wait_for
from rig import Slurm
from small_survey import REALIZATIONS, SmallSurvey

LONG = 100  # realizations: a shard takes a second or two
N_SHARDS = 6
IMPATIENT = {"command_timeout_s": 3}
MUTE = """\
#!/bin/sh
# Fails, and says nothing at all, by turns.
echo . >> '{calls}'
[ $(( $(wc -l < '{calls}') % 2 )) = 0 ] && exit 0
echo 'slurm_load_jobs error: Invalid user id' >&2
exit 1
"""


def command(
    small_survey: SmallSurvey, folder: Path, run: Path, realizations: int = REALIZATIONS, **settings: Any
) -> list[object]:
    """Return the command that makes a catalogue with a model that is there."""
    config = small_survey.write_config(folder / "c.toml", realizations=realizations, **settings)
    return [*small_survey.run_words(run, model=small_survey.model), "--config", config]


def shards_done(run: Path) -> int:
    return len(list((run / "ledger").glob("[0-9]*.json")))


def assert_one_line(ended: Ended, *words: str) -> None:
    """See that a command said one line with all these words, and nothing else."""
    assert len(ended.said.splitlines()) == 1, ended.said
    assert ended.said.startswith("error: ")
    assert all(word in ended.said for word in words), ended.said


def assert_nothing_left(slurm: Slurm, run: Path) -> None:
    assert slurm.jobs() == []
    assert not (run / "keys").exists()
    assert not (run / "lock").exists()


def n_submitted(run: Path) -> int:
    return (run / "logs" / "jobs.jsonl").read_text().count('"submitted"')


# At the start: exit code 4


def test_a_host_without_sbatch_is_told_apart(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = command(small_survey, tmp_path, run)
    ended = apogee(*words, code=4, environment={"PATH": str(tmp_path)})
    assert_one_line(ended, "sbatch: not found", "login node", "--cluster local")
    assert_nothing_left(slurm, run)


def test_a_closed_partition_ends_a_run_before_it_begins(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = command(small_survey, tmp_path, run)
    with slurm.refusing():
        ended = apogee(*words, code=4)
    assert_one_line(ended, "artition", "sinfo -s")
    assert_nothing_left(slurm, run)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--partition", "nosuch"], ["invalid partition", "check `partition`"]),
        (["--gres", "gpu:99"], ["node configuration is not available", "`gres`"]),
        (["--memory", "100GB"], ["node configuration is not available", "`memory`"]),
        (["--job", "nodelist=n99"], ["check `nodelist`"]),
    ],
    ids=lambda value: value[1] if value[0].startswith("--") else "",
)
def test_a_job_that_the_queue_does_not_take_is_told_with_the_setting_to_change(
    apogee: CommandLine,
    slurm: Slurm,
    small_survey: SmallSurvey,
    tmp_path: Path,
    flags: Sequence[str],
    words: Sequence[str],
) -> None:
    run = tmp_path / "run"
    ended = apogee(*command(small_survey, tmp_path, run), *flags, code=4)
    assert_one_line(ended, *words)
    assert_nothing_left(slurm, run)


def test_a_queue_that_does_not_answer_ends_a_run_in_bounded_time(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = command(small_survey, tmp_path, run, cluster=IMPATIENT)
    with slurm.frozen_controller():
        ended = apogee(*words, code=4, timeout_s=60)
    assert_one_line(ended, "sbatch", "does not answer within 3 s", "scontrol ping")
    assert not wait_for(slurm.jobs, 3, 0.5), "what sbatch had sent when it was killed is no job"
    assert_nothing_left(slurm, run)


def test_a_job_without_walltime_and_memory_is_no_job(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    config = small_survey.write_config(tmp_path / "c.toml")
    lines = config.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("walltime", "memory"))]
    config.write_text("\n".join(kept) + "\n")
    words = small_survey.run_words(tmp_path / "run", model=small_survey.model)
    ended = apogee(*words, "--config", config, code=2)
    for key in ("walltime", "memory"):
        assert_one_line(ended, f"--{key}", f"cluster.gpu.{key}", f"jobqueue.slurm.{key}")
    assert slurm.jobs() == []


# In the middle: the run goes on


def test_a_controller_that_freezes_does_not_hold_up_the_workers(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    small_survey.reference(LONG, is_model_given=True)
    words = command(small_survey, tmp_path, run, LONG, cluster=IMPATIENT)
    with apogee.program(*words) as driver:
        driver.wait_until(lambda: shards_done(run), "a shard is done")
        with slurm.frozen_controller():
            assert shards_done(run) < N_SHARDS
            said = driver.succeed().said
    assert "scancel" in said, "the jobs could not be given back, which is told with the remedy"
    small_survey.assert_same_catalog(run, LONG, is_model_given=True)
    slurm.wait_empty()  # they leave by themselves, as their scheduler is gone
    assert not (run / "keys").exists()


def test_a_queue_that_fails_or_says_nothing_is_no_sign_of_lost_jobs(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    run, calls, folder = tmp_path / "run", tmp_path / "calls", tmp_path / "bin"
    small_survey.reference(LONG, is_model_given=True)
    late = {"prologue": ["sleep 13"]}  # a job that is neither listed nor seen for so long is given up
    words = command(small_survey, tmp_path, run, LONG, job=late)
    folder.mkdir()
    for name in ("squeue", "scontrol"):
        (folder / name).write_text(MUTE.format(calls=calls))
        (folder / name).chmod(0o755)
    path = f"{folder}:{apogee.environment['PATH']}"
    apogee(*words, environment={"PATH": path})
    assert len(calls.read_text().splitlines()) >= 2, "it was asked"
    assert n_submitted(run) == 2
    small_survey.assert_same_catalog(run, LONG, is_model_given=True)
    slurm.wait_empty()


def test_a_lost_job_that_the_queue_does_not_replace_costs_time_and_not_the_run(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    small_survey.reference(LONG, is_model_given=True)
    with apogee.program(*command(small_survey, tmp_path, run, LONG)) as driver:
        driver.wait_until(lambda: shards_done(run) and len(slurm.running()) == 2, "both work")
        with slurm.refusing():
            slurm.cancel(slurm.running()[0].job_id)
            said = driver.succeed().said
    assert len(re.findall("CANCELLED", said)) <= 1
    assert n_submitted(run) == 2
    small_survey.assert_same_catalog(run, LONG, is_model_given=True)
    slurm.wait_empty()


# `cluster show` and `cluster test`


def test_show_tells_the_script_and_test_tries_it(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    config = small_survey.write_config(tmp_path / "c.toml")
    shown = apogee("cluster", "show", "--config", config).said
    assert "#SBATCH --gres=gpu:1" in shown
    slurm.call("sbatch", "--test-only", "-o", "/dev/null", given=shown)
    words = ("cluster", "test", "--config", config, "--store", small_survey.store, "--out", tmp_path / "run")
    lines = apogee(*words).said.splitlines()
    assert re.match(r"gpu: node n[12] \(job \d+\): Python 3", lines[-1])
    assert "folders can be read and written there" in lines[-1]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == []
    slurm.wait_empty(timeout_s=20)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (f'exec {sys.executable} -S "$@"', "No module named 'distributed'"),
        ("echo no licence >&2; exit 3", "no licence"),
    ],
    ids=["without the program", "broken"],
)
def test_a_python_on_the_nodes_that_cannot_work_is_told_in_one_line_with_what_it_said(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path, line: str, told: str
) -> None:
    wrapper = tmp_path / "python"
    wrapper.write_text(f"#!/bin/sh\n{line}\n")
    wrapper.chmod(0o755)
    config = small_survey.write_config(tmp_path / "c.toml")
    words = ("cluster", "test", "--config", config, "--job", f"python={wrapper}")
    ended = apogee(*words, code=4)
    errors = [text for text in ended.said.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1, ended.said
    assert told in errors[0]
    assert "(logs: " in errors[0]
    assert "Traceback" not in ended.said.replace(errors[0], "")
    slurm.wait_empty(timeout_s=20)


def test_a_stop_while_the_queue_does_not_answer_is_bounded_too(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = command(small_survey, tmp_path, run, LONG)
    with apogee.program(*words) as driver:
        driver.wait_until(lambda: shards_done(run), "a shard is done")
        with slurm.frozen_controller():
            driver.send(signal.SIGTERM)
            driver.end_with(75, timeout_s=10)
    slurm.wait_empty()
