"""The inputs of an ingest are hashed and read in pieces; nothing tells how large these were."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from apogee_batch.errors import IntegrityError
from apogee_batch.run import ingest_inputs
from apogee_batch.run.ingest_inputs import (
    INPUTS_FILE,
    INPUTS_SCHEMA,
    hash_of_inputs,
    planned_shards,
    read_inputs,
    read_shard_inputs,
    write_inputs,
)
from apogee_batch.run.plan import write_plan

SHARDS = [3, 3, 3, 4, 4, 7]
INPUTS = pa.table(
    {
        "path": [f"/s/é{i}.fits" for i in range(6)],
        "size": [735_840, -1, 5, 5, 5, 5],
        "shard": SHARDS,
        "row": [300, 301, 302, 400, 401, 700],
        "n_rows": [1] * 6,
        "known": [None, '{"ra": null}', None, "{}", None, None],
        "mtime_ns": [1] * 6,
        "ctime_ns": [2] * 6,
    },
    schema=INPUTS_SCHEMA,
)
PLAN: dict[str, Any] = {"kind": "ingest", "inputs_sha256": hash_of_inputs(INPUTS)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_plan(tmp_path, PLAN)
    write_inputs(tmp_path, INPUTS, PLAN)
    return tmp_path


def test_the_hash_is_that_of_the_first_release() -> None:
    assert PLAN["inputs_sha256"] == "2b753943003c619732bb8da03385d1509d6f79f916246844e143d49b2c79c20a"
    assert (
        hash_of_inputs(INPUTS.slice(0, 0))
        == "10e94164e6b09b7a2ceb16ce6808fefefe99bda73846bfdc3aa443360fd19459"
    )


@pytest.mark.parametrize("batch", [1, 2, 5, 6, 100])
def test_the_hash_does_not_depend_on_the_pieces(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_inputs, "BATCH", batch)
    assert hash_of_inputs(INPUTS) == PLAN["inputs_sha256"]
    assert hash_of_inputs(pa.concat_tables([INPUTS.slice(0, 4), INPUTS.slice(4)])) == PLAN["inputs_sha256"]


def test_each_shard_is_a_row_group(folder: Path) -> None:
    assert pq.ParquetFile(folder / INPUTS_FILE).num_row_groups == 3
    assert read_inputs(folder) == (INPUTS, PLAN)
    assert read_shard_inputs(folder, 4) == INPUTS.slice(3, 2).to_pylist()


def test_shards_and_plan_are_known_without_the_inputs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_inputs, "BATCH", 2)
    assert planned_shards(folder) == ([3, 4, 7], PLAN)


@pytest.mark.parametrize("change", ["other sizes", "other plan", "cut short", "gone", "no plan"])
def test_inputs_that_were_not_planned_are_refused(folder: Path, change: str) -> None:
    path = folder / INPUTS_FILE
    if change == "other sizes":
        i = INPUTS.schema.get_field_index("size")
        write_inputs(folder, INPUTS.set_column(i, INPUTS.schema.field(i), pc.add(INPUTS["size"], 1)), PLAN)
    elif change == "other plan":
        write_plan(folder, PLAN | {"rows": "visits"})
    elif change == "cut short":
        path.write_bytes(path.read_bytes()[:-20])
    elif change == "gone":
        path.unlink()
    else:
        (folder / "plan.json").unlink()
    with pytest.raises(IntegrityError, match=r"inputs\.parquet: not the inputs that were planned"):
        planned_shards(folder)
