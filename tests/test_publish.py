"""What is published is whole, and says what it was made on."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from apogee_batch.catalog.parts import write_part
from apogee_batch.errors import IntegrityError
from apogee_batch.files import read_json
from apogee_batch.network.checkpoint import load_checkpoint
from apogee_batch.run.catalog_run import inference_ledger
from apogee_batch.run.ledger import relative_digest
from apogee_batch.run.plan import read_plan
from apogee_batch.run.publish import MANIFEST_FILE, publish


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A run with all its parts that has published nothing."""
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    shutil.rmtree(copy / "catalog")
    (copy / MANIFEST_FILE).unlink()
    return copy


def publish_run(run: Path, devices: Sequence[str] = ("cpu",)) -> None:
    plan, model = read_plan(run), load_checkpoint(run / "model")
    assert plan is not None
    reports = {report.shard: report for report in inference_ledger(run, plan, model.sha256).entries()}
    publish(run, reports, plan=plan, model=(model.sha256, model.header), devices=devices)


def test_the_manifest_names_each_kind_of_device_once(run: Path) -> None:
    publish_run(run, ["cuda", "cpu", "cuda", "cpu"])
    manifest = read_json(run / MANIFEST_FILE)
    assert manifest["devices"] == ["cpu", "cuda"]
    assert (manifest["stars"], manifest["rejects"]) == (48, 0)


@pytest.mark.parametrize("change", ["lost", "added", "renamed"])
def test_parts_of_other_stars_are_not_published(run: Path, change: str) -> None:
    inputs = run / "inputs"
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
        publish_run(run)
    assert not (run / MANIFEST_FILE).exists()
    assert not (run / "catalog").exists()


def test_a_run_without_its_tables_is_not_published(run: Path) -> None:
    (run / "inputs" / "stars.parquet").unlink()
    with pytest.raises(IntegrityError, match=r"stars\.parquet"):
        publish_run(run)


def test_a_run_with_a_shard_that_is_not_done_is_not_published(run: Path) -> None:
    (run / "ledger" / "00001.json").unlink()
    with pytest.raises(IntegrityError, match=r"1 parts are missing or damaged: .*part-00001"):
        publish_run(run)
    assert not (run / "catalog").exists()


def test_a_star_that_ended_its_workers_is_a_reject(run: Path) -> None:
    plan, model = read_plan(run), load_checkpoint(run / "model")
    assert plan is not None
    ledger = inference_ledger(run, plan, model.sha256)
    report = ledger.entries()[-1]
    part = pq.read_table(run / "parts" / "part-00002.parquet")
    name = part["apstar_id"][0].as_py()
    written = write_part(run / "parts" / "part-00002.parquet", part.slice(1))
    files = (relative_digest(written, run),)
    extra = report.extra | {"killed": [name]}
    ledger.commit(replace(report, n_stars=report.n_stars - 1, n_rejected=1, files=files, extra=extra))
    publish_run(run)
    rejects = pq.read_table(run / "rejects.parquet").to_pylist()
    assert [reject["reason"] for reject in rejects] == ["WORKER_KILLED"]
    assert rejects[0]["apogee_id"] == part["apogee_id"][0].as_py()
    catalog = pq.read_table(run / "catalog" / "catalog.parquet")
    assert len(catalog) == 47
    assert name not in catalog["apstar_id"].to_pylist()
