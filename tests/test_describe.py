"""What a catalogue file says of itself."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table as AstropyTable

from apogee_batch.catalog.description import read_facts
from apogee_batch.catalog.export import write_fits, write_parquet
from apogee_batch.catalog.facts import FileFacts
from apogee_batch.catalog.mrt import write_mrt
from apogee_batch.catalog.rows import rows_of
from apogee_batch.catalog.text_tables import write_csv, write_ecsv
from apogee_batch.catalog.votable import write_votable
from apogee_batch.errors import UsageError
from apogee_batch.run.describe import describe_file
from apogee_batch.schema import arrow_schema, catalog_columns

SCHEMA = arrow_schema(catalog_columns())
WRITERS = {".vot": write_votable, ".ecsv": write_ecsv, ".csv": write_csv, ".mrt": write_mrt}
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
        write_fits(catalog, path, metadata={"run_id": "0123abcd"})
    else:
        writer = WRITERS[path.suffix]
        writer(rows_of(catalog), path, metadata={"run_id": "0123abcd"})
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
    assert facts.origin["run_id"] == "0123abcd"
    assert facts.remarks == ()


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
        ("x.fits", b"SIMPLE", "is no whole number of FITS blocks"),
        ("x.fits", b"no" * 1440, "cannot be read"),
        ("x.csv", b"", "has no columns"),
        ("x.mrt", b"Title: none\n", "ends within the description of its columns"),
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


def accepted_cuts(path: Path, lengths: Iterable[int]) -> dict[int, FileFacts]:
    """Return which beginnings of a file are taken for a file, by their length."""
    content, found = path.read_bytes(), {}
    for length in lengths:
        path.write_bytes(content[:length])
        try:
            found[length] = read_facts(path)
        except UsageError:
            continue
    return found


@pytest.mark.parametrize("suffix", [".mrt", ".ecsv", ".vot", ".fits", ".parquet"])
def test_a_file_that_was_cut_anywhere_is_not_taken_for_whole(
    suffix: str, catalog: pa.Table, tmp_path: Path
) -> None:
    path = write(catalog, tmp_path / f"c{suffix}")
    size = path.stat().st_size
    lengths = [*range(0, size - 1, max(1, size // 40)), size - (2 if suffix == ".vot" else 1)]
    found = accepted_cuts(path, lengths)
    assert found == {}


def test_an_mrt_cut_within_its_head_is_told_wherever_that_is(catalog: pa.Table, tmp_path: Path) -> None:
    path = write(catalog, tmp_path / "c.mrt")
    head = path.read_text().rindex("-" * 80) + 80
    assert accepted_cuts(path, range(1, head + 1, 7)) == {}


@pytest.mark.parametrize("n_rules", [3, 4])
def test_an_mrt_of_others_is_read_with_and_without_notes(n_rules: int, tmp_path: Path) -> None:
    rule = "-" * 80 + "\n"
    columns = " 1- 4 F4.1 K Teff Temperature\n"
    note = "Note (1): rough.\n" + rule if n_rules == 4 else ""
    head = f"Title: x\nAuthors: y\nTable: z\n{'=' * 80}\nByte-by-byte Description of file: z\n"
    heads = f"{rule} Bytes Format Units Label Explanations\n{rule}"
    (tmp_path / "x.mrt").write_text(f"{head}{heads}{columns}{rule}{note}51.5\n49.0\n")
    facts = read_facts(tmp_path / "x.mrt")
    assert (facts.n_rows, facts.columns[0].unit, facts.remarks) == (2, "K", ())
    (tmp_path / "x.mrt").write_text(f"{head}{heads}{columns}{rule}{note}"[:-40])
    with pytest.raises(UsageError, match="ends within the description"):
        read_facts(tmp_path / "x.mrt")


@pytest.mark.parametrize("suffix", [".mrt", ".ecsv"])
def test_a_file_that_lost_whole_lines_is_not_taken_for_whole(
    suffix: str, catalog: pa.Table, tmp_path: Path
) -> None:
    path = write(catalog, tmp_path / f"c{suffix}")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(UsageError, match=r"says that it holds 3 rows, not 2; is the file whole\?"):
        read_facts(path)


def test_a_csv_whose_last_line_has_no_end_is_suspected(catalog: pa.Table, tmp_path: Path) -> None:
    path = write(catalog, tmp_path / "c.csv")
    assert read_facts(path).remarks == ()
    path.write_bytes(path.read_bytes()[:-3])
    assert read_facts(path).remarks == ("the last line has no end: the file may be cut",)
    assert "the last line has no end: the file may be cut" in describe_file(path, width=100)


def test_what_a_reader_finds_odd_is_a_remark_and_no_warning(tmp_path: Path) -> None:
    table = AstropyTable({"x": [1.0, 2.0]})
    table.write(tmp_path / "x.fits")
    with fits.open(tmp_path / "x.fits", mode="update") as hdus:
        hdus[1].header["TUNIT1"] = "furlong/fortnight"
    facts = read_facts(tmp_path / "x.fits")
    assert len(facts.remarks) == 1
    assert "furlong" in facts.remarks[0]


def test_the_flags_of_others_are_not_explained_as_ours(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["a"], "flags": pa.array([3], pa.int32())}), tmp_path / "x.parquet")
    assert read_facts(tmp_path / "x.parquet").flag_counts == ()


def test_the_flags_that_a_file_lists_count_before_those_of_today(tmp_path: Path) -> None:
    told = {b"apogee_batch.flags": b'{"ODD": {"bit": 1, "description": "of another version"}}'}
    table = pa.table({"apstar_id": ["a", "b"], "flags": pa.array([3, 1], pa.int32())})
    pq.write_table(table.replace_schema_metadata(told), tmp_path / "x.parquet")
    assert [(flag.name, n) for flag, n in read_facts(tmp_path / "x.parquet").flag_counts] == [("ODD", 1)]
    pq.write_table(table.replace_schema_metadata({b"apogee_batch.flags": b"[1]"}), tmp_path / "x.parquet")
    assert len(read_facts(tmp_path / "x.parquet").flag_counts) > 5


def test_what_a_terminal_would_obey_is_not_printed(tmp_path: Path) -> None:
    told = {b"apogee_batch.run_id": b"\x1b[2Jgone"}
    pq.write_table(pa.table({"x": [1]}).replace_schema_metadata(told), tmp_path / "x.parquet")
    assert "run_id: ?[2Jgone" in describe_file(tmp_path / "x.parquet", width=100)
