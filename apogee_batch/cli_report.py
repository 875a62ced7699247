"""The command that makes the page of a run."""

from pathlib import Path
from typing import Annotated

import typer

from apogee_batch.cli_options import Config, check_settings, print_lines


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a published run.")],
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of the model, for the curves of its training. [default: RUN/model]"),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Store of the spectra, to show those of the strangest stars.")
    ] = None,
    isochrones: Annotated[
        list[Path] | None,
        typer.Option(
            help="Isochrone table of PARSEC (CMD) or BHAC15, whose lines the Kiel diagram gets; "
            "may be repeated. [default: none]"
        ),
    ] = None,
    age: Annotated[
        list[float] | None,
        typer.Option(
            metavar="MYR",
            help="Age of an isochrone to draw, in Myr; may be repeated. [default: all of six or fewer, else "
            "those next to 1, 10, 100 Myr, 1 and 10 Gyr]",
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Make the page of a run: one HTML file that needs no network, and its pictures as PNG and PDF."""
    check_settings(config)
    from apogee_batch.run.report import describe_report

    lines = describe_report(run, model=model, store=store, isochrones=isochrones or (), ages_myr=age or ())
    print_lines(lines)
