"""What Python programs may call, and that its numbers are those of the command line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.table import Table

import apogee_batch as ab
from apogee_batch.errors import ApStarError, UsageError
from apogee_batch.run.config import RunConfig
from apogee_batch.schema import LABEL_NAMES
from apogee_batch.survey.simulate import SimulatedSurvey

N_SHOWN = 3


def test_the_package_loads_nothing_heavy_before_it_is_asked() -> None:
    heavy = "('torch', 'zarr', 'astropy')"
    code = f"import sys, apogee_batch as ab; dir(ab); print([m for m in {heavy} if m in sys.modules])"
    told = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert told.stdout.strip() == "[]"


def test_what_is_public_is_listed_and_documented() -> None:
    for name in set(ab.__all__) - {"__version__"}:
        assert getattr(ab, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'secret'"):
        _ = ab.secret  # type: ignore[attr-defined,unused-ignore]


def test_a_file_gives_its_combined_spectrum(survey: SimulatedSurvey) -> None:
    path = sorted(survey.spectra.rglob("*.fits"))[0]
    spectrum = ab.read_apstar(path)
    assert spectrum.flux.shape == spectrum.err.shape == spectrum.wavelength.shape == (8575,)
    assert spectrum.wavelength[0] == pytest.approx(15100.80, abs=0.01)
    assert spectrum.star.apogee_id in path.name


def test_a_file_that_cannot_be_used_is_an_error_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "apStar-r8-x.fits").write_bytes(b"nothing")
    with pytest.raises(ApStarError) as caught:
        ab.read_apstar(str(tmp_path / "apStar-r8-x.fits"))
    assert caught.value.reason.name


def test_a_model_gives_the_numbers_of_the_catalogue(
    labelled_store: Path, finished_run: Path, serial_config: RunConfig
) -> None:
    store = ab.SpectrumStore(labelled_store)
    stars, batch = next(iter(store))
    names = stars["apstar_id"].to_pylist()[:N_SHOWN]
    table = ab.load_model(finished_run / "model", device="cpu").predict(
        batch.flux[:N_SHOWN],
        batch.err[:N_SHOWN],
        names=names,
        n_realizations=serial_config.inference.realizations,
        seed=serial_config.inference.seed,
    )
    catalog = pq.read_table(finished_run / "catalog" / "catalog.parquet").to_pandas().set_index("apstar_id")
    rows = catalog.loc[names]
    for name in LABEL_NAMES:
        for column in (name, f"e_{name}", f"{name}_clean"):
            np.testing.assert_allclose(table[column], rows[column], rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(table["snr"], rows["snr"], rtol=1e-6)
    assert table["teff"].unit == u.K
    assert list(table["name"]) == names


def test_a_model_takes_one_spectrum_with_gaps_of_nan(labelled_store: Path, finished_run: Path) -> None:
    model = ab.load_model(finished_run / "model", engine="torch", device="cpu")
    stars, batch = next(iter(ab.SpectrumStore(labelled_store)))
    flux, err = batch.flux[0].astype(float), batch.err[0].astype(float)
    flux[err >= 1e9] = np.nan
    alone = model.predict(flux, err, n_realizations=2)
    stored = model.predict(batch.flux[:1], batch.err[:1], n_realizations=2)
    assert len(stars) >= 1
    assert list(alone["teff"]) == list(stored["teff"])


def test_spectra_on_another_grid_are_refused(finished_run: Path) -> None:
    model = ab.load_model(finished_run / "model", engine="torch", device="cpu")
    with pytest.raises(UsageError, match=r"give both as \(n_stars, 8575\)"):
        model.predict(np.ones(4096), np.ones(4096))
    with pytest.raises(UsageError, match="2 names for 1 spectra"):
        model.predict(np.ones(8575), np.ones(8575), names=["a", "b"])
    with pytest.raises(ApStarError, match="no pixel"):
        model.predict(np.zeros(8575), np.full(8575, 1e10))


def test_a_catalogue_comes_as_a_table_or_a_frame(finished_run: Path) -> None:
    table = ab.read_catalog(finished_run)
    frame = ab.read_catalog(str(finished_run), "pandas")
    assert isinstance(table, Table)
    assert table["logg"].unit == u.dex(u.cm / u.s**2)
    assert list(table.colnames) == list(frame.columns)
    assert len(table) == len(frame) > 0
    with pytest.raises(UsageError, match="holds no published catalogue"):
        ab.read_catalog(finished_run / "model")


@pytest.mark.long
def test_a_run_is_made_from_python(
    labelled_store: Path, finished_run: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    run = ab.run_catalog(labelled_store, tmp_path / "run", model=finished_run / "model", config=serial_config)
    made, known = ((folder / "catalog" / "catalog.parquet") for folder in (run, finished_run))
    assert pq.read_table(made).equals(pq.read_table(known))


def test_settings_come_from_a_file_and_from_words(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("[inference]\nrealizations = 7\n")
    settings = ab.load_config(tmp_path / "run.toml", inference={"seed": 5})
    assert (settings.inference.realizations, settings.inference.seed) == (7, 5)
    with pytest.raises(UsageError):
        ab.load_config(inference={"realisations": 7})
