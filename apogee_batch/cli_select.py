"""The command that takes a sample of stars out of a catalogue."""

from pathlib import Path
from typing import Annotated

import typer

from apogee_batch.cli_options import print_lines


def select_ysos(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a published run.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Table: .parquet, .fits, .vot, .ecsv or .csv. [default: RUN/selections/ysos.parquet]"
        ),
    ] = None,
    polygon: Annotated[
        Path | None, typer.Option(help="TOML file with vertices [teff, logg]. [default: the paper's]")
    ] = None,
    without_flags: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Leave stars with these flags out, as LOW_SNR,STRANGE_SPECTRUM."),
    ] = None,
    probability: Annotated[
        bool, typer.Option("--probability", help="Add how much of a star's error lies in the polygon.")
    ] = False,
    isochrones: Annotated[
        list[Path] | None, typer.Option(help="PARSEC or BHAC15 table, once for each: add ages and masses.")
    ] = None,
    max_age: Annotated[
        float | None, typer.Option(metavar="MYR", help="Leave older isochrones out. [default: 100]")
    ] = None,
    logg_bins: Annotated[
        str | None, typer.Option(metavar="EDGES", help="Add bins of log g, with edges as 3.5,3.8,4.1.")
    ] = None,
) -> None:
    """Select young stars by the paper's polygon in Teff and log g."""
    from apogee_batch.labels.age_mesh import MAX_AGE_MYR
    from apogee_batch.run.select import select_ysos as select
    from apogee_batch.run.selection_settings import SelectionSettings

    names = [name.strip().upper() for name in (without_flags or "").split(",")]
    settings = SelectionSettings(
        polygon=polygon,
        without_flags=tuple(name for name in names if name),
        with_probability=probability,
        isochrones=tuple(isochrones or ()),
        max_age_myr=MAX_AGE_MYR if max_age is None else max_age,
        logg_bins=logg_bins,
    )
    print_lines(select(run, out, settings))
