"""Rows of a shard file, read without Zarr: the same numbers, or a refusal."""

import itertools
import os
import struct
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.errors import IntegrityError
from apogee_batch.store import layout as layout_module
from apogee_batch.store import shard_reader, spectra
from apogee_batch.store.chunks import FIRST_LAYOUT, ChunkLayout, choose_chunks
from apogee_batch.store.layout import StoreInfo, create_store, open_group
from apogee_batch.store.shard_reader import read_rows_of_shard
from apogee_batch.store.spectra import read_spectra, write_shard
from apogee_batch.survey.pixels import N_PIXELS

SHARD = 64
OFFSET = np.concatenate([np.arange(3, 40), [63]]).astype(np.int32)


def make_store(folder: Path, offset: np.ndarray = OFFSET, n_rows: int = 2 * SHARD) -> StoreInfo:
    info = create_store(folder / "s.zarr", n_rows=n_rows, shard_stars=SHARD)
    rng = np.random.default_rng(1)
    flux = rng.normal(1000, 30, (len(offset), N_PIXELS)).astype(np.float32)
    mask = np.zeros(flux.shape, np.int32)
    write_shard(info, 1, offset=offset, flux=flux, err=flux / 50, mask=mask)
    return info


@pytest.fixture(scope="module", params=["chunks of today", "chunks of the first stores"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StoreInfo:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "chunks of the first stores":
            patch.setattr(layout_module, "choose_chunks", lambda _: FIRST_LAYOUT)
        else:
            patch.setattr(layout_module, "choose_chunks", lambda _: ChunkLayout(16, "lz4", 5))
        return make_store(tmp_path_factory.mktemp("s"))


def file_of(info: StoreInfo, name: str = "flux") -> Path:
    return info.path / name / "c" / "1" / "0"


@given(st.integers(0, SHARD - 1), st.integers(1, SHARD))
@settings(max_examples=30, deadline=None)
def test_rows_are_those_that_zarr_reads(store: StoreInfo, start: int, length: int) -> None:
    stop = min(start + length, SHARD)
    array = open_group(store.path)["flux"]
    assert isinstance(array, zarr.Array)
    found = read_rows_of_shard(file_of(store), spectra.find_chunks(array), SHARD, start, stop)
    np.testing.assert_array_equal(found, np.asarray(array[SHARD + start : SHARD + stop]))
    assert found.dtype == np.dtype("<f4")


def test_a_store_is_read_without_zarr_where_its_chunks_are_ours(
    store: StoreInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = SHARD + OFFSET.astype(np.int64)
    wanted = read_spectra(store, rows)
    monkeypatch.setattr(zarr.Array, "__getitem__", None)
    found = read_spectra(store, rows)
    np.testing.assert_array_equal(found.flux, wanted.flux)
    monkeypatch.undo()
    monkeypatch.setattr(spectra, "read_rows_of_shard", None)
    monkeypatch.setattr(spectra, "_known_layout", lambda _: None)  # zarr reads what is not ours
    by_zarr = read_spectra(store, rows)
    np.testing.assert_array_equal(by_zarr.flux, found.flux)
    np.testing.assert_array_equal(by_zarr.err, found.err)


def test_a_chunk_that_was_never_written_is_nan(tmp_path: Path) -> None:
    info = create_store(tmp_path / "s.zarr", n_rows=SHARD, shard_stars=SHARD)
    array = open_group(info.path, "r+")["flux"]
    assert isinstance(array, zarr.Array)
    n = choose_chunks(SHARD).n_stars
    array[:n] = np.full((n, N_PIXELS), np.nan, np.float32)  # Zarr leaves out what is all fill value
    array[0, 0] = 1
    file = info.path / "flux" / "c" / "0" / "0"
    found = read_rows_of_shard(file, choose_chunks(SHARD), SHARD, 0, SHARD)
    np.testing.assert_array_equal(found, np.asarray(array[:]))


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_a_changed_byte_is_refused(store: StoreInfo, data: st.DataObject) -> None:
    content = file_of(store).read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[place] ^= data.draw(st.integers(1, 255))
    rows = SHARD + OFFSET.astype(np.int64)
    wanted = read_spectra(store, rows).flux
    file_of(store).write_bytes(damaged)
    try:
        with pytest.raises(IntegrityError, match=r"flux/c/1/0: shard 1 of the store is damaged \("):
            read_spectra(store, rows)
    finally:
        file_of(store).write_bytes(content)
    np.testing.assert_array_equal(read_spectra(store, rows).flux, wanted)


@pytest.mark.parametrize("n_bytes", [0, 3, 100, -1, -100])
def test_a_file_that_ends_too_soon_is_refused(tmp_path: Path, n_bytes: int) -> None:
    info = make_store(tmp_path)
    content = file_of(info, "err").read_bytes()
    file_of(info, "err").write_bytes(content[:n_bytes])
    with pytest.raises(IntegrityError, match=r"err/c/1/0: shard 1 of the store is damaged \("):
        read_spectra(info, SHARD + OFFSET.astype(np.int64))


def test_a_whole_chunk_of_another_size_is_refused(tmp_path: Path) -> None:
    info = make_store(tmp_path, np.arange(SHARD, dtype=np.int32))
    with pytest.raises(ValueError, match="a chunk has"):
        read_rows_of_shard(file_of(info), ChunkLayout(SHARD // 2, "lz4", 5), SHARD // 2, 0, 1)


def test_a_chunk_that_claims_to_be_longer_than_it_is_is_not_unpacked(tmp_path: Path) -> None:
    info = make_store(tmp_path, np.arange(SHARD, dtype=np.int32))
    content = bytearray(file_of(info).read_bytes())
    content[12:16] = (1 << 30).to_bytes(4, "little")  # of the only chunk, whose checksum is made to fit
    with file_of(info).open("r+b") as file:
        [(_, length)] = shard_reader._read_index(file.fileno(), 1)
        content[length - 4 : length] = struct.pack("<I", google_crc32c.value(bytes(content[: length - 4])))
        file.write(content)
    with pytest.raises(IntegrityError, match="a chunk is packed into"):
        read_spectra(info, np.arange(SHARD, 2 * SHARD))


def test_a_short_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info, real = make_store(tmp_path), shard_reader.os.pread
    monkeypatch.setattr(shard_reader.os, "pread", lambda file, n, at: real(file, n - 1, at))
    with pytest.raises(IntegrityError, match="a checksum does not fit"):
        read_spectra(info, SHARD + OFFSET.astype(np.int64))


def test_a_disk_that_gives_a_chunk_in_pieces_is_not_taken_for_damage(
    store: StoreInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = OFFSET + SHARD
    whole = read_spectra(store, rows)
    calls = []

    def give_less(file: int, length: int, offset: int, pread: Callable[..., bytes] = os.pread) -> bytes:
        calls.append(length)
        return pread(file, min(length, 1000), offset)

    monkeypatch.setattr(os, "pread", give_less)
    pieces = read_spectra(store, rows)
    np.testing.assert_array_equal(pieces.flux, whole.flux)
    assert any(more < before for before, more in itertools.pairwise(calls))
