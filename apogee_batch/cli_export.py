"""The commands that give a catalogue away: other formats, and what a file holds."""

from pathlib import Path
from typing import Annotated

import typer

from apogee_batch.cli_options import Config, check_settings, choices, print_lines
from apogee_batch.errors import UsageError


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a published run.")],
    formats: Annotated[
        list[str],
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="votable, csv, ecsv, mrt or hats; repeat for more.",
            autocompletion=choices("format"),
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the files. [default: RUN/export]")] = None,
    margin: Annotated[
        float | None, typer.Option(metavar="ARCSEC", help="Margin of a HATS catalogue. [default: 10]")
    ] = None,
    config: Config = None,
) -> None:
    """Write a catalogue in other formats.

    Parquet and FITS are in the catalog folder of every run.
    """
    check_settings(config)
    from apogee_batch.run.export import HATS
    from apogee_batch.run.export import export as export_run
    from apogee_batch.run.hats import DEFAULT_MARGIN_ARCSEC

    if margin is not None and HATS not in formats:
        raise UsageError("--margin is for --format hats; the other formats have none")
    chosen = DEFAULT_MARGIN_ARCSEC if margin is None else margin
    print_lines(export_run(run, formats, out=out, margin_arcsec=chosen))


def describe(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A catalogue, or the folder of a run.")],
    config: Config = None,
) -> None:
    """Say what a catalogue file holds.

    Columns with units, UCDs, descriptions and missing values; flags. Parquet, FITS, VOTable, ECSV, MRT, CSV,
    and HATS folders.
    """
    check_settings(config)
    import shutil

    from apogee_batch.run.describe import WIDE, describe_file

    print_lines(describe_file(file, width=shutil.get_terminal_size((WIDE, 24)).columns))
