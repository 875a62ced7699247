"""Job scripts ask for what the settings say, and of nobody else's settings.

Slurm's were run on a real queue; those of PBS, SGE, LSF and HTCondor were not: what is tested of them is the
text, and that a shell makes of it the command that was meant.
"""

import os
import re
import shlex
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from worker_jobs import PREFIXES, fake_python, make_job, run_fake, words_of

from apogee_batch.errors import ClusterError, UsageError
from apogee_batch.run.clusters.directives import shell_word
from apogee_batch.run.clusters.jobs import KEYS, cancel_command, job_id_of, job_script, submit_command
from apogee_batch.run.config import QUEUE_KINDS, ClusterKind

LINES = """#!/bin/bash

#SBATCH -J apogee-gpu-1
#SBATCH -p gpu
#SBATCH -A a.b
#SBATCH -n 1
#SBATCH --cpus-per-task=4
#SBATCH --mem=3815M
#SBATCH -t 26:03:04
#SBATCH --no-requeue
#SBATCH -o "/run/logs/job-%j.log"
#SBATCH -e "/run/logs/job-%j.log"
#SBATCH --qos=high
#SBATCH --gres=gpu:a100:2
#SBATCH --constraint=a&b|c*2
#SBATCH --reservation=res
#SBATCH --nodelist=n[1-2]
#SBATCH --exclude=n3
#SBATCH --exclusive
#SBATCH --mail-type=END
module load "x y"
export OMP_NUM_THREADS=2
export MKL_NUM_THREADS=2
export OPENBLAS_NUM_THREADS=2
export DASK_X__Y=value
"""


def test_slurm_is_asked_for_what_the_settings_say() -> None:
    job = make_job(
        partition="gpu",
        account="a.b",
        qos="high",
        gres="gpu:a100:2",
        constraint="a&b|c*2",
        reservation="res",
        nodelist="n[1-2]",
        exclude="n3",
        directives=["--exclusive", "--mail-type=END"],
        prologue=['module load "x y"'],
        interface="ib0",
        worker_args=["--resources", "GPU=1 MEM=2"],
        local_directory="/scr atch",
    )
    *lines, scratch, command = job_script(job, "w-1").splitlines()
    assert lines == LINES.splitlines()
    assert scratch.startswith("base='/scr atch'; ")
    assert shlex.split(command) == [
        *["exec", "/py", "-P", "-m", "distributed.cli.dask_worker", "tls://10.0.0.1:8786", "--name", "w-1"],
        *["--nthreads", "1", "--memory-limit", "1.86GiB", "--nworkers", "2", "--nanny"],
        *["--death-timeout", "60", "--local-directory", "$scratch"],
        *["--no-dashboard", "--dashboard-address", "127.0.0.1:0"],
        *["--tls-ca-file", "/keys/ca", "--tls-cert", "/keys/cert", "--tls-key", "/keys/key"],
        *["--interface", "ib0", "--lifetime", "3000s", "--lifetime-stagger", "60s"],
        *["--resources", "GPU=1 MEM=2"],
    ]


def test_a_job_of_one_process_has_all_its_cores_as_threads_of_libraries() -> None:
    job = make_job(processes=1, cores=8, tls=None, lifetime_s=None, scheduler="tcp://h:1")
    script = job_script(job, "w")
    assert "export OMP_NUM_THREADS=8\n" in script
    assert "--nthreads 1 --memory-limit 3.73GiB --nanny" in script
    assert "tcp://[::1]:8786" in words_of(job_script(replace(job, scheduler="tcp://[::1]:8786"), "w"))
    for option in ("--nworkers", "--tls", "--lifetime"):
        assert option not in script


def test_scratch_is_that_of_the_job_unless_said_otherwise(tmp_path: Path) -> None:
    python = str(fake_python(tmp_path))
    folders = {
        None: "/tmp",
        "$SCRATCH": f"{tmp_path}/scr atch",
        "${SCRATCH}/a b": f"{tmp_path}/scr atch/a b",
        "~/x": f"{tmp_path}/home/x",
        f"{tmp_path}/$(id)": f"{tmp_path}/$(id)",
    }
    for said, meant in folders.items():
        called = run_fake(job_script(make_job(python=python, local_directory=said), "w"), tmp_path)
        assert called[called.index("--local-directory") + 1] == f"{meant}/apogee-batch-{os.getuid()}"
    assert shell_word("/a/$b") == "'/a/$b'"
    assert shell_word("$(id)") == "'$(id)'"
    assert shell_word("$A$(id)") == "'$A$(id)'"


def test_directives_can_be_left_out() -> None:
    job = make_job(skip_directives=["--mem", "--gres"], gres="gpu:1", directives=["--mem-per-gpu=4G"])
    script = job_script(job, "w")
    assert "--mem=" not in script
    assert "--gres" not in script
    assert "#SBATCH --mem-per-gpu=4G\n" in script
    assert "#SBATCH --mem=5723M\n" in job_script(make_job(job_memory="6GB"), "w")


SELECT = "-l select=1:ncpus=4:mem=3815MB"
ESSENTIAL = {
    "pbs": ["-N apogee-gpu-1", "-q queue", "-A acc", SELECT, "-l walltime=26:03:04", "-r n"],
    "sge": [
        "-N apogee-gpu-1",
        "-q queue",
        "-P acc",
        "-l h_vmem=954M",
        "-l h_rt=26:03:04",
        "-pe smp 4",
        "-r n",
    ],
    "lsf": [
        "-J apogee-gpu-1",
        "-q queue",
        '-P "acc"',
        "-n 4",
        '-R "span[hosts=1]"',
        "-M 4001",
        "-W 26:04",
        "-rn",
    ],
}
LOGS = {"pbs": "-o /run/logs/", "sge": "-o /run/logs/job-$JOB_ID.log", "lsf": "-o /run/logs/job-%J.log"}


@pytest.mark.parametrize("kind", ["pbs", "sge", "lsf"])
def test_other_queues_are_asked_for_the_same(kind: ClusterKind) -> None:
    """Not run on a real queue."""
    job = make_job(kind, partition="queue", account="acc", directives=["-x 1"], lsf_units="mb")
    script = job_script(job, "w")
    directives = [line for line in script.splitlines()[2:] if line.startswith(PREFIXES[kind])]
    for essential in [*ESSENTIAL[kind], LOGS[kind]]:
        assert f"{PREFIXES[kind]} {essential}" in directives
    assert directives[-1] == f"{PREFIXES[kind]} -x 1"
    of_slurm = words_of(job_script(make_job(), "w"))
    assert words_of(script)[-len(of_slurm) :] == of_slurm


@pytest.mark.parametrize("kind", ["pbs", "sge"])
def test_other_queues_can_be_asked_in_their_own_words(kind: ClusterKind) -> None:
    """Not run on a real queue."""
    script = job_script(make_job(kind, resource_spec="select=2:ngpus=1"), "w")
    assert f"{PREFIXES[kind]} -l select=2:ngpus=1\n" in script
    assert "3815" not in script
    with pytest.raises(UsageError, match="resource_spec: slurm has no such setting"):
        job_script(make_job("slurm", resource_spec="select=2:ngpus=1"), "w")


def arguments_of(script: str) -> str:
    """Undo the quoting of HTCondor's submit file: the text that /bin/sh gets after -c."""
    line = next(line for line in script.splitlines() if line.startswith("Arguments = "))
    match = re.fullmatch(r"""Arguments = "-c '(.*)'\"""", line)
    assert match is not None
    assert not re.search(r"\$(?!\(DOLLAR\))", match[1])
    return match[1].replace("$(DOLLAR)", "$").replace('""', '"').replace("''", "'")


def test_htcondor_is_asked_for_the_same(tmp_path: Path) -> None:
    """Not run on a real queue."""
    python = fake_python(tmp_path, "my $(py) 'x' \"y\"")
    asked = {"account": "acc", "disk": "7GB", "directives": ["+Big = True"]}
    prologue = ["A=1 # why", 'B="$A"', "touch $B"]
    job = make_job("htcondor", python=str(python), prologue=prologue, **asked)
    script = job_script(replace(job, extra_environment={"DASK_X__Y": "'\"$(HOME) "}), "w")
    essential = ["RequestCpus = 4", "RequestMemory = 3815", "accounting_group = acc", "+Big = True"]
    for line in [*essential, "MY.DaskWorkerDisk = 7000000000"]:
        assert line in script.splitlines()
    assert "EnteredCurrentStatus > 93784)" in script
    assert "Output = /run/logs/job-$(ClusterId).$(ProcId).log" in script
    called = run_fake(arguments_of(script), tmp_path, shell="sh")
    assert called[:4] == ["-P", "-m", "distributed.cli.dask_worker", "tls://10.0.0.1:8786"]
    assert called[-2:] == ["'\"$(HOME) ", "2"]
    assert (tmp_path / "1").exists()
    with pytest.raises(UsageError, match="key = value"):
        job_script(make_job("htcondor", directives=["no"]), "w")


@pytest.mark.parametrize("kind", ["pbs", "sge", "lsf", "htcondor"])
@pytest.mark.parametrize("key", ["gres", "constraint", "qos"])
def test_what_only_slurm_knows_is_refused_elsewhere(kind: ClusterKind, key: str) -> None:
    with pytest.raises(UsageError, match=f"{key}: {kind} has no such setting"):
        job_script(make_job(kind, **{key: "a"}), "w")


@pytest.mark.parametrize("kind", QUEUE_KINDS)
def test_nothing_of_the_users_configuration_of_dask_gets_in(
    kind: ClusterKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask.config

    clean = job_script(make_job(kind, lsf_units="mb"), "w")
    lists = ("job-", "worker-extra", "env-", "extra", "header-")
    evil: dict[str, Any] = {key: ["EVIL"] if key.startswith(lists) else "EVIL" for key in KEYS.split()}
    monkeypatch.setenv("PBS_ACCOUNT", "EVIL")
    with (
        dask.config.set({f"jobqueue.{kind}": evil, "jobqueue.apogee-batch": evil}),
        warnings.catch_warnings(action="error"),
    ):
        assert job_script(make_job(kind, lsf_units="mb"), "w") == clean
    assert "EVIL" not in clean


def test_a_pbs_job_writes_its_log_where_the_others_do(tmp_path: Path) -> None:
    """Not run on a real queue: PBS itself cannot put the id of a job into the name of its log."""
    logs = tmp_path / "logs"
    logs.mkdir()
    prologue = ["echo hello; echo there >&2"]
    job = make_job("pbs", python=str(fake_python(tmp_path)), logs=logs, prologue=prologue)
    run_fake(job_script(job, "w"), tmp_path)
    assert (logs / "job-7.x.log").read_text() == "hello\nthere\n"


@pytest.mark.parametrize(
    ("kind", "submit", "cancel", "said", "job_id"),
    [
        ("slurm", "sbatch", "scancel", "Submitted batch job 77", "77"),
        ("pbs", "qsub", "qdel", "12.server", "12"),
        ("sge", "qsub", "qdel", 'Your job 12 ("x") has been submitted', "12"),
        ("lsf", "bsub", "bkill", "Job <123> is submitted to queue <q>.", "123"),
        ("htcondor", "condor_submit", "condor_rm", "1 job(s) submitted to cluster 5.", "5.0"),
    ],
)
def test_commands_of_the_queues(kind: ClusterKind, submit: str, cancel: str, said: str, job_id: str) -> None:
    assert (submit_command(kind), cancel_command(kind)) == ([submit], [cancel])
    assert job_id_of(kind, said) == job_id
    with pytest.raises(ClusterError, match=f"{submit} gave no job id, it said: no way"):
        job_id_of(kind, "no\nway\n")


def test_making_a_script_leaves_ctrl_c_as_it_was() -> None:
    code = (
        "import signal; from apogee_batch.run.clusters.jobs import submit_command; "
        "submit_command('slurm'); "
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
