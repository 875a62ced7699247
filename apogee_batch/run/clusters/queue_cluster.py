"""Dask workers in the jobs of a queue: Slurm, and by the same way PBS, SGE, LSF and HTCondor."""

import getpass
import logging
import random
import secrets
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from apogee_batch.errors import ClusterError, UsageError
from apogee_batch.run.clusters.dask_executor import LOGS_VARIABLE, DaskExecutor
from apogee_batch.run.clusters.dask_policy import OF_WORKERS, SELDOM, as_environment
from apogee_batch.run.clusters.endings import Endings
from apogee_batch.run.clusters.jobs import WorkerJob, job_script
from apogee_batch.run.clusters.keys import RunKeys, run_keys
from apogee_batch.run.clusters.plugins import log_plugin, pin_plugin, register, remove_empty_logs
from apogee_batch.run.clusters.probe import check_first_worker
from apogee_batch.run.clusters.queue_crew import QueueCrew
from apogee_batch.run.clusters.queues import Queue, open_queue
from apogee_batch.run.clusters.roster import Roster, unfinished_jobs
from apogee_batch.run.clusters.scheduler_view import SchedulerView
from apogee_batch.run.clusters.scratch import private_scratch
from apogee_batch.run.clusters.silence import Silence
from apogee_batch.run.clusters.standstill import forgive_standstill
from apogee_batch.run.clusters.supervisor import Limits, Supervisor
from apogee_batch.run.clusters.workers import TASKS_OF_A_GPU, Workers
from apogee_batch.run.config import ClusterSettings, Device
from apogee_batch.run.job_settings import refuse_control_characters
from apogee_batch.run.progress import ProgressView, say_and_log

DEATH_TIMEOUT_S = 60.0  # a worker that finds no scheduler for so long leaves
START_S = 300.0  # Python, torch and Dask from a busy file system need minutes
# A worker leaves before its walltime ends, so that nothing is killed as it writes. What it has in hand begins
# elsewhere at once, and Dask gives it half a minute to end.
KILL_WAIT_S = 150.0  # what a queue may take from SIGTERM to SIGKILL, and some time to spare
SPARE_SHARE, MOST_SPARE_S = 0.1, 600.0  # of the walltime, beside that
STAGGER_SHARE, MOST_STAGGER_S = 0.05, 300.0  # of the lifetime: not all jobs leave at once
LEAST_LIFETIME_S = 300.0
LEAST_TTL_S = 15.0  # a healthy worker hears nothing for so long while it loads torch on a busy node
logger = logging.getLogger(__name__)


@contextmanager
def queue_cluster(
    settings: ClusterSettings,
    role: Literal["cpu", "gpu"],
    *,
    logs: Path,
    folders: Sequence[Path],
    progress: ProgressView,
) -> Iterator[Workers]:
    """Workers in jobs, which come when a stage asks for them and are given back at the end of the block.

    Parameters
    ----------
    settings : ClusterSettings
        Of a kind with a queue.
    role : {"cpu", "gpu"}
        Which kind of job.
    logs : Path
        Folder for job scripts, what jobs print, and the list of jobs.
    folders : sequence of Path
        What a worker must be able to read and write.
    progress : ProgressView
        Told what happens to jobs.

    Raises
    ------
    ClusterError
        If the scheduler cannot be started, or the queue does not take jobs.
    UsageError
        If the name of the folder has no place in a script.
    """
    job = settings.job(role)
    _check_folder(logs)
    logs.mkdir(parents=True, exist_ok=True)
    queue = open_queue(settings.kind, timeout_s=settings.command_timeout_s)
    _cancel_leftovers(queue, logs, progress)
    with ExitStack() as stack:
        keys = stack.enter_context(run_keys(logs.parent / "keys")) if settings.tls else None
        cluster = stack.enter_context(_scheduler(settings, keys))
        client = stack.enter_context(_client(cluster))
        register(client, pin_plugin(()))
        register(client, log_plugin(logs, takes_stderr=False))
        stack.callback(remove_empty_logs, logs)
        n_workers = settings.workers or job.processes
        tls = None if keys is None else keys.worker_files()
        template = worker_job(settings, role, scheduler=cluster.scheduler_address, logs=logs, tls=tls)
        launcher = _Launcher(queue, template, logs)
        launcher.test(progress)
        view = SchedulerView(cluster)
        roster = Roster(logs)
        executor = DaskExecutor(client)
        seen = [str(folder) for folder in folders]
        device: Device = "cpu" if role == "cpu" else settings.device
        say = partial(say_and_log, progress)
        check = partial(check_first_worker, executor, seen, job, device, say)
        crew = QueueCrew(
            client,
            n_workers,
            n_processes=job.processes,
            view=view,
            supervisor=Supervisor(
                queue,
                launcher.submit,
                roster,
                Endings(settings.max_lost_jobs),
                n_processes=job.processes,
                limits=Limits(settings.frozen_after_s, START_S),
                say=say,
            ),
            roster=roster,
            silence=Silence(queue, say, settings.say_after_s),
            walltime_s=job.walltime_s,
            on_first=check,
        )
        stack.callback(crew.close)
        text = f"up to {n_workers} in {settings.kind} jobs ({role}){_tunnel(cluster.dashboard_link)}"
        yield Workers(executor, n_workers, text, logs, crew)


def _check_folder(folder: Path) -> None:
    """Refuse a folder whose name no script can hold, before anything is made in it."""
    try:
        refuse_control_characters(str(folder))
    except ValueError as error:
        raise UsageError(f"{error}; name another folder for the run") from error


def _cancel_leftovers(queue: Queue, logs: Path, progress: ProgressView) -> None:
    """Take out of the queue what a driver left there that was killed: nobody would answer those jobs."""
    left = unfinished_jobs(logs)
    listed = queue.list(list(left)) if left else {}
    if listed is None:
        progress.say(
            f"WARNING: the queue does not list the {len(left)} jobs of an earlier driver of this run; those "
            "that are left end by themselves a minute after they start"
        )
        return
    ours = [job_id for job_id, state in listed.items() if state.name == left[job_id]]
    if ours:
        queue.cancel(ours)
        progress.say(f"cancelled {len(ours)} jobs that an earlier driver of this run left in the queue")


@contextmanager
def _scheduler(settings: ClusterSettings, keys: RunKeys | None) -> Iterator[Any]:
    """Start a scheduler in this process, reachable from the nodes by whoever has the keys."""
    import dask
    from distributed import LocalCluster

    policy = {  # each death is told to the driver, which knows why it was
        **SELDOM,
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.worker-ttl": f"{max(LEAST_TTL_S, settings.frozen_after_s):.0f}s",
    }
    try:
        with dask.config.set(policy), private_scratch():
            cluster = LocalCluster(
                n_workers=0,
                processes=True,
                protocol="tcp://" if keys is None else "tls://",
                security=None if keys is None else keys.security(),
                host=_own_address(settings.interface),
                dashboard_address="127.0.0.1:0",
                silence_logs="CRITICAL",
            )
    except (OSError, RuntimeError, TimeoutError, ValueError) as error:
        raise ClusterError(f"no Dask scheduler on this host: {error}; try --interface") from error
    try:
        with cluster:
            forgive_standstill(cluster.scheduler)
            yield cluster
    finally:
        logging.disable(logging.NOTSET)


def _own_address(interface: str | None) -> str:
    """Return the address at which the nodes reach this host."""
    from distributed.utils import get_ip, get_ip_interface

    if interface is not None:
        return str(get_ip_interface(interface))
    with warnings.catch_warnings():  # a host without a network is told by the address itself
        warnings.simplefilter("ignore", RuntimeWarning)
        return str(get_ip())


@contextmanager
def _client(cluster: Any) -> Iterator[Any]:
    from distributed import Client

    with Client(cluster) as client:
        try:
            yield client
        except BaseException:
            logging.disable(logging.CRITICAL)  # workers that are stopped in a task log lost connections
            raise


def worker_job(
    settings: ClusterSettings,
    role: Literal["cpu", "gpu"],
    *,
    scheduler: str,
    logs: Path,
    tls: Mapping[str, str] | None,
) -> WorkerJob:
    """Describe the jobs of a cluster; each gets a name of its own when it is submitted.

    Parameters
    ----------
    settings : ClusterSettings
        Of a kind with a queue.
    role : {"cpu", "gpu"}
        Which kind of job.
    scheduler : str
        Address of the Dask scheduler.
    logs : Path
        Folder for what jobs print.
    tls : mapping of str to str, optional
        Paths of `ca_file`, `cert` and `key`.
    """
    job = settings.job(role)
    has_gpu = settings.device == "cuda" or (settings.device == "auto" and job.gres is not None)
    lifetime = job.walltime_s - KILL_WAIT_S - min(SPARE_SHARE * job.walltime_s, MOST_SPARE_S)
    return WorkerJob(
        settings=job,
        kind=settings.kind,
        name=f"apogee-{role}-{secrets.token_hex(3)}",
        scheduler=scheduler,
        logs=logs,
        tls=tls,
        interface=settings.interface,
        lifetime_s=lifetime if lifetime >= LEAST_LIFETIME_S else None,
        lifetime_stagger_s=min(STAGGER_SHARE * lifetime, MOST_STAGGER_S),
        death_timeout_s=DEATH_TIMEOUT_S,
        extra_environment={LOGS_VARIABLE: str(logs), **as_environment(OF_WORKERS)},
        tasks_each=TASKS_OF_A_GPU if role == "gpu" and has_gpu else 1,
    )


@dataclass(frozen=True)
class _Launcher:
    """Makes and submits jobs.

    Attributes
    ----------
    queue : Queue
    job : WorkerJob
        All but its name.
    logs : Path
        Where a copy of each script is kept.
    """

    queue: Queue
    job: WorkerJob
    logs: Path

    def _script(self, worker: str) -> str:
        """Return the script of a job, whose processes leave together; two jobs leave one after the other."""
        job, lifetime_s = self.job, self.job.lifetime_s
        if lifetime_s is not None:
            lifetime_s += random.uniform(-job.lifetime_stagger_s, job.lifetime_stagger_s)  # noqa: S311
        own = replace(job, name=self._name_of(worker), lifetime_s=lifetime_s, lifetime_stagger_s=0.0)
        return job_script(own, worker)

    def _name_of(self, worker: str) -> str:
        return f"{self.job.name}-{worker}"

    def test(self, progress: ProgressView) -> None:
        """Ask the queue whether it would take such a job."""
        told = self.queue.test(self._script("w0"))
        if told:
            progress.say(f"queue: {told}")

    def submit(self, worker: str) -> tuple[str, str]:
        """Submit the job of a worker; return its id and name."""
        return self.queue.submit(self._script(worker), folder=self.logs), self._name_of(worker)


def _tunnel(link: str) -> str:
    """Say how to see the dashboard from elsewhere; only where it can be drawn, for which Dask needs bokeh."""
    if not find_spec("bokeh"):
        return ""
    port = urlsplit(link).port
    return (
        f", dashboard http://localhost:{port}/status after "
        f"'ssh -N -L {port}:127.0.0.1:{port} {getpass.getuser()}@{socket.gethostname()}'"
    )
