"""The commands that look at a folder: how far it is, and whether it is whole."""

from pathlib import Path
from typing import Annotated

import typer

from apogee_batch.cli_options import Config, print_lines, settings_of
from apogee_batch.errors import IntegrityError


def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run or a model, or a store.")],
    config: Config = None,
) -> None:
    """Say how far a run, a training or an ingest is."""
    settings_of(config)
    from apogee_batch.run.status import describe_status

    print_lines(describe_status(run))


def verify(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run or a model, or a store.")],
    config: Config = None,
) -> None:
    """Name what is damaged in a run, model or store.

    Every byte is looked at.
    """
    settings_of(config)
    from apogee_batch.run.verify import verify as verify_folder

    report = verify_folder(folder)
    print_lines(report.lines)
    if report.damages:
        raise typer.Exit(IntegrityError.exit_code)
