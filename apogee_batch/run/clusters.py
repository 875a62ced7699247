"""Where the work runs: this process, a Dask cluster on this machine, or a scheduler that is already up.

The only module that knows Dask. Stages see a `concurrent.futures.Executor`; another kind of cluster
is another branch of `open_workers`.
"""

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from apogee_batch.errors import ClusterError, UsageError
from apogee_batch.run.config import ClusterSettings, Device

CONNECT_TIMEOUT_S = 30
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
    """

    executor: Executor
    n_workers: int
    description: str


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
    """Tell whether a task ended because its worker did, not because of anything in the task."""
    if isinstance(error, CancelledError | BrokenExecutor):
        return True
    return type(error).__module__.startswith("distributed.")


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
def open_workers(settings: ClusterSettings) -> Iterator[Workers]:
    """Start workers, or reach those that are up, and let them go at the end of the block.

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
        with _dask_at_address(settings.address) as workers:
            yield workers
    else:
        with _local_dask(settings.workers or default_workers(settings.device)) as workers:
            yield workers


@contextmanager
def _local_dask(n_workers: int) -> Iterator[Workers]:
    """One single-threaded process a core; nothing listens outside this machine."""
    from distributed import Client, LocalCluster
    from distributed.system import MEMORY_LIMIT

    # A worker that is stopped in a task leaves semaphores, which Python cleans up and warns about.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    try:
        cluster = LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # a free port: the default one is often taken on shared machines
            memory_limit=MEMORY_LIMIT,  # the share of one in n would kill the worker that trains
            silence_logs="CRITICAL",  # what ends a task is told by the driver, once
        )
    except (OSError, RuntimeError, TimeoutError) as error:
        raise ClusterError(f"no local Dask cluster: {error}; try --cluster serial") from error
    text = f"{n_workers} local worker{'s' * (n_workers > 1)}{_dashboard(cluster.dashboard_link)}"
    try:
        with cluster, Client(cluster) as client, _silent_when_interrupted():
            yield Workers(client.get_executor(), n_workers, text)
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def _silent_when_interrupted() -> Iterator[None]:
    """Leave the last word to what ends the block: workers stopped in a task log lost connections."""
    try:
        yield
    except BaseException:
        logging.disable(logging.CRITICAL)
        raise


@contextmanager
def _dask_at_address(address: str | None) -> Iterator[Workers]:
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
        yield Workers(client.get_executor(), n_workers, text)


def _dashboard(link: str) -> str:
    """Name the dashboard only where it can be drawn: Dask needs bokeh for it."""
    from importlib.util import find_spec

    return f", dashboard {link}" if find_spec("bokeh") else ""
