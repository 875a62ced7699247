"""Tables of photometry: columns found by the surveys' names, fillers told from measurements."""

from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import MaskedColumn, Table
from hypothesis import given
from hypothesis import strategies as st
from mdwarf_stars import write_csv

from apogee_batch.errors import UsageError
from apogee_batch.labels.columns import parse_column_map
from apogee_batch.labels.photometry import BANDS, Photometry, read_photometry
from apogee_batch.labels.photometry_values import clean_errors, clean_magnitudes, is_filler

NAMES = ["2M00000032+5737103", "2M19390532+4027346", "2M03290406+3117075"]


def table_of(**columns: list[float]) -> Table:
    return Table({"APOGEE_ID": NAMES, **columns})


def read(path: Path, *bands: str, **options: object) -> Photometry:
    return read_photometry(path, bands=bands, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["fits", "csv", "ecsv", "parquet", "vot"])
def test_every_format_says_the_same(tmp_path: Path, suffix: str) -> None:
    table = table_of(K=[8.0, 9.0, 10.0], K_ERR=[0.02, 0.03, 0.04], parallax=[50.0, -1.0, 3.0])
    table["parallax_error"] = [0.1, 0.2, 0.3]
    formats = {"csv": "ascii.csv", "ecsv": "ascii.ecsv", "vot": "votable"}
    path = tmp_path / f"stars.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({name: table[name].tolist() for name in table.colnames}), path)
    else:
        table.write(path, format=formats.get(suffix))
    stars = read(path, "k")
    assert stars.apogee_id == tuple(NAMES)
    np.testing.assert_allclose(stars.magnitude["k"], [8.0, 9.0, 10.0])
    np.testing.assert_allclose(stars.error["k"], [0.02, 0.03, 0.04])
    np.testing.assert_allclose(stars.parallax_mas, [50.0, -1.0, 3.0])
    np.testing.assert_allclose(stars.parallax_error_mas, [0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("band", "column", "error"),
    [
        ("g_gaia", "phot_g_mean_mag", "phot_g_mean_mag_error"),
        ("g_gaia", "G", "e_G"),
        ("g_gaia", "Gmag", "e_Gmag"),
        ("bp", "BPmag", "e_BPmag"),
        ("rp", "phot_rp_mean_mag", "phot_rp_mean_mag_error"),
        ("j", "J", "J_ERR"),
        ("j", "j_m", "j_msigcom"),
        ("h", "Hmag", "e_Hmag"),
        ("k", "K", "K_ERR"),
        ("k", "ks_m", "ks_msigcom"),
        ("k", "k_m", "k_msigcom"),
        ("g", "g", "e_g"),
        ("g", "gmag", "e_gmag"),
        ("r", "rMeanPSFMag", "rMeanPSFMagErr"),
        ("z", "z_mean_psf_mag", "z_mean_psf_mag_error"),
        ("g", "psfMag_g", "psfMagErr_g"),
        ("v", "Vmag", "e_Vmag"),
        ("w1", "w1mpro", "w1sigmpro"),
        ("w3", "W3mag", "e_W3mag"),
    ],
)
def test_a_band_is_found_by_the_name_that_its_survey_gives_it(
    tmp_path: Path, band: str, column: str, error: str
) -> None:
    path = write_csv(tmp_path / "stars.csv", {"apogee_id": NAMES, column: [8, 9, 10], error: [0.1, 0.2, 0.3]})
    stars = read(path, *BANDS)
    assert stars.columns == {"apogee_id": "apogee_id", band: column, f"e_{band}": error}
    np.testing.assert_allclose(stars.error[band], [0.1, 0.2, 0.3])


@pytest.mark.parametrize(("gaia", "sloan"), [("G", "g"), ("Gmag", "gmag"), ("phot_g_mean_mag", "g")])
def test_the_case_tells_the_g_of_gaia_from_the_g_of_sloan(tmp_path: Path, gaia: str, sloan: str) -> None:
    columns = {"apogee_id": NAMES, sloan: [13, 14, 15], gaia: [12, 13, 14]}
    columns |= {f"e_{sloan}": [0.3] * 3, f"e_{gaia}": [0.2] * 3}
    stars = read(write_csv(tmp_path / "stars.csv", columns), "g", "g_gaia")
    assert (stars.magnitude["g"][0], stars.error["g"][0]) == (13, 0.3)
    assert (stars.magnitude["g_gaia"][0], stars.error["g_gaia"][0]) == (12, 0.2)
    assert "r" not in read(write_csv(tmp_path / "r.csv", {"apogee_id": NAMES, "R": [1, 2, 3]}), "r").columns


def test_a_mapped_column_is_not_taken_for_another(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "stars.csv", {"source_id": [1, 2], "g": [12, 13], "eg": [0.1, 0.2]})
    stars = read(path, "g", "g_gaia", column_map={"g_gaia": "g", "apogee_id": "source_id"})
    assert stars.columns == {"apogee_id": "source_id", "g_gaia": "g", "e_g_gaia": "eg"}
    assert stars.keys == ("1", "2")
    assert np.isnan(stars.magnitude["g"]).all()


def test_the_error_of_a_gaia_magnitude_follows_from_that_of_its_flux(tmp_path: Path) -> None:
    columns = {"apogee_id": NAMES, "phot_bp_mean_mag": [14, 15, 16]}
    columns |= {"phot_bp_mean_flux_over_error": [108.57362, 0, -999]}
    stars = read(write_csv(tmp_path / "stars.csv", columns), "bp")
    np.testing.assert_allclose(stars.error["bp"], [0.01, np.nan, np.nan], rtol=1e-6)
    name = "phot_bp_mean_flux_over_error"
    fields = [("apogee_id", ""), ("phot_bp_mean_mag", "mag"), (name, "1")]  # a ratio, and says so
    values = [pa.array(NAMES), pa.array([14.0] * 3), pa.array([108.57362] * 3)]
    typed = [
        pa.field(n, v.type, metadata={"unit": unit}) for (n, unit), v in zip(fields, values, strict=True)
    ]
    pq.write_table(pa.table(values, schema=pa.schema(typed)), tmp_path / "a.parquet")
    np.testing.assert_allclose(read(tmp_path / "a.parquet", "bp").error["bp"], [0.01] * 3, rtol=1e-6)


@pytest.mark.parametrize(
    "filler", [99, 99.99, 99.999, -99, -999, -999.0, -9999, -9.999, 999, 9999, "", "nan", "inf"]
)
def test_a_filler_is_a_missing_magnitude(tmp_path: Path, filler: object) -> None:
    columns = {"apogee_id": NAMES, "K": [8, filler, 10], "K_ERR": [0.1, filler, 0.1]}
    columns |= {"parallax": [1, 2, filler], "parallax_error": [0.1, filler, 0.1]}
    stars = read(write_csv(tmp_path / "stars.csv", columns), "k")
    assert np.isfinite(stars.magnitude["k"]).tolist() == [True, False, True]
    assert np.isfinite(stars.error["k"]).tolist() == [True, False, True]
    assert np.isfinite(stars.parallax_error_mas).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("parallax", "error"),
    [("parallax", "parallax_error"), ("Plx", "e_Plx"), ("GAIA_PARALLAX", "GAIA_PARALLAX_ERROR")],
)
def test_a_parallax_is_found_by_its_names(tmp_path: Path, parallax: str, error: str) -> None:
    columns = {"apogee_id": NAMES, parallax: [1, 2, 3], error: [0.1, 0.2, 0.3]}
    stars = read(write_csv(tmp_path / "stars.csv", columns), "k", required=["parallax", "parallax_error"])
    np.testing.assert_array_equal(stars.parallax_mas, [1, 2, 3])
    np.testing.assert_array_equal(stars.parallax_error_mas, [0.1, 0.2, 0.3])


def test_a_parallax_may_be_negative_or_large_but_no_filler(tmp_path: Path) -> None:
    columns = {"apogee_id": NAMES, "parallax": [-9.5, 768.5, -999], "parallax_error": [1, 0.2, 0.1]}
    stars = read(write_csv(tmp_path / "stars.csv", columns), "k")
    np.testing.assert_array_equal(stars.parallax_mas, [-9.5, 768.5, np.nan])


def test_masked_and_null_values_are_missing(tmp_path: Path) -> None:
    table = table_of(H=[8.0, 9.0, 10.0])
    table["H"] = MaskedColumn(table["H"], mask=[False, True, False])
    table.write(tmp_path / "a.ecsv", format="ascii.ecsv")
    table.write(tmp_path / "a.fits")
    pq.write_table(
        pa.table({"apogee_id": [*NAMES[:2], None], "h": [8.0, None, 10.0]}), tmp_path / "a.parquet"
    )
    for name in ("a.ecsv", "a.fits", "a.parquet"):
        assert np.isnan(read(tmp_path / name, "h").magnitude["h"]).tolist() == [False, True, False]
    assert read(tmp_path / "a.parquet", "h").keys == (*NAMES[:2], "")


def test_units_are_converted(tmp_path: Path) -> None:
    table = table_of(K=[8000.0, 9000.0, 10000.0], parallax=[0.05, 0.02, 0.01], parallax_error=[0.1] * 3)
    table["J"] = [8.0, 9.0, 10.0]
    table["K"].unit, table["parallax"].unit, table["J"].unit = u.mmag, u.arcsec, u.mag
    table.write(tmp_path / "a.ecsv", format="ascii.ecsv")
    stars = read(tmp_path / "a.ecsv", "k", "j")
    np.testing.assert_allclose(stars.magnitude["k"], [8.0, 9.0, 10.0])
    np.testing.assert_allclose(stars.magnitude["j"], [8.0, 9.0, 10.0])
    np.testing.assert_allclose(stars.parallax_mas, [50.0, 20.0, 10.0])


@pytest.mark.parametrize(("column", "unit"), [("K", "Jy"), ("K", "quux"), ("parallax", "K"), ("fe_h", "mag")])
def test_another_unit_is_refused(tmp_path: Path, column: str, unit: str) -> None:
    table = table_of(K=[8.0] * 3, parallax=[1.0] * 3, fe_h=[0.1] * 3)
    field = pa.field(column, pa.float64(), metadata={"unit": unit})
    columns = pa.table({name: table[name].tolist() for name in table.colnames})
    i = columns.schema.get_field_index(column)
    pq.write_table(columns.set_column(i, field, columns[column]), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=rf"column '{column}' has the unit '{unit}', which cannot become"):
        read(tmp_path / "a.parquet", "k", numbers=["fe_h"])


@pytest.mark.parametrize("unit", ["mag", "mag(AB)", "mag (Vega)", "[mag]", "ABmag", ""])
def test_a_magnitude_by_any_other_name_is_a_magnitude(tmp_path: Path, unit: str) -> None:
    fields = [pa.field("apogee_id", pa.string()), pa.field("g", pa.float64(), metadata={"unit": unit})]
    pq.write_table(pa.table([NAMES, [13.0] * 3], schema=pa.schema(fields)), tmp_path / "a.parquet")
    np.testing.assert_array_equal(read(tmp_path / "a.parquet", "g").magnitude["g"], [13.0] * 3)


def test_fluxes_are_no_magnitudes(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "stars.csv", {"apogee_id": NAMES, "g": [123.4, 5678.9, 12.0]})
    with pytest.raises(UsageError, match=r"column 'g' does not hold magnitudes \(row 1 has 123.4\)"):
        read(path, "g")


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"apogee_id": ["a"], "j": [1]}, {"required": ["k"]}, r"no column for k; it has apogee_id, j"),
        ({"star": ["a"], "k": [1]}, {}, r"no column for apogee_id; .*--map apogee_id=NAME"),
        ({"apogee_id": ["a"], "Kmag": [1], "ks_m": [1]}, {}, r"ks_m and Kmag may be k; say which"),
        ({"apogee_id": ["a"], "k": ["bright"]}, {}, r"'k' is not of numbers \('bright' in row 1\)"),
        ({"apogee_id": [], "k": []}, {}, "has no rows"),
        ({"apogee_id": ["a"]}, {"column_map": {"k": "KS"}}, r"no column 'KS' for k"),
        ({"apogee_id": ["a"]}, {"column_map": {"teff": "T"}}, r"cannot map teff: the columns to map are"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(
    tmp_path: Path, columns: dict[str, list[object]], options: dict[str, object], message: str
) -> None:
    path = write_csv(tmp_path / "stars.csv", columns)
    with pytest.raises(UsageError, match=message) as caught:
        read(path, "k", **options)
    assert ("cannot map" in message) or str(path) in str(caught.value)


def test_an_unknown_band_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "stars.csv", {"apogee_id": NAMES})
    with pytest.raises(UsageError, match=r"unknown band y; the bands are g_gaia, bp"):
        read(path, "y")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"stars.fits: does not exist"):
        read(tmp_path / "stars.fits", "k")


def test_other_columns_come_along_if_they_are_asked_for(tmp_path: Path) -> None:
    columns = {"APOGEE_ID": NAMES, "FIELD": ["M67", "", "N188"], "feh": [0.1, -9999, 0.2]}
    columns |= {"feh_err": [0.1, 0.1, -999], "radius_val": [0.5, 99, 1], "SNR": [1, 2, 3]}
    path = write_csv(tmp_path / "stars.csv", columns)
    stars = read(path, "k", numbers=["fe_h", "e_fe_h", "radius", "luminosity"], texts=["field"])
    assert stars.texts == {"field": ("M67", "", "N188")}
    assert stars.numbers.keys() == {"fe_h", "e_fe_h", "radius"}
    np.testing.assert_array_equal(stars.numbers["fe_h"], [0.1, np.nan, 0.2])
    np.testing.assert_array_equal(stars.numbers["e_fe_h"], [0.1, 0.1, np.nan])
    np.testing.assert_array_equal(stars.numbers["radius"], [0.5, 99, 1])


def test_a_repeated_star_is_told(tmp_path: Path) -> None:
    columns = {"apogee_id": ["a", "a", "b", "", "", "a"], "apstar_id": ["x", "y", "", "", "", "x"]}
    stars = read(write_csv(tmp_path / "stars.csv", columns), "k")
    assert stars.keys == ("x", "y", "b", "", "", "x")
    assert stars.is_repeated.tolist() == [False, False, False, False, False, True]


def test_arrays_of_other_lengths_do_not_make_photometry() -> None:
    one, two = np.zeros(1), np.zeros(2)
    with pytest.raises(ValueError, match="for 1 stars"):
        Photometry("", ("a",), ("",), {"k": two}, {"k": one}, one, one, {}, {}, {})
    with pytest.raises(ValueError, match="not both"):
        Photometry("", ("a",), ("",), {"k": one}, {}, one, one, {}, {}, {})


@given(
    st.lists(st.floats(-5, 39), max_size=20), st.lists(st.sampled_from([99.0, -999.0, np.nan]), max_size=20)
)
def test_magnitudes_stay_and_fillers_go(magnitudes: list[float], fillers: list[float]) -> None:
    cleaned = clean_magnitudes(np.array([*magnitudes, *fillers], dtype=np.float64), "here")
    np.testing.assert_array_equal(cleaned[: len(magnitudes)], magnitudes)
    assert np.isnan(cleaned[len(magnitudes) :]).all()


def test_a_column_of_fillers_is_empty_and_no_mistake() -> None:
    cleaned = clean_magnitudes(np.array([-9.999, -9.99, 99.99, -999.0, 12.0]), "here")
    assert np.isnan(cleaned).tolist() == [True, True, True, True, False]


def test_errors_are_never_negative() -> None:
    cleaned = clean_errors(np.array([0.0, 0.1, -0.1, 9.999, 99.0]), below=5.0)
    np.testing.assert_array_equal(cleaned, [0.0, 0.1, np.nan, np.nan, np.nan])
    assert is_filler(np.array([99.9, 98.9, 100.0])).tolist() == [True, False, False]


def test_a_pair_of_names_is_written_with_an_equals_sign() -> None:
    assert parse_column_map(["k=KS", "j=J=2"]) == {"k": "KS", "j": "J=2"}
    with pytest.raises(UsageError, match="write it as OURS=THEIRS"):
        parse_column_map(["k"])


@pytest.mark.data
def test_a_table_of_open_clusters_is_read(shared_data: Path) -> None:
    path = shared_data / "tables" / "auriga_test.csv"
    names = {"apogee_id": "source_id", "g_gaia": "g"}
    stars = read(path, "g_gaia", "bp", "rp", "j", "h", "k", column_map=names)
    assert stars.n_stars == 75
    assert all(np.isfinite(stars.magnitude[band]).mean() > 0.9 for band in stars.magnitude)
    assert {"e_g_gaia": "eg", "e_k": "ek", "parallax_error": "eparallax"}.items() <= stars.columns.items()
