"""The commands that give a catalogue away: other formats, and what a file holds."""

from pathlib import Path
from typing import Annotated

import typer

from apogee_batch.cli_options import Config, print_lines, settings_of


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a published run.")],
    formats: Annotated[
        list[str],
        typer.Option("--format", metavar="FORMAT", help="votable, csv, ecsv or mrt; repeat for more."),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the files. [default: RUN/export]")] = None,
    config: Config = None,
) -> None:
    """Write a catalogue in other formats.

    Parquet and FITS are in the catalog folder of every run.
    """
    settings_of(config)
    from apogee_batch.run.export import export as export_run

    print_lines(export_run(run, formats, out=out))


def describe(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A catalogue, or the folder of a run.")],
    config: Config = None,
) -> None:
    """Say what a catalogue file holds.

    Columns with units, UCDs, descriptions and missing values; flags. Parquet, FITS, VOTable, ECSV, MRT, CSV.
    """
    settings_of(config)
    import shutil

    from apogee_batch.run.describe import WIDE, describe_file

    print_lines(describe_file(file, width=shutil.get_terminal_size((WIDE, 24)).columns))
