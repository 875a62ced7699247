"""Label tables: every format says the same, units are converted or refused, bad rows are told."""

import gzip
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.errors import UsageError
from apogee_batch.labels.rows import LabelTable, UnusedReason, first_row_of_each_star
from apogee_batch.labels.tables import read_label_table
from apogee_batch.labels.units import to_label_unit

NAMES = ["2M00000032+5737103", "2M19390532+4027346", "2M03290406+3117075"]
LABELS = np.array([[4.5, 5000.0, -0.25], [1.5, 4100.5, 0.125], [3.75, 3300.0, 0.0]])  # logg, teff, fe_h


def awkward_table() -> Table:
    """Return three good rows, one with a masked label and one with the survey's -9999."""
    table = Table()
    table["APOGEE_ID"] = [*NAMES, "2M1", "2M2"]
    table["TEFF"] = [*LABELS[:, 1], 4000.0, -9999.0]
    table["LOGG"] = MaskedColumn([*LABELS[:, 0], 4.0, 4.0], mask=[False, False, False, True, False])
    table["FE_H"] = np.array([*LABELS[:, 2], 0.0, 0.0], dtype=np.float32)
    table["SNR"] = np.arange(5)
    return table


def write_fits(table: Table, path: Path) -> None:
    table.write(path)


def write_csv(table: Table, path: Path) -> None:
    table.write(path, format="ascii.csv")


def write_csv_for_excel(table: Table, path: Path) -> None:
    table.write(path, format="ascii.csv")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def write_csv_gz(table: Table, path: Path) -> None:
    plain = path.with_suffix("")
    table.write(plain, format="ascii.csv")
    path.write_bytes(gzip.compress(plain.read_bytes()))


def write_ecsv(table: Table, path: Path) -> None:
    table.write(path, format="ascii.ecsv")


def write_votable(table: Table, path: Path) -> None:
    table.write(path, format="votable")


def write_parquet_as_astropy(table: Table, path: Path) -> None:
    table.write(path, format="parquet")


def write_parquet_as_pandas(table: Table, path: Path) -> None:
    table.to_pandas().to_parquet(path)


WRITERS = {
    "labels.fits": write_fits,
    "labels.fits.gz": write_fits,
    "LABELS.FIT": write_fits,
    "labels.csv": write_csv,
    "excel.csv": write_csv_for_excel,
    "labels.csv.gz": write_csv_gz,
    "labels.ecsv": write_ecsv,
    "labels.vot": write_votable,
    "labels.xml": write_votable,
    "astropy.parquet": write_parquet_as_astropy,
    "pandas.parquet": write_parquet_as_pandas,
}


def write_simple(path: Path, **columns: Any) -> Path:
    """Write a CSV of one good row; `columns` replace or add."""
    values = {"apogee_id": ["A"], "teff": [5000.0], "logg": [4.5], "fe_h": [0.0]} | columns
    Table({name: column for name, column in values.items() if column is not None}).write(path)
    return path


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_says_the_same(name: str, tmp_path: Path) -> None:
    WRITERS[name](awkward_table(), tmp_path / name)
    table = read_label_table(tmp_path / name, "payne")
    assert table.apogee_id == tuple(NAMES)
    np.testing.assert_array_equal(table.labels, LABELS)
    assert table.labels.dtype == np.dtype("=f8")
    assert table.n_rows == 5
    assert [(label.apogee_id, label.reason) for label in table.unused] == [
        ("2M1", UnusedReason.MISSING_LABEL),
        ("2M2", UnusedReason.MISSING_LABEL),
    ]
    assert table.data_set == ("", "", "")
    assert table.apstar_id == ("", "", "")


def test_an_allstar_summary_is_a_label_table(tmp_path: Path) -> None:
    columns = [
        fits.Column("APSTAR_ID", "45A", array=np.array(["apogee.apo25m.s.stars.4264.2M1  "])),
        fits.Column("APOGEE_ID", "18A", array=np.array(["2M1               "])),
        fits.Column("FPARAM", "3E", array=np.zeros((1, 3))),
        fits.Column("TEFF", "E", array=np.array([5000.5]), unit="K"),
        fits.Column("LOGG", "E", array=np.array([4.5]), unit="log(cm/s^2)"),
        fits.Column("FE_H", "E", array=np.array([-0.25]), unit="dex"),
        fits.Column("M_H", "E", array=np.array([0.5])),
    ]
    second = fits.BinTableHDU.from_columns([fits.Column("OTHER", "J", array=np.array([1]))])
    path = tmp_path / "allStar.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns), second]).writeto(path)
    table = read_label_table(path, "payne")
    assert table.apstar_id == ("apogee.apo25m.s.stars.4264.2M1",)
    assert table.apogee_id == ("2M1",)
    np.testing.assert_array_equal(table.labels, [[4.5, 5000.5, -0.25]])


@pytest.mark.parametrize("before", ["2M", "2MASS J", "2MASSJ", "2MASS ", "J", ""])
def test_names_of_2mass_are_those_of_the_survey(before: str, tmp_path: Path) -> None:
    names = [f"{before}00005143+5615568", "VESTA", "J00005143+561556"]
    path = write_simple(
        tmp_path / "t.csv", apogee_id=names, teff=[4000.0] * 3, logg=[4.0] * 3, fe_h=[0.0] * 3
    )
    assert read_label_table(path, "payne").apogee_id == ("2M00005143+5615568", *names[1:])


def test_columns_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    write_simple(path, apogee_id=None, ID=["A"], teff=[1.0], TeffPayne=[4800.0], SET=["Dev"])
    table = read_label_table(
        path, "yso", column_map={"apogee_id": "ID", "teff": "teffpayne", "data_set": "SET"}
    )
    assert table.apogee_id == ("A",)
    assert table.labels[0, 1] == 4800
    assert table.data_set == ("dev",)


def test_a_split_column_is_read_and_blank_cells_are_left_to_the_hash(tmp_path: Path) -> None:
    columns = {"apogee_id": ["A", "B", "C"], "teff": [4e3] * 3, "logg": [4.0] * 3, "fe_h": [0.0] * 3}
    path = write_simple(tmp_path / "labels.csv", **columns, data_set=["TRAIN", "", "test"])
    assert read_label_table(path, "payne").data_set == ("train", "", "test")


@pytest.mark.parametrize("word", ["val", "valid", "training"])
def test_a_split_of_another_name_is_refused(word: str, tmp_path: Path) -> None:
    path = write_simple(tmp_path / "labels.csv", data_set=[word])
    with pytest.raises(UsageError, match=f"'{word}'.*train, dev, test") as caught:
        read_label_table(path, "payne")
    assert "\n" not in str(caught.value)


def test_a_star_twice_is_one_star_and_contradictions_are_told(tmp_path: Path) -> None:
    path = write_simple(
        tmp_path / "labels.csv",
        apogee_id=["A", "B", "A", "A", "B"],
        teff=[4000.0, 5000.0, 4000.0, 4001.0, 5000.0],
        logg=[4.0] * 5,
        fe_h=[0.0] * 5,
    )
    table = read_label_table(path, "payne")
    assert table.apogee_id == ("A", "B")
    assert table.labels[:, 1].tolist() == [4000.0, 5000.0]
    assert table.n_repeated == 2
    assert [(label.apogee_id, label.reason) for label in table.unused] == [("A", UnusedReason.CONFLICT)]


def test_spectra_of_one_star_are_told_apart_by_apstar_id(tmp_path: Path) -> None:
    columns = {"apogee_id": ["A", "A"], "apstar_id": ["x.A", "y.A"], "teff": [4000.0, 4100.0]}
    path = write_simple(tmp_path / "labels.csv", **columns, logg=[4.0, 4.0], fe_h=[0.0, 0.0])
    table = read_label_table(path, "payne")
    assert table.apstar_id == ("x.A", "y.A")
    by_star = table.by_apogee_id()
    assert by_star.apogee_id == ("A",)
    assert by_star.labels[0, 1] == 4000
    assert by_star.unused[0].reason is UnusedReason.CONFLICT


def test_rows_without_a_name_are_told(tmp_path: Path) -> None:
    columns = {"apogee_id": ["A", ""], "teff": [4e3] * 2, "logg": [4.0] * 2, "fe_h": [0.0] * 2}
    table = read_label_table(write_simple(tmp_path / "labels.csv", **columns), "payne")
    assert table.apogee_id == ("A",)
    assert [label.reason for label in table.unused] == [UnusedReason.NO_NAME]


@pytest.mark.parametrize("missing", [-9999.0, -9999.99, -999.0, -99.0, np.nan, np.inf])
def test_every_way_to_say_missing_is_missing(missing: float, tmp_path: Path) -> None:
    path = tmp_path / "labels.fits"
    columns = {"teff": [5000.0, 5000.0, missing], "logg": [4.5, missing, 4.5], "fe_h": [missing, 0.0, 0.0]}
    table = read_label_table(write_simple(path, apogee_id=["A", "B", "C"], **columns), "payne")
    assert len(table.labels) == 0
    assert len(table.unused) == 3


def test_no_star_has_zero_kelvins(tmp_path: Path) -> None:
    path = write_simple(tmp_path / "labels.csv", teff=[0.0])
    assert [label.reason for label in read_label_table(path, "payne").unused] == [UnusedReason.MISSING_LABEL]


def test_fits_nulls_of_integers_are_missing_whether_scaled_or_not(tmp_path: Path) -> None:
    columns = [
        fits.Column("apogee_id", "3A", array=np.array(["A", "B", "C"])),
        fits.Column("teff", "J", array=np.array([5000, 9999, 5000]), null=9999),
        fits.Column("logg", "I", array=np.array([450, 450, -500]), null=-500),
        fits.Column("fe_h", "E", array=np.zeros(3)),
    ]
    path = tmp_path / "labels.fits"
    fits.BinTableHDU.from_columns(columns).writeto(path)
    fits.setval(path, "TSCAL3", value=0.01, ext=1)  # astropy cannot write a scaled column of integers
    table = read_label_table(path, "payne")
    assert table.apogee_id == ("A",)
    np.testing.assert_allclose(table.labels, [[4.5, 5000, 0]])


def test_parquet_dictionaries_nulls_and_declared_units_are_understood(tmp_path: Path) -> None:
    fields = [
        pa.field("apogee_id", pa.dictionary(pa.int8(), pa.string())),
        pa.field("teff", pa.float32(), metadata={"unit": "kK"}),
        pa.field("logg", pa.decimal128(4, 2)),
        pa.field("fe_h", pa.int32()),
    ]
    columns = [
        pa.array(["A", None, "C"]).dictionary_encode().cast(fields[0].type),
        pa.array([5.0, 4.0, 3.5], pa.float32()),
        pa.array([4, 4, 4]).cast(pa.decimal128(21, 2)).cast(fields[2].type),
        pa.array([0, 0, None], pa.int32()),
    ]
    path = tmp_path / "labels.parquet"
    pq.write_table(pa.table(columns, schema=pa.schema(fields)), path)
    table = read_label_table(path, "payne")
    assert table.apogee_id == ("A",)
    np.testing.assert_allclose(table.labels, [[4.0, 5000.0, 0.0]])
    assert [label.reason for label in table.unused] == [UnusedReason.NO_NAME, UnusedReason.MISSING_LABEL]


@pytest.mark.parametrize("name", ["q.ecsv", "q.vot", "q.parquet"])
def test_quantities_keep_their_units(name: str, tmp_path: Path) -> None:
    table = QTable({"apogee_id": ["A"], "teff": [5.0] * u.kK, "logg": [4.5], "fe_h": [0.0]})
    table.write(tmp_path / name, format={"vot": "votable", "ecsv": "ascii.ecsv"}.get(name[2:], name[2:]))
    assert read_label_table(tmp_path / name, "payne").labels[0, 1] == pytest.approx(5000)


CONVERSIONS = [
    ("teff", "", 5000.0, 5000.0),
    ("teff", "K", 5000.0, 5000.0),
    ("teff", "Kelvin", 5000.0, 5000.0),
    ("teff", "1000 K", 5.0, 5000.0),
    ("teff", "kK", 5.0, 5000.0),
    ("teff", "deg_C", 4726.85, 5000.0),
    ("teff", "[K]", 3.5, 10**3.5),
    ("teff", "dex(K)", 3.5, 10**3.5),
    *(
        ("logg", unit, 4.5, 4.5)
        for unit in (
            "", " ", "dex", "dex(cm/s2)", "dex(cm / s2)", "[cm/s2]", "[cm.s-2]", "log(cm.s**-2)",
            "log10(cm/s^2)", "[-]",
        )
    ),
    ("logg", "dex(m/s2)", 2.5, 4.5),
    *(("fe_h", unit, -0.5, -0.5) for unit in ("", "1", "dex", "[-]", "[Sun]", "Sun", "dex(1)", "log()")),
]  # fmt: skip


@pytest.mark.parametrize(("label", "unit", "value", "expected"), CONVERSIONS)
def test_units_are_converted(label: str, unit: str, value: float, expected: float) -> None:
    converted = to_label_unit(label, np.array([value]), unit, where="labels.csv: column 'x'")
    np.testing.assert_allclose(converted, [expected], rtol=1e-12)


@pytest.mark.parametrize(
    ("label", "unit"),
    [
        ("teff", "eV"),
        ("teff", "mag"),
        ("teff", "furlong per fortnight"),
        ("teff", "dex"),
        ("logg", "cm/s2"),  # most likely a logarithm with a careless unit: not for us to decide
        ("logg", "K"),
        ("logg", "dex(K)"),
        ("fe_h", "dex(cm/s2)"),
        ("fe_h", "%"),
        ("fe_h", "mag"),
    ],
)
def test_other_units_are_refused_with_column_unit_and_remedy(label: str, unit: str) -> None:
    with pytest.raises(UsageError) as caught:
        to_label_unit(label, np.array([1.0]), unit, where="labels.csv: column 'X'")
    for word in ("column 'X'", repr(unit), "convert the column to"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_kelvins_that_claim_to_be_logarithms_are_missing_not_infinite(tmp_path: Path) -> None:
    path = tmp_path / "labels.fits"
    columns = [
        fits.Column("apogee_id", "1A", array=np.array(["A"])),
        fits.Column("teff", "D", array=np.array([5000.0]), unit="dex(K)"),
        fits.Column("logg", "D", array=np.array([4.5])),
        fits.Column("fe_h", "D", array=np.array([0.0])),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(path)
    assert len(read_label_table(path, "payne").labels) == 0


def refusal(path: Path, data_type: str = "payne", **column_map: str) -> str:
    """Return the one line that says why a table is refused."""
    with pytest.raises(UsageError) as caught:
        read_label_table(path, data_type, column_map=column_map)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_columns_are_named_with_what_there_is_and_the_remedy(tmp_path: Path) -> None:
    path = write_simple(tmp_path / "labels.csv", apogee_id=None, teff=None, T_EFF=[5000.0], NAME=["A"])
    message = refusal(path)
    for words in (
        str(path),
        "no column for apogee_id, teff",
        "logg, fe_h, T_EFF, NAME",
        "--map apogee_id=NAME",
    ):
        assert words in message
    assert "no column 'X' for teff" in refusal(path, teff="X")
    assert "cannot map temperature" in refusal(path, temperature="T_EFF")
    assert "cannot be logg and fe_h at once" in refusal(path, apogee_id="NAME", teff="T_EFF", fe_h="logg")


def test_hundreds_of_columns_are_not_all_listed(tmp_path: Path) -> None:
    columns = {f"c{i}": [i] for i in range(300)}
    assert "c19 and 280 more" in refusal(_written(Table(columns), tmp_path / "wide.csv"))


def _written(table: Table, path: Path) -> Path:
    table.write(path)
    return path


def test_columns_that_differ_in_case_only_must_be_mapped(tmp_path: Path) -> None:
    path = write_simple(tmp_path / "labels.csv", teff=None, Teff=[5000.0], TEFF=[4000.0])
    assert "Teff and TEFF may be teff; say which: --map teff=Teff" in refusal(path)
    assert read_label_table(path, "payne", column_map={"teff": "TEFF"}).labels[0, 1] == 4000


def test_words_among_numbers_are_shown(tmp_path: Path) -> None:
    path = write_simple(
        tmp_path / "labels.csv", apogee_id=["A", "B"], teff=["5000", "N/A"], logg=[4, 4], fe_h=[0, 0]
    )
    assert "column 'teff' is not of numbers ('N/A' in row 2)" in refusal(path)


def test_numbers_kept_as_text_are_shown(tmp_path: Path) -> None:
    path = write_simple(tmp_path / "labels.fits", teff=["5000"])
    assert "column 'teff' is not of numbers" in refusal(path)


def test_vectors_are_refused(tmp_path: Path) -> None:
    path = write_simple(tmp_path / "labels.fits", teff=np.ones((1, 3)))
    assert "column 'teff' holds vectors" in refusal(path)


def test_an_empty_column_is_all_missing(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("apogee_id,teff,logg,fe_h\nA,,4.5,0.0\nB,,4.5,0.0\n")
    assert len(read_label_table(path, "payne").unused) == 2


@pytest.mark.parametrize("name", ["labels.fits", "labels.csv", "labels.ecsv", "labels.vot", "labels.parquet"])
def test_what_is_no_table_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert "does not exist" in refusal(path)
    path.write_bytes(b"\x00\xff" * 100)
    assert str(path) in refusal(path)
    path.write_bytes(b"")
    assert str(path) in refusal(path)


def test_folders_and_unknown_kinds_are_refused(tmp_path: Path) -> None:
    assert "is not a file" in refusal(tmp_path)
    path = tmp_path / "labels.docx"
    path.touch()
    assert "unknown kind of table" in refusal(path)
    assert "unknown label type 'giant'" in refusal(path, "giant")


@pytest.mark.parametrize("n_bytes", [3000, 6000, 9000])
def test_a_truncated_fits_table_is_refused(n_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "labels.fits"
    n_stars = 500
    names = [f"2M{i}" for i in range(n_stars)]
    columns = {"teff": np.full(n_stars, 5e3), "logg": np.full(n_stars, 4.0), "fe_h": np.zeros(n_stars)}
    write_simple(path, apogee_id=names, **columns)
    path.write_bytes(path.read_bytes()[:n_bytes])
    assert str(path) in refusal(path)


def test_a_fits_image_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "image.fits"
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(path)
    assert "no table extension" in refusal(path)


def test_a_label_table_cannot_be_built_from_columns_of_different_length() -> None:
    with pytest.raises(ValueError, match="labels of shape"):
        LabelTable("x", "payne", ("A",), ("",), np.zeros((2, 3)), ("",), 1)


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from([4000.0, 5000.0])), max_size=8))
@settings(max_examples=50, deadline=None)
def test_no_row_is_lost_without_a_word(rows: list[tuple[str, float]]) -> None:
    labels = np.array([[4.0, teff, 0.0] for _, teff in rows]).reshape(-1, 3)
    names = tuple(name for name, _ in rows)
    blank = ("",) * len(rows)
    table = first_row_of_each_star(LabelTable("x", "payne", names, blank, labels, blank, len(rows)))
    assert len(table.apogee_id) + table.n_repeated + len(table.unused) == len(rows)
    assert table.apogee_id == tuple(dict.fromkeys(names))
