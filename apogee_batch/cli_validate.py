"""The command that compares a catalogue with labels."""

from pathlib import Path
from typing import Annotated

import typer

from apogee_batch.cli_options import Config, check_settings, print_lines


def validate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a published run.")],
    json: Annotated[Path | None, typer.Option(help="Write all numbers to this file.")] = None,
    width: Annotated[int, typer.Option(help="Columns of the tables.", min=20, max=1000)] = 100,
    against: Annotated[
        Path | None, typer.Option(help="Table of labels to compare with instead, such as a known truth.")
    ] = None,
    column_map: Annotated[
        list[str] | None, typer.Option("--map", metavar="OURS=THEIRS", help="Name of a column of that table.")
    ] = None,
    is_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print rms and bias by type and SNR as Markdown instead.")
    ] = False,
    config: Config = None,
) -> None:
    """Compare a catalogue with its labels.

    Tables 2 and 3 of the paper, trends with SNR and Teff, and whether the sigmas are honest.
    """
    check_settings(config)
    from apogee_batch.labels.columns import parse_column_map
    from apogee_batch.run.validate import describe_validation

    lines = describe_validation(
        run,
        json=json,
        width=width,
        against=against,
        column_map=parse_column_map(column_map or []),
        is_markdown=is_markdown,
    )
    print_lines(lines)
