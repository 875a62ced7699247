"""The commands that need no data: a simulated survey, and the whole way on it."""

from pathlib import Path
from typing import Annotated

import typer

from apogee_batch.cli_options import (
    Cluster,
    Config,
    Workers,
    check_settings,
    open_view,
    print_lines,
    settings_of,
)


def simulate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the survey.")],
    stars: Annotated[int, typer.Option(help="Number of stars.", min=1, max=1_000_000)] = 1200,
    seed: Annotated[int, typer.Option(help="Seed of the survey.", min=0)] = 1,
    config: Config = None,
) -> None:
    """Simulate a survey with known labels.

    apStar files, an allStar summary and label tables.
    """
    check_settings(config)
    from apogee_batch.run.demo import simulate as simulate_with_progress

    with open_view() as view:
        survey = simulate_with_progress(folder, n_stars=stars, seed=seed, progress=view)
    print_lines([f"{stars} stars in {survey.spectra}; summary {survey.allstar}"])


def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the demo.")] = Path("demo"),
    stars: Annotated[int, typer.Option(help="Number of stars.", min=100, max=100_000)] = 1200,
    seed: Annotated[
        int | None, typer.Option(help="Seed. [default: 1 for the survey, of the settings for the run]", min=0)
    ] = None,
    realizations: Annotated[
        int | None, typer.Option(help="Noisy copies of each spectrum. [default: 100]")
    ] = None,
    config: Config = None,
    cluster: Cluster = None,
    workers: Workers = None,
) -> None:
    """Go the whole way on a simulated survey.

    Simulate, ingest, train, infer, publish: some minutes.
    """
    settings = settings_of(
        config,
        training={"seed": seed},
        inference={"realizations": realizations, "seed": seed},
        cluster={"kind": cluster, "workers": workers},
    )
    from apogee_batch.run.demo import DEMO_SEED, run_demo

    survey_seed = DEMO_SEED if seed is None else seed
    with open_view() as view:
        lines = run_demo(folder, n_stars=stars, seed=survey_seed, config=settings, progress=view)
    print_lines(lines)
