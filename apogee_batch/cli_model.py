"""Commands about models."""

from pathlib import Path
from typing import Annotated

import typer

from apogee_batch.cli_options import Config, print_lines, settings_of


def model_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="State dict of APOGEE Net I.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    config: Config = None,
) -> None:
    """Import the authors' weights (a torch state dict); the input is then raw flux."""
    settings_of(config)
    from apogee_batch.run import commands

    print_lines(commands.import_model(file, out))
