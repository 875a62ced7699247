"""What the commands share: their options, settings, and what they print."""

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apogee_batch.output import LOG_JSON, QUIET, Manner, speaking, write_results

if TYPE_CHECKING:
    from apogee_batch.run.config import RunConfig

# What a shell offers behind an option; a test compares it with what the settings take, which import much.
CHOICES: dict[str, tuple[str, ...]] = {
    "cluster": ("serial", "local", "address", "slurm", "pbs", "sge", "lsf", "htcondor"),
    "device": ("auto", "cpu", "cuda"),
    "engine": ("auto", "kernel", "openvino", "torch", "cuda", "tiles"),
    "precision": ("exact", "fast"),
    "recipe": ("robust", "paper"),
    "err_cap": ("median", "mean"),
    "row": ("combined", "visits"),
    "format": ("votable", "csv", "ecsv", "mrt", "hats"),
}


OPTION_OF = {"cluster.kind": "--cluster", "training.workers": "--train-workers"}  # named unlike their setting


def choices(name: str) -> Callable[[str], list[str]]:
    """Return what completes the value of an option: those of `CHOICES` that begin as it does."""

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in CHOICES[name] if choice.startswith(incomplete)]

    return complete


Store = Annotated[Path, typer.Argument(metavar="STORE", help="Store made by 'ingest'.")]
Config = Annotated[Path | None, typer.Option(help="TOML file with settings; flags win over it.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="serial, local, address, slurm, pbs, sge, lsf or htcondor. [default: local]",
        autocompletion=choices("cluster"),
    ),
]
Workers = Annotated[
    int | None, typer.Option(help="Worker processes. [default: one a core; in a queue, one job]")
]
Address = Annotated[str | None, typer.Option(help="Running scheduler, for --cluster address.")]
Device = Annotated[
    str | None, typer.Option(help="auto, cpu or cuda. [default: auto]", autocompletion=choices("device"))
]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="auto, kernel, openvino, torch, cuda or tiles, see 'doctor'. [default: auto]",
        autocompletion=choices("engine"),
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="exact, or fast: 16 bits for what noise changes. [default: exact]",
        autocompletion=choices("precision"),
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of all random numbers. [default: 0]")]
Recipe = Annotated[
    str | None,
    typer.Option(help="robust, paper or a TOML file. [default: robust]", autocompletion=choices("recipe")),
]
ErrCap = Annotated[
    str | None,
    typer.Option(
        help="Errors capped at 5 x median or mean. [default: median]", autocompletion=choices("err_cap")
    ),
]
ForceNewPlan = Annotated[
    bool, typer.Option("--force-new-plan", help="Begin anew; what was begun is kept beside it.")
]
BreakLock = Annotated[
    bool, typer.Option("--break-lock", help="Take the lock of a process on another host, if it is gone.")
]
MaxBad = Annotated[
    float | None,
    typer.Option("--max-bad-fraction", metavar="FRACTION", help="Bad inputs accepted. [default: 0.01]"),
]
TrainWorkers = Annotated[int | None, typer.Option(help="Workers that train together. [default: 1]")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def settings_of(config: Path | None, **sections: dict[str, Any]) -> "RunConfig":
    """Put the flags of a command over its TOML file; a None is a flag that was not given.

    Raises
    ------
    UsageError
        If a setting is unknown or of no use; of a flag it names the option and its value.
    """
    from apogee_batch.errors import UsageError
    from apogee_batch.run.config import load_config

    try:
        return load_config(config, sections)
    except UsageError as error:
        raise UsageError(_name_flag(str(error), sections)) from error


def check_settings(config: Path | None) -> None:
    """Refuse a file of settings that is of no use, as all commands do, also those that need none of it."""
    if config is not None:
        settings_of(config)


def _name_flag(message: str, sections: dict[str, dict[str, Any]]) -> str:
    """Put the option and its value in front of what is wrong with a setting of the command line."""
    where, _, rest = message.partition(": ")
    setting = rest.partition(": ")[0]
    section, _, key = setting.partition(".")
    value = sections.get(section, {}).get(key)
    if where != "command line" or value is None:
        return message
    option = OPTION_OF.get(setting, f"--{key.replace('_', '-')}")
    return f"{option} {value}: {rest}; see --help"


def print_lines(lines: Sequence[str]) -> None:
    """Print what a command has to say."""
    write_results(lines)


def open_view() -> Any:
    """Return the context of a progress view for this terminal."""
    from apogee_batch.run.progress import progress_view

    return progress_view(_console())


def terminal() -> Any:
    """Return the console of a terminal on which something can be drawn; None where there is no such one."""
    console = _console()
    return console if console.is_terminal and not console.is_dumb_terminal else None


def _console() -> Any:
    """Return the console of stdout; what is no terminal stays none, whatever FORCE_COLOR says."""
    from rich.console import Console

    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return Console(force_terminal=None if is_terminal else False, emoji=False)


def with_manner_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say how it speaks: all have them, as one wraps them all."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    said: dict[str, Any] = {
        "quiet": Annotated[
            bool, typer.Option(QUIET, help="Only warnings, errors and where the results are.")
        ],
        "log_json": Annotated[bool, typer.Option(LOG_JSON, help="Every line is a JSON object.")],
    }
    kind = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, kind, default=False, annotation=said[name]) for name in said]

    @wraps(command)
    def run(**arguments: Any) -> None:
        wanted = Manner(arguments.pop("quiet"), arguments.pop("log_json"))
        with speaking(wanted):
            command(**arguments)

    parameters = [*own, *added]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
