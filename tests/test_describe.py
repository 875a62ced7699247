"""What a catalogue file says of itself."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apogee_batch.catalog.description import read_facts
from apogee_batch.catalog.export import write_fits, write_parquet
from apogee_batch.catalog.rows import rows_of
from apogee_batch.catalog.text_tables import write_ecsv
from apogee_batch.catalog.votable import write_votable
from apogee_batch.errors import UsageError
from apogee_batch.run.describe import describe_file
from apogee_batch.schema import arrow_schema, catalog_columns

SCHEMA = arrow_schema(catalog_columns())
FLAGS = [0, 1, 3]  # clean; LOW_SNR; LOW_SNR and TEFF_EDGE


@pytest.fixture(scope="module")
def catalog() -> pa.Table:
    columns = {}
    for column in catalog_columns():
        kind = str if column.dtype == "string" else int if column.dtype.startswith("int") else float
        columns[column.name] = [kind(i + 1) for i in range(len(FLAGS))]
    columns["flags"] = FLAGS
    columns["teff_label"][1] = None
    columns["field"][2] = None
    columns["location_id"][0] = None
    return pa.table(columns, schema=SCHEMA)


def write(catalog: pa.Table, path: Path) -> Path:
    if path.suffix == ".parquet":
        write_parquet(catalog, path, metadata={"run_id": "0123abcd"})
    elif path.suffix == ".fits":
        write_fits(catalog, path, metadata={})
    else:
        writer = {".vot": write_votable, ".ecsv": write_ecsv}[path.suffix]
        writer(rows_of(catalog), path, metadata={})
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".fits", ".vot", ".ecsv"])
def test_a_file_tells_its_columns_and_what_they_lack(suffix: str, catalog: pa.Table, tmp_path: Path) -> None:
    facts = read_facts(write(catalog, tmp_path / f"c{suffix}"))
    assert facts.n_rows == 3
    assert [column.name for column in facts.columns] == SCHEMA.names
    lacking = {column.name: column.n_missing for column in facts.columns if column.n_missing}
    assert lacking == {"teff_label": 1, "field": 1, "location_id": 1}
    by_name = {column.name: column for column in facts.columns}
    assert by_name["teff"].dtype == "float32"
    assert by_name["teff"].unit == "K"
    assert by_name["teff"].ucd == "phys.temperature.effective"
    assert by_name["teff"].description == "Effective temperature: mean of the realizations"
    assert {flag.name: n for flag, n in facts.flag_counts if n} == {"LOW_SNR": 2, "TEFF_EDGE": 1}


def test_the_lines_name_run_columns_and_flags(catalog: pa.Table, tmp_path: Path) -> None:
    path = write(catalog, tmp_path / "c.parquet")
    lines = describe_file(path, width=140)
    assert lines[0] == f"{path}: 3 rows, {len(SCHEMA.names)} columns"
    assert "run_id: 0123abcd" in lines
    assert any(line.startswith("teff ") and "phys.temperature.effective" in line for line in lines)
    assert any("LOW_SNR" in line and " 2 " in line for line in lines)
    narrow = describe_file(path, width=70)
    assert max(map(len, narrow[3:])) <= 70
    assert not any("phys.temperature" in line for line in narrow)


def test_a_description_with_markup_is_shown_as_it_is(tmp_path: Path) -> None:
    field = pa.field("x", pa.int32(), metadata={"description": "[red]not red[/red] [1/2]"})

    pq.write_table(pa.table({"x": pa.array([1], pa.int32())}, pa.schema([field])), tmp_path / "x.parquet")
    assert any(
        "[red]not red[/red] [1/2]" in line for line in describe_file(tmp_path / "x.parquet", width=100)
    )


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("none.parquet", None, "there is no such file"),
        ("x.txt", b"", "no catalogue by its suffix"),
        ("x.parquet", b"PAR1", "cannot be read"),
        ("x.fits", b"SIMPLE", "cannot be read"),
        ("x.ecsv", b"# %ECSV 1.0\n", "cannot be read"),
    ],
)
def test_what_is_no_catalogue_is_told_by_name(
    name: str, content: bytes | None, told: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=rf"{name}: {told}"):
        describe_file(tmp_path / name, width=100)


def test_the_folder_of_a_run_stands_for_its_catalogue(catalog: pa.Table, tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    write(catalog, tmp_path / "catalog" / "catalog.parquet")
    assert "catalog.parquet: 3 rows" in describe_file(tmp_path, width=100)[0]
