"""What is published is whole, and says what it was made on."""

import gc
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from apogee_batch.catalog import sky_order
from apogee_batch.catalog.export import write_parquet
from apogee_batch.catalog.parts import write_part
from apogee_batch.catalog.rows import rows_of
from apogee_batch.catalog.sky_order import healpix_index
from apogee_batch.errors import IntegrityError
from apogee_batch.files import (
    read_json,
    read_sealed_json,
    sha256_of_file,
    write_bytes,
    write_sealed_json,
)
from apogee_batch.network.checkpoint import load_checkpoint
from apogee_batch.report import figures
from apogee_batch.report.validation_text import validation_text
from apogee_batch.run.ledger import relative_digest
from apogee_batch.run.model_of_run import inference_ledger
from apogee_batch.run.plan import read_plan
from apogee_batch.run.publish import MANIFEST_FILE, Published, publish
from apogee_batch.run.validate import validate_run
from apogee_batch.run.verify_run import verify_run
from apogee_batch.schema import arrow_schema, catalog_columns


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A run with all its parts that has published nothing."""
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    shutil.rmtree(copy / "catalog")
    (copy / MANIFEST_FILE).unlink()
    return copy


def publish_run(run: Path, devices: Sequence[str] = ("cpu",)) -> Published:
    plan, model = read_plan(run), load_checkpoint(run / "model")
    assert plan is not None
    reports = {report.shard: report for report in inference_ledger(run, plan, model.identity).entries()}
    return publish(run, reports, plan=plan, model=(model.identity, model.header), devices=devices)


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
    ledger = inference_ledger(run, plan, model.identity)
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


def digests(run: Path) -> dict[str, tuple[int, str]]:
    """Return time and hash of each published file."""
    files = [*run.glob("catalog/*"), *run.glob("report/*"), run / "rejects.parquet", run / MANIFEST_FILE]
    return {path.name: (path.stat().st_mtime_ns, sha256_of_file(path)) for path in files}


@pytest.mark.usefixtures("quick_figures")
def test_a_run_that_is_published_is_left_alone_and_tells_the_same(run: Path) -> None:
    first, before = publish_run(run), digests(run)
    assert publish_run(run) == first
    assert digests(run) == before
    assert len(before) == 10


@pytest.mark.usefixtures("quick_figures")
def test_the_validation_that_is_published_is_what_the_command_finds(run: Path) -> None:
    publish_run(run)
    found = validate_run(run)
    assert read_json(run / "report" / "validation.json") == found.to_json()
    assert (run / "report" / "validation.txt").read_text("utf-8") == validation_text(found)
    assert read_json(run / "report" / "results.json") == found.to_json()["tables"]


@pytest.fixture
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing: pictures take longer than all else together."""
    for name in ("kiel_diagram", "label_comparison"):
        monkeypatch.setattr(figures, name, lambda _, path: write_bytes(path, b"a picture of stars"))


@pytest.mark.usefixtures("quick_figures")
def test_what_is_lost_or_damaged_is_published_again(run: Path) -> None:
    publish_run(run)
    before = {name: sha256 for name, (_, sha256) in digests(run).items()}
    for lost in (
        "catalog/catalog.fits",
        "catalog/catalog.parquet",
        "rejects.parquet",
        "report/results.json",
        "report/validation.json",
        "report/validation.txt",
        "report/labels.png",
        MANIFEST_FILE,
    ):
        content = (run / lost).read_bytes()
        for damaged in (None, content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]):
            (run / lost).unlink() if damaged is None else (run / lost).write_bytes(damaged)
            publish_run(run)
            assert {name: sha256 for name, (_, sha256) in digests(run).items()} == before


@pytest.mark.usefixtures("quick_figures")
def test_what_is_published_is_in_the_order_of_the_sky_and_says_so(run: Path) -> None:
    publish_run(run)
    catalog = pq.read_table(run / "catalog" / "catalog.parquet")
    stars = pq.read_table(run / "inputs" / "stars.parquet", columns=["apstar_id", "ra", "dec"])
    index = healpix_index(stars["ra"].to_numpy(), stars["dec"].to_numpy())
    in_order = stars["apstar_id"].take(np.argsort(index, kind="stable")).to_pylist()
    assert catalog["apstar_id"].to_pylist() == in_order != stars["apstar_id"].to_pylist()
    said = catalog.schema.metadata[b"apogee_batch.sorted_by"].decode()
    with fits.open(run / "catalog" / "catalog.fits") as hdus:
        assert hdus[1].data["apstar_id"].tolist() == in_order
        comments = "".join(hdus[1].header["COMMENT"]).replace(" ", "")  # cards cut at spaces, too
        assert f"sorted_by:{said}".replace(" ", "") in comments
    assert "HEALPix index (order 29, nested)" in said


@pytest.mark.usefixtures("quick_figures")
def test_the_same_is_published_where_rows_are_sorted_by_way_of_a_file(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_run(run)
    before = {name: sha256 for name, (_, sha256) in digests(run).items()}
    (run / MANIFEST_FILE).unlink()
    monkeypatch.setattr(sky_order, "LOAD_ROWS", 20)
    monkeypatch.setattr(sky_order, "BUCKET_ROWS", 11)
    publish_run(run)
    assert {name: sha256 for name, (_, sha256) in digests(run).items()} == before
    assert not list((run / "staging").iterdir())


@pytest.mark.usefixtures("quick_figures")
def test_a_catalogue_that_was_published_in_the_order_of_the_store_stays_and_is_whole(run: Path) -> None:
    devices = {read_sealed_json(path)["extra"]["device"] for path in run.glob("ledger/[0-9]*.json")}
    publish_run(run, sorted(devices))
    stars = pq.read_table(run / "inputs" / "stars.parquet", columns=["apstar_id"])["apstar_id"]
    catalog = pq.read_table(run / "catalog" / "catalog.parquet")
    places = pc.index_in(stars, value_set=catalog["apstar_id"])
    written = write_parquet(catalog.take(places), run / "catalog" / "catalog.parquet", metadata={})
    manifest = read_sealed_json(run / MANIFEST_FILE)
    manifest["files"][0] = asdict(relative_digest(written, run))
    write_sealed_json(run / MANIFEST_FILE, manifest)
    before = digests(run)
    publish_run(run, sorted(devices))
    assert digests(run) == before
    assert verify_run(run) == []


@pytest.mark.usefixtures("quick_figures")
def test_a_catalogue_of_other_parts_is_published_again(run: Path) -> None:
    publish_run(run)
    before = read_json(run / MANIFEST_FILE)
    plan, model = read_plan(run), load_checkpoint(run / "model")
    assert plan is not None
    ledger = inference_ledger(run, plan, model.identity)
    part = pq.read_table(run / "parts" / "part-00002.parquet")
    i = part.schema.get_field_index("teff")
    other = part.set_column(i, part.schema.field(i), pc.add(part["teff"], pa.scalar(1, pa.float32())))
    written = write_part(run / "parts" / "part-00002.parquet", other)
    ledger.commit(replace(ledger.entries()[-1], files=(relative_digest(written, run),)))
    publish_run(run)
    after = read_json(run / MANIFEST_FILE)
    assert after["parts_sha256"] != before["parts_sha256"]
    catalog = pq.read_table(run / "catalog" / "catalog.parquet")
    teff = dict(zip(*catalog.select(["apstar_id", "teff"]).to_pydict().values(), strict=True))
    assert [teff[name] for name in other["apstar_id"].to_pylist()] == other["teff"].to_pylist()


def test_a_damaged_part_is_not_published(run: Path) -> None:
    path = run / "parts" / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(IntegrityError, match=r"part-00001\.parquet: damaged"):
        publish_run(run)
    assert not (run / MANIFEST_FILE).exists()
    assert not list((run / "catalog").glob("*"))
    assert not list((run / "staging").glob(".*"))


def test_a_publication_that_is_stopped_leaves_nothing_to_be_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", late.append)
    stars = arrow_schema(catalog_columns()).empty_table()

    def read() -> Iterator[pa.Table]:
        yield stars
        raise KeyboardInterrupt

    rows = replace(rows_of(stars), read=read)
    with pytest.raises(KeyboardInterrupt):
        write_parquet(rows, tmp_path / "catalog.parquet", metadata={})
    with (tmp_path / "other").open("wb"):
        gc.collect()
    assert not late
    assert (tmp_path / "other").stat().st_size == 0
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
