"""The command that makes the page of a run."""

from pathlib import Path
from typing import Annotated

import typer

from apogee_batch.cli_options import Config, print_lines, settings_of


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a published run.")],
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of the model, for the curves of its training. [default: RUN/model]"),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Store of the spectra, to show those of the strangest stars.")
    ] = None,
    config: Config = None,
) -> None:
    """Make the page of a run: one HTML file that needs no network, and its pictures as PNG and PDF."""
    settings_of(config)
    from apogee_batch.run.report import describe_report

    print_lines(describe_report(run, model=model, store=store))
