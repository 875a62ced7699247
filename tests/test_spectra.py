"""The store: whole shards, checksums, and nothing read as zeros."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.store.spectra import (
    CHUNK_STARS,
    MAX_SHARD_STARS,
    SpectrumBatch,
    StoreInfo,
    choose_shard_stars,
    create_store,
    open_store,
    read_spectra,
    resize_store,
    shard_files,
    write_shard,
)
from apogee_batch.survey.pixels import N_PIXELS

SHARD = 2 * CHUNK_STARS


@pytest.fixture
def store(tmp_path: Path) -> StoreInfo:
    return create_store(tmp_path / "s.zarr", n_rows=SHARD + 5, shard_stars=SHARD)


def fill(info: StoreInfo, shard: int, offset: list[int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    flux = rng.normal(1000, 30, (len(offset), N_PIXELS)).astype(np.float32)
    err = np.full_like(flux, 7)
    mask = np.zeros(flux.shape, np.int32)
    write_shard(info, shard, offset=np.array(offset, np.int32), flux=flux, err=err, mask=mask)
    return flux


def test_what_is_written_comes_back(store: StoreInfo) -> None:
    first, second = fill(store, 0, [0, 3, 31]), fill(store, 1, [4], seed=1)
    batch = read_spectra(store, np.array([0, 31, SHARD + 4]))
    np.testing.assert_array_equal(batch.flux, np.stack([first[0], first[2], second[0]]))
    assert (batch.err == 7).all()


@pytest.mark.parametrize("rows", [[], [2], [0, 1, 2], [0, 2, 5], [5, SHARD], [0, 1, SHARD + 3, SHARD + 4]])
def test_any_ascending_rows_are_read(store: StoreInfo, rows: list[int]) -> None:
    flux = np.concatenate([fill(store, 0, list(range(SHARD))), fill(store, 1, list(range(5)), seed=1)])
    batch = read_spectra(store, np.array(rows, np.int64))
    np.testing.assert_array_equal(batch.flux, flux[rows])
    assert batch.err.shape == (len(rows), N_PIXELS)
    assert memoryview(batch.flux).format == memoryview(batch.err).format == "f"


def test_training_reads_flux_alone(store: StoreInfo) -> None:
    fill(store, 0, [0])
    assert np.isnan(read_spectra(store, np.array([0]), with_err=False).err).all()


def test_rows_without_a_star_are_nan_and_refused(store: StoreInfo) -> None:
    fill(store, 0, [0, 2])
    assert np.isnan(zarr.open_group(store.path, mode="r")["flux"][1]).all()
    with pytest.raises(IntegrityError, match="not finite"):
        read_spectra(store, np.array([0, 1]))


def test_a_missing_shard_is_named_and_never_read_as_zeros(store: StoreInfo) -> None:
    fill(store, 0, [0])
    with pytest.raises(IntegrityError, match="shard 1 of the store is missing"):
        read_spectra(store, np.array([0, SHARD]))


@pytest.mark.parametrize("name", ["flux", "err"])
def test_a_flipped_bit_is_noticed(store: StoreInfo, name: str) -> None:
    fill(store, 0, list(range(SHARD)))
    path = store.path / name / "c" / "0" / "0"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 3] ^= 16
    path.write_bytes(damaged)
    with pytest.raises(IntegrityError, match="shard 0 of the store is damaged"):
        read_spectra(store, np.arange(SHARD))


def test_the_same_stars_give_the_same_bytes(tmp_path: Path) -> None:
    bytes_of = []
    for name in ("a", "b"):
        info = create_store(tmp_path / name, n_rows=SHARD, shard_stars=SHARD)
        fill(info, 0, [1, 2])
        bytes_of.append([path.read_bytes() for path in shard_files(info.path, 0)])
    assert bytes_of[0] == bytes_of[1]


def test_a_shard_of_all_zero_masks_is_written_too(store: StoreInfo) -> None:
    fill(store, 0, [])
    assert all(path.is_file() for path in shard_files(store.path, 0))


def test_appending_does_not_touch_what_is_written(store: StoreInfo) -> None:
    flux = fill(store, 0, [0])
    before = [path.read_bytes() for path in shard_files(store.path, 0)]
    longer = resize_store(store.path, n_rows=3 * SHARD)
    assert (longer.n_rows, longer.n_shards) == (3 * SHARD, 3)
    fill(longer, 2, [0], seed=2)
    assert [path.read_bytes() for path in shard_files(store.path, 0)] == before
    np.testing.assert_array_equal(read_spectra(longer, np.array([0])).flux, flux)


def test_a_shorter_axis_loses_the_shards_beyond_it(store: StoreInfo) -> None:
    fill(store, 0, [0])
    fill(store, 1, [0], seed=1)
    assert resize_store(store.path, n_rows=SHARD).n_shards == 1
    assert [path.exists() for path in shard_files(store.path, 1)] == [False, False, False]
    assert all(path.exists() for path in shard_files(store.path, 0))


def test_the_bytes_of_a_shard_do_not_depend_on_its_place(store: StoreInfo) -> None:
    fill(store, 0, [0, 4])
    fill(store, 1, [0, 4])
    for first, last in zip(shard_files(store.path, 0), shard_files(store.path, 1), strict=True):
        assert first.read_bytes() == last.read_bytes()


def test_xarray_shows_stars_and_wavelengths_without_a_warning(store: StoreInfo) -> None:
    fill(store, 0, [0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xr.open_zarr(store.path, consolidated=False)
    assert dataset.sizes == {"star": SHARD + 5, "wavelength": N_PIXELS}
    assert set(dataset.data_vars) == {"flux", "err", "mask"}
    assert dataset["flux"].attrs["units"] == "1e-17 erg s-1 cm-2 Angstrom-1"
    assert dataset["wavelength"].dtype == np.float64
    np.testing.assert_allclose(dataset["wavelength"][[0, -1]], [15100.802, 16999.808], atol=1e-3)


def test_one_star_costs_a_chunk_of_two_megabytes(store: StoreInfo) -> None:
    array = zarr.open_group(store.path, mode="r")["flux"]
    assert array.chunks == (CHUNK_STARS, N_PIXELS)
    assert np.prod(array.chunks) * 4 < 2.3e6


@pytest.mark.parametrize(("n_stars", "shard"), [(1, 64), (1200, 64), (5000, 128), (263_000, MAX_SHARD_STARS)])
def test_shards_fit_the_survey(n_stars: int, shard: int) -> None:
    assert choose_shard_stars(n_stars) == shard


def test_what_is_no_store_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such store"):
        open_store(tmp_path / "nothing")
    with pytest.raises(UsageError, match="not a store"):
        open_store(tmp_path)
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(UsageError, match="not a store of spectra"):
        open_store(tmp_path / "other.zarr")
    zarr.create_group(tmp_path / "new.zarr", attributes={"format": "apogee-batch spectra", "version": 99})
    with pytest.raises(UsageError, match="store format 99"):
        open_store(tmp_path / "new.zarr")
    (tmp_path / "new.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": ')
    with pytest.raises(UsageError, match=r"zarr\.json: is damaged, or not of a store"):
        open_store(tmp_path / "new.zarr")


def test_a_lost_array_is_named(store: StoreInfo) -> None:
    shutil.rmtree(store.path / "err")
    with pytest.raises(
        IntegrityError, match=r"zarr\.json of its arrays err is missing or damaged; any 'apogee-batch ingest'"
    ):
        open_store(store.path)


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be made"):
        create_store(tmp_path / "file" / "s.zarr", n_rows=1, shard_stars=SHARD)


def test_a_damaged_last_shard_can_be_written_again(store: StoreInfo) -> None:
    flux = fill(store, 1, [0, 4])
    path = shard_files(store.path, 1)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    fill(store, 1, [0, 4])
    assert path.read_bytes() == whole
    np.testing.assert_array_equal(read_spectra(store, np.array([SHARD, SHARD + 4])).flux, flux)


def test_a_folder_with_other_things_is_not_made_a_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="exists and is not a store"):
        create_store(tmp_path, n_rows=1, shard_stars=SHARD)
    with pytest.raises(UsageError, match="multiple of 16"):
        create_store(tmp_path / "s", n_rows=1, shard_stars=17)


def test_a_batch_has_matching_shapes() -> None:
    with pytest.raises(ValueError, match="should be"):
        SpectrumBatch(np.arange(2), np.zeros((2, 10), np.float32), np.zeros((2, 10), np.float32))
