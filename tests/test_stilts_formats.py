"""What STILTS, TOPCAT's twin, and fitsverify make of our files: names, units, UCDs, values; no complaint.

Skipped where these programs are not installed (.ci/install_programs).
"""

import csv
import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import votable
from astropy.table import Table
from sky_catalogs import sky_catalog

from apogee_batch.catalog.annotations import is_logarithmic
from apogee_batch.catalog.export import write_fits, write_parquet
from apogee_batch.catalog.mrt import write_mrt
from apogee_batch.catalog.rows import rows_of
from apogee_batch.catalog.votable import write_votable
from apogee_batch.schema import Column, catalog_columns

N_STARS = 90
METADATA = {"run_id": "0123abcd", "model_sha256": 64 * "f", "place": "Kitt Peak & <Las Campañas>"}
META = "meta name units ucd description"
TIMEOUT_S = 200


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this machine")
    return found


def run(*arguments: str) -> str:
    """Return what a program prints; it must end well and complain of nothing."""
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr
    return ended.stdout


def table_of(path: Path, kind: str, *commands: str) -> list[dict[str, str]]:
    """Return the rows that STILTS makes of a file."""
    steps = [f"cmd={command}" for command in commands]
    told = run(program("stilts"), "tpipe", f"in={path}", f"ifmt={kind}", *steps, "ofmt=csv")
    return list(csv.DictReader(io.StringIO(told)))


@pytest.fixture(scope="module")
def catalog() -> pa.Table:
    teff = [None if i % 9 == 4 else 4000.125 + 40 * i for i in range(N_STARS)]  # some above 6700 K
    types = [("payne", "mstar", "yso", None)[i % 4] for i in range(N_STARS)]
    return sky_catalog(N_STARS, n_without=2, teff=teff, data_type=types, data_set=["train"] * N_STARS)


def assert_same_values(rows: list[dict[str, str]], catalog: pa.Table) -> None:
    """Compare all cells: an empty one is a null."""
    assert len(rows) == len(catalog)
    assert list(rows[0]) == catalog.schema.names
    for column in catalog_columns():
        kind: Any = {"string": str, "int32": int, "float32": np.float32}.get(column.dtype, float)
        found = [kind(row[column.name]) if row[column.name] else None for row in rows]
        assert found == catalog[column.name].to_pylist(), column.name


def assert_same_meta(told: list[dict[str, str]], units: dict[str, str], suffix: Any) -> None:
    for row, column in zip(told, catalog_columns(), strict=True):
        assert (row["Name"], row["UCD"]) == (column.name, column.ucd)
        assert row["Units"] == units[column.name]
        assert row["Description"] == column.description + suffix(column)


def test_stilts_reads_all_of_a_fits_file(catalog: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "c.fits"
    write_fits(catalog, path, metadata=METADATA)
    units = {c.name: "" if is_logarithmic(c) else c.unit for c in catalog_columns()}

    def unit_in_words(column: Column) -> str:
        return f" [{column.unit}]" if is_logarithmic(column) else ""

    assert_same_meta(table_of(path, "fits", META), units, unit_in_words)
    assert_same_values(table_of(path, "fits"), catalog)


def test_stilts_reads_all_of_a_votable(catalog: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "c.vot"
    write_votable(rows_of(catalog), path, metadata=METADATA)
    words = {"dex(cm/s2)": "[cm.s-2]", "dex": "[-]"}
    units = {column.name: words.get(column.unit, column.unit) for column in catalog_columns()}
    assert_same_meta(table_of(path, "votable", META), units, lambda _: "")
    assert_same_values(table_of(path, "votable"), catalog)


def test_stilts_reads_a_parquet_file_if_it_can_read_any(catalog: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    write_parquet(catalog, path, metadata=METADATA)
    tried = subprocess.run(
        [program("stilts"), "tpipe", f"in={path}", "ifmt=parquet", "omode=count"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if "No table handler available for parquet" in tried.stderr:
        pytest.skip("this STILTS was built without Parquet")
    told = table_of(path, "parquet", META)
    assert [row["Name"] for row in told] == catalog.schema.names
    assert_same_values(table_of(path, "parquet"), catalog)


def test_stilts_takes_no_line_of_an_mrts_head_for_a_star(catalog: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "c.mrt"
    write_mrt(rows_of(catalog), path, metadata=METADATA)
    units = {row["Name"]: row["Units"] for row in table_of(path, "mrt", "meta name units")}
    assert {units[name] for name in ("logg", "logg-label")} == {"[cm.s-2]"}
    assert {units[name] for name in ("e_logg", "Fe/H", "e_Fe/H")} == {"[-]"}
    assert (units["RAdeg"], units["Teff"]) == ("deg", "K")
    stars = [star for star in catalog.to_pylist() if star["teff"] is not None and star["teff"] <= 6700]
    assert 0 < len(stars) < N_STARS
    rows = table_of(path, "mrt")
    assert [row["APOGEE"] or None for row in rows] == [star["apogee_id"] for star in stars]
    assert [int(row["Teff"]) for row in rows] == [round(star["teff"]) for star in stars]
    for name, label, decimals in (("logg_label", "logg-label", 2), ("e_fe_h", "e_Fe/H", 3)):
        found = [float(row[label]) if row[label] else None for row in rows]
        expected = [None if star[name] is None else round(star[name], decimals) for star in stars]
        assert found == expected, name
    printed = {"payne": "Payne", "mstar": "Mstar", "yso": "YSO", None: ""}
    assert [row["Type"] for row in rows] == [printed[star["data_type"]] for star in stars]
    for reader in ("ascii.mrt", "ascii.cds"):
        table = Table.read(path, format=reader)
        assert [str(name) for name in table["APOGEE"]] == [row["APOGEE"] for row in rows]


def test_votlint_has_nothing_to_say_of_a_votable(catalog: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "c.vot"
    write_votable(rows_of(catalog), path, metadata=METADATA)
    assert (
        run(program("stilts"), "votlint", "ucd=true", "unit=true", "validate=true", f"votable={path}") == ""
    )


def test_astropy_finds_a_votable_valid(catalog: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "c.vot"
    write_votable(rows_of(catalog), path, metadata=METADATA)
    report = io.StringIO()
    assert votable.validate(str(path), output=report), report.getvalue()


@pytest.mark.parametrize("n_rows", [0, N_STARS])
def test_fitsverify_finds_neither_error_nor_warning(n_rows: int, catalog: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "c.fits"
    write_fits(catalog.slice(0, n_rows), path, metadata=METADATA)
    told = run(program("fitsverify"), str(path))
    assert "Verification found 0 warning(s) and 0 error(s)" in told, told
