"""The command `labels mdwarfs`: from a table to a table that `labels attach` reads."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import typer
from mdwarf_stars import BANDS, ERROR_MAG, FIELD_STAR, relation, write_csv
from typer.testing import CliRunner

from apogee_batch.cli_mdwarfs import mdwarfs
from apogee_batch.errors import UsageError
from apogee_batch.labels.attach import attach_labels
from apogee_batch.labels.mann2015 import TEFF_RELATIONS
from apogee_batch.labels.mdwarf_selection import MDwarfReason
from apogee_batch.labels.mdwarf_settings import MDwarfSettings
from apogee_batch.labels.mdwarf_table import mdwarf_columns
from apogee_batch.labels.tables import read_label_table
from apogee_batch.run.mdwarfs import load_mdwarf_settings, make_mdwarf_labels
from apogee_batch.schema import LABEL_UNITS

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "mdwarfs.md").read_text(encoding="utf-8")
QUICK = {"errors": {"realizations": 100}}


def write_photometry(path: Path, *, without: tuple[str, ...] = (), **changed: list[object]) -> Path:
    """Write four stars: a good one, one in Orion, one without K and a repeated one."""
    columns: dict[str, list[object]] = {"APOGEE_ID": ["2M1", "2M2", "2M3", "2M1"]}
    columns["FIELD"] = ["M67", "ORIONA", "M67", "M67"]
    for name, value in FIELD_STAR.items():
        columns[name] = [value] * 4
    for band in BANDS:
        columns[f"e_{band}"] = [ERROR_MAG] * 4
    columns["k"] = [8.0, 8.0, "", 8.0]
    columns |= changed
    return write_csv(path, {name: column for name, column in columns.items() if name not in without})


def make(tmp_path: Path, photometry: Path, **options: Any) -> tuple[pa.Table, list[str]]:
    out = tmp_path / "mdwarfs.parquet"
    flags = {"flags": QUICK} | options
    lines = make_mdwarf_labels(photometry, out, **flags)
    return pq.read_table(out), lines


def test_every_star_keeps_its_row_and_those_without_a_label_say_why(tmp_path: Path) -> None:
    table, lines = make(tmp_path, write_photometry(tmp_path / "p.csv"))
    assert table["apogee_id"].to_pylist() == ["2M1", "2M2", "2M3", "2M1"]
    assert table["reason"].to_pylist() == [None, "YOUNG_FIELD", "MISSING_BAND", "DUPLICATE"]
    for name in ("teff", "logg", "fe_h", "e_teff", "e_logg", "e_fe_h", "mass", "radius_m_k", "teff_relation"):
        assert [value is None for value in table[name].to_pylist()] == [False, True, True, True]
    assert table["apstar_id"].null_count == 4
    text = "\n".join(lines)
    assert "1 of 4 stars labelled" in text
    assert "no label: 1 DUPLICATE, 1 YOUNG_FIELD, 1 MISSING_BAND" in text
    assert "Teff by v-j+fe_h (1)" in text
    assert "young fields: ORIONA (1)" in text
    assert "apogee_id = APOGEE_ID" in text
    assert "[Fe/H] by column fe_h" in text


def test_attach_reads_the_labels_as_they_are(tmp_path: Path) -> None:
    table, _ = make(tmp_path, write_photometry(tmp_path / "p.csv"))
    read = read_label_table(tmp_path / "mdwarfs.parquet", "mstar")
    assert read.apogee_id == ("2M1",)
    expected = [[table[name][0].as_py() for name in ("logg", "teff", "fe_h")]]
    np.testing.assert_array_equal(read.labels, expected)
    stars = pa.table({"row": [0, 1], "apstar_id": ["a", "b"], "apogee_id": ["2M2", "2M1"]})
    attached = attach_labels(stars, [read])
    assert attached.table["row"].to_pylist() == [1]
    assert attached.table["data_type"].to_pylist() == ["mstar"]


def test_the_labels_have_the_units_of_the_catalogue(tmp_path: Path) -> None:
    table, _ = make(tmp_path, write_photometry(tmp_path / "p.csv"))
    for label, unit in LABEL_UNITS.items():
        assert table.schema.field(label).metadata[b"unit"].decode() == unit
        assert table.schema.field(f"e_{label}").metadata[b"unit"].decode() == unit.replace("(cm/s2)", "")
    assert all(column.description and column.ucd for column in mdwarf_columns())


def test_the_file_says_what_it_was_made_of(tmp_path: Path) -> None:
    table, _ = make(tmp_path, write_photometry(tmp_path / "p.csv"), flags={"errors": {"seed": 7}})
    made_of = json.loads(table.schema.metadata[b"apogee_batch"])
    assert made_of["photometry"]["name"] == "p.csv"
    assert re.fullmatch("[0-9a-f]{64}", made_of["photometry"]["sha256"])
    assert made_of["settings"]["errors"]["seed"] == 7
    assert made_of["columns"]["field"] == "FIELD"


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    photometry = write_photometry(tmp_path / "p.csv")
    for name in ("a.parquet", "b.parquet"):
        make_mdwarf_labels(photometry, tmp_path / name, flags=QUICK)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_the_users_relation_is_read_from_a_toml_file(tmp_path: Path) -> None:
    given = {name: json.dumps(value) for name, value in relation(coefficients=[[0.2], [0.1]]).items()}
    given["y"] = given.pop("x")
    lines = [
        "[relations.fe_h]",
        *(f"{name} = {value}" for name, value in given.items() if name not in ("valid_y", "y_origin", "y")),
        'x = "g-k"',
    ]
    (tmp_path / "s.toml").write_text("\n".join(lines), encoding="utf-8")
    photometry = write_photometry(tmp_path / "p.csv", without=("fe_h", "e_fe_h"))
    table, told = make(tmp_path, photometry, settings=tmp_path / "s.toml")
    assert table["fe_h"].to_pylist()[0] == pytest.approx(0.2)
    assert "[Fe/H] by invented for tests" in told


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (("fe_h",), r"none are built in.*Hejazi.*--map fe_h=NAME"),
        (("e_fe_h",), r"no column of errors for fe_h.*fe_h = 0.1 in \[errors\]"),
        (("FIELD",), r"no column field.*--map field=NAME.*young_fields = \[\]"),
        (("k",), r"no column for k; .*--map k=NAME"),
        (("g",), r"no column for g; "),
        (("parallax",), r"no column for parallax, parallax_error"),
        (("parallax_error",), r"no column for parallax_error"),
        (("e_g",), r"no column of errors for g; .*--map e_g=NAME.*magnitude = 0.03"),
        (("v", "bp", "r"), r"no colour for Teff: it takes v-j or bp-rp or r-j or r-z; .*--map v=NAME"),
    ],
)
def test_what_a_table_lacks_is_named_with_the_remedy(
    tmp_path: Path, without: tuple[str, ...], message: str
) -> None:
    photometry = write_photometry(tmp_path / "p.csv", without=without)
    with pytest.raises(UsageError, match=message) as caught:
        make(tmp_path, photometry)
    assert str(photometry) in str(caught.value)
    assert not (tmp_path / "mdwarfs.parquet").exists()


def test_errors_may_be_stated_for_all_stars(tmp_path: Path) -> None:
    photometry = write_photometry(tmp_path / "p.csv", without=("e_g", "e_k", "e_fe_h", "FIELD"))
    flags = {
        "errors": {"magnitude": 0.3, "fe_h": 0.2, "realizations": 5000},
        "selection": {"young_fields": []},
    }
    table, _ = make(tmp_path, photometry, flags=flags)
    assert table["e_m_k"].to_pylist()[0] == pytest.approx(0.3, rel=0.1)
    assert table["e_fe_h"].to_pylist()[0] == pytest.approx(0.2, rel=0.1)


def test_a_table_without_an_m_dwarf_is_told_as_it_is(tmp_path: Path) -> None:
    table, lines = make(tmp_path, write_photometry(tmp_path / "p.csv", k=["", "", "", ""]))
    assert table["teff"].null_count == 4
    assert "0 of 4 stars labelled" in "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[selection]\ncut = 1", r"s.toml: selection.cut: unknown setting"),
        ("[selection.cuts]\nj-q = [0, 1]", r"'j-q' is no colour"),
        ("[selection.cuts]\nj-k = [1, 0]", r"\[1, 0\] is no range"),
        ("[selection.cuts]\nteff = [1, 2]", r"a cut in teff is not possible"),
        ("[selection]\nparallax_over_error = 1", r"selection.parallax_over_error"),
        ('[relations]\nteff_relation = "b-v"', r"unknown teff_relation 'b-v'; it is one of v-j\+fe_h"),
        ("[errors\n", r"s.toml: cannot be read as TOML"),
        ("errors = 3", r"s.toml: errors"),
    ],
)
def test_a_setting_of_no_use_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_mdwarf_settings(tmp_path / "s.toml", QUICK)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("[errors]\nseed = 1\nrealizations = 500", encoding="utf-8")
    errors = load_mdwarf_settings(tmp_path / "s.toml", {"errors": {"seed": 2, "realizations": None}}).errors
    assert (errors.seed, errors.realizations) == (2, 500)


def test_the_output_is_parquet_and_not_the_input(tmp_path: Path) -> None:
    photometry = write_photometry(tmp_path / "p.csv")
    with pytest.raises(UsageError, match=r"ends in .parquet"):
        make_mdwarf_labels(photometry, tmp_path / "mdwarfs.csv")
    make_mdwarf_labels(photometry, tmp_path / "p.parquet", flags=QUICK)
    with pytest.raises(UsageError, match="is the photometry itself"):
        make_mdwarf_labels(tmp_path / "p.parquet", tmp_path / "p.parquet")


def test_the_command_prints_the_summary(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(mdwarfs)
    photometry = write_photometry(tmp_path / "p.csv", KS=[8.0] * 4)
    out = tmp_path / "m.parquet"
    words = [
        str(photometry),
        "--out",
        str(out),
        "--teff-relation",
        "r-z",
        "--map",
        "k=KS",
        "--map",
        "e_k=e_k",
    ]
    result = CliRunner().invoke(app, [*words, "--realizations", "100"])
    assert result.exit_code == 0, result.output
    assert "Teff by r-z (2)" in result.output
    assert "k = KS" in result.output


def test_the_page_explains_every_reason() -> None:
    assert re.findall(r"^\| `([A-Z_]+)` \| \S", PAGE, re.MULTILINE) == [
        reason.value for reason in MDwarfReason
    ]


def test_the_page_shows_all_settings_with_their_defaults() -> None:
    found = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    assert MDwarfSettings.model_validate(tomllib.loads(found[1])) == MDwarfSettings()
    shown = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", found[1], flags=re.MULTILINE))
    MDwarfSettings.model_validate(shown)
    own = {"fe_h", "teff", "logg"}  # relations of the user, which are explained apart
    sections = {
        name: set(value) for name, value in MDwarfSettings().model_dump().items() if isinstance(value, dict)
    }
    sections["relations"] -= own
    assert {name: set(value) for name, value in shown.items() if isinstance(value, dict)} == sections
    assert "max_logg_difference" in shown


def test_the_page_names_the_columns_of_the_output() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE.split("## The output")[1]))
    columns = {column.name.removeprefix("e_") for column in mdwarf_columns()}
    assert columns <= named


def test_the_page_tells_where_each_relation_turns() -> None:
    for name, known in TEFF_RELATIONS.items():
        found = re.search(
            rf"^\| `{re.escape(name)}` \|[^|]*\| (\d+) \| ([\d.]+) \| (\d+) \|$", PAGE, re.MULTILINE
        )
        assert found is not None, name
        coldest = known.temperature(np.array([known.reddest_color]), np.array([0.0]))
        assert float(found[1]) == known.scatter_k
        assert float(found[2]) == pytest.approx(known.reddest_color, abs=0.006)
        assert float(found[3]) == pytest.approx(coldest[0], abs=0.6)


def test_the_form_of_a_relation_cannot_be_run_as_it_is() -> None:
    form = PAGE.split("[relations.fe_h]\n")[1].split("```")[0]
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads("[relations.fe_h]\n" + form)


@pytest.mark.data
def test_two_ways_to_log_g_agree_for_real_cluster_stars(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(
        "[selection]\nyoung_fields = []\ncuts = { j-k = [0.7, 1.05], m_k = [4, 10] }\n", encoding="utf-8"
    )
    source = shared_data / "tables" / "auriga_test.csv"
    rows = [line.split(",") for line in source.read_text(encoding="utf-8").splitlines()]
    with_fe_h = ["fe_h,e_fe_h", *["0.0,0.1"] * (len(rows) - 1)]
    text = "\n".join(",".join(row) + "," + more for row, more in zip(rows, with_fe_h, strict=True))
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    names = {"apogee_id": "source_id", "field": "cluster"}
    table, _ = make(tmp_path, tmp_path / "p.csv", settings=tmp_path / "s.toml", column_map=names)
    assert len(table) == 75
    difference, e_logg, e_logg_m_k = (
        np.array([value for value in values if value is not None])
        for values in (
            pc.subtract(table["logg"], table["logg_m_k"]).to_pylist(),
            table["e_logg"].to_pylist(),
            table["e_logg_m_k"].to_pylist(),
        )
    )
    assert len(difference) > 20
    assert abs(np.median(difference)) < 0.06  # temperature and brightness are two measurements of one star
    assert (np.abs(difference) < 3 * np.hypot(e_logg, e_logg_m_k)).all()
