"""A survey that never was: apStar files, an allStar table and label tables, with the truth beside them.

It stands in for the real survey in the demo and in the tests: its files have the real layout and
the real faults, and its spectra carry their labels as real ones do, but nothing of it was observed.
The same seed gives the same bytes, and a star does not change with the number of stars.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits

from apogee_batch.errors import UsageError
from apogee_batch.files import read_json, replace_on_success, write_json, write_text
from apogee_batch.schema import LABEL_UNITS, FloatArray
from apogee_batch.survey.populations import MAX_STARS, TELESCOPE, SimulatedStar, draw_star
from apogee_batch.survey.simulate_exposure import observe
from apogee_batch.survey.simulate_files import RELEASE, apstar_bytes, apstar_path, write_whole
from apogee_batch.survey.sketch import sketch_spectrum

MARKER = "survey.json"  # tells a survey of ours from any other folder
FORMAT = "apogee-batch simulated survey"
VERSION = 1  # of the sketch: raise it when the same seed gives other bytes
MAGNITUDE_TO_FLUX = (7.053, -0.4)  # log10 of the median flux against H, measured on real apStar files

TABLE_LABELS = ("teff", "logg", "fe_h")  # in the order of label tables
ALLSTAR_FORMATS = {
    "APSTAR_ID": "45A",
    "FILE": "64A",
    "APOGEE_ID": "18A",
    "TELESCOPE": "8A",
    "LOCATION_ID": "J",
    "FIELD": "16A",
    "RA": "D",
    "DEC": "D",
    "J": "E",
    "H": "E",
    "K": "E",
    "NVISITS": "J",
    "SNR": "E",
    "STARFLAG": "J",
    "EXTRATARG": "J",
}


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
    _write_allstar(survey.allstar, stars, snr)
    _write_labels(survey.labels, stars)
    with replace_on_success(survey.truth) as temporary:
        pq.write_table(_truth(stars, snr), temporary)
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
    wanted = {"format": FORMAT, "version": VERSION, "seed": seed, "n_stars": n_stars}
    marker = folder / MARKER
    if marker.is_file():
        try:
            found = read_json(marker)
        except ValueError:
            found = None
        same = isinstance(found, dict) and all(
            found.get(key) == wanted[key] for key in ("format", "version", "seed")
        )
        if not same or found.get("n_stars", 0) > n_stars:
            raise UsageError(
                f"{folder}: holds another simulated survey ({found}); remove it or give another folder"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder}: holds other files; give a new or an empty folder")
    write_json(marker, wanted)


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


def _write_allstar(path: Path, stars: list[SimulatedStar], snr: list[float]) -> None:
    """Write the summary with the columns of DR14 that matter; strings are padded with blanks, as there."""
    values: dict[str, list[Any]] = {
        "APSTAR_ID": [star.apstar_id for star in stars],
        "FILE": [apstar_path(star).name for star in stars],
        "APOGEE_ID": [star.apogee_id for star in stars],
        "TELESCOPE": [TELESCOPE] * len(stars),
        "LOCATION_ID": [star.field.location_id for star in stars],
        "FIELD": [star.field.name for star in stars],
        "RA": [star.ra for star in stars],
        "DEC": [star.dec for star in stars],
        "J": [star.j for star in stars],
        "H": [star.h for star in stars],
        "K": [star.k for star in stars],
        "NVISITS": [star.n_visits for star in stars],
        "SNR": snr,
        "STARFLAG": [star.starflag for star in stars],
        "EXTRATARG": [0] * len(stars),
    }
    columns = []
    for name, form in ALLSTAR_FORMATS.items():
        column = values[name]
        if form.endswith("A"):
            column = [text.ljust(int(form[:-1])) for text in column]
        columns.append(fits.Column(name=name, format=form, array=np.array(column)))
    _write_fits(path, columns)


def _write_fits(path: Path, columns: list[Any]) -> None:
    """Write one binary table."""
    content = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(content)
    with replace_on_success(path) as temporary:
        temporary.write_bytes(content.getvalue())


def _write_labels(paths: dict[str, Path], stars: list[SimulatedStar]) -> None:
    """Write the three label tables, each in another format, with noisy labels."""
    chosen = {name: [star for star in stars if star.data_type == name] for name in paths}
    columns = [
        fits.Column("APOGEE_ID", "18A", array=np.array([star.apogee_id for star in chosen["payne"]], "U18"))
    ]
    columns += [
        fits.Column(
            label.upper(),
            "D",
            unit=LABEL_UNITS[label],
            array=np.array([star.labels[label] for star in chosen["payne"]]),
        )
        for label in TABLE_LABELS
    ]
    _write_fits(paths["payne"], columns)
    rows = [
        [star.apogee_id, *(repr(star.labels[label]) for label in TABLE_LABELS)] for star in chosen["mstar"]
    ]
    write_text(
        paths["mstar"], "\n".join(",".join(row) for row in [["apogee_id", *TABLE_LABELS], *rows]) + "\n"
    )
    schema = pa.schema(
        [pa.field("apogee_id", pa.string())]
        + [pa.field(label, pa.float64(), metadata={"unit": LABEL_UNITS[label]}) for label in TABLE_LABELS]
    )
    table = {"apogee_id": [star.apogee_id for star in chosen["yso"]]} | {
        label: [star.labels[label] for star in chosen["yso"]] for label in TABLE_LABELS
    }
    with replace_on_success(paths["yso"]) as temporary:
        pq.write_table(pa.table(table, schema=schema), temporary)


def _truth(stars: list[SimulatedStar], snr: list[float]) -> pa.Table:
    """Return what every spectrum was made from."""
    columns: dict[str, Any] = {
        "apstar_id": [star.apstar_id for star in stars],
        "apogee_id": [star.apogee_id for star in stars],
        "file": [apstar_path(star).as_posix() for star in stars],
        "data_type": pa.array([star.data_type for star in stars], pa.string()),
        "population": [star.population for star in stars],
    }
    for name in ("teff", "logg", "fe_h", "alpha_fe", "broadening_km_s", "a_v", "veiling"):
        columns[name] = [getattr(star.parameters, name) for star in stars]
    columns |= {
        "h": [star.h for star in stars],
        "n_visits": pa.array([star.n_visits for star in stars], pa.int32()),
        "snr": snr,
    }
    return pa.table(columns)
