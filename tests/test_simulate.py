"""A simulated survey has the layout, the faults and the labels of a real one."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.errors import UsageError
from apogee_batch.survey.pixels import BAD_PIXEL_ERR, GAP_ERR, N_PIXELS, PixelMask
from apogee_batch.survey.populations import (
    LABEL_NOISE,
    MAX_STARS,
    SHARES,
    SimulatedStar,
    data_type_of,
    draw_star,
    fields,
)
from apogee_batch.survey.simulate import SimulatedSurvey, simulate_flux, simulate_survey, write_star
from apogee_batch.survey.simulate_exposure import GAPS, MAX_SHIFT, observe
from apogee_batch.survey.simulate_files import apstar_bytes, apstar_path, write_whole

N_STARS = 60
SEED = 7
LABELS = ("teff", "logg", "fe_h")


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> SimulatedSurvey:
    """A small survey; tests only read it."""
    return simulate_survey(tmp_path_factory.mktemp("survey") / "mock", n_stars=N_STARS, seed=SEED)


@pytest.fixture(scope="module")
def truth(survey: SimulatedSurvey) -> pa.Table:
    return pq.read_table(survey.truth)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def some_stars(n: int) -> list[SimulatedStar]:
    return [draw_star(SEED, index) for index in range(n)]


def test_every_file_has_the_layout_of_dr14(survey: SimulatedSurvey, truth: pa.Table) -> None:
    for row in truth.to_pylist():
        path = survey.folder / row["file"]
        name = re.fullmatch(r"redux/r8/stars/apo25m/(\d{4})/apStar-r8-(2M\d{8}[+-]\d{7})\.fits", row["file"])
        assert name is not None
        assert path.stat().st_size % 2880 == 0
        n_visits = row["n_visits"]
        shape = (N_PIXELS,) if n_visits == 1 else (2 + n_visits, N_PIXELS)
        with fits.open(path, memmap=False) as hdus:
            hdus.verify("exception")
            header = hdus[0].header
            assert hdus[0].data is None
            assert [hdu.data.shape for hdu in hdus[1:]] == [shape] * 3
            assert [hdu.header["BITPIX"] for hdu in hdus[1:]] == [-32, -32, 16]
            assert hdus[1].header["CRVAL1"] == 4.179
            assert hdus[1].header["CDELT1"] == 6e-6
            combined = [np.atleast_2d(hdu.data)[0] for hdu in hdus[1:3]]
        assert header["OBJID"] == row["apogee_id"] == name[2]
        assert header["LOCID"] == int(name[1])
        assert header["TELESCOP"] == "apo25m"
        assert header["NVISITS"] == n_visits
        assert {"J", "K", "FIELD", "STARFLAG", "ANDFLAG", "CRVAL1", "CDELT1", "NWAVE"} <= set(header)
        assert header["H"] == row["h"]
        assert header["SNR"] == pytest.approx(np.median(combined[0] / combined[1]), rel=1e-6)
        assert header["SNR"] == pytest.approx(row["snr"], rel=1e-9)
        assert -90 <= header["DEC"] <= 90
        assert 0 <= header["RA"] < 360


def test_a_gap_is_flux_zero_huge_error_and_bad_pixel_together(
    survey: SimulatedSurvey, truth: pa.Table
) -> None:
    for path in truth["file"].to_pylist():
        with fits.open(survey.folder / path, memmap=False) as hdus:
            flux, err, mask = (np.atleast_2d(hdu.data) for hdu in hdus[1:4])
        gap = err == GAP_ERR
        np.testing.assert_array_equal(gap, flux == 0)
        np.testing.assert_array_equal(gap, mask & int(PixelMask.BADPIX) != 0)
        assert np.isfinite(flux).all()
        assert (err > 0).all()
        assert err[~gap].max() < BAD_PIXEL_ERR
        assert (mask >= 0).all()
        for first, stop in GAPS:  # whatever the velocity, the middle of a gap is a gap
            inner = slice(first + MAX_SHIFT if first else 0, stop - MAX_SHIFT if stop < N_PIXELS else stop)
            assert gap[:, inner].all()
        assert 600 < gap[0].sum() < 1100


def test_errors_spread_as_on_real_files() -> None:
    percentiles, negative, edge = [], [], []
    for star in some_stars(40):
        exposure = observe(
            simulate_flux(star),
            snr=star.snr,
            n_visits=1,
            velocity_km_s=0.0,
            rng=np.random.default_rng(star.index),
        )
        good = exposure.err < BAD_PIXEL_ERR
        relative = exposure.err[good] / np.median(exposure.err)
        percentiles.append(np.percentile(relative, [5, 75, 95, 99]))
        negative.append(np.count_nonzero(exposure.flux < 0))
        edge.append(relative.max())
        assert exposure.snr == pytest.approx(star.snr, rel=0.3)
    five, upper, high, highest = np.median(percentiles, axis=0)
    assert 0.65 < five < 0.85
    assert 1.1 < upper < 1.4
    assert 2.0 < high < 4.0
    assert 10.0 < highest < 40.0
    assert max(edge) > 1e5
    assert max(negative) < 200


def test_flux_scatters_as_its_error_says() -> None:
    star = draw_star(SEED, 0)
    clean = simulate_flux(star)
    exposure = observe(clean, snr=100.0, n_visits=1, velocity_km_s=10.0, rng=np.random.default_rng(1))
    usual = exposure.err < 5 * np.median(exposure.err)
    pull = (exposure.flux - clean)[usual] / exposure.err[usual]
    inner = pull[np.abs(pull) < 4]
    assert inner.std() == pytest.approx(1.0, abs=0.05)
    spikes = np.count_nonzero(np.abs(pull) > 4)
    assert 3 < spikes < 40


def test_visits_average_to_the_combined_spectrum() -> None:
    star = draw_star(SEED, 0)
    clean = simulate_flux(star)
    exposure = observe(clean, snr=90.0, n_visits=3, velocity_km_s=-60.0, rng=np.random.default_rng(2))
    assert exposure.flux.shape == exposure.err.shape == exposure.mask.shape == (5, N_PIXELS)
    flux, err = exposure.flux.astype(np.float64), exposure.err.astype(np.float64)
    weight = np.where(err[2:] < GAP_ERR, err[2:] ** -2, 0.0)
    seen = weight.sum(axis=0) > 0
    mean = (weight * flux[2:]).sum(axis=0)[seen] / weight.sum(axis=0)[seen]
    np.testing.assert_allclose(flux[0][seen], mean, rtol=1e-4, atol=1e-2)
    np.testing.assert_array_equal(seen, err[0] < GAP_ERR)
    np.testing.assert_allclose(err[0][seen], weight.sum(axis=0)[seen] ** -0.5, rtol=1e-4)
    assert exposure.snr == pytest.approx(90.0, rel=0.3)
    assert not np.array_equal(err[2] == GAP_ERR, err[3] == GAP_ERR) or not np.array_equal(
        err[2] == GAP_ERR, err[4] == GAP_ERR
    )


@given(st.floats(-300, 300), st.integers(1, 4), st.floats(5, 900), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_any_observation_keeps_to_the_rules(velocity: float, n_visits: int, snr: float, seed: int) -> None:
    clean = np.full(N_PIXELS, 50.0, dtype=np.float32)
    rng = np.random.default_rng(seed)
    exposure = observe(clean, snr=snr, n_visits=n_visits, velocity_km_s=velocity, rng=rng)
    gap = exposure.err == np.float32(GAP_ERR)
    np.testing.assert_array_equal(gap, exposure.flux == 0)
    assert exposure.err[~gap].max() < BAD_PIXEL_ERR
    assert exposure.mask.max() < 2**15
    assert exposure.flux.dtype == exposure.err.dtype == np.float32


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    survey: SimulatedSurvey, tmp_path: Path
) -> None:
    again = simulate_survey(tmp_path / "again", n_stars=N_STARS, seed=SEED)
    assert hashes(again.folder) == hashes(survey.folder)
    other = simulate_survey(tmp_path / "other", n_stars=3, seed=SEED + 1)
    assert not set(hashes(other.spectra)) & set(hashes(survey.spectra))


def test_a_star_does_not_change_with_the_number_of_stars(survey: SimulatedSurvey, tmp_path: Path) -> None:
    few = simulate_survey(tmp_path / "few", n_stars=9, seed=SEED)
    small, large = hashes(few.spectra), hashes(survey.spectra)
    assert len(small) == 9
    assert small.items() <= large.items()


def test_a_star_does_not_change_with_what_was_simulated_before(tmp_path: Path) -> None:
    star = draw_star(SEED, 20)
    write_star(tmp_path / "alone", star, SEED)
    for index in (3, 4, 20):
        write_star(tmp_path / "after", draw_star(SEED, index), SEED)
    path = apstar_path(star)
    assert (tmp_path / "alone" / path).read_bytes() == (tmp_path / "after" / path).read_bytes()


def test_bytes_do_not_depend_on_the_number_of_threads(survey: SimulatedSurvey, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from apogee_batch.survey.simulate import simulate_survey;"
        f"simulate_survey(Path(sys.argv[1]), n_stars=3, seed={SEED})"
    )
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "one")], check=True, env=environment)
    assert hashes(tmp_path / "one" / "redux").items() <= hashes(survey.folder / "redux").items()


def test_an_interrupted_survey_is_completed_by_running_again(survey: SimulatedSurvey, tmp_path: Path) -> None:
    folder = tmp_path / "mock"

    class Interrupted(Exception):
        """Stands for a kill."""

    def stop(n_done: int, n_stars: int) -> None:
        if n_done == 5:
            raise Interrupted

    with pytest.raises(Interrupted):
        simulate_survey(folder, n_stars=N_STARS, seed=SEED, on_progress=stop)
    assert not (folder / "truth.parquet").exists()
    simulate_survey(folder, n_stars=N_STARS, seed=SEED)
    assert hashes(folder) == hashes(survey.folder)


def test_a_survey_can_grow_but_not_shrink_or_change_its_seed(tmp_path: Path) -> None:
    folder = tmp_path / "mock"
    small = hashes(simulate_survey(folder, n_stars=2, seed=1).spectra)
    grown = simulate_survey(folder, n_stars=4, seed=1)
    assert small.items() <= hashes(grown.spectra).items()
    assert pq.read_metadata(grown.truth).num_rows == 4
    for n_stars, seed in ((3, 1), (4, 2)):
        with pytest.raises(UsageError, match="another simulated survey"):
            simulate_survey(folder, n_stars=n_stars, seed=seed)


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="holds other files"):
        simulate_survey(tmp_path, n_stars=1, seed=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.tex"]
    with pytest.raises(UsageError, match="is a file"):
        simulate_survey(tmp_path / "thesis.tex", n_stars=1, seed=1)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"format": "something else"}', '{"n_stars": "many"}'])
def test_a_marker_that_is_not_ours_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "survey.json").write_text(content)
    with pytest.raises(UsageError, match="another simulated survey"):
        simulate_survey(tmp_path, n_stars=1, seed=1)


@pytest.mark.parametrize(("n_stars", "seed"), [(0, 1), (-1, 1), (MAX_STARS + 1, 1), (1, -1)])
def test_numbers_out_of_range_are_refused(n_stars: int, seed: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        simulate_survey(tmp_path / "mock", n_stars=n_stars, seed=seed)
    assert not (tmp_path / "mock").exists()


def test_progress_is_told_after_every_star(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    simulate_survey(tmp_path / "mock", n_stars=3, seed=1, on_progress=lambda *now: told.append(now))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):  # noqa: PT011  the kind of OSError depends on the system
        write_whole(tmp_path / "taken", b"bytes")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_the_summary_lists_every_star_once(survey: SimulatedSurvey, truth: pa.Table) -> None:
    with fits.open(survey.allstar, memmap=False) as hdus:
        raw = hdus[1].data.tobytes()
    assert b"apo25m  " in raw  # padded with blanks, as in DR14
    summary = Table.read(survey.allstar)
    ids = [str(text).strip() for text in summary["APSTAR_ID"]]
    assert ids == truth["apstar_id"].to_pylist()
    assert len(set(ids)) == N_STARS
    files = {path.name for path in survey.spectra.rglob("*.fits")}
    assert {str(name).strip() for name in summary["FILE"]} == files
    assert (summary["EXTRATARG"] == 0).all()
    np.testing.assert_allclose(summary["SNR"], truth["snr"].to_numpy(), rtol=1e-6)
    for location, path in zip(summary["LOCATION_ID"], truth["file"].to_pylist(), strict=True):
        assert f"/{location}/" in path


def read_labels(survey: SimulatedSurvey, name: str) -> dict[str, dict[str, float]]:
    """Read one label table: apogee_id to labels."""
    path = survey.labels[name]
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
        return {row["apogee_id"]: {label: row[label] for label in LABELS} for row in rows}
    table = Table.read(path)
    table.rename_columns(table.colnames, [column.lower() for column in table.colnames])
    return {str(row["apogee_id"]).strip(): {label: float(row[label]) for label in LABELS} for row in table}


def test_label_tables_read_back_and_scatter_around_the_truth(
    survey: SimulatedSurvey, truth: pa.Table
) -> None:
    assert [survey.labels[name].suffix for name in ("payne", "mstar", "yso")] == [".fits", ".csv", ".parquet"]
    rows = truth.to_pylist()
    pulls = []
    for name in survey.labels:
        labels = read_labels(survey, name)
        chosen = [row for row in rows if row["data_type"] == name]
        assert set(labels) == {row["apogee_id"] for row in chosen}
        pulls += [
            [(labels[row["apogee_id"]][label] - row[label]) / LABEL_NOISE[label] for label in LABELS]
            for row in chosen
        ]
    spread = np.std(pulls, axis=0)
    assert (spread > 0.7).all()
    assert (spread < 1.3).all()
    assert sum(row["data_type"] is None for row in rows) == N_STARS - len(pulls) > 0


def test_label_tables_state_their_units(survey: SimulatedSurvey) -> None:
    assert str(Table.read(survey.labels["payne"])["TEFF"].unit) == "K"
    field = pq.read_schema(survey.labels["yso"]).field("teff")
    assert field.metadata == {b"unit": b"K"}


def test_a_survey_of_one_star_has_all_its_tables(tmp_path: Path) -> None:
    survey = simulate_survey(tmp_path / "mock", n_stars=1, seed=1)
    assert sum(len(read_labels(survey, name)) for name in survey.labels) <= 1
    assert all(path.is_file() for path in (*survey.labels.values(), survey.allstar, survey.truth))


def test_the_shares_of_the_label_tables_hold_for_small_surveys() -> None:
    for n in (25, 100, 1200):
        kinds = [data_type_of(index) for index in range(n)]
        for name, share in SHARES.items():
            assert kinds.count(name) == pytest.approx(n * share, abs=2.0)


def test_populations_lie_where_real_ones_do() -> None:
    stars = some_stars(1500)
    by_population: dict[str, list[SimulatedStar]] = {}
    for star in stars:
        by_population.setdefault(star.population, []).append(star)
    for star in stars:
        one = star.parameters
        if star.data_type == "payne":
            assert 3540 <= one.teff <= 7000
            assert 0.3 <= one.logg <= 4.9
        if star.data_type == "mstar":
            assert 2850 <= one.teff <= 4100
            assert 4.4 <= one.logg <= 5.3
        if star.data_type == "yso":
            assert 2900 <= one.teff <= 5200
            assert 3.1 <= one.logg <= 4.5
    giants = by_population["giant"]
    teff, logg = (np.array([getattr(star.parameters, name) for star in giants]) for name in ("teff", "logg"))
    assert np.corrcoef(teff, logg)[0, 1] > 0.85  # the giant branch
    clump = np.array([star.parameters.logg for star in by_population["clump"]])
    assert clump.std() < 0.15
    mstars = by_population["mstar"]
    cool = [star.parameters.logg for star in mstars if star.parameters.teff < 3200]
    warm = [star.parameters.logg for star in mstars if star.parameters.teff > 3800]
    assert np.mean(cool) > np.mean(warm) + 0.2
    assert len(by_population["giant"]) > len(by_population["subgiant"])


def test_magnitudes_visits_and_names_are_as_awkward_as_real_ones() -> None:
    stars = some_stars(3000)
    assert len({star.apogee_id for star in stars}) == len(stars)
    assert 5 < sum(star.j == 99.0 for star in stars) < 80
    assert all(7.0 < star.h < 15.0 for star in stars)
    several = sum(star.n_visits > 1 for star in stars) / len(stars)
    assert 0.07 < several < 0.13
    snr = np.array([star.snr for star in stars])
    assert np.mean((snr > 30) & (snr < 300)) > 0.75
    assert np.mean(snr < 20) > 0
    assert len({field.location_id for field in fields()}) == len({field.name for field in fields()})
    for star in stars[:100]:
        assert abs(star.dec - star.field.dec) < 1.3
        hours = int(star.apogee_id[2:4]) + int(star.apogee_id[4:6]) / 60
        assert star.ra / 15 == pytest.approx(hours, abs=1 / 60)
        assert np.sign(star.dec) == (1 if star.apogee_id[10] == "+" else -1)


@given(st.integers(0, 2**62), st.integers(0, MAX_STARS - 1))
@settings(max_examples=30, deadline=None)
def test_any_star_can_be_drawn_and_written(seed: int, index: int) -> None:
    star = draw_star(seed, index)
    assert star == draw_star(seed, index)
    assert re.fullmatch(r"2M\d{8}[+-]\d{7}", star.apogee_id)
    assert len(star.apstar_id) <= 45
    clean = np.ones(N_PIXELS, dtype=np.float32)
    exposure = observe(clean, snr=9.0, n_visits=1, velocity_km_s=0.0, rng=np.random.default_rng(0))
    header = fits.Header.fromstring(apstar_bytes(star, exposure)[:2880].decode("ascii"))
    assert header["OBJID"] == star.apogee_id
    assert header["RA"] == pytest.approx(star.ra, abs=1e-8)
    assert header["J"] == star.j
