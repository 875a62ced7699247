"""Try a cluster with one worker, before a night is spent on it."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apogee_batch.errors import ClusterError
from apogee_batch.run.cluster_show import show_job
from apogee_batch.run.clusters import is_lost_cluster, is_lost_worker, open_workers
from apogee_batch.run.clusters.probe import ask_node, judge
from apogee_batch.run.config import QUEUE_KINDS, ClusterSettings, Device, RunConfig
from apogee_batch.run.job_settings import Role
from apogee_batch.run.progress import ProgressView

GIB = 1 << 30
PREFIX = "cluster-test-"


def test_cluster(
    store: Path | None,
    folder: Path | None,
    config: RunConfig,
    progress: ProgressView,
    roles: Sequence[Role],
) -> list[str]:
    """Start one worker of each role and compare its node with this host.

    Parameters
    ----------
    store, folder : Path, optional
        The store and the folder of a run, which the nodes must see; where one is yet to be made, the folder
        that will hold it. Without `folder` logs and keys go into the current one.
    config : RunConfig
        Where the workers are, and what their jobs ask for.
    progress : ProgressView
        Told the job's script, what the queue says, and each mismatch.
    roles : sequence of {"cpu", "gpu"}
        Which jobs to try.

    Returns
    -------
    list of str
        A line of each node that will do.

    Raises
    ------
    ClusterError
        If there is no worker, or a run would fail on its node; names the folder of its logs.
    """
    seen = dict.fromkeys(_existing(path) for path in (store, folder) if path is not None)
    place = _existing(folder or Path.cwd())
    try:
        # a folder of its own: keys and jobs of a run that goes on in `folder` are not touched
        own = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    except OSError as error:
        raise ClusterError(f"{place}: no place for the logs of a test ({error.strerror})") from error
    try:
        lines = [_try(role, config.cluster, own / role / "logs", [*seen, own], progress) for role in roles]
    except ClusterError as error:
        if not any(path.is_file() for path in own.rglob("*")):
            shutil.rmtree(own, ignore_errors=True)
            raise
        raise ClusterError(f"{error} (logs: {own})") from error
    except BaseException:
        shutil.rmtree(own, ignore_errors=True)
        raise
    shutil.rmtree(own, ignore_errors=True)
    return lines


test_cluster.__test__ = False  # type: ignore[attr-defined]  # it is a command: pytest takes it for a test


def _existing(path: Path) -> Path:
    """Return a folder, or the nearest one above it that is there."""
    path = path.absolute()
    return next((place for place in (path, *path.parents) if place.is_dir()), path)


def _try(
    role: Role, settings: ClusterSettings, logs: Path, folders: Sequence[Path], progress: ProgressView
) -> str:
    """Start a worker of a role and look at its node; return a line of it."""
    is_queue = settings.kind in QUEUE_KINDS
    job = settings.job(role)
    settings = settings.model_copy(update={"max_lost_jobs": 1})  # a single job is the test
    if is_queue:
        progress.say("\n".join(show_job(settings, role)))
    device: Device = "cpu" if role == "cpu" else settings.device
    with open_workers(settings, logs=logs, role=role, folders=folders, progress=progress) as workers:
        workers.crew.ask(1)  # of a queue: waits for it, and judges it as each run does
        try:
            node, mismatches = ask_node(workers.executor, [str(path) for path in folders], job, device)
        except Exception as error:
            if is_lost_worker(error) or is_lost_cluster(error):
                raise ClusterError("the worker was lost while it was asked about its node") from error
            raise
        if not is_queue:
            judge(node, mismatches, progress.say)
        asked = f" ({job.memory} asked for)" if is_queue else ""
        return f"{role}: {describe(node)}{asked}; {len(folders)} folders can be read and written there"


def describe(node: Mapping[str, Any]) -> str:
    """Return what a node told, in one line."""
    cuda = node["cuda"]
    gpus = "" if cuda is None else f", {cuda['count']} GPUs (torch for CUDA {cuda['version'] or '-'})"
    job = f" (job {node['job_id']})" if node["job_id"] else ""
    packages = ", ".join(f"{name} {node['versions'][name]}" for name in ("apogee-batch", "dask", "torch"))
    memory = f"{node['memory_bytes'] / GIB:.1f} GiB of memory"
    return f"node {node['host']}{job}: Python {node['python']}, {packages}{gpus}, {memory}"
