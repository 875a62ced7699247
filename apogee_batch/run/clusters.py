"""Where the work runs: this process, a Dask cluster on this machine, or a scheduler that is already up.

The only module that knows Dask. Stages see a `concurrent.futures.Executor`; another kind of cluster
is another branch of `open_workers`.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from apogee_batch.errors import ClusterError, UsageError
from apogee_batch.run.config import ClusterSettings, Device
from apogee_batch.run.refill import Refill
from apogee_batch.run.worker_logs import WorkerLog, describe_end, find_log, host_of_log, remove_if_empty

CONNECT_TIMEOUT_S = 30
REGISTER_TRIES = 4
NO_WORKERS_TIMEOUT = "5 minutes"  # a worker that imports torch from a busy file system needs one or two
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """What runs the tasks of a stage.

    Attributes
    ----------
    executor : Executor
        Takes tasks; their arguments are paths and numbers.
    n_workers : int
        Tasks that run at the same time.
    description : str
        For people: what and how many.
    logs : Path, optional
        Where the workers write their logs.
    """

    executor: Executor
    n_workers: int
    description: str
    logs: Path | None = None


class SerialExecutor(Executor):
    """Run each task at once, in this process: for tests, debuggers and a failing shard."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` now; its result or its exception is in the future that is returned."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  an executor hands every error to whoever asks for the result
            future.set_exception(error)
        return future


def is_lost_worker(error: BaseException) -> bool:
    """Tell whether a task ended because its worker died; others go on, so it can be tried again."""
    return _is_of_dask(error) and type(error).__name__ == "KilledWorker"


def is_lost_cluster(error: BaseException) -> bool:
    """Tell whether a task ended because nothing is there any more to run tasks."""
    return isinstance(error, CancelledError | BrokenExecutor) or (
        _is_of_dask(error) and not is_lost_worker(error)
    )


def _is_of_dask(error: BaseException) -> bool:
    return type(error).__module__.startswith("distributed.")


def describe_death(workers: Workers, error: BaseException) -> str:
    """Say where a lost worker was and what most likely ended it, of an error that `is_lost_worker` knows."""
    worker: Any = error.args[1]  # the scheduler's last state of it
    log = None if workers.logs is None else find_log(workers.logs, worker.server_id)
    host = worker.host if log is None else host_of_log(log)
    return f"its worker on {host} died, {describe_end(log)}"


def available_cores() -> int:
    """Return the cores that this process may use, which on a cluster node are not all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers(device: Device) -> int:
    """Return how many local processes fit a device: one a core, or one for the GPU where torch sees one."""
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            return 1
    return available_cores()


@contextmanager
def open_workers(settings: ClusterSettings, *, logs: Path | None = None) -> Iterator[Workers]:
    """Start workers, or reach those that are up, and let them go at the end of the block.

    Parameters
    ----------
    settings : ClusterSettings
        Where they are, and how many.
    logs : Path, optional
        Folder for a log of each worker process, which all hosts should see.

    Raises
    ------
    ClusterError
        If they cannot be started or reached.
    UsageError
        If the settings contradict one another.
    """
    if settings.kind != "address" and settings.address:
        raise UsageError("--address is the address of a running scheduler; it goes with --cluster address")
    if settings.kind == "serial":
        yield Workers(SerialExecutor(), 1, "this process")
    elif settings.kind == "address":
        with _dask_at_address(settings.address, logs) as workers:
            yield workers
    else:
        with _local_dask(settings.workers or default_workers(settings.device), logs) as workers:
            yield workers


@contextmanager
def _local_dask(n_workers: int, logs: Path | None) -> Iterator[Workers]:
    """One single-threaded process a core; nothing listens outside this machine."""
    from distributed import Client

    # A worker that is stopped in a task leaves semaphores, which Python cleans up and warns about.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    cluster = _empty_cluster()
    text = f"{n_workers} local worker{'s' * (n_workers > 1)}{_dashboard(cluster.dashboard_link)}"
    try:
        with cluster, Client(cluster) as client, _silent_when_interrupted():
            refill = Refill(cluster, n_workers)
            refill.start_all()
            with refill.from_time_to_time():
                if logs is not None:
                    _register(client, _log_plugin(logs, takes_stderr=True))
                yield Workers(_executor(client), n_workers, text, logs)
    finally:
        logging.disable(logging.NOTSET)
        _remove_empty_logs(logs)


def _empty_cluster() -> Any:
    """Start a scheduler in this process."""
    import dask
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    policy = {  # each death is told to the driver, which counts them; a cluster without workers is, too
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.no-workers-timeout": NO_WORKERS_TIMEOUT,
    }
    try:
        with dask.config.set(policy):
            return LocalCluster(
                n_workers=0,  # they are started by `Refill`
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # a free port: the default is often taken
                memory_limit=MEMORY_LIMIT,  # the share of one in n would kill the worker that trains
                silence_logs="CRITICAL",  # what ends a task is told by the driver, once
            )
    except (OSError, RuntimeError, TimeoutError) as error:
        raise ClusterError(f"no local Dask cluster: {error}; try --cluster serial") from error


def _executor(client: Any) -> Executor:
    """Make each submission a task of its own: a repeated one must not get the result of the first."""
    executor: Executor = client.get_executor(pure=False)
    return executor


def _log_plugin(logs: Path, *, takes_stderr: bool) -> Any:
    """Return what opens a `WorkerLog` in each worker process, also in those that start later."""
    from distributed import WorkerPlugin

    class WorkerLogs(WorkerPlugin):  # type: ignore[misc]
        name = f"apogee-batch-logs-{os.getpid()}"

        def setup(self, worker: Any) -> None:
            if takes_stderr:  # a worker of our own: Ctrl-C at a terminal is for the driver, who tells it
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                self.log: WorkerLog | None = WorkerLog(logs, worker.id, takes_stderr=takes_stderr)
            except OSError:  # a host that does not see the folder: its workers work all the same
                self.log = None

        def teardown(self, worker: Any) -> None:  # noqa: ARG002  how Dask calls it
            if self.log is not None:
                self.log.close()

    return WorkerLogs()


def _register(client: Any, plugin: Any) -> None:
    """Give a plugin to all workers, also where one dies meanwhile."""
    for n_left in reversed(range(REGISTER_TRIES)):
        try:
            client.register_plugin(plugin)
            return
        except OSError as error:
            if not n_left:
                raise ClusterError(f"the workers cannot be told where to log: {error}") from error


def _remove_empty_logs(logs: Path | None) -> None:
    """Remove what was left by workers that ended without a word, for example with their driver."""
    for log in [] if logs is None else logs.glob("worker-*.log"):
        remove_if_empty(log)


@contextmanager
def _silent_when_interrupted() -> Iterator[None]:
    """Leave the last word to what ends the block: workers stopped in a task log lost connections."""
    try:
        yield
    except BaseException:
        logging.disable(logging.CRITICAL)
        raise


@contextmanager
def _dask_at_address(address: str | None, logs: Path | None) -> Iterator[Workers]:
    """Workers of a scheduler that somebody else started."""
    from distributed import Client

    if not address:
        raise UsageError("--cluster address needs --address, for example tcp://127.0.0.1:8786")
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_S)
    except (OSError, TypeError, ValueError) as error:  # TypeError: tls:// without certificates
        raise ClusterError(f"{address}: no Dask scheduler answers there ({error})") from error
    with client:
        found = client.scheduler_info(n_workers=-1)["workers"].values()
        n_workers = sum(worker["nthreads"] for worker in found)  # tasks that run at the same time
        if n_workers == 0:
            raise ClusterError(f"{address}: the scheduler has no workers; start some with 'dask worker'")
        text = f"{len(found)} workers of {address}{_dashboard(client.dashboard_link)}"
        with _logging_workers(client, logs):
            yield Workers(_executor(client), n_workers, text, logs)


@contextmanager
def _logging_workers(client: Any, logs: Path | None) -> Iterator[None]:
    """Let the workers of somebody's scheduler write logs, as long as they are borrowed."""
    if logs is None:
        yield
        return
    plugin = _log_plugin(logs, takes_stderr=False)
    _register(client, plugin)
    try:
        yield
    finally:
        with suppress(OSError):  # workers or all of the cluster may be gone: their logs are closed
            if client.status == "running":
                client.unregister_worker_plugin(plugin.name)
        _remove_empty_logs(logs)


def _dashboard(link: str) -> str:
    """Name the dashboard only where it can be drawn: Dask needs bokeh for it."""
    from importlib.util import find_spec

    return f", dashboard {link}" if find_spec("bokeh") else ""
