"""A store is made whole or not at all, and beside others."""

import shutil
from pathlib import Path

import pytest

from apogee_batch.store.layout import create_store

LETTERS = "0123456789abcdef" * 2


@pytest.mark.parametrize("name", ["dr14", "dr[14]*?"])
def test_what_killed_ingests_left_of_a_store_is_removed_and_nothing_of_another_store(
    name: str, tmp_path: Path
) -> None:
    leftover, living = tmp_path / f".{name}.{LETTERS}.partial", tmp_path / f".{name}.zarr.{LETTERS}.partial"
    for folder in (leftover, living):
        (folder / "flux").mkdir(parents=True)
    create_store(tmp_path / name, n_rows=64, shard_stars=64)
    assert not leftover.exists()
    assert (living / "flux").is_dir()
    shutil.rmtree(living)
    assert [path.name for path in tmp_path.iterdir()] == [name]
