"""The command that makes labels of young stars from photometry and isochrones."""

from pathlib import Path
from typing import Annotated

import typer

from apogee_batch.cli_options import open_view, print_lines


def ysos(
    photometry: Annotated[
        Path, typer.Argument(metavar="PHOTOMETRY", help="Table of magnitudes and parallaxes.")
    ],
    out: Annotated[Path, typer.Option(help="Parquet file for the labels.")],
    isochrones: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="PARSEC (CMD) or BHAC15 table; several times for several."),
    ] = None,
    network: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Network of an earlier call: trains nothing.")
    ] = None,
    bands: Annotated[
        str | None, typer.Option(metavar="B,B,...", help="By wavelength. [default: g_gaia,bp,rp,j,h,k]")
    ] = None,
    limits: Annotated[
        list[str] | None, typer.Option("--limit", metavar="BAND=MAG", help="Limiting magnitude of a band.")
    ] = None,
    extinction: Annotated[
        list[str] | None,
        typer.Option("--extinction", metavar="BAND=RATIO", help="Extinction of a band over that in V."),
    ] = None,
    log_ages: Annotated[
        bool, typer.Option("--log-ages", help="Draw synthetic stars evenly in log age, not in age.")
    ] = False,
    max_age_gap: Annotated[
        float | None,
        typer.Option(metavar="DEX", help="Step in log age that is interpolated over. [default: 0.7]"),
    ] = None,
    scatter: Annotated[
        float | None,
        typer.Option(metavar="MAG", help="Error of each synthetic magnitude. [default: 0]", min=0),
    ] = None,
    stars: Annotated[int | None, typer.Option(help="Synthetic stars. [default: 42000]", min=100)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes through them. [default: 60]", min=1)] = None,
    realizations: Annotated[
        int | None, typer.Option(help="Noisy copies of each star. [default: 100]", min=2)
    ] = None,
    max_residual: Annotated[
        float | None,
        typer.Option(metavar="MAG", help="Rms from the models that a star may have. [default: 0.15]", min=0),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.", min=0)] = 0,
    column_map: Annotated[
        list[str] | None, typer.Option("--map", metavar="OURS=THEIRS", help="Name of a column, as k=KMAG.")
    ] = None,
) -> None:
    """Label young stars by their photometry.

    A small network is trained on isochrones (PARSEC or BHAC15).

    [Fe/H] is that of the isochrones, 0. The ages covered are those between the tables that are given.
    """
    from apogee_batch.labels.columns import parse_column_map
    from apogee_batch.run.yso_settings import read_yso_settings
    from apogee_batch.run.ysos import make_yso_labels

    made, settings = read_yso_settings(
        bands=bands,
        limits=limits or (),
        extinction=extinction or (),
        draws_log_age=log_ages,
        max_age_gap_dex=max_age_gap,
        scatter_mag=scatter,
        n_stars=stars,
        epochs=epochs,
        n_realizations=realizations,
        max_residual_mag=max_residual,
        seed=seed,
    )
    with open_view() as view:
        lines = make_yso_labels(
            photometry,
            out,
            isochrones=isochrones or (),
            network=network,
            made=made,
            settings=settings,
            column_map=parse_column_map(column_map or []),
            progress=view,
        )
    print_lines(lines)
