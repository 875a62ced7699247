"""The command that makes labels of M dwarfs from photometry."""

from pathlib import Path
from typing import Annotated

import typer

from apogee_batch.cli_options import print_lines


def mdwarfs(
    photometry: Annotated[
        Path, typer.Argument(metavar="PHOTOMETRY", help="Table of magnitudes and parallaxes.")
    ],
    out: Annotated[Path, typer.Option(help="Parquet file for the labels.")],
    settings: Annotated[
        Path | None, typer.Option(help="TOML file: cuts, young fields, relations, errors.")
    ] = None,
    teff_relation: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="As bp-rp or r-j+fe_h. [default: the best for each star]"),
    ] = None,
    column_map: Annotated[
        list[str] | None, typer.Option("--map", metavar="OURS=THEIRS", help="Name of a column, as k=KMAG.")
    ] = None,
    realizations: Annotated[int | None, typer.Option(help="Draws of each star. [default: 1000]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the draws. [default: 0]")] = None,
) -> None:
    """Label M dwarfs by colours and parallaxes.

    After Mann et al. 2015.

    Cuts: 0.7 < J-K < 1.05, 3.37 < g-K < 8.46, 5 < M_K < 10; which colour each range of the paper belongs to
    is inferred. [Fe/H] is a column, or a relation whose coefficients are in the settings.
    """
    from apogee_batch.labels.columns import parse_column_map
    from apogee_batch.run.mdwarfs import make_mdwarf_labels

    lines = make_mdwarf_labels(
        photometry,
        out,
        settings=settings,
        flags={
            "relations": {"teff_relation": teff_relation},
            "errors": {"realizations": realizations, "seed": seed},
        },
        column_map=parse_column_map(column_map or []),
    )
    print_lines(lines)
