"""Status tells from the files alone how far something is, also of what was killed at once."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from unpacked import unpack_ingest

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import read_sealed_json, write_sealed_json
from apogee_batch.run.plan import read_plan, write_plan
from apogee_batch.run.status import describe_status


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def store(labelled_store: Path, tmp_path: Path) -> Path:
    """A copy of a store of one ingest."""
    return Path(shutil.copytree(labelled_store, tmp_path / "s.zarr"))


def told(path: Path) -> str:
    return "\n".join(describe_status(path))


def test_a_run_says_in_which_stage_it_is(run: Path) -> None:
    assert "infer: 3 of 3 shards committed, 48 stars" in told(run)
    assert "published: 48 stars" in told(run)
    (run / "manifest.json").unlink()
    assert "stage: publish; not published yet" in told(run)
    (run / "ledger" / "00001.json").unlink()
    assert "infer: 2 of 3 shards committed, 32 stars" in told(run)
    assert "stage: infer; not published yet" in told(run)
    (run / "parts" / "part-00000.parquet").unlink()
    assert "infer: 1 of 3 shards" in told(run)
    shutil.rmtree(run / "model")  # as after a kill right behind the plan
    assert "train: no epoch finished yet\nstage: training; not" in told(run)
    assert "infer" not in told(run)


def test_a_published_run_tells_its_flags(run: Path) -> None:
    catalog = run / "catalog" / "catalog.parquet"
    table = pq.read_table(catalog)
    i = table.schema.get_field_index("flags")
    for flags, words in (
        ([512] * 24 + [0] * 24, "flags:     STRANGE_SPECTRUM 24 (50 %); 24 (50 %) without a flag"),
        ([1] + [0] * 47, "flags:     LOW_SNR 1 (2.1 %); 47 (98 %) without a flag"),
    ):
        pq.write_table(table.set_column(i, table.schema.field(i), pa.array(flags, pa.int32())), catalog)
        assert words in told(run)
        assert ("WARNING: 24 of 48 spectra (50 %) are unlike" in told(run)) == (flags[0] == 512)
    catalog.write_bytes(catalog.read_bytes()[:500])
    assert "catalog.parquet: is damaged" in told(run)
    assert "published: 48 stars" in told(run)


def test_a_run_counts_only_what_was_made_with_its_own_model(run: Path) -> None:
    entry = run / "ledger" / "00001.json"
    values = read_sealed_json(entry)
    write_sealed_json(entry, values | {"key": f"{values['key'].split()[0]} {'0' * 64}"})
    assert "infer: 2 of 3 shards committed, 32 stars" in told(run)


def test_a_run_with_a_given_model_needs_none_in_its_folder(run: Path) -> None:
    write_plan(run, (read_plan(run) or {}) | {"model": {"given": "0" * 64}})
    assert "infer: 0 of 3 shards committed, 0 stars" in told(run)
    assert "train" not in told(run).replace("training", "")


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [((None, 0.5, 0.75), "best dev loss 0.5000"), ((None, None), "no finite dev loss yet"), ((), "no epoch")],
)
def test_a_training_that_diverges_is_told(run: Path, losses: tuple[float | None, ...], wanted: str) -> None:
    lines = [json.dumps({"epoch": i + 1, "dev_loss": loss}) + "\n" for i, loss in enumerate(losses)]
    (run / "model" / "metrics.jsonl").write_text("".join(lines))
    assert wanted in told(run / "model")
    assert wanted in told(run)


def test_an_ingest_is_described_with_its_store(store: Path) -> None:
    lines = describe_status(store / "ingest" / "0001")
    assert lines[0] == f"one ingest of the store {store.resolve()}"
    assert lines[1:] == [line for line in describe_status(store) if line.startswith("ingest 0001")]
    assert "48 files, done: 48 stars" in lines[1]


def test_an_ingest_that_was_killed_is_described(store: Path) -> None:
    folder = store / "ingest" / "0001"
    (folder / "summary.json").unlink()
    unpack_ingest(folder)
    (folder / "ledger" / "00002.json").unlink()
    assert "ingest 0001: 48 files, 2 of 3 shards written" in told(store)
    (folder / "inputs.parquet").unlink()
    assert "ingest 0001: 48 files, planned" in told(store)


def test_a_plan_of_another_program_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"kind": "holiday"}')
    with pytest.raises(IntegrityError, match="not of this program"):
        describe_status(tmp_path)
    write_plan(tmp_path, {"kind": "holiday"})
    with pytest.raises(UsageError, match="neither a run nor a store"):
        describe_status(tmp_path)
