"""The command that looks at the machine: what it offers, and whether its engines compute right numbers."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from apogee_batch.cli_options import Config, print_lines, settings_of
from apogee_batch.errors import IntegrityError

EngineToTry = Annotated[
    str | None, typer.Option(help="kernel, openvino, torch or cuda. [default: all that can be used]")
]
PrecisionToTry = Annotated[str | None, typer.Option(help="exact or fast. [default: both]")]


def doctor(
    gate: Annotated[bool, typer.Option("--gate", help="Compare engines with exact float32.")] = False,
    model: Annotated[
        Path | None, typer.Option(help="Model, or run, to compare with. [default: train a small one]")
    ] = None,
    engine: EngineToTry = None,
    precision: PrecisionToTry = None,
    stars: Annotated[int, typer.Option(help="Simulated stars to compare.", min=2, max=1000)] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """Say what this machine offers.

    With --gate, try whether its engines give right uncertainties.
    """
    settings_of(config)
    from apogee_batch.run.doctor import GateRequest, describe_machine, machine_lines, try_engines

    machine = describe_machine()
    if not as_json:
        print_lines(machine_lines(machine))
    found: dict[str, Any] = {"machine": machine}
    passed = True
    if gate:
        request = GateRequest(model, engine or "auto", precision, stars)
        result = try_engines(request, say=lambda line: typer.echo(f"... {line}", err=True))
        passed = result.passed
        found["gate"] = result.to_json()
        if not as_json:
            print_lines(["", *result.lines()])
    if as_json:
        typer.echo(json.dumps(found, indent=2, allow_nan=False))
    if not passed:
        raise typer.Exit(IntegrityError.exit_code)
