"""What each queue system is asked for, in its own words, and how a text is quoted there."""

import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apogee_batch.errors import UsageError
from apogee_batch.run.config import ClusterKind
from apogee_batch.run.job_settings import JobSettings, parse_memory

SLURM_ONLY = ("qos", "gres", "constraint", "reservation", "nodelist", "exclude")
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+@=,-]*", re.ASCII)
_NODE_PATH = re.compile(r"(?:(~)|\$([A-Za-z_][A-Za-z0-9_]*)|\$\{([A-Za-z_][A-Za-z0-9_]*)\})(/.*)?", re.ASCII)
_ASSIGNMENT = re.compile(r"([A-Za-z_+][A-Za-z0-9_.]*) *= *(.+)", re.ASCII)


@dataclass(frozen=True)
class Directives:
    """What a job asks of its queue system.

    Attributes
    ----------
    asked : dict
        By the arguments that dask-jobqueue's class has for it.
    extra : list of str or dict
        Directives that it does not know.
    skip : list of str
        Its own directives with one of these in it are left out.
    prologue : list of str
        Lines of the shell that the system needs.
    """

    asked: dict[str, Any]
    extra: list[str] | dict[str, str]
    skip: list[str]
    prologue: list[str] = field(default_factory=list)


def directives_of(kind: ClusterKind, job: JobSettings, name: str, logs: Path) -> Directives:
    """Return what a job asks of its queue system.

    Parameters
    ----------
    kind : ClusterKind
        The queue system.
    job : JobSettings
        The job; with walltime and memory.
    name : str
        Its name.
    logs : Path
        Folder of its log.

    Raises
    ------
    UsageError
        If the system has no word for a setting, or cannot write logs to the folder.
    """
    writers: dict[str, Callable[[JobSettings, str, Path], Directives]] = {
        "slurm": _slurm,
        "pbs": _pbs,
        "sge": _sge,
        "lsf": _lsf,
        "htcondor": _htcondor,
    }
    unknown = [] if kind == "slurm" else list(SLURM_ONLY)
    unknown += [] if kind in ("pbs", "sge") else ["resource_spec"]
    unknown += ["partition"] if kind == "htcondor" else []
    for key in unknown:
        if getattr(job, key) is not None:
            raise UsageError(
                f"{key}: {kind} has no such setting; ask for it with its own words in directives"
            )
    return writers[kind](job, name, logs.absolute())


def shell_word(path: str) -> str:
    """Quote a path for the shell; a variable or ~ it begins with is expanded on the node."""
    match = _NODE_PATH.fullmatch(path)
    if match is None:
        return shlex.quote(path)
    variable = "HOME" if match[1] else match[2] or match[3]
    return f'"${{{variable}:?}}"' + (shlex.quote(match[4]) if match[4] else "")


def submit_file_text(text: str) -> str:
    """Return a text for HTCondor's submit file, where $ begins a macro."""
    return text.replace("$", "$(DOLLAR)")


def _clock(job: JobSettings) -> str:
    """Return the walltime as HH:MM:SS, which all systems but LSF understand alike."""
    minutes, seconds = divmod(job.walltime_s, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"


def _mebibytes(job: JobSettings) -> int:
    """Return the memory to ask for, rounded up."""
    n_bytes = job.memory_bytes if job.job_memory is None else parse_memory(job.job_memory)
    return math.ceil(n_bytes / 2**20)


def _slurm(job: JobSettings, name: str, logs: Path) -> Directives:  # noqa: ARG001  called as all of them
    asked = {
        "queue": job.partition,
        "account": job.account,
        "walltime": _clock(job),
        "job_cpu": job.cores,
        "job_mem": f"{_mebibytes(job)}M",
    }
    options = {
        "--qos": job.qos,
        "--gres": job.gres,
        "--constraint": job.constraint,
        "--reservation": job.reservation,
        "--nodelist": job.nodelist,
        "--exclude": job.exclude,
    }
    # Slurm itself would start a job again while its first copy may still run; we ask for another instead.
    log = _slurm_path(logs)
    fixed = ["--no-requeue", f"-o {log}", f"-e {log}"]
    said = [f"{option}={value}" for option, value in options.items() if value is not None]
    return Directives(
        asked, [*fixed, *_without_skipped(said, job), *job.directives], list(job.skip_directives)
    )


def _slurm_path(logs: Path) -> str:
    """Quote the log for sbatch, which undoes it as a shell would; slurmd then takes % for a pattern."""
    if "\\" in str(logs):  # slurmd replaces no pattern in a path with one, and all jobs write to one file
        raise UsageError(f"{logs}: Slurm cannot write logs into a folder with a backslash; choose another")
    folder = str(logs).replace("%", "%%").replace('"', '\\"')
    return f'"{folder}/job-%j.log"'


def _without_skipped(lines: list[str], job: JobSettings) -> list[str]:
    return [line for line in lines if not any(skipped in line for skipped in job.skip_directives)]


def _plain_path(logs: Path, kind: str) -> str:
    if _PLAIN_PATH.fullmatch(str(logs)) is None:
        raise UsageError(
            f"{logs}: a job script of {kind} cannot name this folder; choose one of letters, digits, _.+@=,-"
        )
    return str(logs)


def _pbs(job: JobSettings, name: str, logs: Path) -> Directives:  # noqa: ARG001
    folder = _plain_path(logs, "PBS")
    spec = job.resource_spec or f"select=1:ncpus={job.cores}:mem={_mebibytes(job)}MB"
    asked = {
        "queue": job.partition,
        "account": job.account,
        "walltime": _clock(job),
        "resource_spec": spec,
    }
    # it would take $PBS_ACCOUNT of the driver where none is given
    skip = [*job.skip_directives, *(["#PBS -A"] if job.account is None else [])]
    extra = ["-r n", "-j oe", f"-o {folder}/", *job.directives]
    return Directives(asked, extra, skip, [f'exec >{folder}/job-"$PBS_JOBID".log 2>&1'])


def _sge(job: JobSettings, name: str, logs: Path) -> Directives:  # noqa: ARG001
    folder = _plain_path(logs, "SGE")
    spec = job.resource_spec or f"h_vmem={math.ceil(_mebibytes(job) / job.cores)}M"  # for each core
    asked = {
        "queue": job.partition,
        "project": job.account,
        "walltime": _clock(job),
        "resource_spec": spec,
    }
    slots = [f"-pe {job.parallel_environment} {job.cores}"] if job.cores > 1 else []
    extra = ["-r n", f"-o {folder}/job-$JOB_ID.log", *_without_skipped(slots, job), *job.directives]
    return Directives(asked, extra, list(job.skip_directives))


def _lsf(job: JobSettings, name: str, logs: Path) -> Directives:  # noqa: ARG001
    folder = _plain_path(logs, "LSF")
    minutes = math.ceil((job.walltime_s) / 60)
    asked = {
        "queue": job.partition,
        "project": job.account,
        "walltime": f"{minutes // 60:02}:{minutes % 60:02}",
        "ncpus": job.cores,
        "mem": _mebibytes(job) * 2**20,
        "lsf_units": job.lsf_units,
        "use_stdin": True,
    }
    extra = ["-rn", f"-o {folder}/job-%J.log", *job.directives]
    return Directives(asked, extra, list(job.skip_directives))


def _htcondor(job: JobSettings, name: str, logs: Path) -> Directives:
    folder = _plain_path(logs, "HTCondor")
    running = "(JobStatus == 2) && (time() - EnteredCurrentStatus > "
    extra = {
        "batch_name": name,
        "RequestCpus": str(job.cores),
        "RequestMemory": str(_mebibytes(job)),  # in MiB
        "periodic_remove": f"{running}{job.walltime_s})",
        "Output": f"{folder}/job-$(ClusterId).$(ProcId).log",
        "Error": f"{folder}/job-$(ClusterId).$(ProcId).err",
        "Log": f"{folder}/condor-$(ClusterId).log",
        "Stream_Output": "True",
        "Stream_Error": "True",
    }
    if job.account is not None:
        extra["accounting_group"] = job.account
    for skipped in job.skip_directives:
        extra.pop(skipped, None)
    for line in job.directives:
        match = _ASSIGNMENT.fullmatch(line)
        if match is None:
            raise UsageError(f"directives: {line!r}; HTCondor's have the form 'key = value'")
        extra[match[1]] = match[2]
    return Directives({"disk": job.disk, "submit_command_extra": [], "cancel_command_extra": []}, extra, [])
