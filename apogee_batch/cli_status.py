"""The commands that look at a folder: how far it is, and whether it is whole."""

import json
from pathlib import Path
from typing import Annotated

import typer

from apogee_batch.cli_options import Config, check_settings, print_lines, terminal
from apogee_batch.errors import IntegrityError
from apogee_batch.output import Manner, manner


def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run or a model, or a store.")],
    watch: Annotated[bool, typer.Option("--watch", help="Show it until it ends.")] = False,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time between two looks, with --watch.", min=0.2)
    ] = 5.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object; with --watch, one a line at each look.")
    ] = False,
    config: Config = None,
) -> None:
    """Say how far a run, a training or an ingest is.

    From its files alone: also from another host, and for the jobs of a queue.
    """
    check_settings(config)
    if watch:
        from apogee_batch.run.watch import watch as watch_run

        console = None if as_json or manner() != Manner() else terminal()
        print_lines(watch_run(run, interval_s=interval, is_json=as_json, console=console))
        return
    from apogee_batch.run.status import describe_status, status_to_json

    if as_json:
        typer.echo(json.dumps(status_to_json(run)))
    else:
        print_lines(describe_status(run))


def verify(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run or a model, or a store.")],
    config: Config = None,
) -> None:
    """Name what is damaged in a run, model or store.

    Every byte is looked at.
    """
    check_settings(config)
    from apogee_batch.run.verify import verify as verify_folder

    report = verify_folder(folder)
    print_lines(report.lines)
    if report.damages:
        raise typer.Exit(IntegrityError.exit_code)
