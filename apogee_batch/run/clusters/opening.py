"""Open the workers that the settings name."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal

from apogee_batch.errors import UsageError
from apogee_batch.output import make_events_of
from apogee_batch.run.clusters.address import dask_at_address
from apogee_batch.run.clusters.local import local_dask
from apogee_batch.run.clusters.workers import SerialExecutor, Workers, default_workers, tasks_each
from apogee_batch.run.config import QUEUE_KINDS, ClusterSettings
from apogee_batch.run.progress import ProgressView, SilentView

Role = Literal["cpu", "gpu"]


@contextmanager
def open_workers(
    settings: ClusterSettings,
    *,
    logs: Path | None = None,
    role: Role = "gpu",
    folders: Sequence[Path] = (),
    progress: ProgressView | None = None,
) -> Iterator[Workers]:
    """Start workers, or reach those that are up, and let them go at the end of the block.

    Parameters
    ----------
    settings : ClusterSettings
        Where they are, and how many.
    logs : Path, optional
        Folder for a log of each worker process, which all hosts should see. Jobs of a queue need one.
    role : {"cpu", "gpu"}
        What they will do: read spectra, or run the network. Decides which kind of job is asked for.
    folders : sequence of Path
        What a worker must be able to read and write.
    progress : ProgressView, optional
        Told what happens to jobs.

    Raises
    ------
    ClusterError
        If they cannot be started or reached.
    UsageError
        If the settings contradict one another.
    """
    if settings.kind != "address" and settings.address:
        raise UsageError("--address is the address of a running scheduler; it goes with --cluster address")
    make_events_of("distributed")
    with _of_kind(settings, logs, role, folders, progress or SilentView()) as workers:
        yield workers


def _of_kind(
    settings: ClusterSettings, logs: Path | None, role: Role, folders: Sequence[Path], progress: ProgressView
) -> AbstractContextManager[Workers]:
    if settings.kind == "serial":
        return nullcontext(Workers(SerialExecutor(), 1, "this process"))
    if settings.kind == "address":
        return dask_at_address(settings.address, logs, progress)
    if settings.kind in QUEUE_KINDS:
        if logs is None:
            raise ValueError("jobs of a queue need a folder for their logs")
        from apogee_batch.run.clusters.queue_cluster import queue_cluster  # needs dask-jobqueue

        return queue_cluster(settings, role, logs=logs, folders=folders, progress=progress)
    n_workers = settings.workers or default_workers(settings.device)
    n_tasks = tasks_each(settings.device) if role == "gpu" else 1
    return local_dask(n_workers, logs, tasks_each=n_tasks)
