"""Settings of one job of worker processes, as a queue system is asked for it.

Each value ends in a job script. A name is held to what names of its kind can contain, and nothing holds a
control character; what is left is quoted where the script is made. Only `prologue` is run as it is written.
"""

import datetime as dt
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from apogee_batch.errors import UsageError

QueueKind = Literal["slurm", "pbs", "sge", "lsf", "htcondor"]
Role = Literal["cpu", "gpu"]

_WALLTIME = re.compile(r"(?:(\d{1,3})-)?(\d{1,4})(?::([0-5]\d))?(?::([0-5]\d))?", re.ASCII)
_BYTES = re.compile(r"(\d{1,12}(?:\.\d{1,9})?) ?(?:([kKMGT])(i?)B?|B)", re.ASCII | re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Section(BaseModel):
    """A table of the TOML file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse_walltime(text: str) -> int:
    """Return the seconds of `HH:MM:SS`, `D-HH`, `D-HH:MM` or `D-HH:MM:SS`.

    `30` and `4:00` are refused: queue systems read them as seconds, minutes or hours, each in its own way.

    Raises
    ------
    ValueError
        If it is written in another way, or is no time at all.
    """
    match = _WALLTIME.fullmatch(text)
    if match is None or (match[1] is None and match[4] is None):
        raise ValueError(f"{text!r} is not a walltime; write HH:MM:SS, or D-HH:MM:SS with days")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    walltime_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if walltime_s < 1:
        raise ValueError(f"{text!r} leaves a job no time")
    return walltime_s


def parse_memory(text: str) -> int:
    """Return the bytes of `16GB` or `16 GiB`, as Dask counts them: G and GB are 10^9, GiB is 2^30.

    Raises
    ------
    ValueError
        If it has another form, or is less than a Python process needs to start.
    """
    match = _BYTES.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write it as 16GB or 16GiB")
    power = 0 if match[2] is None else "KMGT".index(match[2].upper()) + 1
    n_bytes = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if n_bytes < 10**6:
        raise ValueError(f"{text!r} is less than a worker needs; write the unit too, as in 16GB")
    return n_bytes


def is_variable_name(text: str) -> bool:
    """Tell whether an environment variable can have this name."""
    return _VARIABLE.fullmatch(text) is not None


def refuse_control_characters(text: str) -> str:
    """Return the text; a character that could end a line of a job script is a ValueError."""
    if not text.isprintable():  # line ends of all kinds, NUL, tabs, half surrogates, invisible characters
        raise ValueError(f"{text!r} holds a control character, which a line of a job script cannot")
    return text


def _plain(text: str) -> str:
    refuse_control_characters(text)
    if not text.strip():
        raise ValueError("it is empty; leave it out instead")
    return text


def _matching(pattern: str, example: str) -> Callable[[str], str]:
    """Return a check that a text is a name of a kind."""
    compiled = re.compile(pattern, re.ASCII)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(f"{text!r} is not of the form that it has, for example {example}")
        return text

    return check


def _valid(parse: Callable[[str], int]) -> Callable[[str], str]:
    """Return a check that a text can be parsed."""

    def check(text: str) -> str:
        parse(text)
        return text

    return check


def _time_as_text(value: object) -> object:
    """TOML reads 04:00:00 without quotes as a time of day."""
    return value.strftime("%H:%M:%S") if isinstance(value, dt.time) else value


def _directive(text: str) -> str:
    _plain(text)
    if text.lstrip().startswith("#"):
        raise ValueError(f"{text!r}: write it without the leading #SBATCH or the like")
    if text.endswith("\\"):
        raise ValueError(f"{text!r} ends with a backslash, which would join it to the next line")
    return text


def _program(text: str) -> str:
    _plain(text)
    if text.startswith("-"):
        raise ValueError(f"{text!r} is an option, not a path")
    return text


_OWN_WORKER_OPTIONS = re.compile(
    r"--(name|nthreads|nworkers|memory-limit|(no-)?nanny|(no-)?dashboard.*|death-timeout|local-directory|lifetime.*"
    r"|no-lifetime.*|tls-.*|protocol|interface|host|listen-address|contact-address|scheduler-(file|sni)|pid-file"
    r"|worker-class|version|help)(=.*)?"
)


def _worker_word(text: str) -> str:
    _plain(text)
    if _OWN_WORKER_OPTIONS.fullmatch(text):
        raise ValueError(
            f"{text!r}: this option of the Dask worker follows from other settings; leave it out"
        )
    return text


Walltime = Annotated[str, BeforeValidator(_time_as_text), AfterValidator(_valid(parse_walltime))]
Memory = Annotated[str, AfterValidator(_valid(parse_memory))]
Partition = Annotated[str, AfterValidator(_matching(r"\w[\w.,@+-]*", "gpu or gpu,preempt"))]
Name = Annotated[str, AfterValidator(_matching(r"\w[\w.@:/+-]*", "astro.survey-1"))]
Gres = Annotated[str, AfterValidator(_matching(r"\w[\w.:,=/()+-]*", "gpu:a100:2"))]
Constraint = Annotated[str, AfterValidator(_matching(r"[\w(\[!][\w&|*()\[\],.:=!+@-]*", "a100&nvlink"))]
Nodes = Annotated[str, AfterValidator(_matching(r"\w[\w.,\[\]-]*", "n[1-4],n7"))]
Resources = Annotated[str, AfterValidator(_matching(r"\w[\w=:,.+/*@!<>|&()-]*", "select=1:ncpus=4:mem=16gb"))]
Interface = Annotated[str, AfterValidator(_matching(r"\w[\w.:-]*", "ib0"))]
Shebang = Annotated[str, AfterValidator(_matching(r"#!/[\w./+-]*(?: [\w./+-]+)*", "#!/bin/bash -l"))]
Line = Annotated[str, AfterValidator(_plain)]


class JobSettings(Section):
    """One job of worker processes.

    Attributes
    ----------
    walltime : str, optional
        Time of the job, as `04:00:00`; every queue system needs it.
    memory : str, optional
        Memory of the whole job, as `32GB`; every queue system needs it.
    cores : int
        Cores of the whole job.
    processes : int
        Worker processes that share them; with GPUs one process a GPU.
    partition : str, optional
        Partition of Slurm, or the queue of other systems.
    account : str, optional
        Account or project that pays.
    qos, gres, constraint, reservation, nodelist, exclude : str, optional
        As Slurm names it.
    directives : tuple of str
        Further directives, without #SBATCH.
    skip_directives : tuple of str
        What to leave out of the directives that are written.
    prologue : tuple of str
        Lines for the shell, run as written before the workers start.
    python : str, optional
        Interpreter on the nodes; a leading $NAME or ~ is the node's.
    local_directory : str, optional
        Scratch folder of the nodes; a leading $NAME or ~ is the node's.
    resource_spec : str, optional
        What PBS and SGE are asked for with -l, instead of cores and memory.
    shebang : str
        First line of the script.
    job_memory : str, optional
        Memory to ask for, where it differs from what the workers may use.
    worker_args : tuple of str
        Further words of the Dask worker's command line.
    parallel_environment : str
        SGE: what a job of several cores asks for.
    disk : str
        HTCondor: disk of a job.
    lsf_units : str, optional
        LSF: unit of its memory limits, where its configuration cannot be read.
    """

    walltime: Walltime | None = None
    memory: Memory | None = None
    cores: int = Field(1, ge=1, le=4096)
    processes: int = Field(1, ge=1, le=256)
    partition: Partition | None = None
    account: Name | None = None
    qos: Name | None = None
    gres: Gres | None = None
    constraint: Constraint | None = None
    reservation: Partition | None = None
    nodelist: Nodes | None = None
    exclude: Nodes | None = None
    directives: tuple[Annotated[str, AfterValidator(_directive)], ...] = ()
    skip_directives: tuple[Line, ...] = ()
    prologue: tuple[Line, ...] = ()
    python: Annotated[str, AfterValidator(_program)] | None = None
    local_directory: Annotated[str, AfterValidator(_program)] | None = None
    resource_spec: Resources | None = None
    shebang: Shebang = "#!/bin/bash"
    job_memory: Memory | None = None
    worker_args: tuple[Annotated[str, AfterValidator(_worker_word)], ...] = ()
    parallel_environment: Name = "smp"
    disk: Memory = "10GB"
    lsf_units: Literal["kb", "mb", "gb", "tb"] | None = None

    @model_validator(mode="after")
    def _has_a_core_for_each_process(self) -> Self:
        if self.cores < self.processes:
            raise ValueError(f"{self.processes} processes need at least as many cores, not {self.cores}")
        return self

    @property
    def walltime_s(self) -> int:
        """Seconds that a job may take; a UsageError where it is not set."""
        return parse_walltime(self._required("walltime"))

    @property
    def memory_bytes(self) -> int:
        """Bytes that the processes of a job may use together; a UsageError where it is not set."""
        return parse_memory(self._required("memory"))

    def _required(self, key: str) -> str:
        value: str | None = getattr(self, key)
        if value is None:
            raise UsageError(f"a job needs {key}: give it as --{key}")
        return value


def is_list_setting(key: str) -> bool:
    """Tell whether a setting of a job is a list, to which each `--job KEY=VALUE` adds."""
    field = JobSettings.model_fields.get(key)
    default: Any = None if field is None else field.default
    return isinstance(default, tuple)
