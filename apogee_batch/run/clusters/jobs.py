"""Job scripts: what is handed to a queue system to start worker processes.

dask-jobqueue knows the directives and commands of each system. It puts what it is given into the script as
it is, and takes from the user's configuration what it is not given; so it gets all, quoted for its place.
"""

import math
import re
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apogee_batch.errors import ClusterError, UsageError
from apogee_batch.run.clusters.directives import Directives, directives_of, shell_word, submit_file_text
from apogee_batch.run.clusters.scratch import SHELL_BASE, SHELL_SCRATCH, shell_line
from apogee_batch.run.config import ClusterKind
from apogee_batch.run.job_settings import JobSettings, is_variable_name, refuse_control_characters

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # else the nanny says 1 for each
TLS_OPTIONS = {"ca_file": "--tls-ca-file", "cert": "--tls-cert", "key": "--tls-key"}
SECTION = "apogee-batch"  # of Dask's configuration: nobody's settings
KEYS = """
    name cores memory processes python interface death-timeout local-directory extra worker-command
    worker-extra-args job-extra job-extra-directives env-extra job-script-prologue header-skip
    job-directives-skip log-directory shebang queue account project walltime job-cpu job-mem resource-spec
    ncpus mem lsf-units use-stdin disk submit-command-extra cancel-command-extra
"""
_JOB_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]{0,99}", re.ASCII)
_ADDRESS = re.compile(r"(tls|tcp)://[A-Za-z0-9_.:\[\]%-]+:\d{1,5}", re.ASCII)


@dataclass(frozen=True)
class WorkerJob:
    """A job that holds worker processes.

    Attributes
    ----------
    settings : JobSettings
        What it asks of the queue system.
    kind : ClusterKind
        The queue system.
    name : str
        Name of the job.
    scheduler : str
        Address that the workers connect to.
    logs : Path
        Folder of its log; all hosts must see it.
    tls : mapping, optional
        Paths of `ca_file`, `cert` and `key`.
    interface : str, optional
        Network interface of the workers.
    lifetime_s : float, optional
        Time after which a worker takes no more tasks and leaves.
    lifetime_stagger_s : float
        By how much those of several workers differ, at random.
    death_timeout_s : float
        Time without a scheduler after which a worker leaves.
    extra_environment : mapping
        Environment variables of the workers.
    tasks_each : int
        Tasks that a process does at the same time.
    """

    settings: JobSettings
    kind: ClusterKind
    name: str
    scheduler: str
    logs: Path
    tls: Mapping[str, str] | None
    interface: str | None
    lifetime_s: float | None
    lifetime_stagger_s: float
    death_timeout_s: float
    extra_environment: Mapping[str, str]
    tasks_each: int = 1


def job_script(job: WorkerJob, worker: str) -> str:
    """Return the text that is submitted for a job.

    Parameters
    ----------
    job : WorkerJob
        The job.
    worker : str
        Name of its worker; several processes get -0, -1 and so on behind it.

    Raises
    ------
    UsageError
        If a setting has no meaning for the queue system, or a value no place in a script.
    """
    _check(job, worker)
    settings = job.settings
    directives = directives_of(job.kind, settings, job.name, job.logs)
    base = SHELL_BASE if settings.local_directory is None else shell_word(settings.local_directory)
    asked = {
        "scheduler": shlex.quote(job.scheduler),
        "name": shlex.quote(worker),
        "job_name": job.name,
        # -P: no modules from the folder where the command was given, where some random.py may lie
        "python": f"exec {shell_word(settings.python or sys.executable)} -P",
        "cores": settings.processes * job.tasks_each,  # of dask-jobqueue: threads for tasks
        "processes": settings.processes,
        "memory": str(settings.memory_bytes),
        "nanny": True,
        "death_timeout": math.ceil(job.death_timeout_s),
        "local_directory": SHELL_SCRATCH,
        "worker_command": "distributed.cli.dask_worker",
        "worker_extra_args": [shlex.quote(word) for word in _worker_words(job)],
        "job_script_prologue": [*directives.prologue, *settings.prologue, *_exports(job), shell_line(base)],
        "shebang": settings.shebang,
    }
    return _written(job.kind, directives, asked)


def _check(job: WorkerJob, worker: str) -> None:
    """Refuse what the settings have not checked."""
    if _JOB_NAME.fullmatch(job.name) is None:
        raise UsageError(f"{job.name!r} cannot be the name of a job; use letters, digits, '.', '-' and '_'")
    if _ADDRESS.fullmatch(job.scheduler) is None:
        raise UsageError(f"{job.scheduler!r} is not the address of a scheduler")
    for name in job.extra_environment:
        if not is_variable_name(name):
            raise UsageError(f"{name!r} cannot be the name of an environment variable")
    texts = [
        worker,
        str(job.logs),
        job.interface or "",
        *(job.tls or {}).values(),
        *job.extra_environment.values(),
    ]
    try:
        for text in texts:
            refuse_control_characters(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _worker_words(job: WorkerJob) -> list[str]:
    """Return the words of the worker's command line that dask-jobqueue does not write."""
    # A worker serves plain HTTP, with a dashboard or without; nobody beyond its host must reach it.
    words = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    for key, option in TLS_OPTIONS.items():
        words += [] if job.tls is None else [option, job.tls[key]]
    if job.interface is not None:
        words += ["--interface", job.interface]
    if job.lifetime_s is not None:
        words += ["--lifetime", f"{math.floor(job.lifetime_s)}s"]
        words += ["--lifetime-stagger", f"{math.floor(job.lifetime_stagger_s)}s"]
    return [*words, *job.settings.worker_args]


def _exports(job: WorkerJob) -> list[str]:
    n_threads = str(max(1, job.settings.cores // job.settings.processes))
    environment = {**dict.fromkeys(THREADS, n_threads), **job.extra_environment}
    return [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]


def _written(kind: ClusterKind, directives: Directives, asked: dict[str, Any]) -> str:
    """Let dask-jobqueue write a script, which must find nothing in the user's configuration."""
    import dask.config

    job_class = _job_class(kind)
    dask.config.set({f"jobqueue.{SECTION}": dict.fromkeys(KEYS.split())})
    if kind == "htcondor":  # one word of a shell's command line, in a file with $(macros) of its own
        lines = [f"eval {shlex.quote(line)}" for line in asked["job_script_prologue"]]
        asked = {**asked, "job_script_prologue": [submit_file_text(line) for line in lines]}
        for key in ("scheduler", "name", "python", "local_directory"):
            asked[key] = submit_file_text(asked[key])
        asked["worker_extra_args"] = [submit_file_text(word) for word in asked["worker_extra_args"]]
    made = job_class(
        **asked,
        **directives.asked,
        job_extra_directives=directives.extra,
        job_directives_skip=directives.skip,
        config_name=SECTION,
    )
    return f"{made.job_script().rstrip()}\n"


def _job_class(kind: ClusterKind) -> Any:
    """Return dask-jobqueue's class for a queue system."""
    with _keeping_ctrl_c():
        from dask_jobqueue.htcondor import HTCondorJob
        from dask_jobqueue.lsf import LSFJob
        from dask_jobqueue.pbs import PBSJob
        from dask_jobqueue.sge import SGEJob
        from dask_jobqueue.slurm import SLURMJob

    return {"slurm": SLURMJob, "pbs": PBSJob, "sge": SGEJob, "lsf": LSFJob, "htcondor": HTCondorJob}[kind]


@contextmanager
def _keeping_ctrl_c() -> Iterator[None]:
    """Keep what Ctrl-C does: once dask-jobqueue is imported, it would end the process as if all was well."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


def submit_command(kind: ClusterKind) -> list[str]:
    """Return the command that submits a job script."""
    return shlex.split(_job_class(kind).submit_command)


def cancel_command(kind: ClusterKind) -> list[str]:
    """Return the command that cancels jobs, given their ids."""
    return shlex.split(_job_class(kind).cancel_command)


def job_id_of(kind: ClusterKind, output: str) -> str:
    """Return the id of a job from what its submission printed.

    Raises
    ------
    ClusterError
        If there is none in it.
    """
    job_class = _job_class(kind)
    try:
        return str(job_class._job_id_from_submit_output(job_class, output))  # needs nothing of a job
    except ValueError as error:
        said = " ".join(output.split())
        raise ClusterError(f"{job_class.submit_command} gave no job id, it said: {said}") from error
