"""Attaching labels again replaces what is there, whole or damaged, and notes what was written."""

import shutil
from pathlib import Path

import pytest

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


def test_labels_that_were_damaged_are_attached_again(store: Path, survey: SimulatedSurvey) -> None:
    labels = store / "tables" / "labels.parquet"
    before = labels.read_bytes()
    assert any(line.startswith("replaces the") for line in attach(store, survey))
    labels.write_bytes(before[:100])
    assert not any(line.startswith("replaces the") for line in attach(store, survey))
    assert labels.read_bytes() == before
