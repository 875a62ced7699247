import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from apogee_batch.errors import IntegrityError
from apogee_batch.inference.engines import StarBatch
from apogee_batch.inference.noise import NoiseKey
from apogee_batch.run import read_ahead as module
from apogee_batch.run.read_ahead import THREAD_NAME, read_ahead
from apogee_batch.store.spectra import (
    CHUNK_STARS,
    SpectrumBatch,
    StoreInfo,
    create_store,
    read_spectra,
    shard_files,
    write_shard,
)
from apogee_batch.survey.pixels import N_PIXELS

SHARD = 2 * CHUNK_STARS
N_STARS = 2 * SHARD - 3


@pytest.fixture(scope="module")
def whole_store(tmp_path_factory: pytest.TempPathFactory) -> StoreInfo:
    info = create_store(tmp_path_factory.mktemp("s") / "s.zarr", n_rows=N_STARS, shard_stars=SHARD)
    rng = np.random.default_rng(1)
    for shard in (0, 1):
        start, stop = info.shard_rows(shard)
        flux = rng.normal(1000, 30, (stop - start, N_PIXELS)).astype(np.float32)
        offset = np.arange(stop - start, dtype=np.int32)
        mask = np.zeros(flux.shape, np.int32)
        write_shard(info, shard, offset=offset, flux=flux, err=flux / 50, mask=mask)
    return info


class Reader:
    """Stands for the store: counts what is asked for, and waits or fails where it should."""

    def __init__(self, *, fails_at: int = -1) -> None:
        self.n_begun = 0
        self.fails_at = fails_at
        self.may_read = threading.Event()
        self.may_read.set()

    def __call__(self, info: StoreInfo, rows: np.ndarray) -> SpectrumBatch:
        self.n_begun += 1
        assert threading.current_thread().name.startswith(THREAD_NAME)
        assert self.may_read.wait(60)
        if self.n_begun - 1 == self.fails_at:
            raise IntegrityError("shard 7 is damaged")
        spectra = np.zeros((len(rows), N_PIXELS), np.float32)
        return SpectrumBatch(rows, spectra, spectra)

    def wait_until_begun(self, n: int) -> None:
        end = time.monotonic() + 60
        while self.n_begun < n:
            assert time.monotonic() < end
            time.sleep(0.001)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    reader = Reader()
    monkeypatch.setattr(module, "read_spectra", reader)
    return reader


INFO = StoreInfo(Path("unused"), 1000, 1000)
ROWS = np.arange(10)


def n_threads() -> int:
    return sum(thread.name.startswith(THREAD_NAME) for thread in threading.enumerate())


@pytest.mark.parametrize("batch_stars", [CHUNK_STARS, 25, 1000])
def test_batches_tile_the_rows_in_their_order(whole_store: StoreInfo, batch_stars: int) -> None:
    rows = np.flatnonzero(np.arange(N_STARS) % 5 != 2)
    batches = list(read_ahead(whole_store, rows, batch_stars))
    assert [len(batch.row) for batch in batches[:-1]] == [batch_stars] * (len(batches) - 1)
    expected = read_spectra(whole_store, rows)
    np.testing.assert_array_equal(np.concatenate([batch.row for batch in batches]), rows)
    np.testing.assert_array_equal(np.concatenate([batch.flux for batch in batches]), expected.flux)
    np.testing.assert_array_equal(np.concatenate([batch.err for batch in batches]), expected.err)
    assert n_threads() == 0


def test_no_rows_are_no_batches(reader: Reader) -> None:
    assert list(read_ahead(INFO, ROWS[:0], 4)) == []
    assert reader.n_begun == 0
    assert n_threads() == 0


def test_the_thread_is_two_batches_ahead_and_no_more(reader: Reader) -> None:
    with closing(read_ahead(INFO, ROWS, 1)) as batches:
        next(batches)
        reader.wait_until_begun(3)
        time.sleep(0.02)
        assert reader.n_begun == 3
        next(batches)
        reader.wait_until_begun(4)
    assert n_threads() == 0


def test_the_thread_prepares_batches(reader: Reader) -> None:
    threads = []

    def prepare(batch: SpectrumBatch) -> StarBatch:
        threads.append(threading.current_thread().name)
        return StarBatch(batch.flux, batch.err, (NoiseKey(1, 1),) * len(batch.row))

    assert [len(batch) for batch in read_ahead(INFO, ROWS, 4, prepare=prepare)] == [4, 4, 2]
    assert all(name.startswith(THREAD_NAME) for name in threads)


def test_an_error_of_the_thread_comes_with_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "read_spectra", Reader(fails_at=1))
    batches = read_ahead(INFO, ROWS, 1)
    assert next(batches).row.tolist() == [0]
    with pytest.raises(IntegrityError, match="shard 7 is damaged"):
        next(batches)
    assert n_threads() == 0


def test_a_missing_shard_is_named(whole_store: StoreInfo, tmp_path: Path) -> None:
    missing = shard_files(whole_store.path, 1)[0]
    kept = missing.rename(tmp_path / "kept")
    try:
        with pytest.raises(IntegrityError, match="shard 1 of the store is missing"):
            list(read_ahead(whole_store, np.arange(N_STARS), CHUNK_STARS))
    finally:
        kept.rename(missing)
    assert n_threads() == 0


@pytest.mark.parametrize("reason", [ValueError, KeyboardInterrupt])
def test_no_thread_outlives_a_consumer_that_stops(reader: Reader, reason: type[BaseException]) -> None:
    def consume() -> None:
        with closing(read_ahead(INFO, ROWS, 1)) as batches:
            for _ in batches:
                raise reason

    with pytest.raises(reason) as caught:
        consume()
    assert caught.tb is not None  # which still holds the frame of the loop
    assert n_threads() == 0
    assert reader.n_begun <= 3


def test_a_generator_that_is_dropped_ends_its_thread(reader: Reader) -> None:
    for _ in read_ahead(INFO, ROWS, 1):
        break
    assert n_threads() == 0


def test_pinned_batches_hold_the_same_spectra(
    whole_store: StoreInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: (pinned.append(t.shape), t.clone())[1])
    rows = np.arange(20)
    [batch] = read_ahead(whole_store, rows, 20, pinned=True)
    np.testing.assert_array_equal(batch.flux, read_spectra(whole_store, rows).flux)
    np.testing.assert_array_equal(batch.err, read_spectra(whole_store, rows).err)
    assert pinned == [(20, N_PIXELS)] * 2


def test_what_was_prepared_is_pinned_and_not_what_it_was_made_of(
    whole_store: StoreInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: (pinned.append(float(t.max())), t.clone())[1])

    def halve(batch: SpectrumBatch) -> StarBatch:
        return StarBatch(batch.flux, batch.err / 2, (NoiseKey(1, 1),) * len(batch.row))

    rows = np.arange(20)
    [batch] = read_ahead(whole_store, rows, 20, pinned=True, prepare=halve)
    read = read_spectra(whole_store, rows)
    np.testing.assert_array_equal(batch.err, read.err / 2)
    assert pinned == [read.flux.max(), (read.err / 2).max()]
