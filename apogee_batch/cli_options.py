"""What the commands share: their options, settings, and what they print."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from apogee_batch.run.config import RunConfig

Store = Annotated[Path, typer.Argument(metavar="STORE", help="Store made by 'ingest'.")]
Config = Annotated[Path | None, typer.Option(help="TOML file with settings; flags win over it.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="KIND", help="serial, local, address, slurm, pbs, sge, lsf or htcondor. [default: local]"
    ),
]
Workers = Annotated[
    int | None, typer.Option(help="Worker processes. [default: one a core; in a queue, one job]")
]
Address = Annotated[str | None, typer.Option(help="Running scheduler, for --cluster address.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda. [default: auto]")]
EngineOption = Annotated[
    str | None,
    typer.Option("--engine", help="auto, kernel, openvino, torch or cuda, see 'doctor'. [default: auto]"),
]
Precision = Annotated[
    str | None, typer.Option(help="exact, or fast: 16 bits for what noise changes. [default: exact]")
]
Seed = Annotated[int | None, typer.Option(help="Seed of all random numbers. [default: 0]")]
Recipe = Annotated[str | None, typer.Option(help="robust, paper or a TOML file. [default: robust]")]
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
    """Put the flags of a command over its TOML file; a None is a flag that was not given."""
    from apogee_batch.run.config import load_config

    return load_config(config, sections)


def print_lines(lines: list[str]) -> None:
    """Print what a command has to say."""
    for line in lines:
        typer.echo(line)


def open_view() -> Any:
    """Return the context of a progress view for this terminal."""
    from rich.console import Console

    from apogee_batch.run.progress import progress_view

    return progress_view(Console())
