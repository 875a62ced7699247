"""What is published is whole, and says what it was made on."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from apogee_batch.errors import IntegrityError
from apogee_batch.files import read_json
from apogee_batch.network.checkpoint import load_checkpoint
from apogee_batch.run.plan import read_plan, run_id
from apogee_batch.run.publish import MANIFEST_FILE, publish


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A run with all its parts that has published nothing."""
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    shutil.rmtree(copy / "catalog")
    (copy / MANIFEST_FILE).unlink()
    return copy


def publish_run(inputs: Path, run: Path, devices: Sequence[str] = ("cpu",)) -> None:
    plan, model = read_plan(run), load_checkpoint(run / "model")
    assert plan is not None
    made_by = (model.sha256, model.header)
    publish(inputs, run, plan["shards"], name=run_id(plan), plan=plan, model=made_by, devices=devices)


def tables_of(store: Path, folder: Path) -> Path:
    folder.mkdir()
    for name in ("stars", "rejects"):
        shutil.copy(store / "tables" / f"{name}.parquet", folder)
    return folder


def test_the_manifest_names_each_kind_of_device_once(labelled_store: Path, run: Path, tmp_path: Path) -> None:
    publish_run(tables_of(labelled_store, tmp_path / "inputs"), run, ["cuda", "cpu", "cuda", "cpu"])
    manifest = read_json(run / MANIFEST_FILE)
    assert manifest["devices"] == ["cpu", "cuda"]
    assert (manifest["stars"], manifest["rejects"]) == (48, 0)


@pytest.mark.parametrize("change", ["lost", "added", "renamed"])
def test_parts_of_other_stars_are_not_published(
    labelled_store: Path, run: Path, tmp_path: Path, change: str
) -> None:
    inputs = tables_of(labelled_store, tmp_path / "inputs")
    stars = pq.read_table(inputs / "stars.parquet")
    if change == "renamed":
        i = stars.schema.get_field_index("apstar_id")
        stars = stars.set_column(i, stars.schema.field(i), [["x", *stars["apstar_id"].to_pylist()[1:]]])
    pq.write_table(stars.slice(0, 47 if change == "added" else 48), inputs / "stars.parquet")
    if change == "lost":
        last = run / "parts" / "part-00002.parquet"
        part = pq.read_table(last)
        pq.write_table(part.slice(0, len(part) - 1), last)
    with pytest.raises(IntegrityError, match=r"do not hold the 4[78] stars .* delete .*parts"):
        publish_run(inputs, run)
    assert not (run / MANIFEST_FILE).exists()
    assert not (run / "catalog").exists()


def test_a_run_without_its_tables_is_not_published(run: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"stars\.parquet"):
        publish_run(tmp_path / "nothing", run)
