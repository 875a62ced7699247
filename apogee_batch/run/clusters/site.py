"""What a site has written about its queue for dask-jobqueue: `jobqueue.NAME` in the YAML files of Dask.

Only the files are read, not the defaults that dask-jobqueue adds to them, some of which do harm unseen: a
walltime of half an hour, for one.
"""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apogee_batch.errors import UsageError

OURS = {  # dask-jobqueue's names of what we call otherwise; a later one wins over an earlier one
    "queue": "partition",
    "project": "account",
    "account": "account",
    "walltime": "walltime",
    "memory": "memory",
    "mem": "job_memory",
    "job-mem": "job_memory",
    "cores": "cores",
    "ncpus": "cores",
    "job-cpu": "cores",
    "processes": "processes",
    "resource-spec": "resource_spec",
    "extra": "worker_args",
    "worker-extra-args": "worker_args",
    "job-extra": "directives",
    "job-extra-directives": "directives",
    "header-skip": "skip_directives",
    "job-directives-skip": "skip_directives",
    "env-extra": "prologue",
    "job-script-prologue": "prologue",
    "python": "python",
    "local-directory": "local_directory",
    "shebang": "shebang",
    "disk": "disk",
    "lsf-units": "lsf_units",
}
NOT_USED = {
    "name": "jobs have the name of their run",
    "log-directory": "logs go to the folder of the run",
    "death-timeout": "follows from the settings of the run",
    "shared-temp-directory": "keys lie in the folder of the run",
    "use-stdin": "bsub always gets the script by its input",
}
DEFAULTS = {"worker-command": "distributed.cli.dask_worker"}  # of what can have no other value
_SLURM_SIZE = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class SiteSettings:
    """Settings of a site.

    Attributes
    ----------
    job : mapping
        Keys and values of `JobSettings`, not yet checked; they hold for all jobs.
    interface : object
        Network interface, or None.
    not_used : list of str
        What was found and has no meaning here, with the reason.
    """

    job: Mapping[str, Any]
    interface: object
    not_used: list[str]


def read_site(name: str, *, kind: object) -> SiteSettings:
    """Read the settings of a site.

    Parameters
    ----------
    name : str
        Name of a section below `jobqueue`.
    kind : object
        Kind of the cluster, where it is known: systems write sizes and times in different ways.

    Raises
    ------
    UsageError
        If there is no such section, or it asks for something that cannot be done.
    """
    sections, files = _read_sections()
    if name not in sections:
        raise UsageError(
            f"--cluster-config {name}: there is no such name below jobqueue; "
            f"there are: {', '.join(sorted(sections)) or 'none'} (looked in {files})"
        )
    table = sections[name]
    if not isinstance(table, Mapping):
        raise UsageError(f"jobqueue.{name}: it should be a table of settings ({files})")
    said = {str(key).replace("_", "-"): value for key, value in table.items() if value not in (None, [], {})}
    for key, value in said.items():
        if key not in OURS and key not in NOT_USED and key != "interface" and DEFAULTS.get(key) != value:
            known = ", ".join(sorted([*OURS, *NOT_USED, "interface"]))
            raise UsageError(
                f"jobqueue.{name}.{key}: it cannot be honoured here; known are {known} ({files})"
            )
    job = {
        ours: _as_ours(f"jobqueue.{name}.{key}", key, said[key], kind)
        for key, ours in OURS.items()
        if key in said
    }
    not_used = [f"jobqueue.{name}.{key} is not used: {NOT_USED[key]}" for key in said if key in NOT_USED]
    return SiteSettings(job, said.get("interface"), not_used)


def _read_sections() -> tuple[dict[str, Any], str]:
    """Return what is below `jobqueue` in all files together, and the files for people."""
    import dask.config

    try:
        found: list[tuple[Path, Any]] = list(dask.config.collect_yaml(dask.config.paths, return_paths=True))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the settings of the site cannot be read: {' '.join(str(error).split())}"
        ) from error
    with_jobs = [
        (path, tables["jobqueue"]) for path, tables in found if isinstance(tables.get("jobqueue"), dict)
    ]
    sections = dask.config.merge(*(table for _, table in with_jobs))
    files = ", ".join(str(path) for path, _ in with_jobs)
    return {str(key): value for key, value in sections.items()}, files or ", ".join(
        map(str, dask.config.paths)
    )


def _as_ours(name: str, key: str, value: Any, kind: object) -> Any:
    """Return a value as `JobSettings` takes it; what is wrong in another way is told there."""
    convert = _CONVERSIONS.get(OURS[key])
    return value if convert is None else convert(name, value, kind)


def _walltime(name: str, value: Any, kind: object) -> Any:
    if isinstance(value, int):  # YAML reads 4:00:00 as 14400, and dask-jobqueue hands that on as minutes
        raise UsageError(f"{name}: {value} is a mere number; put the time into quotes, as in '04:00:00'")
    if isinstance(value, str) and kind == "lsf" and re.fullmatch(r"\d+:\d\d", value, re.ASCII):
        return f"{value}:00"  # LSF's HH:MM
    return value


def _memory(_name: str, value: Any, _kind: object) -> Any:
    return f"{value}B" if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else value


def _job_memory(name: str, value: Any, kind: object) -> Any:
    match = _SLURM_SIZE.fullmatch(str(value))
    if kind in ("slurm", None) and match is not None:  # Slurm counts in MiB, and takes G for GiB
        return f"{match[1]}{match[2] or 'M'}iB"
    return _memory(name, value, kind)


def _directives(_name: str, value: Any, _kind: object) -> Any:
    """HTCondor's are a table."""
    return [f"{key} = {text}" for key, text in value.items()] if isinstance(value, Mapping) else value


def _worker_args(name: str, value: Any, _kind: object) -> Any:
    """Split them into words: dask-jobqueue puts them into its script as they are."""
    if not isinstance(value, list):
        return value
    try:
        return [word for text in value for word in shlex.split(str(text))]
    except ValueError as error:
        raise UsageError(f"{name}: {value!r} cannot be split into words ({error})") from error


_CONVERSIONS: dict[str, Callable[[str, Any, object], Any]] = {
    "walltime": _walltime,
    "memory": _memory,
    "job_memory": _job_memory,
    "directives": _directives,
    "worker_args": _worker_args,
}
