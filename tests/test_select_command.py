"""The sample of young stars: the rows in the polygon, as they are in the catalogue, and what is added."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.io import votable
from astropy.table import QTable, Table
from typer import Typer
from typer.testing import CliRunner

from apogee_batch.catalog.export import write_parquet
from apogee_batch.catalog.rows import PIECE_ROWS, CatalogRows, Summary
from apogee_batch.catalog.selection import YSO_VERTICES, Polygon
from apogee_batch.cli_select import select_ysos as select_ysos_command
from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import write_sealed_json
from apogee_batch.labels.age_mesh import build_mesh
from apogee_batch.labels.ages import AGE_FLAGS, estimate_ages
from apogee_batch.labels.isochrones import read_isochrones
from apogee_batch.run.publish import MANIFEST_FILE
from apogee_batch.run.select import TITLE, select_ysos
from apogee_batch.run.selection_settings import SelectionSettings
from apogee_batch.run.verify import verify
from apogee_batch.schema import arrow_schema, catalog_columns, catalog_flags

EXAMPLE = Path(__file__).parents[1] / "docs" / "yso-polygon.toml"
N_STARS = 400
PAPER = SelectionSettings()
EVERYTHING = SelectionSettings(with_probability=True, logg_bins="3,3.5,4")
ISOCHRONES = """
  t (Gyr) =   0.001
 M/Ms  Teff     L/Ls   g    R/Rs
 0.100  2925.   -1.15  3.40  1.041
 1.000  4397.    0.50  3.45  3.103

  t (Gyr) =   0.004
 M/Ms  Teff     L/Ls   g    R/Rs
 0.100  2950.   -1.55  4.00  1.041
 1.000  4450.    0.10  4.05  3.103
"""


def make_catalog(n_stars: int = N_STARS, seed: int = 1) -> pa.Table:
    """Stars in and around the polygon; a tenth without a prediction, half of the others uncalibrated."""
    rng = np.random.default_rng(seed)
    is_missing = np.arange(n_stars) % 10 == 3
    is_uncalibrated = is_missing | (np.arange(n_stars) % 2 == 0)
    numbers = {
        "teff": (rng.uniform(2000, 5000, n_stars), is_missing),
        "logg": (rng.uniform(1.5, 5, n_stars), is_missing),
        "e_teff": (rng.uniform(10, 60, n_stars), is_missing),
        "e_logg": (rng.uniform(0.02, 0.1, n_stars), is_missing),
        "e_teff_total": (rng.uniform(100, 200, n_stars), is_uncalibrated),
        "e_logg_total": (rng.uniform(0.2, 0.3, n_stars), is_uncalibrated),
    }
    columns: dict[str, Any] = {
        name: pa.array(values, mask=mask).cast(pa.float32()) for name, (values, mask) in numbers.items()
    }
    columns["apstar_id"] = [f"apogee.apo25m.stars.4100.2M{i:08d}" for i in range(n_stars)]
    columns["apogee_id"] = [f"2M{i:08d}" for i in range(n_stars)]
    columns["data_type"] = [("yso", "mstar", "payne", None)[i % 4] for i in range(n_stars)]
    columns["flags"] = [(1 if i % 5 == 0 else 0) | (1 << 9 if i % 7 == 0 else 0) for i in range(n_stars)]
    for column in catalog_columns():
        if column.name not in columns:
            columns[column.name] = [None if column.nullable else 1] * n_stars
    schema = arrow_schema(catalog_columns())
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def make_run(folder: Path, catalog: Any) -> Path:
    path = folder / "catalog" / "catalog.parquet"
    written = write_parquet(catalog, path, metadata={"run_id": "0123abcd"})
    files = [{"path": "catalog/catalog.parquet", "size": written.size, "sha256": written.sha256}]
    write_sealed_json(folder / MANIFEST_FILE, {"files": files})
    return folder


CATALOG = make_catalog()
TEFF, LOGG = (CATALOG[name].to_numpy().astype(float) for name in ("teff", "logg"))
IS_INSIDE = Polygon(YSO_VERTICES).contains(TEFF, LOGG)
INSIDE = CATALOG.filter(pa.array(IS_INSIDE))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", CATALOG)


@pytest.fixture
def isochrones(tmp_path: Path) -> Path:
    path = tmp_path / "iso.txt"
    path.write_text(ISOCHRONES)
    return path


def selected(run: Path, settings: SelectionSettings = PAPER) -> pa.Table:
    select_ysos(run, None, settings)
    return pq.read_table(run / "selections" / "ysos.parquet")


def test_the_example_is_neither_empty_nor_everything() -> None:
    assert 30 < INSIDE.num_rows < 200
    assert {*INSIDE["data_type"].to_pylist()} == {"yso", "mstar", "payne", None}


def test_the_stars_in_the_polygon_are_selected_with_all_their_columns(run: Path) -> None:
    table = selected(run)
    assert table.equals(INSIDE)
    assert table.schema.equals(arrow_schema(catalog_columns()), check_metadata=False)


def test_columns_keep_their_units_ucds_and_descriptions_and_added_ones_have_theirs(
    run: Path, isochrones: Path
) -> None:
    table = selected(run, replace(EVERYTHING, isochrones=(isochrones,)))
    for column in catalog_columns():
        assert table.schema.field(column.name).metadata == column.arrow_field().metadata
    added = table.schema.names[len(catalog_columns()) :]
    assert added == ["p_inside", "log_age", "e_log_age", "mass", "e_mass", "age_flags", "logg_bin"]
    for name in added:
        assert {b"ucd", b"description"} <= set(table.schema.field(name).metadata)
    read = QTable.read(run / "selections" / "ysos.parquet", format="parquet")
    assert read["log_age"].unit == u.dex(u.yr)
    assert read["mass"].unit == u.solMass


def test_the_table_says_where_it_is_from_and_how_it_was_selected(run: Path, isochrones: Path) -> None:
    settings = replace(EVERYTHING, isochrones=(isochrones,), without_flags=("LOW_SNR",))
    metadata = selected(run, settings).schema.metadata
    told = {key.decode().removeprefix("apogee_batch."): value.decode() for key, value in metadata.items()}
    assert told["run_id"] == "0123abcd"
    assert told["title"] == TITLE
    assert json.loads(told["polygon"]) == [list(vertex) for vertex in YSO_VERTICES]
    assert told["without_flags"] == "LOW_SNR"
    assert json.loads(told["isochrones"])[0][0] == "iso.txt"
    assert json.loads(told["isochrone_ages_myr"]) == [[1, 4]]
    assert set(json.loads(told["age_flags"])) == set(AGE_FLAGS)
    assert str(run.parent) not in str(metadata)


def test_the_same_selection_gives_the_same_bytes(run: Path) -> None:
    contents = []
    for _ in range(2):
        selected(run, EVERYTHING)
        contents.append((run / "selections" / "ysos.parquet").read_bytes())
    assert contents[0] == contents[1]


def test_flagged_stars_are_kept_and_counted_unless_they_are_to_be_left_out(run: Path) -> None:
    flags = INSIDE["flags"].to_numpy()
    n_low, n_strange = int((flags & 1 != 0).sum()), int((flags & 512 != 0).sum())
    assert f"flagged among them: LOW_SNR {n_low}, STRANGE_SPECTRUM {n_strange}" in select_ysos(
        run, None, PAPER
    )
    settings = SelectionSettings(without_flags=("LOW_SNR", "STRANGE_SPECTRUM"))
    lines = select_ysos(run, None, settings)
    table = pq.read_table(run / "selections" / "ysos.parquet")
    assert table.equals(INSIDE.filter(pa.array(flags & (1 | 512) == 0)))
    n_either = int((flags & (1 | 512) != 0).sum())
    assert f"left out of it: {n_either} flagged LOW_SNR, STRANGE_SPECTRUM" in lines
    assert catalog_flags()["STRANGE_SPECTRUM"].bit == 9


def test_it_says_how_many_of_how_many_and_of_which_kind(run: Path) -> None:
    lines = select_ysos(run, None, PAPER)
    n, share = INSIDE.num_rows, INSIDE.num_rows / N_STARS
    assert (
        lines[0]
        == f"{n} of {N_STARS} stars ({share:.2%}) lie in the polygon of Olney et al. 2020, section 4.1"
    )
    kinds = INSIDE["data_type"].to_pylist()
    counts = ", ".join(f"{kind} {kinds.count(kind)} of 100" for kind in ("yso", "mstar", "payne"))
    assert lines[1] == f"by label: {counts}, no label {kinds.count(None)} of 100"
    assert "never selected: 40 without a prediction" in lines


def test_the_probability_follows_the_calibrated_errors_where_there_are_any(run: Path) -> None:
    table = selected(run, SelectionSettings(with_probability=True))
    arrays = {
        name: table[name].to_numpy().astype(float)
        for name in table.schema.names
        if name[:2] in ("te", "lo", "e_")
    }
    has_total = np.isfinite(arrays["e_teff_total"])
    assert 0 < has_total.sum() < len(has_total)
    e_teff = np.where(has_total, arrays["e_teff_total"], arrays["e_teff"])
    e_logg = np.where(has_total, arrays["e_logg_total"], arrays["e_logg"])
    expected = Polygon(YSO_VERTICES).probability_inside(arrays["teff"], arrays["logg"], e_teff, e_logg)
    np.testing.assert_allclose(table["p_inside"].to_numpy(), expected, rtol=1e-6)
    lines = select_ysos(run, None, SelectionSettings(with_probability=True))
    n_total = int(has_total.sum())
    told = f"{n_total} calibrated, {len(has_total) - n_total} from the scatter of realizations, 0 unknown"
    assert f"errors: {told}" in lines
    assert f"p_inside: its sum is {expected.sum():.1f}" in lines


def test_without_any_error_the_probability_is_null(tmp_path: Path) -> None:
    catalog = CATALOG
    for name in ("e_teff", "e_logg_total"):
        i = catalog.schema.get_field_index(name)
        catalog = catalog.set_column(i, catalog.schema.field(i), pa.nulls(N_STARS, pa.float32()))
    table = selected(make_run(tmp_path / "run", catalog), EVERYTHING)
    assert table["p_inside"].null_count == len(table)


def test_ages_are_those_of_the_isochrones_and_null_with_a_flag_outside(run: Path, isochrones: Path) -> None:
    table = selected(run, SelectionSettings(isochrones=(isochrones,)))
    teff, logg = (table[name].to_numpy().astype(float) for name in ("teff", "logg"))
    nothing = np.full(len(teff), math.nan)
    ages = estimate_ages(build_mesh(read_isochrones([isochrones])), teff, logg, nothing, nothing)
    is_known = np.isfinite(ages.log_age)
    assert 0 < is_known.sum() < len(teff)
    np.testing.assert_allclose(table["log_age"].to_numpy(), ages.log_age, rtol=1e-6)
    np.testing.assert_allclose(table["mass"].to_numpy(), ages.mass, rtol=1e-6)
    assert (table["age_flags"].to_numpy() & 1 == ~is_known).all()
    for name in ("log_age", "e_log_age", "mass", "e_mass"):
        assert table[name].null_count == (~is_known).sum()
    lines = select_ysos(run, None, SelectionSettings(isochrones=(isochrones,)))
    assert "isochrones: 2 ages cover 1 to 4 Myr" in lines
    assert any(line.startswith(f"ages: {is_known.sum()}; flagged: AGE_OUTSIDE_GRID") for line in lines)


def test_isochrones_that_are_left_out_are_told(run: Path, isochrones: Path) -> None:
    isochrones.write_text(ISOCHRONES + ISOCHRONES.replace("0.001", "0.5").replace("0.004", "0.9"))
    lines = select_ysos(run, None, SelectionSettings(isochrones=(isochrones,)))
    told = "2 left out: older than 100 Myr, or too far from the next"
    assert f"isochrones: 2 ages cover 1 to 4 Myr; {told}" in lines


def test_bins_of_logg_divide_the_stars(run: Path) -> None:
    table = selected(run, SelectionSettings(logg_bins="3,3.5,4"))
    expected = np.digitize(table["logg"].to_numpy(), np.float32([3, 3.5, 4]))
    assert table["logg_bin"].to_pylist() == expected.tolist()
    counts = np.bincount(expected, minlength=4).tolist()
    names = ("below 3", "3 to 3.5", "3.5 to 4", "4 and above")
    told = ", ".join(f"{name}: {n}" for name, n in zip(names, counts, strict=True))
    assert f"log g {told}" in select_ysos(run, None, SelectionSettings(logg_bins="3,3.5,4"))


def test_the_example_polygon_is_the_paper_s(run: Path) -> None:
    assert selected(run, SelectionSettings(polygon=EXAMPLE)).equals(INSIDE)


def test_another_polygon_selects_other_stars(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "square.toml"
    path.write_text("vertices = [[2500, 2], [2500, 3], [3500, 3], [3500, 2]]")
    table = selected(run, SelectionSettings(polygon=path))
    is_inside = (TEFF >= 2500) & (TEFF <= 3500) & (LOGG >= 2) & (LOGG <= 3)
    assert table.equals(CATALOG.filter(pa.array(is_inside)))
    assert select_ysos(run, None, SelectionSettings(polygon=path))[0].endswith("the polygon of square.toml")


def test_fits_has_the_added_columns_with_their_units(run: Path, tmp_path: Path, isochrones: Path) -> None:
    settings = replace(EVERYTHING, isochrones=(isochrones,))
    path = tmp_path / "ysos.fits"
    select_ysos(run, path, settings)
    table, parquet = Table.read(path), selected(run, settings)
    assert table.colnames == parquet.schema.names
    for name in ("teff", "p_inside", "log_age", "age_flags", "logg_bin"):
        values = parquet[name].to_numpy()
        np.testing.assert_array_equal(
            np.ma.filled(table[name], np.nan if values.dtype.kind == "f" else -1), values
        )
    assert table["mass"].unit == u.solMass
    assert table["log_age"].unit == u.dex(u.yr)


@pytest.mark.parametrize("suffix", ["csv", "ecsv", "vot"])
def test_other_formats_hold_the_same_stars(run: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"ysos.{suffix}"
    select_ysos(run, path, EVERYTHING)
    if suffix == "csv":
        names = pa_csv.read_csv(path)["apogee_id"].to_pylist()
    elif suffix == "ecsv":
        names = list(Table.read(path, format="ascii.ecsv")["apogee_id"])
    else:
        names = list(votable.parse_single_table(path).to_table()["apogee_id"])
    assert names == INSIDE["apogee_id"].to_pylist()


def test_no_star_in_the_polygon_gives_an_empty_table(tmp_path: Path, isochrones: Path) -> None:
    run = make_run(tmp_path / "run", CATALOG.filter(pa.array(~IS_INSIDE)))
    settings = replace(EVERYTHING, isochrones=(isochrones,))
    table = selected(run, settings)
    assert len(table) == 0
    assert "logg_bin" in table.schema.names
    select_ysos(run, tmp_path / "none.fits", settings)
    assert len(Table.read(tmp_path / "none.fits")) == 0


def test_a_run_that_is_not_published_is_refused(run: Path) -> None:
    (run / MANIFEST_FILE).unlink()
    with pytest.raises(UsageError, match="no published catalogue"):
        select_ysos(run, None, PAPER)


def test_a_damaged_catalogue_is_refused_and_the_last_selection_stays(run: Path) -> None:
    before = selected(run)
    path = run / "catalog" / "catalog.parquet"
    path.write_bytes(path.read_bytes()[:-50] + bytes(50))
    with pytest.raises(IntegrityError, match=r"catalog\.parquet"):
        select_ysos(run, None, EVERYTHING)
    assert pq.read_table(run / "selections" / "ysos.parquet").equals(before)
    assert [path.name for path in (run / "selections").iterdir()] == ["ysos.parquet"]


def test_memory_does_not_grow_with_the_number_of_stars(tmp_path: Path) -> None:
    piece = make_catalog(PIECE_ROWS // 4)
    n_inside = int(
        Polygon(YSO_VERTICES)
        .contains(*(piece[name].to_numpy().astype(float) for name in ("teff", "logg")))
        .sum()
    )
    peaks = []
    for n_groups in (1, 4):
        pieces, summary = [piece] * (4 * n_groups), Summary()
        for one in pieces:
            summary.add(one)
        run = make_run(tmp_path / str(n_groups), CatalogRows(lambda pieces=pieces: pieces, summary))
        assert pq.read_metadata(run / "catalog" / "catalog.parquet").num_row_groups == 8 * n_groups
        pool, usual = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
        pa.set_memory_pool(pool)
        try:
            lines = select_ysos(run, None, PAPER)
        finally:
            pa.set_memory_pool(usual)
        peaks.append(pool.max_memory())
        assert lines[0].startswith(f"{4 * n_groups * n_inside} of {n_groups * PIECE_ROWS} ")
        names = pq.read_table(run / "selections" / "ysos.parquet")["apogee_id"].to_pylist()
        assert names == names[:n_inside] * (4 * n_groups)
    assert peaks[1] < 1.5 * peaks[0]


def test_a_selection_is_no_damage_of_its_run(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    before = verify(run).damages
    select_ysos(run, None, EVERYTHING)
    assert (run / "selections" / "ysos.parquet").is_file()
    assert verify(run).damages == before


def test_the_command_passes_its_options_on(run: Path, tmp_path: Path, isochrones: Path) -> None:
    app = Typer()
    app.command()(select_ysos_command)
    out = tmp_path / "some.parquet"
    options = [
        "--out",
        out,
        "--polygon",
        EXAMPLE,
        "--without-flags",
        "low_snr, STRANGE_SPECTRUM",
        "--probability",
    ]
    options += ["--isochrones", isochrones, "--max-age", "5", "--logg-bins", "3,3.5,4"]
    result = CliRunner().invoke(app, [str(word) for word in (run, *options)])
    assert result.exit_code == 0, result.output
    assert f"{out}: " in result.output
    settings = replace(EVERYTHING, isochrones=(isochrones,), without_flags=("LOW_SNR", "STRANGE_SPECTRUM"))
    assert pq.read_table(out).equals(selected(run, settings))
