"""The metadata of a store can be told right from wrong, and written again."""

from pathlib import Path

import numpy as np
import pytest

from apogee_batch.store.layout import create_store, resize_store
from apogee_batch.store.metadata import find_metadata_damage, restore_metadata
from apogee_batch.store.spectra import read_spectra, write_shard
from apogee_batch.survey.pixels import N_PIXELS

FILES = (
    "zarr.json",
    "flux/zarr.json",
    "mask/zarr.json",
    "wavelength/zarr.json",
    "wavelength/c/0",
    "tables/zarr.json",
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of 40 rows in shards of 16, a star in its first row."""
    info = create_store(tmp_path / "s.zarr", n_rows=20, shard_stars=16)
    flux = np.full((1, N_PIXELS), 7, np.float32)
    write_shard(
        info, 0, offset=np.zeros(1, np.int32), flux=flux, err=flux, mask=np.zeros(flux.shape, np.int32)
    )
    return resize_store(info.path, n_rows=40).path


def test_a_store_as_it_was_made_is_whole(store: Path) -> None:
    assert find_metadata_damage(store, n_rows=40, shard_stars=16) == []
    assert restore_metadata(store, n_rows=40, shard_stars=16) == []


def test_another_length_is_seen(store: Path) -> None:
    found = find_metadata_damage(store, n_rows=41, shard_stars=16)
    assert [path.relative_to(store).as_posix() for path, _ in found] == [
        f"{name}/zarr.json" for name in ("flux", "err", "mask")
    ]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["cut", "flipped", "emptied", "deleted"])
def test_each_damage_is_found_and_mended(store: Path, name: str, how: str) -> None:
    path = store / name
    before = path.read_bytes()
    middle = len(before) // 2
    flipped = before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :]
    path.unlink()
    if how != "deleted":
        path.write_bytes({"cut": before[:-9], "flipped": flipped, "emptied": b""}[how])
    assert [found for found, _ in find_metadata_damage(store, n_rows=40, shard_stars=16)] == [path]
    assert restore_metadata(store, n_rows=40, shard_stars=16) == [path]
    assert path.read_bytes() == before
    batch = read_spectra(resize_store(store, n_rows=40), np.array([0]))
    assert (batch.flux == 7).all()
