"""What a worker tells of its node, asked before it gets work."""

import os
import platform
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.deaths import is_lost_worker
from apogee_batch.run.clusters.node_differences import MUST_AGREE, SHOULD_AGREE, Mismatch, compare
from apogee_batch.run.config import Device
from apogee_batch.run.job_settings import JobSettings

__all__ = ["Mismatch", "ask_node", "check_first_worker", "compare", "judge", "probe_node"]

PROBE_S = 120.0  # for one task; torch from a busy file system takes a minute
SEE_S = 20.0  # network file systems show a new file only after some seconds


def probe_node(folders: Sequence[str], token: str, *, wants_cuda: bool = False) -> dict[str, Any]:
    """Tell of this host and process.

    Parameters
    ----------
    folders : sequence of str
        In each, `left_by_driver(token)` is read and `left_by_node(token)` is written.
    token : str
        What these files hold.
    wants_cuda : bool, optional
        Ask torch for GPUs, which imports it.

    Returns
    -------
    dict
        Values that JSON can hold.
    """
    return {
        "host": os.environ.get("SLURMD_NODENAME") or platform.node(),
        "job_id": os.environ.get("SLURM_JOB_ID", ""),
        "python": platform.python_version(),
        "executable": sys.executable,
        "machine": platform.machine(),
        "versions": {name: _version(name) for name in MUST_AGREE + SHOULD_AGREE},
        "memory_bytes": memory_limit_bytes(),
        "cuda": _cuda() if wants_cuda else None,
        "folders": {folder: _try_folder(Path(folder), token) for folder in folders},
    }


def left_by_driver(token: str) -> str:
    """Name the file that the driver leaves for the node."""
    return f".probe-{token}-driver"


def left_by_node(token: str) -> str:
    """Name the file that the node leaves for the driver."""
    return f".probe-{token}-node"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cuda() -> dict[str, Any]:
    """Tell what torch sees of GPUs, without taking memory of one."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of CUDA cannot be loaded
        return {"count": 0, "version": None, "trouble": str(error)}
    with warnings.catch_warnings(record=True) as caught:  # for example that the driver is too old
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "count": count,
        "version": torch.version.cuda,
        "trouble": " ".join(str(item.message) for item in caught),
    }


def memory_limit_bytes(proc: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how much memory this process may use: the least limit of its control groups, or all there is."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError):
        for line in proc.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root = groups / "memory" if controllers else groups
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            group = root / path.lstrip("/")
            limits += [
                _number(folder / name) for folder in (group, *group.parents) if (folder / name).is_file()
            ]
    return min(limit for limit in limits if limit > 0)


def _number(path: Path) -> int:
    """Read a number; 0 where it is a word such as "max"."""
    text = path.read_text().strip()
    return int(text) if text.isdecimal() else 0


def _try_folder(folder: Path, token: str) -> str:
    """Read what the driver left and write something for it; return what is wrong, or ""."""
    try:
        if _await_text(folder / left_by_driver(token)) != token:
            return "does not show what the driver wrote: not the same file system"
        (folder / left_by_node(token)).write_text(token)
    except OSError as error:
        return f"{error.strerror}: {Path(error.filename or folder).name}"
    return ""


def _await_text(path: Path) -> str | None:
    """Return what a file holds, once it shows; None if it does not."""
    deadline = time.monotonic() + SEE_S
    while True:
        try:
            if text := path.read_text():
                return text
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise
        if time.monotonic() > deadline:
            return None
        time.sleep(0.1)


@contextmanager
def _marked(folders: Sequence[str], token: str) -> Iterator[None]:
    """Leave a file for the node in each folder, and remove what both left at the end of the block."""
    try:
        for folder in folders:
            try:
                Path(folder).mkdir(parents=True, exist_ok=True)
                (Path(folder) / left_by_driver(token)).write_text(token)
            except OSError as error:
                raise ClusterError(f"{folder}: the driver cannot write there ({error.strerror})") from error
        yield
    finally:
        for folder in folders:
            for name in (left_by_driver(token), left_by_node(token)):
                with suppress(OSError):
                    (Path(folder) / name).unlink()


def ask_node(
    executor: Executor, folders: Sequence[str], job: JobSettings, device: Device
) -> tuple[dict[str, Any], list[Mismatch]]:
    """Ask whichever worker comes first about its node.

    Returns
    -------
    dict
        What `probe_node` told there.
    list of Mismatch
        Where that does not fit.

    Raises
    ------
    ClusterError
        If the worker cannot run a task of this package, or not in time, or the driver cannot write to a
        folder.
    Exception
        What Dask makes of a worker that is lost meanwhile.
    """
    token = secrets.token_hex(8)
    driver = probe_node([], token)
    with _marked(folders, token):
        future = executor.submit(probe_node, list(folders), token, wants_cuda=device != "cpu")
        try:
            node = future.result(timeout=PROBE_S)
        except TimeoutError as error:
            future.cancel()
            raise ClusterError(
                f"the first worker has not told of its node within {PROBE_S:.0f} s: look at its log; the "
                "file system from which it loads Python may be slow"
            ) from error
        except (ImportError, AttributeError) as error:
            raise ClusterError(
                f"the first worker cannot load this apogee-batch ({type(error).__name__}: {error}): set "
                f"`python` of the job to {sys.executable}, on a file system that the nodes see, or install "
                "the same there"
            ) from error
        node["folders"] |= {
            folder: "the driver does not see what the node wrote: not the same file system"
            for folder, trouble in node["folders"].items()
            if not trouble and _await_text(Path(folder) / left_by_node(token)) != token
        }
    return node, compare(driver, node, job, device)


def check_first_worker(
    executor: Executor,
    folders: Sequence[str],
    job_settings: JobSettings,
    device: Device,
    say: Callable[[str], None],
) -> None:
    """Look at the node of whichever worker came first, before it gets work.

    Parameters
    ----------
    executor : Executor
        Of the workers.
    folders : sequence of str
        What they must be able to read and write.
    job_settings : JobSettings
        What their jobs ask for.
    device : {"auto", "cpu", "cuda"}
        Where their work is to run.
    say : callable
        Told each mismatch with which a run can live.

    Raises
    ------
    ClusterError
        With all others, each with its remedy.
    """
    try:
        node, mismatches = ask_node(executor, folders, job_settings, device)
    except Exception as error:
        if is_lost_worker(error) or isinstance(error, CancelledError):
            say("WARNING: the first worker was lost while it was asked about its node, which is not checked")
            return
        raise
    judge(node, mismatches, say)


def judge(node: Mapping[str, Any], mismatches: Sequence[Mismatch], say: Callable[[str], None]) -> None:
    """Say what is no matter of life and death; raise a ClusterError with what is."""
    where = f"node {node['host']}" + (f", job {node['job_id']}" if node["job_id"] else "")
    for mismatch in mismatches:
        if not mismatch.is_fatal:
            say(f"WARNING: {where}: {mismatch.text}")
    if fatal := [mismatch.text for mismatch in mismatches if mismatch.is_fatal]:
        raise ClusterError(f"{where}: {'; and '.join(fatal)}")
