"""The bytes of a shard: those that Zarr would write, for this layout and for earlier ones."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.store.chunks import (
    FIRST_LAYOUT,
    ChunkLayout,
    ShardEncoder,
    choose_chunks,
    find_chunks,
    is_shard_file,
)
from apogee_batch.store.layout import STAGING, create_store, make_empty, open_store
from apogee_batch.store.metadata import find_metadata_damage, restore_metadata
from apogee_batch.store.spectra import StoreInfo, read_spectra, shard_files, write_shard
from apogee_batch.survey.pixels import N_PIXELS

LAYOUTS = [FIRST_LAYOUT, choose_chunks(64), ChunkLayout(32, "lz4", 9)]


def noisy(n_stars: int, dtype: type = np.float32, n_pixels: int = N_PIXELS) -> np.ndarray:
    rng = np.random.default_rng(n_stars)
    return rng.normal(1000, 30, (n_stars, n_pixels)).astype(dtype)


@pytest.mark.parametrize("offset", [[1, 0], [3, 3], [0, 64]])
def test_rows_that_do_not_ascend_are_refused(tmp_path: Path, offset: list[int]) -> None:
    info = create_store(tmp_path / "s.zarr", n_rows=64, shard_stars=64)
    flux = noisy(2)
    with pytest.raises(ValueError, match="ascend"):
        write_shard(info, 0, offset=np.array(offset), flux=flux, err=flux, mask=flux.astype(np.int32))
    assert not any(path.is_file() for path in (info.path / STAGING).rglob("*"))
    assert not any(path.exists() for path in shard_files(info.path, 0))


def encode_shard(
    layout: ChunkLayout, shard_stars: int, offset: np.ndarray, values: np.ndarray, fill: float
) -> bytes:
    """Return a shard file, made at once."""
    encoder = ShardEncoder(layout, values.dtype, fill)
    chunk = offset // layout.n_stars

    def encode() -> bytes:
        pieces = [
            piece
            for i in range(shard_stars // layout.n_stars)
            for piece in encoder.encode_chunk(offset[chunk == i] - i * layout.n_stars, values[chunk == i])
        ]
        return b"".join([*pieces, encoder.encode_index()])

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(encode).result()


def encoded_by_zarr(layout: ChunkLayout, rows: np.ndarray, fill: float) -> bytes:
    held: dict[str, Any] = {}
    array = zarr.create_array(
        MemoryStore(held),
        shape=rows.shape,
        dtype=rows.dtype,
        chunks=(layout.n_stars, rows.shape[1]),
        shards=rows.shape,
        compressors=layout.codecs(),
        fill_value=fill,
    ).with_config({"write_empty_chunks": True})
    array[:] = rows
    return held["c/0/0"].to_bytes()


@given(
    st.sampled_from(LAYOUTS),
    st.sampled_from([(np.float32, np.nan), (np.int32, -1)]),
    st.sets(st.integers(0, 127), max_size=128),
)
@settings(max_examples=30, deadline=None)
def test_a_shard_has_the_bytes_that_zarr_would_write(
    layout: ChunkLayout, kind: tuple[type, float], offset: set[int]
) -> None:
    dtype, fill = kind
    values = noisy(len(offset), dtype, n_pixels=90)
    rows = np.full((128, 90), fill, dtype)
    rows[sorted(offset)] = values
    found = encode_shard(layout, 128, np.array(sorted(offset), np.int32), values, fill)
    assert found == encoded_by_zarr(layout, rows, fill)


@pytest.mark.parametrize("shard_stars", [16, 48, 64, 192, 4096])
def test_a_shard_is_made_of_whole_chunks(shard_stars: int) -> None:
    n_stars = choose_chunks(shard_stars).n_stars
    assert shard_stars % n_stars == 0
    assert 16 <= n_stars <= 64


def first_store(path: Path, n_rows: int, shard_stars: int) -> StoreInfo:
    """A store as the first versions made it."""
    make_empty(path, n_rows=n_rows, shard_stars=shard_stars, chunks=FIRST_LAYOUT)
    return open_store(path)


def fill_shard(info: StoreInfo, shard: int) -> np.ndarray:
    flux = noisy(20)
    offset = np.arange(20, dtype=np.int32)
    write_shard(info, shard, offset=offset, flux=flux, err=flux, mask=flux.astype(np.int32))
    return flux


def test_a_store_of_the_first_layout_is_read_and_written_as_it_is(tmp_path: Path) -> None:
    info = first_store(tmp_path / "s.zarr", 128, 64)
    flux = fill_shard(info, 1)
    np.testing.assert_array_equal(read_spectra(info, 64 + np.arange(20)).flux, flux)
    rows = np.full((64, N_PIXELS), np.nan, np.float32)
    rows[:20] = flux
    assert shard_files(info.path, 1)[0].read_bytes() == encoded_by_zarr(FIRST_LAYOUT, rows, np.nan)


@pytest.mark.parametrize("shard_stars", [16, 64])
@pytest.mark.parametrize("is_first", [True, False])
def test_lost_metadata_become_those_of_the_shards_that_are_there(
    tmp_path: Path, shard_stars: int, *, is_first: bool
) -> None:
    make = first_store if is_first else lambda path, n, size: create_store(path, n_rows=n, shard_stars=size)
    info = make(tmp_path / "s.zarr", 40, shard_stars)
    flux = noisy(3)
    write_shard(info, 0, offset=np.arange(3), flux=flux, err=flux, mask=flux.astype(np.int32))
    assert find_metadata_damage(info.path, n_rows=40, shard_stars=shard_stars) == []
    names = [info.path / name / "zarr.json" for name in (".", "flux", "err", "mask")]
    before = [json.loads(path.read_bytes()) for path in names]
    for path in names:
        path.unlink()
    assert len(restore_metadata(info.path, n_rows=40, shard_stars=shard_stars)) == 4
    assert [json.loads(path.read_bytes()) for path in names] == before
    np.testing.assert_array_equal(read_spectra(info, np.arange(3)).flux, flux)


def test_a_store_without_a_shard_keeps_the_layout_of_its_metadata(tmp_path: Path) -> None:
    info = first_store(tmp_path / "s.zarr", 40, 64)
    (info.path / "err" / "zarr.json").unlink()
    restore_metadata(info.path, n_rows=40, shard_stars=64)
    assert find_chunks(zarr.open_group(info.path)["err"]) == FIRST_LAYOUT


def test_a_shard_tells_its_layout(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    for layout in LAYOUTS:
        path.write_bytes(encode_shard(layout, 64, np.arange(5), noisy(5), np.nan))
        assert [is_shard_file(path, other, 64) for other in LAYOUTS] == [other is layout for other in LAYOUTS]
    for content in (b"", b"x" * 100):
        path.write_bytes(content)
        assert not any(is_shard_file(path, layout, 64) for layout in LAYOUTS)


def test_a_store_that_another_program_chunked_is_not_written_to(tmp_path: Path) -> None:
    info = create_store(tmp_path / "s.zarr", n_rows=64, shard_stars=64)
    shutil.rmtree(info.path / "mask")
    zarr.open_group(info.path).create_array(
        "mask", shape=(64, N_PIXELS), dtype="int32", chunks=(64, N_PIXELS)
    )
    with pytest.raises(UsageError, match="chunks of another program"):
        fill_shard(info, 0)


@pytest.mark.parametrize("what", ["endian", "index_location", "index_endian", "filter", "block"])
def test_a_store_whose_shards_have_other_bytes_is_not_written_to(tmp_path: Path, what: str) -> None:
    info = create_store(tmp_path / "s.zarr", n_rows=64, shard_stars=64)
    file = info.path / "flux" / "zarr.json"
    metadata = json.loads(file.read_text())
    sharding = metadata["codecs"][0]["configuration"]
    if what == "endian":
        sharding["codecs"][0]["configuration"]["endian"] = "big"
    elif what == "index_endian":
        sharding["index_codecs"][0]["configuration"]["endian"] = "big"
    elif what == "index_location":
        sharding["index_location"] = "start"
    elif what == "filter":
        sharding["codecs"].insert(0, {"name": "transpose", "configuration": {"order": [1, 0]}})
    else:
        sharding["codecs"][1]["configuration"]["blocksize"] = 1 << 16
    file.write_text(json.dumps(metadata))
    with pytest.raises(UsageError, match="chunks of another program"):
        fill_shard(info, 0)


def test_values_of_another_byte_order_are_read_as_what_they_are(tmp_path: Path) -> None:
    info = create_store(tmp_path / "s.zarr", n_rows=64, shard_stars=64)
    for name in ("flux", "err"):
        file = info.path / name / "zarr.json"
        file.write_text(file.read_text().replace('"little"', '"big"', 1))
    fluxes = noisy(64)
    group = zarr.open_group(info.path)
    for name in ("flux", "err", "mask"):
        group[name][:] = fluxes  # type: ignore[index]
    assert '"big"' in (info.path / "flux" / "zarr.json").read_text()
    np.testing.assert_array_equal(read_spectra(info, np.arange(20)).flux, fluxes[:20])


def test_metadata_of_the_other_layout_are_an_error_and_never_wrong_spectra(tmp_path: Path) -> None:
    info = create_store(tmp_path / "s.zarr", n_rows=64, shard_stars=64)
    fill_shard(info, 0)
    other = first_store(tmp_path / "other.zarr", 64, 64)
    shutil.copy(other.path / "flux" / "zarr.json", info.path / "flux" / "zarr.json")
    with pytest.raises(IntegrityError, match="shard 0 of the store is damaged"):
        read_spectra(info, np.arange(20))
