"""The command validate: what it reads, writes and refuses."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner, Result

from apogee_batch.cli_validate import validate
from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import read_json, sha256_of_file, write_sealed_json
from apogee_batch.report.tables import ALL_TYPES
from apogee_batch.run.validate import CATALOG_FILE, validate_run
from apogee_batch.schema import LABEL_NAMES


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A published run that a test may change."""
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy, ignore=shutil.ignore_patterns("parts", "model", "inputs"))
    return copy


def call(*words: Any) -> Result:
    app = typer.Typer()
    app.command()(validate)
    return CliRunner().invoke(app, [str(word) for word in words])


def replace_catalog(run: Path, **columns: Sequence[Any] | None) -> pa.Table:
    """Put other columns, or none for None, into the published catalogue, and its hash into the manifest."""
    path = run / CATALOG_FILE
    catalog = pq.read_table(path)
    for name, values in columns.items():
        i = catalog.schema.get_field_index(name)
        if values is None:
            catalog = catalog.remove_column(i)
        else:
            catalog = catalog.set_column(i, name, pa.array(values, catalog.schema.field(i).type))
    pq.write_table(catalog, path)
    manifest = read_json(run / "manifest.json")
    manifest.pop("checksum")
    for file in manifest["files"]:
        if file["path"] == CATALOG_FILE:
            file |= {"size": path.stat().st_size, "sha256": sha256_of_file(path)}
    write_sealed_json(run / "manifest.json", manifest)
    return catalog


def write_truth(path: Path, catalog: pa.Table, *, offset_k: float, rows: Sequence[int]) -> None:
    """Write a table of labels: the predictions of some rows, Teff lower by an offset."""
    some = catalog.take(list(rows))
    columns = {"apogee_id": some["apogee_id"], **{name: some[name] for name in LABEL_NAMES}}
    columns["teff"] = pa.array(np.asarray(some["teff"]) - offset_k)
    pq.write_table(pa.table(columns), path)


def test_the_command_prints_the_tables_and_writes_all_numbers(run: Path, tmp_path: Path) -> None:
    before = {path: sha256_of_file(path) for path in run.rglob("*") if path.is_file()}
    result = call(run, "--json", tmp_path / "v.json", "--width", 90)
    assert result.exit_code == 0
    assert "Table 2. Normalised MSE" in result.output
    assert max(map(len, result.output.splitlines())) <= 90
    told = json.loads((tmp_path / "v.json").read_text())
    assert told == validate_run(run).to_json()
    assert told["origin"] == {
        "run_id": read_json(run / "manifest.json")["run_id"],
        "model_sha256": read_json(run / "manifest.json")["model_sha256"],
        "calibration_sha256": read_json(run / "manifest.json")["calibration_sha256"],
        "against": None,
        "n_not_in_table": 0,
    }
    assert before == {path: sha256_of_file(path) for path in run.rglob("*") if path.is_file()}


def test_the_tables_are_those_that_the_run_published(run: Path) -> None:
    assert validate_run(run).results.to_json() == read_json(run / "report" / "results.json")


def test_another_table_takes_the_place_of_the_labels_and_sets_stay(run: Path, tmp_path: Path) -> None:
    catalog = pq.read_table(run / CATALOG_FILE)
    labelled = [i for i, word in enumerate(catalog["data_set"].to_pylist()) if word is not None]
    write_truth(tmp_path / "truth.parquet", catalog, offset_k=12.5, rows=labelled[1:])
    found, own = validate_run(run, against=tmp_path / "truth.parquet"), validate_run(run)
    for group in found.groups:
        assert group.n_stars + group.n_left_out == own.get(group.data_type, group.data_set).n_stars
        if group.n_stars:
            assert group.measures["teff"].residuals.bias == pytest.approx(12.5, abs=1e-3)
            assert group.measures["logg"].residuals.rms == 0.0
    assert found.origin.n_not_in_table == 1
    assert sum(found.get(ALL_TYPES, word).n_left_out for word in ("train", "dev", "test")) == 1
    output = call(run, "--against", tmp_path / "truth.parquet").output
    assert "Labelled stars that this table does not have: 1, left out." in " ".join(output.split())


def test_the_name_of_a_spectrum_is_more_exact_than_that_of_its_star(run: Path, tmp_path: Path) -> None:
    catalog = pq.read_table(run / CATALOG_FILE)
    names = catalog["apogee_id"].to_pylist()
    columns = {name: np.asarray(catalog[name]) for name in LABEL_NAMES}
    table = pa.table({"apogee_id": names[::-1], "apstar_id": catalog["apstar_id"], **columns})
    pq.write_table(table, tmp_path / "truth.parquet")
    found = validate_run(run, against=tmp_path / "truth.parquet")
    assert found.get(ALL_TYPES, "train").measures["teff"].residuals.rms == 0.0


def test_columns_of_the_other_table_can_be_named(run: Path, tmp_path: Path) -> None:
    catalog = pq.read_table(run / CATALOG_FILE)
    write_truth(tmp_path / "plain.parquet", catalog, offset_k=0, rows=range(len(catalog)))
    table = pq.read_table(tmp_path / "plain.parquet")
    renamed = table.rename_columns([{"teff": "TRUE_TEFF"}.get(name, name) for name in table.column_names])
    pq.write_table(renamed, tmp_path / "truth.parquet")
    result = call(run, "--against", tmp_path / "truth.parquet", "--map", "teff=TRUE_TEFF", "--markdown")
    assert result.exit_code == 0
    assert result.output.startswith("| type | SNR | stars |")
    assert "| Full | all |" in result.output


def test_a_table_of_other_stars_is_refused(run: Path, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"apogee_id": ["2M"], "teff": [4000.0], "logg": [2.0], "fe_h": [0.0]}),
        tmp_path / "t.parquet",
    )
    with pytest.raises(UsageError, match=r"t\.parquet: none of its 1 stars is a labelled star"):
        validate_run(run, against=tmp_path / "t.parquet")


def test_names_of_columns_need_their_table(run: Path) -> None:
    result = call(run, "--map", "teff=TEFF")
    assert isinstance(result.exception, UsageError)
    assert "--against" in str(result.exception)


@pytest.mark.parametrize("words", [[], ["--markdown"]])
def test_a_run_without_labels_says_so_and_ends_well(run: Path, tmp_path: Path, words: list[str]) -> None:
    n_stars = pq.read_metadata(run / CATALOG_FILE).num_rows
    none = [None] * n_stars
    replace_catalog(run, data_type=none, data_set=none, **{f"{name}_label": none for name in LABEL_NAMES})
    result = call(run, "--json", tmp_path / "v.json", *words)
    assert result.exit_code == 0
    assert "No star of this catalogue has a label" in result.output
    assert json.loads((tmp_path / "v.json").read_text())["n_labelled"] == 0


def test_a_catalogue_of_before_the_calibration_is_read(run: Path) -> None:
    none = {f"e_{name}_total": None for name in LABEL_NAMES}
    replace_catalog(run, **none)
    assert validate_run(run).results.to_json() == read_json(run / "report" / "results.json")


def test_what_is_no_run_is_refused(tmp_path: Path, finished_run: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; name the folder"):
        validate_run(tmp_path / "nothing")
    with pytest.raises(UsageError, match="is no run; name the folder"):
        validate_run(tmp_path)
    with pytest.raises(UsageError, match="is a training; name the folder"):
        validate_run(finished_run / "model")
    (tmp_path / "file").write_text("text")
    with pytest.raises(UsageError, match="is not a folder"):
        validate_run(tmp_path / "file")


def test_a_run_that_is_not_published_is_refused_with_what_to_do(run: Path) -> None:
    (run / "manifest.json").unlink()
    with pytest.raises(UsageError, match=r"not published yet.*give the same 'apogee-batch run-catalog'"):
        validate_run(run)


@pytest.mark.parametrize("name", [CATALOG_FILE, "report/results.json", "manifest.json"])
def test_a_damaged_file_is_named(run: Path, name: str) -> None:
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
    with pytest.raises(IntegrityError, match=rf"{name}: .*give the same 'apogee-batch run-catalog'"):
        validate_run(run)
