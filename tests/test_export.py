"""The published files: every reader sees the same values, nulls and units; the bytes never vary."""

import shutil
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from astropy import units as u
from astropy.io import fits
from astropy.io import votable as astropy_votable
from astropy.table import QTable, Table

from apogee_batch.catalog.annotations import is_logarithmic
from apogee_batch.catalog.export import FITS_INT_NULL, write_fits, write_parquet
from apogee_batch.errors import IntegrityError
from apogee_batch.schema import Column, arrow_schema, catalog_columns

METADATA = {"run_id": "0123abcd", "model": "sha256 " + 64 * "f", "place": "Kitt Peak / Las Campañas"}
VOPARQUET_CONTENT = "IVOA.VOTable-Parquet.content"
N_STARS = 5


def some_value(column: Column, i: int) -> Any:
    """Return a value that tells its row; each nullable column lacks one in another row, or has all."""
    is_missing = column.nullable and i == catalog_columns().index(column) % (N_STARS + 1)
    if is_missing or (column.name.endswith("_label") and i > 1):
        return None
    if column.dtype == "string":
        return f"{column.name} {i}" if column.name != "data_set" else "dev"
    return 10 * i + 1 if column.dtype.startswith("int") else 1000 * i + 0.125


CATALOG = pa.table(
    {c.name: [some_value(c, i) for i in range(N_STARS)] for c in catalog_columns()},
    schema=arrow_schema(catalog_columns()),
)
EXPECTED = CATALOG.to_pydict()
NAMES = list(EXPECTED)
LOGARITHMIC = {column.name for column in catalog_columns() if is_logarithmic(column)}


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parquet") / "catalog.parquet"
    write_parquet(CATALOG, path, metadata=METADATA)
    return path


@pytest.fixture(scope="module")
def fits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fits") / "catalog.fits"
    write_fits(CATALOG, path, metadata=METADATA)
    return path


def test_the_example_has_every_kind_of_null() -> None:
    kinds = {(c.dtype, CATALOG[c.name].null_count > 0) for c in catalog_columns()}
    assert {("string", True), ("int32", True), ("float32", True), ("float64", True)} <= kinds
    assert {("string", False), ("int32", False)} <= kinds


def test_pandas_reads_values_and_nulls(parquet: Path) -> None:
    frame = pd.read_parquet(parquet)
    assert list(frame.columns) == NAMES
    for name in NAMES:
        values = [None if pd.isna(value) else value for value in frame[name]]
        assert values == EXPECTED[name], name


def test_polars_reads_values_and_nulls(parquet: Path) -> None:
    frame = pl.read_parquet(parquet)
    assert frame.to_dict(as_series=False) == EXPECTED
    assert frame.schema["teff"] == pl.Float32
    assert frame.schema["location_id"] == pl.Int32


def test_duckdb_reads_values_and_nulls(parquet: Path) -> None:
    with duckdb.connect() as connection:
        rows = connection.execute("select * from read_parquet(?)", [str(parquet)]).fetchall()
        bright = connection.execute(
            "select count(*) from read_parquet(?) where data_set is null", [str(parquet)]
        ).fetchone()
    assert [dict(zip(NAMES, row, strict=True)) for row in rows] == CATALOG.to_pylist()
    assert bright == (CATALOG["data_set"].null_count,)


# dask's own reader gives this word to pandas, which is going to forget it
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame:pandas.errors.Pandas4Warning")
def test_dask_reads_values_and_nulls(parquet: Path) -> None:
    frame = dd.read_parquet(parquet).compute(scheduler="synchronous")
    assert list(frame.columns) == NAMES
    for name in NAMES:
        values = [None if pd.isna(value) else value for value in frame[name]]
        assert values == EXPECTED[name], name


def words_by_pyarrow(path: Path) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in pq.read_schema(path).metadata.items()}


def words_by_duckdb(path: Path) -> dict[str, str]:
    with duckdb.connect() as connection:
        found = connection.execute("select key, value from parquet_kv_metadata(?)", [str(path)]).fetchall()
    return {key.decode(): value.decode() for key, value in found}


@pytest.mark.parametrize("read", [words_by_pyarrow, words_by_duckdb, pl.read_parquet_metadata])
def test_each_reader_finds_units_where_it_finds_words_about_the_file(read: Any, parquet: Path) -> None:
    words = read(parquet)
    described = yaml.safe_load(words["table_meta_yaml"])
    assert dict(described["meta"])["run_id"] == words["apogee_batch.run_id"] == METADATA["run_id"]
    by_name = {entry["name"]: entry for entry in described["datatype"]}
    votable = ET.fromstring(words[VOPARQUET_CONTENT])
    fields = {field.get("name"): field for field in votable.findall(".//{*}FIELD")}
    assert list(by_name) == list(fields) == NAMES
    for column in catalog_columns():
        entry, field = by_name[column.name], fields[column.name]
        assert entry["datatype"] == column.dtype
        assert u.Unit(entry.get("unit", "")) == u.Unit(column.unit)
        assert u.Unit(field.get("unit", ""), format="cds") == u.Unit(column.unit)
        assert (entry["description"], dict(entry["meta"])["ucd"]) == (column.description, column.ucd)
        assert (field.get("ucd"), field.findtext("{*}DESCRIPTION")) == (column.ucd, column.description)


def test_the_length_of_each_text_is_told_for_astropy(parquet: Path) -> None:
    words = words_by_pyarrow(parquet)
    told = {
        key.removeprefix("table::len::"): int(text) for key, text in words.items() if key.startswith("table:")
    }
    texts = [column.name for column in catalog_columns() if column.dtype == "string"]
    longest = {name: max(len(text or "None") for text in EXPECTED[name]) for name in texts}
    assert told == longest


def test_nulls_are_nulls_and_all_is_compressed(parquet: Path) -> None:
    group = pq.read_metadata(parquet).row_group(0)
    for i, column in enumerate(catalog_columns()):
        chunk = group.column(i)
        assert chunk.path_in_schema == column.name
        assert chunk.statistics.null_count == EXPECTED[column.name].count(None)
        assert chunk.compression == "ZSTD"


@pytest.mark.parametrize("reader", ["parquet", "parquet.votable"])
def test_astropy_reads_parquet_with_units(reader: str, parquet: Path) -> None:
    table = Table.read(parquet, format=reader)
    assert table.colnames == NAMES
    for column in catalog_columns():
        read = table[column.name]
        # astropy has no null in the text columns of a Parquet file: it says None
        values = [None if _is_missing(value) or value == "None" else value for value in read]
        assert values == EXPECTED[column.name], column.name
        assert read.description == column.description
        assert u.Unit(read.unit or "") == u.Unit(column.unit), column.name
        assert read.meta["ucd"] == column.ucd
    assert table.meta["run_id"] == METADATA["run_id"]
    assert "LOW_SNR" in table.meta["flags"]


def test_astropy_makes_quantities_of_parquet(parquet: Path) -> None:
    table = QTable.read(parquet, format="parquet")
    assert table["teff"].unit == u.K
    assert table["logg"].unit == u.dex(u.cm / u.s**2)
    assert (10 * u.m / u.s**2).to(table["logg"].unit).value == pytest.approx(3)


def _is_missing(value: Any) -> bool:
    return np.ma.is_masked(value) or (isinstance(value, np.floating) and bool(np.isnan(value)))


def fits_cells(column: Any) -> list[Any]:
    """Return the cells of a column as Python values, None where masked."""
    return [None if np.ma.is_masked(cell) else cell for cell in column]


def test_astropy_reads_fits_with_masks_units_and_descriptions(fits_file: Path) -> None:
    table = Table.read(fits_file)
    assert table.colnames == NAMES
    for column in catalog_columns():
        read = table[column.name]
        assert fits_cells(read) == EXPECTED[column.name], column.name
        assert read.description == column.description
        assert u.Unit(read.unit or "") == u.Unit(column.unit), column.name
        assert read.meta["ucd"] == column.ucd
    assert f"run_id: {METADATA['run_id']}" in table.meta["comments"]


def test_astropy_makes_quantities_of_a_complete_fits_catalogue(tmp_path: Path) -> None:
    complete = CATALOG.set_column(11, CATALOG.schema.field("logg"), pa.array([4.5] * N_STARS, pa.float32()))
    for name in LOGARITHMIC - {"logg"}:
        i = complete.schema.get_field_index(name)
        complete = complete.set_column(i, complete.schema.field(i), pa.array([0.5] * N_STARS, pa.float32()))
    write_fits(complete, tmp_path / "c.fits", metadata={})
    table = QTable.read(tmp_path / "c.fits")
    assert table["logg"].unit == u.dex(u.cm / u.s**2)
    assert table["e_logg"].unit == u.dex


def test_fits_headers_are_standard_and_say_all(fits_file: Path) -> None:
    with fits.open(fits_file, checksum=True) as hdus:  # a wrong checksum is a warning, which is an error here
        hdus.verify("exception")
        header = hdus["CATALOG"].header
        for i, column in enumerate(catalog_columns(), start=1):
            assert header[f"TTYPE{i}"] == column.name
            assert header[f"TUCD{i}"] == column.ucd
            assert header[f"TCOMM{i}"].startswith(column.description)
            assert header.get(f"TDISP{i}") == column.display
            if column.name in LOGARITHMIC:
                assert f"TUNIT{i}" not in header
                assert header[f"TCOMM{i}"].endswith(f"[{column.unit}]")
            else:
                assert header.get(f"TUNIT{i}", "") == column.unit
                u.Unit(column.unit, format="fits")
            has_null = column.dtype == "int32" and column.nullable
            assert header.get(f"TNULL{i}") == (FITS_INT_NULL if has_null else None)
        assert header["RADESYS"] == "ICRS"
        comments = "\n".join(header["COMMENT"])
        assert "Las Campa\\xf1as" in comments
        assert header.comments["CHECKSUM"] == header.comments["DATASUM"] == "of this extension"
        assert np.isnan(hdus["CATALOG"].data["teff_label"])[2:].all()


@pytest.mark.skipif(shutil.which("fitsverify") is None, reason="fitsverify is not installed")
def test_fitsverify_finds_nothing(fits_file: Path) -> None:
    told = subprocess.run(["fitsverify", str(fits_file)], capture_output=True, text=True, check=False).stdout
    assert "found 0 warning(s) and 0 error(s)" in told, told


def test_texts_that_fits_cannot_hold_are_escaped(tmp_path: Path) -> None:
    i = CATALOG.schema.get_field_index("field")
    fields = pa.array(["Ω Cen", None, "M67\n", "", "x"])
    write_fits(CATALOG.set_column(i, CATALOG.schema.field(i), fields), tmp_path / "c.fits", metadata={})
    read = Table.read(tmp_path / "c.fits")["field"]
    assert fits_cells(read) == ["\\u03a9 Cen", None, "M67", None, "x"]


def test_field_metadata_tell_unit_ucd_and_description(parquet: Path) -> None:
    schema = pq.read_schema(parquet)
    for column in catalog_columns():
        metadata = schema.field(column.name).metadata
        assert metadata[b"description"].decode() == column.description
        assert metadata[b"ucd"].decode() == column.ucd
        assert metadata.get(b"unit", b"").decode() == column.unit
        assert schema.field(column.name).nullable is column.nullable
    assert schema.metadata[b"apogee_batch.run_id"] == b"0123abcd"
    assert schema.metadata[b"apogee_batch.place"].decode() == METADATA["place"]


def test_the_votable_header_is_a_valid_votable_without_data(parquet: Path, tmp_path: Path) -> None:
    metadata = pq.read_schema(parquet).metadata
    assert metadata[b"IVOA.VOTable-Parquet.version"] == b"1.0"
    content = metadata[VOPARQUET_CONTENT.encode()]
    assert ET.fromstring(content).find(".//{*}TABLE") is not None
    assert ET.fromstring(content).find(".//{*}DATA") is None
    (tmp_path / "header.xml").write_bytes(content)
    parsed = astropy_votable.parse(tmp_path / "header.xml", verify="exception")
    fields = parsed.get_first_table().fields
    assert [field.name for field in fields] == NAMES
    (frame,) = parsed.resources[0].coordinate_systems
    assert frame.system == "ICRS"
    assert [field.name for field in fields if field.ref == frame.ID] == ["ra", "dec"]
    for field, column in zip(fields, catalog_columns(), strict=True):
        assert (field.ucd, field.description) == (column.ucd, column.description)
        assert (field.datatype == "char") is (column.dtype == "string")
        if field.datatype == "char":
            assert int(field.arraysize) >= max(len(text or "") for text in EXPECTED[column.name])


@pytest.mark.parametrize("write", [write_parquet, write_fits])
def test_bytes_depend_on_the_values_only(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(CATALOG, tmp_path / "one", metadata=METADATA)
    first = (tmp_path / "one").read_bytes()
    time.sleep(1.1)  # FITS would carry the second it was written
    pieces = [CATALOG.slice(i, 1) for i in range(N_STARS)]
    shuffled = pa.concat_tables(pieces).replace_schema_metadata({"some": "words"})
    write(shuffled, tmp_path / "two", metadata=METADATA, staging=tmp_path / "staging")
    assert (tmp_path / "two").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "staging", "two"]


@pytest.mark.parametrize("n_rows", [0, 1])
def test_small_catalogues_are_catalogues(n_rows: int, tmp_path: Path) -> None:
    few = CATALOG.slice(0, n_rows)
    write_parquet(few, tmp_path / "c.parquet", metadata={})
    write_fits(few, tmp_path / "c.fits", metadata={})
    for name in ("c.parquet", "c.fits"):
        table = Table.read(tmp_path / name)
        assert len(table) == n_rows
        assert table.colnames == NAMES


@pytest.mark.parametrize("write", [write_parquet, write_fits])
def test_other_tables_are_no_catalogue(write: Any, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="not a catalogue"):
        write(pa.table({"x": [1]}), tmp_path / "x", metadata={})
    assert list(tmp_path.iterdir()) == []
