"""`describe` of a HATS folder, which needs no library of HATS."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apogee_batch.catalog.description import read_facts
from apogee_batch.errors import UsageError
from apogee_batch.run.describe import describe_file


def make_catalog(folder: Path, *, n_rows: int, more: str = "") -> Path:
    """A catalogue of two partitions, the second with a single star."""
    for pixel, ids in ((4, [f"s{i}" for i in range(n_rows - 1)]), (7, ["last"])):
        path = folder / "dataset" / "Norder=1" / "Dir=0" / f"Npix={pixel}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = pa.array([1] * len(ids), pa.int32())
        snr = pa.array([None] * len(ids), pa.float32())
        unit = pa.field("snr", pa.float32(), metadata={"unit": "K"})
        schema = pa.schema([pa.field("apstar_id", pa.string()), pa.field("flags", pa.int32()), unit])
        table = pa.table({"apstar_id": ids, "flags": flags, "snr": snr}, schema=schema)
        pq.write_table(table.replace_schema_metadata({"apogee_batch.run_id": "0123abcd"}), path)
    (folder / "partition_info.csv").write_text("Norder,Npix\n1,4\n1,7\n")
    (folder / "hats.properties").write_text(f"#HATS catalog\nhats_nrows={n_rows}\n{more}")
    return folder


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    folder = tmp_path / "hats"
    make_catalog(folder / "apogee", n_rows=4)
    make_catalog(folder / "apogee_10arcs", n_rows=2, more="hats_margin_threshold=10.0\n")
    (folder / "collection.properties").write_text(
        "#HATS Collection\nhats_primary_table_url=apogee\nall_margins=apogee_10arcs\n"
        "default_margin=apogee_10arcs\n"
    )
    return folder


def test_a_collection_tells_partitions_margin_columns_and_flags(collection: Path) -> None:
    facts = read_facts(collection)
    assert facts.n_rows == 4
    assert [(c.name, c.unit, c.n_missing) for c in facts.columns] == [
        ("apstar_id", "", 0),
        ("flags", "", 0),
        ("snr", "K", 4),
    ]
    assert {flag.name: n for flag, n in facts.flag_counts if n} == {"LOW_SNR": 4}
    lines = describe_file(collection, width=100)
    assert lines[:4] == [
        f"{collection}: 4 rows, 3 columns",
        "HATS catalogue apogee of 2 partitions",
        "margin cache apogee_10arcs (the default): 10.0 arcsec, 2 rows",
        "run_id: 0123abcd",
    ]


def test_one_catalogue_of_it_can_be_described_alone(collection: Path) -> None:
    assert read_facts(collection / "apogee").n_rows == 4
    (collection / "apogee" / "hats.properties").rename(collection / "apogee" / "properties")
    assert read_facts(collection / "apogee").n_rows == 4


def test_a_missing_partition_is_named(collection: Path) -> None:
    gone = collection / "apogee" / "dataset" / "Norder=1" / "Dir=0" / "Npix=7.parquet"
    gone.unlink()
    with pytest.raises(UsageError, match=r"Npix=7.parquet: is missing, one of 2 partitions"):
        read_facts(collection)


def test_rows_that_do_not_add_up_are_told(collection: Path) -> None:
    (collection / "apogee" / "hats.properties").write_text("hats_nrows=5\n")
    with pytest.raises(UsageError, match=r"its files hold 4 rows, its properties say 5"):
        read_facts(collection)


@pytest.mark.parametrize("name", ["hats.properties", "partition_info.csv"])
def test_what_is_missing_or_damaged_is_told(name: str, collection: Path) -> None:
    (collection / "apogee" / name).unlink()
    with pytest.raises(UsageError, match=r"cannot be read .*whole\?"):
        read_facts(collection)


def test_a_collection_leads_to_no_other_folder(collection: Path, tmp_path: Path) -> None:
    make_catalog(tmp_path / "secret", n_rows=2)
    (collection / "collection.properties").write_text("hats_primary_table_url=../secret\n")
    with pytest.raises(UsageError, match="lies outside"):
        read_facts(collection)


def test_files_of_other_columns_are_no_catalogue(collection: Path) -> None:
    path = collection / "apogee" / "dataset" / "Norder=1" / "Dir=0" / "Npix=7.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(UsageError, match="other columns"):
        read_facts(collection)
