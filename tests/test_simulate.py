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

from apogee_batch.errors import UsageError
from apogee_batch.labels.tables import read_label_table
from apogee_batch.survey.allstar import match_allstar, read_allstar
from apogee_batch.survey.apstar import read_apstar
from apogee_batch.survey.pixels import BAD_PIXEL_ERR, GAP_ERR, N_PIXELS, PixelMask
from apogee_batch.survey.populations import (
    LABEL_NOISE,
    MAX_STARS,
    draw_star,
)
from apogee_batch.survey.simulate import SimulatedSurvey, simulate_survey, write_star
from apogee_batch.survey.simulate_exposure import GAPS, MAX_SHIFT
from apogee_batch.survey.simulate_files import apstar_path, write_whole
from apogee_batch.survey.sources import find_apstar_files

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

    class Kill(BaseException):
        """Stands for a kill."""

    def stop(n_done: int, n_stars: int) -> None:
        if n_done == 5:
            raise Kill

    with pytest.raises(Kill):
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
    with pytest.raises(UsageError, match="cannot write there"):
        simulate_survey(tmp_path / "thesis.tex" / "mock", n_stars=1, seed=1)


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


def test_the_package_reads_what_it_simulates(survey: SimulatedSurvey, truth: pa.Table) -> None:
    files = find_apstar_files([str(survey.spectra)])
    matched = match_allstar(read_allstar(survey.allstar), files)
    assert (matched.n_found, matched.n_missing, matched.n_extra, matched.n_duplicate) == (N_STARS, 0, 0, 0)
    rows = {row["apstar_id"]: row for row in truth.to_pylist()}
    for path, known in matched.selected:
        spectra = read_apstar(path, known=known)
        assert isinstance(spectra, list)
        star = spectra[0].star
        assert star.snr == pytest.approx(star.snr_header, rel=1e-6)
        assert star.apogee_id == rows[star.apstar_id]["apogee_id"]
        visits = read_apstar(path, rows="visits")
        assert isinstance(visits, list)
        assert len(visits) == star.n_visits == rows[star.apstar_id]["n_visits"]
    for name, path in survey.labels.items():
        table = read_label_table(path, name)
        assert set(table.apogee_id) == set(read_labels(survey, name))
