"""The command that looks at the machine: what it offers, and whether its engines compute right numbers."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from apogee_batch.cli_options import Config, check_settings, choices, print_lines
from apogee_batch.errors import IntegrityError
from apogee_batch.output import Manner, manner

EngineToTry = Annotated[
    str | None,
    typer.Option(
        help="kernel, openvino, torch, cuda or tiles. [default: all that can be used]",
        autocompletion=choices("engine"),
    ),
]
PrecisionToTry = Annotated[
    str | None,
    typer.Option(help="exact or fast. [default: both]", autocompletion=choices("precision")),
]


def doctor(
    gate: Annotated[bool, typer.Option("--gate", help="Compare engines with exact float32.")] = False,
    model: Annotated[
        Path | None, typer.Option(help="Model, or run, to compare with. [default: train a small one]")
    ] = None,
    engine: EngineToTry = None,
    precision: PrecisionToTry = None,
    stars: Annotated[int, typer.Option(help="Simulated stars to compare.", min=2, max=1000)] = 16,
    path: Annotated[
        list[Path] | None, typer.Option(help="Folder to look at, as that of a run; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """Say what this machine offers, and what would be used.

    With --gate, try whether its engines give right uncertainties.
    """
    check_settings(config)
    from apogee_batch.run.doctor import GateRequest, try_engines
    from apogee_batch.run.machine import describe_machine, machine_lines

    machine = describe_machine(path or ())
    if not as_json:
        print_lines(machine_lines(machine))
    found: dict[str, Any] = {"machine": machine}
    passed = True
    if gate:
        request = GateRequest(model, engine or "auto", precision, stars)
        result = try_engines(request, say=_say)
        passed = result.passed
        found["gate"] = result.to_json()
        if not as_json:
            print_lines(["", *result.lines()])
    if as_json:
        typer.echo(json.dumps(found, indent=None if manner().is_json else 2, allow_nan=False))
    if not passed:
        raise typer.Exit(IntegrityError.exit_code)


def _say(line: str) -> None:
    """Tell what takes seconds, beside the result, which may be a JSON document."""
    if manner() == Manner():
        typer.echo(f"... {line}", err=True)
