"""Verify finds nothing in what is whole, and names each file that is not."""

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from torn import (
    MODEL_KINDS,
    RUN_KINDS,
    STORE_KINDS,
    UNFINISHED,
    UNTOLD,
    WAYS,
    kind_of,
    kinds_of,
    tear,
)
from unpacked import unpack_ingest

from apogee_batch.errors import UsageError
from apogee_batch.files import FileDigest, read_json, sha256_of_file, write_sealed_json, write_table
from apogee_batch.network.card import write_model_card
from apogee_batch.network.checkpoint import load_checkpoint, save_checkpoint
from apogee_batch.run.ledger import Ledger
from apogee_batch.run.store_tables import ATTACHED, INGESTED, note_tables
from apogee_batch.run.verify import verify, verify_run, verify_store
from apogee_batch.store.tables import read_table


@pytest.fixture
def store(labelled_store: Path, tmp_path: Path) -> Path:
    """A copy of a store with labels."""
    return Path(shutil.copytree(labelled_store, tmp_path / "s.zarr"))


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a run with its own model."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def contents(folder: Path) -> dict[Path, tuple[int, int]]:
    found = {path: path.stat() for path in folder.rglob("*")}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def test_nothing_is_damaged_in_what_was_just_written(labelled_store: Path, finished_run: Path) -> None:
    for folder in (labelled_store, finished_run, finished_run / "model"):
        report = verify(folder)
        assert report.damages == []
        assert len(report.lines) == 1
        assert "nothing is damaged" in report.lines[0]
    assert verify_store(labelled_store) == verify_run(finished_run) == []


def test_every_kind_of_file_is_tried_here(labelled_store: Path, finished_run: Path) -> None:
    assert {kind_of(path) for path in STORE_KINDS} == kinds_of(labelled_store)
    model = {f"model/{path}" for path in MODEL_KINDS}
    assert {kind_of(path) for path in {*RUN_KINDS, *model}} == kinds_of(finished_run)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STORE_KINDS)
def test_a_damaged_file_of_a_store_is_named(store: Path, name: str, way: str) -> None:
    expect_it_is_named(store, name, way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*RUN_KINDS, *(f"model/{name}" for name in MODEL_KINDS)])
def test_a_damaged_file_of_a_run_is_named(run: Path, name: str, way: str) -> None:
    expect_it_is_named(run, name, way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODEL_KINDS)
def test_a_damaged_file_of_a_model_is_named(finished_run: Path, tmp_path: Path, name: str, way: str) -> None:
    expect_it_is_named(Path(shutil.copytree(finished_run / "model", tmp_path / "model")), name, way)


def expect_it_is_named(folder: Path, name: str, way: str) -> None:
    tear(folder / name, way)
    before = contents(folder)
    report = verify(folder)
    is_promised = name == "model/calibration.json"  # by the manifest of the run
    if way == "delete" and name.removeprefix("model/") in UNFINISHED and not is_promised:
        assert report.damages == []
        assert any("not finished" in line or (folder / name).name in line for line in report.lines)
    elif (name, way) not in UNTOLD:
        assert [damage.path for damage in report.damages] == [folder / name]
        assert str(folder / name) in report.lines[0]
        assert report.damages[0].remedy in report.lines[0]
        assert "1 damaged" in report.lines[1]
    assert contents(folder) == before


def test_an_imported_model_needs_neither_plan_nor_metrics(finished_run: Path, tmp_path: Path) -> None:
    trained = load_checkpoint(finished_run / "model")
    model, header = tmp_path / "imported", replace(trained.header, origin="official")
    write_model_card(model, header, save_checkpoint(model, trained.model.state_dict(), header))
    assert verify(model).damages == []
    tear(model / "model.safetensors", "flip")
    assert [damage.path for damage in verify(model).damages] == [model / "model.safetensors"]


def test_all_damages_are_named_in_the_same_order_each_time(store: Path) -> None:
    names = ("err/c/0/0", "flux/c/0/0", "ingest/0001/plan.json", "mask/zarr.json", "tables/labels.parquet")
    for name in names:
        tear(store / name, "flip")
    found = verify_store(store)
    assert {damage.path for damage in found} == {store / name for name in names}
    assert found == verify_store(store)


def test_files_that_nobody_has_planned_are_named(store: Path, run: Path) -> None:
    strays = [store / "flux" / "c" / "7" / "0", store / "ingest" / "0001" / "parts" / "stars-00007.parquet"]
    for stray in [*strays, run / "parts" / "part-00007.parquet"]:
        stray.parent.mkdir(exist_ok=True)
        stray.write_bytes(b"x")
    assert [damage.path for damage in verify_store(store)] == strays
    assert [damage.path for damage in verify_run(run)] == [run / "parts" / "part-00007.parquet"]


def test_unfinished_files_of_killed_writers_are_no_damage(store: Path, run: Path) -> None:
    for folder in (store / "flux" / "c" / "0", store / "tables", run, run / "parts", run / "catalog"):
        (folder / ".x.0123.partial").write_bytes(b"half of i")
    assert verify_store(store) == verify_run(run) == []


def test_an_ingest_that_goes_on_is_not_damaged(store: Path) -> None:
    folder = store / "ingest" / "0001"
    unpack_ingest(folder)
    (folder / "summary.json").unlink()
    (folder / "ledger" / "00002.json").unlink()
    shutil.rmtree(store / "tables" / "c", ignore_errors=True)
    for name in ("stars", "rejects", "labels", "unmatched_labels"):
        (store / "tables" / f"{name}.parquet").unlink()
    for name in ("ingested", "attached"):
        (store / "tables" / f"{name}.json").unlink()
    report = verify(store)
    assert report.damages == []
    assert any("not finished (2 of 3 shards written" in line for line in report.lines)
    shutil.rmtree(folder / "ledger")
    (folder / "inputs.parquet").unlink()
    report = verify(store)
    assert report.damages == []
    assert any("its inputs are not written yet" in line for line in report.lines)


def test_a_run_that_goes_on_is_not_damaged(run: Path) -> None:
    (run / "manifest.json").unlink()
    shutil.rmtree(run / "catalog")
    (run / "ledger" / "00002.json").unlink()
    report = verify(run)
    assert report.damages == []
    assert any("2 of 3 shards inferred" in line for line in report.lines)
    shutil.rmtree(run / "ledger")
    shutil.rmtree(run / "model")
    assert verify(run).damages == []


def test_a_table_with_rows_of_another_store_is_named(store: Path) -> None:
    path, rejects = (store / "tables" / f"{name}.parquet" for name in ("stars", "rejects"))
    shorter = write_table(path, read_table(path).filter(pc.field("row") != 7))
    kept = FileDigest(rejects, rejects.stat().st_size, sha256_of_file(rejects))
    note_tables(store, INGESTED, [shorter, kept])
    assert [damage.path for damage in verify_store(store)] == [path]
    assert "other rows" in verify_store(store)[0].problem


def test_labels_of_another_store_are_named(store: Path) -> None:
    path = store / "tables" / "labels.parquet"
    table = read_table(path)
    moved = table.set_column(0, table.schema.field(0), [[row + 1000 for row in table["row"].to_pylist()]])
    note_tables(store, ATTACHED, [write_table(path, moved)])
    assert [damage.path for damage in verify_store(store)] == [path]
    assert "not in the store" in verify_store(store)[0].problem
    renamed = table.set_column(1, table.schema.field(1), [table["apstar_id"].to_pylist()[::-1]])
    note_tables(store, ATTACHED, [write_table(path, renamed)])
    assert [damage.path for damage in verify_store(store)] == [path]


def test_a_manifest_of_another_run_is_named(run: Path) -> None:
    values = read_json(run / "manifest.json")
    values.pop("checksum")
    write_sealed_json(run / "manifest.json", values | {"run_id": "0" * 16})
    assert [damage.path for damage in verify_run(run)] == [run / "manifest.json"]
    write_sealed_json(run / "manifest.json", values | {"stars": values["stars"] + 1})
    assert [damage.path for damage in verify_run(run)] == [run / "manifest.json"]


def test_a_part_that_lacks_a_star_is_named_though_its_entry_agrees(run: Path) -> None:
    path = run / "parts" / "part-00001.parquet"
    digest = write_table(path, read_table(path).slice(1))
    entry = read_json(run / "ledger" / "00001.json")
    entry.pop("checksum")
    entry["files"][0].update(size=digest.size, sha256=digest.sha256)
    write_sealed_json(run / "ledger" / "00001.json", entry)
    assert path in [damage.path for damage in verify_run(run)]


def test_a_part_with_a_star_twice_is_named_though_counts_and_entry_agree(run: Path) -> None:
    path = run / "parts" / "part-00001.parquet"
    part = read_table(path)
    digest = write_table(path, pa.concat_tables([part.slice(1), part.slice(1, 1)]))
    entry = read_json(run / "ledger" / "00001.json")
    entry.pop("checksum")
    entry["files"][0].update(size=digest.size, sha256=digest.sha256)
    write_sealed_json(run / "ledger" / "00001.json", entry)
    assert [damage.path for damage in verify_run(run)] == [path]


def test_what_is_neither_run_nor_store_is_refused(tmp_path: Path, store: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path, store / "ingest" / "0001", store / "zarr.json"):
        with pytest.raises(UsageError, match="neither a run, nor a model, nor a store"):
            verify(path)


def test_a_damaged_entry_is_told_without_a_warning_of_the_ledger(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unpack_ingest(store / "ingest" / "0001")
    tear(store / "ingest" / "0001" / "ledger" / "00000.json", "flip")
    assert len(verify_store(store)) == 1
    assert Ledger.__module__ not in [record.name for record in caplog.records]
