"""Jobs are lost in every way that Slurm knows, and the catalogue has the bytes of an undisturbed run."""

import re
import shlex
import time
from functools import partial
from pathlib import Path
from signal import SIGKILL

import pytest
from commandline import CommandLine
from deadly_shards import N_INPUTS, end_worker
from night import JOB_NAMES, Night, submitted, told_of
from pids import wait_for
from rig import Slurm
from small_survey import SmallSurvey

from apogee_batch.run.clusters import open_workers
from apogee_batch.run.config import load_config
from apogee_batch.run.ledger import Ledger
from apogee_batch.run.progress import SilentView
from apogee_batch.run.stages import run_shards

HERE = Path(__file__).resolve().parent


@pytest.fixture
def night(apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path) -> Night:
    """A run that is about to begin."""
    return Night(apogee, slurm, small_survey, tmp_path)


def test_cancelled_jobs_are_replaced_whether_they_wait_or_work(night: Night) -> None:
    slurm = night.slurm
    with night.program(cluster={"say_after_s": 2}) as program:
        with slurm.holding():
            program.wait_until(lambda: len(slurm.pending(JOB_NAMES)) == 2, "two jobs wait")
            waiting = slurm.pending(JOB_NAMES)[0].job_id
            program.wait_said("no worker for ")
            program.wait_said("2 jobs wait: PartitionDown")
            slurm.cancel(waiting)
            program.wait_said(f"WARNING: job {waiting}: CANCELLED")
        working = night.wait_work(program)[0]
        slurm.cancel(working.job_id)
        ended = night.finish(program)
    assert "the partition is closed" in ended.said
    assert f"CANCELLED on {working.node}" in told_of(ended.said, working.job_id)
    assert len(submitted(night.logs)) >= 3


def test_jobs_that_die_before_their_worker_begins_are_replaced(night: Night) -> None:
    night.slurm.fail_prolog("n1")
    flag = night.folder / "flag"
    prologue = f"[ -e {flag} ] || {{ touch {flag}; exit 1; }}"
    with night.program(job={"prologue": [prologue]}) as program:
        ended = night.finish(program)
    assert night.hosts() == {"n2"}
    assert "CANCELLED on n1" in ended.said
    assert "FAILED with exit code 1 on n2" in ended.said
    assert flag.exists()


def test_a_run_goes_on_without_a_node_that_crashed(night: Night) -> None:
    with night.program() as program:
        lost = night.wait_work(program)[0]
        night.freeze(lost)
        night.slurm.crash(lost.node)
        night.finish(program)


def test_a_run_waits_for_its_only_node_that_crashed_and_returns(night: Night) -> None:
    with night.program(job={"nodelist": "n1"}) as program:
        jobs = night.wait_work(program)
        assert len(jobs) == 2
        for job in jobs:
            night.freeze(job)
        night.slurm.crash("n1")
        program.wait_said("NODE_FAIL")
        night.slurm.start("n1")
        ended = night.finish(program)
    for job in jobs:
        assert "NODE_FAIL on n1" in told_of(ended.said, job.job_id)


def test_nobody_notices_a_slurmd_that_is_killed_and_returns(night: Night) -> None:
    with night.program() as program:
        night.wait_work(program)
        night.slurm.kill_slurmd("n1")
        time.sleep(2)
        night.slurm.start("n1")
        ended = night.finish(program)
    assert "WARNING" not in ended.said
    assert len(submitted(night.logs)) == 2


def test_a_shard_goes_on_elsewhere_when_the_time_of_its_job_is_over(night: Night) -> None:
    with night.program() as program:
        late = night.wait_work(program)[0]
        night.freeze(late)
        night.slurm.end_time(late.job_id)
        ended = night.finish(program)
    assert f"TIMEOUT on {late.node}" in told_of(ended.said, late.job_id)


def test_a_worker_that_is_frozen_does_not_hold_up_the_run(night: Night) -> None:
    # Longer than a worker may be deaf on a busy machine while it loads torch: 12 s were seen.
    with night.program(cluster={"frozen_after_s": 15}) as program:
        frozen = night.wait_work(program)[0]
        night.freeze(frozen, only="spawn_main")  # its nanny lives, and starts another
        night.finish(program, may_try_again=True)  # its shard may be what froze it: that counts as a death


def test_a_run_whose_jobs_keep_dying_ends_soon_and_says_why(night: Night) -> None:
    prologue = ['echo "libcuda.so.1 is not there" >&2', "exit 3"]
    with night.program(job={"prologue": prologue}, cluster={"max_lost_jobs": 2}) as program:
        ended = program.end_with(4, timeout_s=60)
    assert len(submitted(night.logs)) == 2
    told = ended.said.strip().splitlines()[-1]
    found = re.search(r"the last: job (\d+): FAILED with exit code 3 on n[12]; (\S+) ends with: (.*?);", told)
    assert found is not None, told
    job, log, words = found.groups()
    # the second goes to the same node where the first has died before it comes
    assert re.search(r"2 jobs in a row \(on n[12](, n[12])?\)", told), told
    assert log == str(night.logs / f"job-{job}.log")
    assert words == "libcuda.so.1 is not there"
    assert f"job {job}: FAILED with exit code 3" in told_of(ended.said, job)
    assert night.n_done() == 0
    night.slurm.wait_empty(JOB_NAMES, timeout_s=10)
    assert not (night.run / "keys").exists()


class Listener(SilentView):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_an_input_that_ends_its_worker_is_left_out_also_on_slurm(
    slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    prologue = [f"export PYTHONPATH={shlex.quote(str(HERE))}"]
    config = load_config(None, small_survey.settings(job={"prologue": prologue}))
    ledger, view, logs = Ledger(tmp_path / "ledger", tmp_path, "k"), Listener(), tmp_path / "logs"
    task = partial(end_worker, {(1, 2): SIGKILL})
    with open_workers(config.cluster, logs=logs, role="cpu", progress=view) as workers:
        run_shards(workers, task, dict.fromkeys(range(3), N_INPUTS), ledger, view)
    assert [report.extra["excluded"] for report in ledger.entries()] == [[], [2], []]
    said = [text for text in view.said if "WORKER_KILLED" in text]
    assert len(said) == 1
    assert said[0].startswith(f"WARNING: shard 1: of its {N_INPUTS} inputs those at 2 end every worker")
    assert len(submitted(logs)) == 2, "a job outlives the deaths of its worker"
    assert wait_for(lambda: not slurm.jobs(JOB_NAMES), 10)
