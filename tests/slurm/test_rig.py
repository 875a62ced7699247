"""The Slurm that the other tests of this folder use does what they rely on."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import CommandLine
from daemons import HERE, Daemons, RigError
from pids import Pid, wait_for
from rig import Slurm
from small_survey import SmallSurvey

SLEEP = "sleep 300"
LISTEN = "import socket, sys, time; s = socket.create_server((sys.argv[1], 0)); time.sleep(300)"


def read_when_there(path: Path) -> str:
    assert wait_for(lambda: path.exists() and path.read_text().endswith("\n"), 10), path
    return path.read_text()


def test_jobs_spread_over_both_nodes_and_each_sees_its_own_gpu(slurm: Slurm, tmp_path: Path) -> None:
    script = f"echo $(hostname) $CUDA_VISIBLE_DEVICES; {SLEEP}"
    log = tmp_path / "%j.txt"
    ids = [slurm.submit(script, "--gres=gpu:1", "-J", "gpu-job", log=log) for _ in range(5)]
    assert len(slurm.wait_jobs(4, "gpu-")) == 4, "the fifth finds no GPU free"
    seen = sorted(read_when_there(tmp_path / f"{job_id}.txt").strip() for job_id in ids[:4])
    assert seen == ["n1 0", "n1 1", "n2 0", "n2 1"]
    waiting = slurm.pending()
    assert [job.job_id for job in waiting] == ids[4:]
    assert waiting[0].reason in {"Priority", "Resources"}, "the second when Slurm looked twice"
    assert slurm.jobs("other") == []
    slurm.cancel(ids[0])
    assert slurm.wait_state(ids[0]) == "CANCELLED"
    assert slurm.wait_state(ids[4], "RUNNING") == "RUNNING"


def test_processes_of_a_job_are_found_and_where_they_listen(slurm: Slurm) -> None:
    listen = shlex.join([sys.executable, "-c", LISTEN])
    script = f"{listen} 127.0.0.1 & {listen} 0.0.0.0"
    job_id, other = slurm.submit(script, "-J", "listens"), slurm.submit(SLEEP, "-J", "other")
    slurm.wait_jobs(2)
    assert wait_for(lambda: len(slurm.listeners()) == 2, 10), slurm.listeners()
    assert sorted((each.address, each.is_loopback) for each in slurm.listeners("listens")) == [
        ("0.0.0.0", False),
        ("127.0.0.1", True),
    ]

    def commands() -> set[str]:
        return {" ".join(pid.command) for pid in slurm.processes(other)}

    assert wait_for(lambda: SLEEP in commands(), 10)
    assert not any("socket" in command for command in commands())
    pids = slurm.processes(job_id)
    slurm.cancel(job_id)
    assert wait_for(lambda: not any(pid.is_alive for pid in pids), 10)


def test_jobs_stay_pending_while_the_queue_is_held(slurm: Slurm) -> None:
    with slurm.holding():
        ids = [slurm.submit("true") for _ in range(2)]
        assert wait_for(lambda: {job.reason for job in slurm.pending()} == {"PartitionDown"}, 10)
        slurm.cancel(ids[0])
        assert slurm.wait_state(ids[0]) == "CANCELLED"
    assert slurm.wait_state(ids[1]) == "COMPLETED"


def test_sbatch_refuses_and_hangs_when_told(slurm: Slurm) -> None:
    with slurm.refusing(), pytest.raises(RigError, match="partition not available"):
        slurm.submit("true")
    with slurm.frozen_controller(), pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["squeue"], check=False, env=slurm.environment(), capture_output=True, timeout=2)
    with slurm.without_controller(), pytest.raises(RigError, match="Unable to contact slurm controller"):
        slurm.squeue()
    assert slurm.wait_state(slurm.submit("true")) == "COMPLETED"


def test_a_job_ends_in_a_prolog_that_fails(slurm: Slurm, tmp_path: Path) -> None:
    slurm.fail_prolog("n1")
    log = tmp_path / "log.txt"
    once, again = (
        slurm.submit("echo began", "-w", "n1", flag, log=log) for flag in ("--no-requeue", "--requeue")
    )
    other = slurm.submit("true", "-w", "n2")
    assert slurm.wait_state(once) == "CANCELLED"
    assert wait_for(lambda: "DRAIN" in slurm.node_states()["n1"], 10)
    assert slurm.wait_state(other) == "COMPLETED"
    # Which of the two comes first drains the node: the other is then held, or waits for it.
    assert slurm.state(again) == "PENDING"
    assert set(log.read_text().splitlines()) == {"Error running slurm prolog: 1"}
    slurm.fail_prolog()
    slurm.undrain("n1")
    assert slurm.wait_state(slurm.submit("true", "-w", "n1")) == "COMPLETED"


def test_a_job_lives_on_while_its_slurmd_is_gone(slurm: Slurm) -> None:
    job_id = slurm.submit(SLEEP, "-w", "n1")
    slurm.wait_jobs(1)
    slurm.kill_slurmd("n1")
    pids = slurm.processes(job_id)
    assert pids
    slurm.start("n1")
    assert slurm.state(job_id) == "RUNNING"
    assert all(pid.is_alive for pid in pids)


def test_a_crashed_node_and_a_walltime_are_noticed(slurm: Slurm) -> None:
    lost, late = (slurm.submit(SLEEP, "--no-requeue", "-w", node) for node in slurm.nodes)
    slurm.wait_jobs(2)
    pids = slurm.processes(lost)
    assert pids
    slurm.end_time(late)
    slurm.crash("n1")
    assert not any(pid.is_alive for pid in pids), "a node takes all its processes along"
    assert slurm.wait_state(lost) == "NODE_FAIL"
    assert slurm.wait_state(late) == "TIMEOUT"
    slurm.start("n1")
    assert slurm.wait_state(slurm.submit("true", "-w", "n1")) == "COMPLETED"


def test_a_rig_ends_with_whoever_holds_its_leash(
    rig: Slurm, tmp_path_factory: pytest.TempPathFactory
) -> None:
    daemons = Daemons(tmp_path_factory.mktemp("second"))
    leash = [sys.executable, str(HERE / "daemons.py"), "leash", str(daemons.root)]
    with subprocess.Popen(leash, stdin=subprocess.PIPE, start_new_session=True) as holder:
        try:
            daemons.up()
            daemons.up()
            second = Slurm(daemons)
            job_id = second.submit(SLEEP)
            second.wait_jobs(1)
            assert rig.jobs() == [], "two rigs do not see each other"
            hosts = [daemons.init(name) for name in ("ctl", "n1", "n2")]
            pids = [pid for host in hosts if host for pid in (host, *host.descendants())]
            assert second.processes(job_id)
            assert len(pids) >= 8
        finally:
            assert holder.stdin is not None
            holder.stdin.close()
            assert holder.wait(20) == 0
    assert not any(pid.is_alive for pid in pids)
    daemons.down()


def test_no_signal_reaches_a_process_that_only_has_the_same_number(tmp_path: Path) -> None:
    mine = Pid.of(os.getpid())
    assert mine is not None
    earlier = Pid(mine.number, mine.started - 1)
    assert not earlier.send(signal.SIGCONT)
    earlier.write(tmp_path / "pid")
    assert Pid.read(tmp_path / "pid") is None


def test_a_command_is_run_as_a_user_does(
    apogee: CommandLine, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    assert "usage" in apogee("--help").said.lower()
    with pytest.raises(AssertionError, match="still runs after"):
        apogee("train", small_survey.store, "--out", tmp_path / "m", timeout_s=1)


def test_a_serial_run_by_the_command_line_is_the_undisturbed_one(
    apogee: CommandLine, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    config = small_survey.write_config(tmp_path / "c.toml", "serial")
    run = tmp_path / "run"
    with apogee.program(
        *small_survey.run_words(run, model=small_survey.model), "--config", config
    ) as program:
        program.wait_until((run / "ledger").is_dir, "it commits shards")
        program.succeed()
    small_survey.assert_same_catalog(run, is_model_given=True)
