"""The small survey that the blocks of the documents find, under the names that the documents use."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from astropy.table import Table
from document_blocks import ROOT, STARTS
from mdwarf_stars import BANDS, ERROR_MAG, FIELD_STAR
from shortened import TINY_RECIPE, TINY_SETTINGS
from young_isochrones import write_bhac15, write_parsec

from apogee_batch.survey.simulate import SimulatedSurvey

ONE_STAR = "apStar-r8-2M19390532+4027346.fits"
AGES_MYR = (1.0, 3.0, 10.0, 30.0, 100.0)
SETTINGS = """
[ingest]
shard_stars = 16

[training]
recipe = "{recipe}"
threads = 1

[inference]
realizations = 3

[cluster]
kind = "serial"
device = "cpu"
"""


@dataclass(frozen=True)
class Kit:
    """Everything that a page may find, in folders named after `STARTS`."""

    folder: Path

    def lay_out(self, start: str, scratch: Path) -> None:
        """Copy what a page begins with."""
        for part in STARTS[: STARTS.index(start) + 1]:
            shutil.copytree(self.folder / part, scratch, symlinks=True, dirs_exist_ok=True)


def lay_out_nothing(nothing: Path, *, recipe: Path, demo: dict[str, Path]) -> None:
    """Lay out what even a new user has: the folder `jobs`, and `demo` as `make demo` leaves it."""
    (nothing / ".venv" / "bin").mkdir(parents=True)
    (nothing / ".venv" / "bin" / "activate").write_text("")
    for name, made in demo.items():
        shutil.copytree(made, nothing / "demo" / name)
    shutil.copy(recipe, nothing / TINY_RECIPE)
    shutil.copytree(ROOT / "jobs", nothing / "jobs")
    for name in (TINY_SETTINGS, "jobs/laptop.toml"):
        (nothing / name).write_text(SETTINGS.format(recipe=TINY_RECIPE))


def lay_out_files(files: Path, survey: SimulatedSurvey) -> None:
    """Give the parts of a survey the names that the documents use, and put tables of others beside them."""
    for name in ("redux", "stars"):
        shutil.copytree(survey.spectra, files / name)
    names = {"payne": "payne.fits", "mstar": "mdwarfs.csv", "yso": "ysos.parquet"}
    for kind, name in names.items():
        shutil.copy(survey.labels[kind], files / name)
    shutil.copy(survey.allstar, files / "allStar-l31c.2.fits")
    shutil.copy(ROOT / "jobs" / "slurm.toml", files / "slurm.toml")
    truth = pq.read_table(survey.truth)
    labels = {f"TRUE_{name.upper()}": np.asarray(truth[name]) for name in ("teff", "logg", "fe_h")}
    Table({"apogee_id": truth["apogee_id"].to_pylist(), **labels}).write(files / "truth.fits")
    pq.write_table(gaia_table(survey.allstar), files / "gaia.parquet")
    named = min(path for path in (files / "stars").rglob("*.fits"))
    shutil.copy(named, files / ONE_STAR)
    photometry_table(*(names_of(truth, kind) for kind in ("mstar", "yso"))).write(files / "photometry.fits")
    (files / "mdwarfs.toml").write_text("[errors]\nfe_h = 0.1\n")
    write_parsec(files / "parsec.dat", AGES_MYR)
    write_bhac15(files / "BHAC15_iso.2mass.txt", AGES_MYR)


def names_of(truth: pa.Table, data_type: str) -> list[str]:
    """Return the stars of a type."""
    return truth.filter(pc.equal(truth["data_type"], data_type))["apogee_id"].to_pylist()


def photometry_table(mdwarfs: list[str], ysos: list[str]) -> Table:
    """Make up magnitudes and parallaxes of M dwarfs at 20 pc, and of young stars at 400 pc."""
    near = FIELD_STAR | {"h": 8.3, "g_gaia": 11.2}
    far = {"g_gaia": 13.0, "bp": 13.9, "rp": 12.0, "j": 10.7, "h": 10.0, "k": 9.8, "parallax": 2.5}
    rows = [near] * len(mdwarfs) + [near | far] * len(ysos)
    columns = {name: [row[name] for row in rows] for name in near}
    errors = {f"e_{band}": [ERROR_MAG] * len(rows) for band in (*BANDS, "h", "g_gaia")}
    return Table({"apogee_id": [*mdwarfs, *ysos], "field": ["M67"] * len(rows), **columns, **errors})


def gaia_table(allstar: Path) -> pa.Table:
    """Make up what Gaia might say of the stars of a summary, half an arcsecond beside them."""
    stars = Table.read(allstar)
    n_stars, random = len(stars), np.random.default_rng(1)
    return pa.table(
        {
            "source_id": np.arange(n_stars, dtype=np.int64) + 10**18,
            "ra": np.asarray(stars["RA"], dtype=np.float64),
            "dec": np.asarray(stars["DEC"], dtype=np.float64) + 0.5 / 3600,
            "parallax": random.uniform(0.2, 5, n_stars),
            "parallax_error": np.full(n_stars, 0.03),
            "pmra": random.normal(0, 10, n_stars),
            "pmdec": random.normal(0, 10, n_stars),
            "phot_g_mean_mag": np.asarray(stars["H"], dtype=np.float64) + 2.5,
            "bp_rp": np.full(n_stars, 1.5),
        }
    )


def block_environment(first: Path) -> dict[str, str]:
    """Return the environment of blocks: programs of the environment of the tests, and no display."""
    path = os.pathsep.join([str(first), str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    fixed = {"PATH": path, "MPLBACKEND": "Agg", "NO_COLOR": "1", "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **fixed}
