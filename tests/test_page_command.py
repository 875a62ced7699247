"""The command report: the page of a real run, and of runs in which something is missing."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from matplotlib.figure import Figure
from PIL import Image
from test_page import Page
from typer.testing import CliRunner, Result

from apogee_batch.cli_report import report
from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import parse_sealed_json, read_json, sha256_of_file, write_sealed_json
from apogee_batch.run.archive import list_files, read_file
from apogee_batch.run.ledger import name_worker
from apogee_batch.run.publish import CATALOG_FILE
from apogee_batch.run.report import PAGE_FILE, write_report
from apogee_batch.schema import LABEL_NAMES

LARGEST = 3_000_000  # bytes of a page
ANCHORS = ["glance", "kiel", "labels", "agreement", "sigmas", "pulls", "sky", "flags", "strangest"]
ANCHORS += ["training", "timing", "made"]


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A published run that a test may change."""
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy, ignore=shutil.ignore_patterns("parts", "inputs"))
    return copy


def call(*words: Any) -> Result:
    app = typer.Typer()
    app.command()(report)
    return CliRunner().invoke(app, [str(word) for word in words])


def change(run: Path, *, n_stars: int | None = None, **columns: Sequence[Any] | None) -> pa.Table:
    """Put other columns, or none for None, into the published catalogue, and its hash into the manifest."""
    path = run / CATALOG_FILE
    catalog = pq.read_table(path)[:n_stars]
    for name, values in columns.items():
        i = catalog.schema.get_field_index(name)
        catalog = catalog.remove_column(i)
        if values is not None:
            field = pq.read_schema(path).field(name)
            catalog = catalog.add_column(i, field, pa.array(values, field.type))
    pq.write_table(catalog, path)
    manifest = read_json(run / "manifest.json")
    manifest.pop("checksum")
    manifest["stars"] = len(catalog)
    for file in manifest["files"]:
        if file["path"] == CATALOG_FILE:
            file |= {"size": path.stat().st_size, "sha256": sha256_of_file(path)}
    write_sealed_json(run / "manifest.json", manifest)
    return catalog


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a picture shows is put together, and a dot is written: for tests that are not of pictures."""

    def savefig(_: Figure, file: Any, *, format: str, **__: Any) -> None:  # noqa: A002  its name in matplotlib
        Image.new("RGB", (1, 1)).save(file, format)

    monkeypatch.setattr(Figure, "savefig", savefig)
    monkeypatch.setattr(Figure, "draw_without_rendering", lambda _: None)


def page_of(run: Path, **others: Any) -> tuple[Page, str]:
    """Make the page, and return it and all its words."""
    return read_page(write_report(run, **others).path)


def read_page(path: Path) -> tuple[Page, str]:
    html = path.read_text(encoding="utf-8")
    assert len(html) < LARGEST
    page = Page(html)
    assert page.open == []
    assert [section["id"] for section in page.named("section")] == ANCHORS
    assert all(image["alt"] for image in page.named("img"))
    return page, " ".join(" ".join(page.texts).split())


def names_of_pictures(run: Path) -> set[str]:
    return {path.stem for path in (run / "report" / "figures").iterdir()}


@pytest.mark.long
def test_the_page_of_a_whole_run_has_every_section_and_picture(
    run: Path, labelled_store: Path, finished_run: Path
) -> None:
    change(run, strangeness=range(pq.read_metadata(run / CATALOG_FILE).num_rows))
    before = {path: sha256_of_file(path) for path in run.rglob("*") if path.is_file()}
    result = call(run, "--store", labelled_store)
    assert result.exit_code == 0, result.exception
    assert "report.html: the page of the run" in result.output
    page, words = read_page(run / PAGE_FILE)
    manifest = read_json(finished_run / "manifest.json")
    assert manifest["run_id"] in words
    assert "Table 2. Normalised MSE" in words
    assert words.count("These spectra are simulated") == 2  # at the top, and beside the paper's numbers
    assert len(page.named("h1")) == 1
    assert re.search(rf"Run {manifest['run_id']} of .* store s\.zarr, published \d{{4}}-\d\d-\d\d", words)
    assert f"Catalogue of {manifest['stars']} simulated stars" in words
    assert "differs most at" in words or "no interval differs" in words
    assert "183.7" in words  # the paper's rms of Teff of the full test set
    shown = {"kiel", "labels", "sigmas", "pulls", "sky", "training", "timing", "strangest"}
    missing = {p for p in shown if p not in names_of_pictures(run)}
    assert not missing
    assert len(page.named("img")) == len(shown)
    for name in shown:
        assert (run / "report" / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert before == {path: sha256_of_file(path) for path in before}  # nothing published has changed


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(run: Path, labelled_store: Path) -> None:
    change(run, strangeness=range(pq.read_metadata(run / CATALOG_FILE).num_rows))
    hashes = []
    for _ in range(2):
        write_report(run, store=labelled_store)
        hashes.append({path: sha256_of_file(path) for path in run.rglob("*") if path.is_file()})
        shutil.rmtree(run / "report" / "figures")
    assert hashes[0] == hashes[1]


@pytest.mark.usefixtures("undrawn")
def test_the_page_does_not_depend_on_when_it_is_made(run: Path) -> None:
    first = write_report(run).sha256
    assert write_report(run).sha256 == first


@pytest.mark.usefixtures("undrawn")
def test_names_of_stars_hosts_and_reasons_are_no_markup(run: Path) -> None:
    evil = "<script>alert(1)</script>"
    n_stars = pq.read_metadata(run / CATALOG_FILE).num_rows
    change(run, apogee_id=[evil] * n_stars, strangeness=range(n_stars))
    pq.write_table(pa.table({"reason": [evil, evil, "EMPTY"]}), run / "rejects.parquet")
    for path in (run / "ledger").glob("[0-9]*.json"):
        entry = read_json(path)
        entry.pop("checksum")
        write_sealed_json(path, entry | {"host": evil, "extra": entry["extra"] | {"worker": evil}})
    page, words = page_of(run)
    assert not page.named("script")
    assert words.count(evil) == 12 + 1 + 1  # strange stars, a reason, a worker


@pytest.mark.usefixtures("undrawn")
def test_rejects_are_counted_by_reason(run: Path) -> None:
    pq.write_table(pa.table({"reason": ["EMPTY", "TRUNCATED", "EMPTY"]}), run / "rejects.parquet")
    assert "EMPTY 2 TRUNCATED 1" in page_of(run)[1]


@pytest.mark.usefixtures("undrawn")
def test_without_labels_the_page_says_so(run: Path) -> None:
    none = [None] * pq.read_metadata(run / CATALOG_FILE).num_rows
    change(run, data_type=none, data_set=none, **{f"{name}_label": none for name in LABEL_NAMES})
    _, words = page_of(run)
    assert words.count("No star of this catalogue has a label") == 3
    assert not {"labels", "pulls"} & names_of_pictures(run)


@pytest.mark.usefixtures("undrawn")
def test_without_calibration_the_page_says_so(run: Path, labelled_store: Path) -> None:
    none = [None] * pq.read_metadata(run / CATALOG_FILE).num_rows
    change(run, strangeness=none, **{f"e_{name}_total": none for name in LABEL_NAMES})
    _, words = page_of(run, store=labelled_store)
    assert words.count("No star has a calibrated error") == 2
    assert "No star has a strangeness" in words


@pytest.mark.usefixtures("undrawn")
def test_a_catalogue_of_before_the_calibration_has_a_page(run: Path) -> None:
    change(run, strangeness=None, **{f"e_{name}_total": None for name in LABEL_NAMES})
    assert "No star has a strangeness" in page_of(run)[1]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("n_stars", [0, 1])
def test_a_run_of_one_star_or_none_has_a_page(run: Path, n_stars: int) -> None:
    change(run, n_stars=n_stars)
    _, words = page_of(run)
    assert f"Stars in the catalogue {n_stars}" in words
    if not n_stars:
        assert "No star of this catalogue has a prediction" in words
        assert "No star has coordinates" in words


@pytest.mark.usefixtures("undrawn")
def test_stars_without_numbers_or_coordinates_are_told(run: Path) -> None:
    none = [None] * pq.read_metadata(run / CATALOG_FILE).num_rows
    names = [*LABEL_NAMES, *(f"e_{name}" for name in LABEL_NAMES), "snr", "ra", "dec"]
    change(run, **dict.fromkeys(names, none))
    _, words = page_of(run)
    assert "No star has an SNR and a scatter over realizations" in words
    assert "No star has coordinates" in words
    assert "No star of this catalogue has a prediction" in words


@pytest.mark.usefixtures("undrawn")
def test_without_its_model_the_page_says_where_the_curves_are(run: Path, tmp_path: Path) -> None:
    (run / "model").rename(tmp_path / "model")
    assert "name it by --model" in page_of(run)[1]
    assert "rounds of adaptation" in str(
        [i["alt"] for i in page_of(run, model=tmp_path / "model")[0].named("img")]
    )
    (tmp_path / "model" / "metrics.jsonl").unlink()
    assert "has no metrics.jsonl" in page_of(run, model=tmp_path / "model")[1]


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_its_ledger_has_a_page(run: Path) -> None:
    shutil.rmtree(run / "ledger")
    assert "nothing is known of its workers" in page_of(run)[1]


def test_ledgers_name_the_worker_of_each_shard(finished_run: Path, labelled_store: Path) -> None:
    for folder in (finished_run / "ledger", labelled_store / "ingest" / "0001" / "ledger"):
        entries = [parse_sealed_json(read_file(path), path) for path in list_files(folder)]
        assert {entry["extra"]["worker"] for entry in entries} == {name_worker()}


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_ledger_entry_is_left_out(run: Path) -> None:
    paths = sorted((run / "ledger").glob("[0-9]*.json"))
    paths[0].write_text("{")
    _, words = page_of(run)
    assert "slowest shard" in words


@pytest.mark.usefixtures("undrawn")
def test_a_picture_of_before_does_not_stay(run: Path) -> None:
    write_report(run)
    change(run, ra=[None] * pq.read_metadata(run / CATALOG_FILE).num_rows)
    write_report(run)
    assert "sky" not in names_of_pictures(run)


@pytest.mark.usefixtures("undrawn")
def test_another_model_and_another_store_are_refused(run: Path, tmp_path: Path, labelled_store: Path) -> None:
    with pytest.raises(UsageError, match="is not the model of"):
        write_report(run, model=tmp_path)
    names = [f"other{i}" for i in range(pq.read_metadata(run / CATALOG_FILE).num_rows)]
    change(run, apstar_id=names, strangeness=range(len(names)))
    with pytest.raises(UsageError, match="is not the store of this run"):
        write_report(run, store=labelled_store)


@pytest.mark.usefixtures("undrawn")
def test_what_is_no_published_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        write_report(tmp_path / "nothing")
    (run / "rejects.parquet").write_bytes(b"PAR1")
    with pytest.raises(IntegrityError, match=r"rejects\.parquet: cannot be read"):
        write_report(run)
    (run / "manifest.json").unlink()
    with pytest.raises(UsageError, match="not published yet"):
        write_report(run)
    assert not (run / PAGE_FILE).exists()


@pytest.mark.usefixtures("undrawn")
def test_the_head_names_what_the_run_was_made_with(run: Path) -> None:
    plan = json.loads((run / "plan.json").read_text())
    _, words = page_of(run)
    assert f"SHA-256 of the store {plan['store_sha256']}" in words
    assert f"Realizations {plan['realizations']}" in words
    assert f"torch {plan['software']['torch']}" in words
    assert "Estimating the labels" in words


@pytest.mark.usefixtures("undrawn")
def test_stars_of_other_fields_are_not_called_simulated(run: Path) -> None:
    n_stars = pq.read_metadata(run / CATALOG_FILE).num_rows
    change(run, field=["M67"] * n_stars)
    _, words = page_of(run)
    assert "simulated star" not in words
    assert "These spectra are simulated" not in words
    assert "Numbers of simulated spectra or of labels of another kind cannot be compared" in words
    assert f"Catalogue of {n_stars} stars" in words


@pytest.mark.usefixtures("undrawn")
def test_without_times_of_the_stages_the_ledger_tells_the_date(run: Path) -> None:
    (run / "stages.jsonl").unlink()
    _, words = page_of(run)
    assert re.search(r"computed until \d{4}-\d\d-\d\d", words)
    assert "began (UTC)" not in words.split("Time by stage")[1]  # a column without an entry
    shutil.rmtree(run / "ledger")
    assert "computed until" not in page_of(run)[1]


@pytest.mark.usefixtures("undrawn")
def test_what_is_wanted_first_stands_first(run: Path) -> None:
    _, words = page_of(run)
    assert words.index("rms Teff, test set") < words.index("Means of the realizations")
    assert words.index("Means of the realizations") < words.index("SHA-256 of the store")
    assert "Limit of the errors 5 times their median" in words
    assert re.search(r"rms \[Fe/H\], test set \d\.\d{3} dex", words)
