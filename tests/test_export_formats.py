"""The other formats of a catalogue: each reader sees the same values, nulls, units and UCDs."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.io import votable
from astropy.table import Table

from apogee_batch.catalog.mrt import table4, write_mrt
from apogee_batch.catalog.rows import rows_of
from apogee_batch.catalog.text_tables import write_csv, write_ecsv
from apogee_batch.catalog.votable import write_votable
from apogee_batch.errors import UsageError
from apogee_batch.schema import arrow_schema, catalog_columns

SCHEMA = arrow_schema(catalog_columns())
METADATA = {"run_id": "0123abcd", "place": "Kitt Peak & <Las Campañas>"}
N_STARS = 300  # more than a line of base64 holds
TEXT = [column.name for column in catalog_columns() if column.dtype == "string"]


def make_value(name: str, dtype: str, i: int, *, is_nullable: bool) -> Any:
    """Return a value that tells its row; every fourth one is missing where one may be."""
    if is_nullable and (i + len(name)) % 4 == 0:
        return None
    if dtype == "string":
        return {"data_set": "dev", "data_type": "mstar"}.get(name, f"{name} {i}")
    return i if dtype.startswith("int") else 4000.0 + 10 * i + 0.3


@pytest.fixture(scope="module")
def catalog() -> pa.Table:
    return pa.table(
        {
            c.name: [make_value(c.name, c.dtype, i, is_nullable=c.nullable) for i in range(N_STARS)]
            for c in catalog_columns()
        },
        schema=SCHEMA,
    )


def cells(column: Any) -> list[Any]:
    """Return the cells of an astropy column as Python values, None where there is none."""
    found = [None if np.ma.is_masked(cell) else np.asarray(cell).item() for cell in column]
    return [None if cell == "" else cell for cell in found]


def assert_same(table: Table, catalog: pa.Table) -> None:
    assert table.colnames == catalog.schema.names
    for column in catalog_columns():
        assert cells(table[column.name]) == catalog[column.name].to_pylist(), column.name
        assert table[column.name].description == column.description


def test_a_votable_gives_values_nulls_units_and_ucds(catalog: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "catalog.vot"
    digest = write_votable(rows_of(catalog), path, metadata=METADATA)
    assert digest.size == path.stat().st_size
    parsed = votable.parse(path, verify="exception")
    table = parsed.get_first_table()
    assert_same(table.to_table(), catalog)
    infos = {info.name: info.value for info in parsed.resources[0].infos}
    assert infos["place"] == METADATA["place"]
    assert "LOW_SNR" in infos["flags"]
    (frame,) = parsed.resources[0].coordinate_systems
    assert (frame.system, frame.equinox, frame.epoch) == ("ICRS", None, None)
    assert [field.name for field in table.fields if field.ref == frame.ID] == ["ra", "dec"]
    for field, column in zip(table.fields, catalog_columns(), strict=True):
        assert field.ucd == column.ucd
        if column.unit and column.unit != "dex":
            assert u.Unit(field.unit) == u.Unit(column.unit), column.name


def test_a_votable_of_no_rows_is_one(tmp_path: Path) -> None:
    write_votable(rows_of(SCHEMA.empty_table()), tmp_path / "none.vot", metadata={})
    table = votable.parse(tmp_path / "none.vot", verify="exception").get_first_table().to_table()
    assert len(table) == 0
    assert table.colnames == SCHEMA.names


def test_an_ecsv_gives_astropy_all_that_the_catalogue_says(catalog: pa.Table, tmp_path: Path) -> None:
    write_ecsv(rows_of(catalog), tmp_path / "catalog.ecsv", metadata=METADATA)
    table = Table.read(tmp_path / "catalog.ecsv")
    assert_same(table, catalog)
    assert table["logg"].unit == u.dex(u.cm / u.s**2)
    assert table["teff"].dtype == np.float32
    assert table["teff"].meta["ucd"] == "phys.temperature.effective"
    assert table.meta["place"] == METADATA["place"]


def test_a_csv_has_one_line_of_names_and_empty_cells_for_nulls(catalog: pa.Table, tmp_path: Path) -> None:
    write_csv(rows_of(catalog), tmp_path / "catalog.csv", metadata=METADATA)
    with (tmp_path / "catalog.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == SCHEMA.names
    for name in ("teff", "location_id", "field"):
        expected = catalog[name].to_pylist()
        kind = {"teff": lambda text: float(np.float32(text)), "location_id": int, "field": str}[name]
        assert [kind(row[name]) if row[name] else None for row in rows] == expected, name
    assert next(row["teff"] for row in rows if row["teff"]) == "4010.3"  # not 4010.300048828125


def test_the_mrt_is_table_4_of_the_paper(catalog: pa.Table, tmp_path: Path) -> None:
    write_mrt(rows_of(catalog), tmp_path / "catalog.mrt", metadata=METADATA)
    table = Table.read(tmp_path / "catalog.mrt", format="ascii.mrt")
    kept = [i for i, teff in enumerate(catalog["teff"].to_pylist()) if teff is not None and teff <= 6700]
    assert 0 < len(kept) < N_STARS
    assert len(table) == len(kept)
    labels = [catalog["logg_label"][i].as_py() for i in kept]
    assert cells(table["logg-label"]) == [None if x is None else round(x, 2) for x in labels]
    assert cells(table["Teff"]) == [round(catalog["teff"][i].as_py()) for i in kept]
    assert table["logg"].unit == u.dex(u.cm / u.s**2)
    assert set(cells(table["Type"])) == {"Mstar", None}
    text = (tmp_path / "catalog.mrt").read_text(encoding="ascii")
    assert text.startswith("Title: Stellar labels from APOGEE spectra\nAuthors: ")
    head, note, _ = text.partition("\nNote (1): ")
    assert note
    assert all(len(line) <= 80 for line in head.splitlines())
    assert f"  rows: {len(table)}\n  run_id: 0123abcd\n" in text


def test_numbers_are_rounded_as_the_paper_prints_them_and_errors_less() -> None:
    # the first row that the paper prints
    star = {"apogee_id": "2M00003379+7940362", "ra": 0.140803, "dec": 79.676727, "logg_label": 4.94}
    star |= {"logg": 4.4712, "e_logg": 0.0596, "teff_label": 3307.2, "teff": 3356.7, "e_teff": 28.4}
    star |= {"fe_h": -0.0531, "e_fe_h": 0.0142, "snr": 136.98, "data_set": "train", "data_type": "mstar"}
    stars = pa.Table.from_pylist(
        [{name: star.get(name) for name in SCHEMA.names}],
        schema=pa.schema([field.with_nullable(True) for field in SCHEMA]),
    )
    row = table4(stars)[0]
    assert [row["logg-label"], row["logg"], row["e_logg"]] == [4.94, 4.47, 0.06]
    assert [row["Teff-label"], row["Teff"], row["e_Teff"]] == [3307, 3357, 28.4]
    assert [row["Fe/H"], row["e_Fe/H"], row["SNR"]] == [-0.05, 0.014, 137.0]
    assert [row["Set"], row["Type"]] == ["train", "Mstar"]
    assert row["Fe/H-label"] is np.ma.masked


def test_an_mrt_without_labels_has_blank_columns(catalog: pa.Table, tmp_path: Path) -> None:
    for name in ("logg_label", "data_set"):
        i = catalog.schema.get_field_index(name)
        catalog = catalog.set_column(i, catalog.schema.field(i), pa.nulls(len(catalog), catalog[name].type))
    write_mrt(rows_of(catalog), tmp_path / "catalog.mrt", metadata={})
    table = Table.read(tmp_path / "catalog.mrt", format="ascii.mrt")
    assert set(cells(table["logg-label"])) == {None}


def test_an_mrt_without_stars_is_refused_and_the_other_formats_are_not(
    catalog: pa.Table, tmp_path: Path
) -> None:
    i = catalog.schema.get_field_index("teff")
    hot = pa.array([7000.0] * (N_STARS - 1) + [None], catalog["teff"].type)
    for none in (SCHEMA.empty_table(), catalog.set_column(i, catalog.schema.field(i), hot)):
        with pytest.raises(UsageError, match="up to 6700 K; choose another --format"):
            write_mrt(rows_of(none), tmp_path / "catalog.mrt", metadata={})
        assert list(tmp_path.iterdir()) == []
    for write in (write_votable, write_csv, write_ecsv):
        write(rows_of(SCHEMA.empty_table()), tmp_path / "none", metadata={})


def test_an_mrt_says_of_numbers_only_that_one_may_lack(catalog: pa.Table, tmp_path: Path) -> None:
    assert catalog["data_type"].null_count
    write_mrt(rows_of(catalog), tmp_path / "catalog.mrt", metadata={})
    lines = (tmp_path / "catalog.mrt").read_text().splitlines()
    labels = ("APOGEE", "Teff", "Teff-label", "Set", "Type")
    told = {label: next(line for line in lines if f" {label} " in line) for label in labels}
    assert [label for label, line in told.items() if "?" in line] == ["Teff-label"]
    assert "]" in told["Teff"]


def test_small_errors_in_an_mrt_are_not_zero(catalog: pa.Table, tmp_path: Path) -> None:
    errors = {"e_logg": 0.0049, "e_teff": 0.4, "e_fe_h": 0.0012}
    for name, error in errors.items():
        i = catalog.schema.get_field_index(name)
        values = pa.array([error] * len(catalog), pa.float32())
        catalog = catalog.set_column(i, catalog.schema.field(i), values)
    write_mrt(rows_of(catalog), tmp_path / "catalog.mrt", metadata={})
    table = Table.read(tmp_path / "catalog.mrt", format="ascii.mrt")
    printed = [set(cells(table[label])) for label in ("e_logg", "e_Teff", "e_Fe/H")]
    assert printed == [{0.005}, {0.4}, {0.001}]


def test_an_mrt_says_that_the_scatter_is_not_the_error_to_use(catalog: pa.Table, tmp_path: Path) -> None:
    write_mrt(rows_of(catalog), tmp_path / "catalog.mrt", metadata=METADATA)
    text = " ".join((tmp_path / "catalog.mrt").read_text().split())
    assert text.count("scatter of the realizations, not the error to use (2)") == 3
    note = text.partition(" Note (2): ")[2].partition(" ---")[0]
    assert all(f"e_{name}_total" in note for name in ("teff", "logg", "fe_h"))


@pytest.mark.parametrize("write", [write_votable, write_csv, write_ecsv, write_mrt])
def test_the_same_catalogue_gives_the_same_bytes(write: Any, catalog: pa.Table, tmp_path: Path) -> None:
    digests = [write(rows_of(catalog), tmp_path / name, metadata=METADATA).sha256 for name in ("a", "b")]
    assert digests[0] == digests[1]
