"""Attaching labels again replaces what is there, whole or damaged, and notes what was written."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apogee_batch.errors import UsageError
from apogee_batch.files import read_sealed_json, sha256_of_file
from apogee_batch.run import commands
from apogee_batch.run.store_tables import ATTACHED, digest_path
from apogee_batch.survey.simulate import SimulatedSurvey


@pytest.fixture
def store(labelled_store: Path, tmp_path: Path) -> Path:
    """A copy of a store with labels."""
    return Path(shutil.copytree(labelled_store, tmp_path / "s.zarr"))


def attach(store: Path, survey: SimulatedSurvey) -> list[str]:
    return commands.attach(store, {name: [path] for name, path in survey.labels.items()}, column_map=[])


def test_what_was_attached_is_noted_with_its_hashes(store: Path) -> None:
    noted = read_sealed_json(digest_path(store, ATTACHED))
    assert {file["path"] for file in noted["files"]} == {
        "tables/labels.parquet",
        "tables/unmatched_labels.parquet",
    }
    for file in noted["files"]:
        assert sha256_of_file(store / file["path"]) == file["sha256"]


def test_a_list_of_labels_of_no_use_is_named_where_it_has_any(
    store: Path, survey: SimulatedSurvey, tmp_path: Path
) -> None:
    assert not any("of no use" in line for line in attach(store, survey))
    some = pq.read_table(survey.labels["yso"]).to_pylist()
    some[0]["apogee_id"] = "2M00000000+0000000"
    pq.write_table(pa.Table.from_pylist(some), tmp_path / "some.parquet")
    lines = commands.attach(store, {"yso": [tmp_path / "some.parquet"]}, column_map=[])
    assert "of no use: 1 NOT_IN_STORE" in lines[0]
    assert lines[-1].startswith("labels of no use are listed in ")


def test_labels_that_were_damaged_are_attached_again(store: Path, survey: SimulatedSurvey) -> None:
    labels = store / "tables" / "labels.parquet"
    before = labels.read_bytes()
    assert any(line.startswith("replaces the") for line in attach(store, survey))
    labels.write_bytes(before[:100])
    assert not any(line.startswith("replaces the") for line in attach(store, survey))
    assert labels.read_bytes() == before


def test_names_that_match_nothing_are_shown(store: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("apogee_id,teff,logg,fe_h\nHD 209458,6000,4.4,0.0\n")
    with pytest.raises(
        UsageError, match=r"theirs are like 'HD 209458', and they are matched by apogee_id \(2M"
    ):
        commands.attach(store, {"payne": [table]}, column_map=[])
