from pathlib import Path

import numpy as np
import pytest

from apogee_batch.run import train_task
from apogee_batch.store.spectra import CHUNK_STARS, StoreInfo, create_store, write_shard
from apogee_batch.survey.pixels import N_PIXELS

SHARD = CHUNK_STARS
N_ROWS = 3 * SHARD
ROWS = np.flatnonzero(np.arange(N_ROWS) % 3 != 1)
ROWS = ROWS[ROWS // SHARD != 1]  # none in the second shard
ONE_STAR = 4 * N_PIXELS


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[StoreInfo, np.ndarray]:
    info = create_store(tmp_path_factory.mktemp("s") / "s.zarr", n_rows=N_ROWS, shard_stars=SHARD)
    flux = np.random.default_rng(1).normal(1000, 30, (N_ROWS, N_PIXELS)).astype(np.float32)
    offset, mask = np.arange(SHARD, dtype=np.int32), np.zeros((SHARD, N_PIXELS), np.int32)
    for shard in range(3):
        part = flux[shard * SHARD :][:SHARD]
        write_shard(info, shard, offset=offset, flux=part, err=part, mask=mask)
    return info, flux


def is_mapped(flux: np.ndarray) -> bool:
    while isinstance(flux, np.ndarray):
        if isinstance(flux, np.memmap):
            return True
        flux = flux.base
    return False


@pytest.mark.parametrize("in_memory", [True, False])
def test_training_spectra_are_those_of_the_store(
    filled: tuple[StoreInfo, np.ndarray], in_memory: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info, flux = filled
    monkeypatch.setattr(train_task.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(train_task, "MAX_BYTES_IN_MEMORY", ONE_STAR * (len(ROWS) - (not in_memory)))
    found = train_task._read_flux(info, ROWS)
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, flux[ROWS])
    assert is_mapped(found) != in_memory
    batch = found[np.array([3, 1])]
    batch += 1  # a copy that can be written to
    np.testing.assert_array_equal(found, flux[ROWS])
    assert list(tmp_path.iterdir()) == []


def test_where_the_disk_is_full_spectra_are_read_into_memory(
    filled: tuple[StoreInfo, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    info, flux = filled
    monkeypatch.setattr(train_task, "MAX_BYTES_IN_MEMORY", 0)
    usage = train_task.shutil.disk_usage(info.path)
    monkeypatch.setattr(train_task.shutil, "disk_usage", lambda _: usage._replace(free=ONE_STAR * len(ROWS)))
    found = train_task._read_flux(info, ROWS)
    assert not is_mapped(found)
    np.testing.assert_array_equal(found, flux[ROWS])


def test_no_more_than_a_shard_is_held_beside_the_spectra(
    filled: tuple[StoreInfo, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    info, _ = filled
    asked = []
    real = train_task.read_spectra
    monkeypatch.setattr(
        train_task, "read_spectra", lambda i, rows, **k: (asked.append(len(rows)), real(i, rows, **k))[1]
    )
    train_task._read_flux(info, ROWS)
    assert len(asked) == 2
    assert max(asked) <= SHARD
