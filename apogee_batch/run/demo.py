"""The demo: a simulated survey from its files to its catalogue."""

import time
from pathlib import Path

from apogee_batch.errors import UsageError
from apogee_batch.run.attach import attach_tables
from apogee_batch.run.commands import ingest, make_catalog
from apogee_batch.run.config import RunConfig
from apogee_batch.run.progress import ProgressView
from apogee_batch.survey.simulate import SimulatedSurvey, simulate_survey

DEMO_SEED = 1  # of the survey, where the user gives none
KNOWN_NAMES = {"survey", "spectra.zarr", "run"}


def run_demo(
    folder: Path, *, n_stars: int, seed: int, config: RunConfig, progress: ProgressView
) -> list[str]:
    """Simulate, ingest, attach labels, train, infer, publish; a second call goes on with the first.

    Parameters
    ----------
    folder : Path
        Gets `survey/`, `spectra.zarr` and `run/`.
    n_stars, seed : int
        Size and seed of the simulated survey.
    config : RunConfig
        All settings.
    progress : ProgressView
        What the user sees.

    Raises
    ------
    UsageError
        If the folder holds something else.
    """
    if folder.is_dir() and any(_is_foreign(path) for path in folder.iterdir()):
        raise UsageError(f"{folder}: holds something that is not a demo; name another folder")
    started = time.monotonic()
    survey = simulate(folder / "survey", n_stars=n_stars, seed=seed, progress=progress)
    store, run = folder / "spectra.zarr", folder / "run"
    for line in ingest(
        [str(survey.spectra)],
        store,
        allstar=survey.allstar,
        config=config,
        is_dry_run=False,
        progress=progress,
    ):
        progress.say(line)
    attach_tables(store, {name: [path] for name, path in survey.labels.items()}, column_map={})
    lines = make_catalog(
        store, run, model=None, config=config, is_dry_run=False, progress=progress, wants_page=True
    )
    return [*lines, f"time:      {time.monotonic() - started:.0f} s"]


def _is_foreign(path: Path) -> bool:
    """Tell whether a demo did not leave this; half a store of a killed ingest is a leftover of it."""
    return path.name not in KNOWN_NAMES and not path.match(".*.partial")


def simulate(folder: Path, *, n_stars: int, seed: int, progress: ProgressView) -> SimulatedSurvey:
    """Write a simulated survey and show how far it is."""
    progress.start("simulate", n_stars, "stars")
    done = 0

    def show(now: int, _total: int) -> None:
        nonlocal done
        progress.advance(now - done)
        done = now

    survey = simulate_survey(folder, n_stars=n_stars, seed=seed, on_progress=show)
    progress.finish()
    return survey
