"""A survey that never was: apStar files, an allStar table and label tables, with the truth beside them.

It stands in for the real survey in the demo and in the tests: its files have the real layout and
the real faults, and its spectra carry their labels as real ones do, but nothing of it was observed.
The same seed gives the same bytes, and a star does not change with the number of stars.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apogee_batch.errors import UsageError
from apogee_batch.files import read_json, write_json
from apogee_batch.schema import FloatArray
from apogee_batch.survey.populations import MAX_STARS, SimulatedStar, draw_star
from apogee_batch.survey.simulate_exposure import observe
from apogee_batch.survey.simulate_files import RELEASE, apstar_bytes, apstar_path, write_whole
from apogee_batch.survey.simulate_tables import write_allstar, write_labels, write_truth
from apogee_batch.survey.sketch import sketch_spectrum

MARKER = "survey.json"  # tells a survey of ours from any other folder
FORMAT = "apogee-batch simulated survey"
VERSION = 1  # of the sketch: raise it when the same seed gives other bytes
MAGNITUDE_TO_FLUX = (7.053, -0.4)  # log10 of the median flux against H, measured on real apStar files


@dataclass(frozen=True)
class SimulatedSurvey:
    """Where the parts of a simulated survey lie.

    Attributes
    ----------
    folder : Path
        The survey.
    spectra : Path
        Folder of the apStar files, to ingest.
    allstar : Path
        Summary of all stars (FITS).
    labels : dict of str to Path
        Label tables: payne (FITS), mstar (CSV), yso (Parquet).
    truth : Path
        What every spectrum was made from (Parquet).
    """

    folder: Path
    spectra: Path
    allstar: Path
    labels: dict[str, Path]
    truth: Path


def simulate_survey(
    folder: Path,
    *,
    n_stars: int,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> SimulatedSurvey:
    """Write a simulated survey.

    Three of four stars are red giants and FGK dwarfs with labels like those of Payne, the others M dwarfs,
    young stars, and stars that no label table holds. One in ten has several visits.

    Parameters
    ----------
    folder : Path
        Where to write: new, empty, or the same survey, complete or not. `truth.parquet` is written last.
    n_stars : int
        Number of stars, at least one.
    seed : int
        Which survey; not negative.
    on_progress : callable, optional
        Called with the number of stars written and `n_stars` after every star.

    Returns
    -------
    SimulatedSurvey

    Raises
    ------
    UsageError
        For a number out of range, or a folder that holds something else.
    """
    if not 1 <= n_stars <= MAX_STARS:
        raise UsageError(f"--stars {n_stars}: give a number from 1 to {MAX_STARS}")
    if seed < 0:
        raise UsageError(f"--seed {seed}: give a number that is not negative")
    survey = _layout(folder)
    _claim(folder, n_stars, seed)
    survey.truth.unlink(missing_ok=True)  # the mark that a survey is complete
    stars, snr = [], []
    for index in range(n_stars):
        star = draw_star(seed, index)
        stars.append(star)
        snr.append(write_star(folder, star, seed))
        if on_progress is not None:
            on_progress(index + 1, n_stars)
    write_allstar(survey.allstar, stars, snr)
    write_labels(survey.labels, stars)
    write_truth(survey.truth, stars, snr)
    return survey


def _layout(folder: Path) -> SimulatedSurvey:
    """Return the paths of a survey in a folder."""
    labels = folder / "labels"
    return SimulatedSurvey(
        folder=folder,
        spectra=folder / "redux" / RELEASE / "stars",
        allstar=folder / "allStar-simulated.fits",
        labels={
            "payne": labels / "payne.fits",
            "mstar": labels / "mstar.csv",
            "yso": labels / "yso.parquet",
        },
        truth=folder / "truth.parquet",
    )


def _claim(folder: Path, n_stars: int, seed: int) -> None:
    """Make the folder ours, or refuse it."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; give a folder")
    marker = folder / MARKER
    if marker.is_file():
        _check_same_survey(folder, n_stars, seed)
    elif folder.is_dir() and any(not entry.name.startswith(f".{MARKER}.") for entry in folder.iterdir()):
        raise UsageError(f"{folder}: holds other files; give a new or an empty folder")
    try:
        write_json(marker, {"format": FORMAT, "version": VERSION, "seed": seed, "n_stars": n_stars})
    except OSError as error:
        raise UsageError(f"{folder}: cannot write there ({error.strerror}); give another folder") from error


def _check_same_survey(folder: Path, n_stars: int, seed: int) -> None:
    """Refuse a folder with a survey of another seed, or with more stars than asked for: they would stay."""
    try:
        found = read_json(folder / MARKER)
    except ValueError:
        found = None
    if (
        not isinstance(found, dict)
        or [found.get(key) for key in ("format", "version", "seed")] != [FORMAT, VERSION, seed]
        or found.get("n_stars") not in range(1, n_stars + 1)
    ):
        raise UsageError(
            f"{folder}: holds another simulated survey ({found}); remove it or give another folder"
        )


def simulate_flux(star: SimulatedStar) -> FloatArray:
    """Return the flux of a star without noise, shape (n_pixels,), in 1e-17 erg/s/cm2/Angstrom."""
    offset, slope = MAGNITUDE_TO_FLUX
    return sketch_spectrum(star.parameters) * np.float32(10.0 ** (offset + slope * star.h))


def write_star(folder: Path, star: SimulatedStar, seed: int) -> float:
    """Write the apStar file of a star under `folder`, and return its signal-to-noise ratio."""
    exposure = observe(
        simulate_flux(star),
        snr=star.snr,
        n_visits=star.n_visits,
        velocity_km_s=star.velocity_km_s,
        rng=np.random.default_rng([seed, star.index, 1]),
    )
    write_whole(folder / apstar_path(star), apstar_bytes(star, exposure))
    return exposure.snr
