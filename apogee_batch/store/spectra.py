"""The Zarr v3 store of spectra: flux, err, mask and wavelength in whole shards.

A shard is the unit of work: one task writes all its rows in one call per array, because two
writers inside one shard lose rows without any error. Rows that hold no star are NaN, and so is
everything that was never written; a shard file that should be there and is not is an error, never
zeros.
"""

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.schema import FloatArray, IntArray, store_arrays, store_version
from apogee_batch.survey.pixels import N_PIXELS, wavelength

CHUNK_STARS = 16  # one star then costs 0.5 MB of flux and as much of err, uncompressed
MAX_SHARD_STARS = 4096  # 140 MB of flux: about 200 files for the stars of DR14
SHARDS_WANTED = 16  # a small survey is cut finer, so that several workers have work
STAR_ARRAYS = ("flux", "err", "mask")
NO_STAR_MASK = -1
FORMAT = "apogee-batch spectra"
MAKE_ONE = "make one with 'apogee-batch ingest SOURCE --store STORE'"


@dataclass(frozen=True)
class StoreInfo:
    """What a store's metadata says.

    Attributes
    ----------
    path : Path
        Folder of the store.
    n_rows : int
        Length of the star axis, rows without a star included.
    shard_stars : int
        Rows of one shard.
    """

    path: Path
    n_rows: int
    shard_stars: int

    @property
    def n_shards(self) -> int:
        """Number of shards, the last one possibly shorter."""
        return -(-self.n_rows // self.shard_stars)

    def shard_rows(self, shard: int) -> tuple[int, int]:
        """Return the first row of a shard and the row after its last."""
        start = shard * self.shard_stars
        return start, min(start + self.shard_stars, self.n_rows)


@dataclass(frozen=True)
class SpectrumBatch:
    """Spectra of some rows of a store.

    Attributes
    ----------
    row : ndarray of int64, shape (n_stars,)
        Rows in the store.
    flux, err : ndarray of float32, shape (n_stars, n_pixels)
        As in apStar, 1e-17 erg/s/cm^2/Angstrom; a pixel without a measurement has 0 and 1e10.
    """

    row: IntArray
    flux: FloatArray
    err: FloatArray

    def __post_init__(self) -> None:
        """Check shapes."""
        shape = (len(self.row), N_PIXELS)
        if self.flux.shape != shape or self.err.shape != shape:
            raise ValueError(f"flux {self.flux.shape} and err {self.err.shape} should be {shape}")


def choose_shard_stars(n_stars: int) -> int:
    """Return the rows of a shard for a survey of `n_stars`: a power of two, a multiple of the chunk."""
    wanted = max(1, n_stars // SHARDS_WANTED)
    power = 1 << (wanted.bit_length() - 1)
    return int(np.clip(power, 4 * CHUNK_STARS, MAX_SHARD_STARS))


def create_store(path: Path, *, n_rows: int, shard_stars: int) -> StoreInfo:
    """Make an empty store; it appears whole or not at all.

    Parameters
    ----------
    path : Path
        Folder to make; must not exist, or be empty.
    n_rows : int
        Length of the star axis.
    shard_stars : int
        Rows of a shard, a multiple of `CHUNK_STARS`.

    Raises
    ------
    UsageError
        If the folder holds something.
    """
    if shard_stars % CHUNK_STARS:
        raise UsageError(f"shard size {shard_stars}: give a multiple of {CHUNK_STARS} stars")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path}: exists and is not a store of spectra; give another --store")
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_empty(temporary, n_rows=n_rows, shard_stars=shard_stars)
        temporary.rename(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be made ({error.strerror}); give another --store") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return StoreInfo(path, n_rows, shard_stars)


def _make_empty(path: Path, *, n_rows: int, shard_stars: int) -> None:
    """Make all groups and arrays of a store that holds no star yet."""
    attributes = {"format": FORMAT, "version": store_version(), "Conventions": "CF-1.11"}
    attributes |= {"title": "APOGEE apStar spectra", "shard_stars": shard_stars}
    group = zarr.create_group(path, zarr_format=3, attributes=attributes)
    for entry in store_arrays():
        _create_array(group, entry, n_rows=n_rows, shard_stars=shard_stars)
    cast("zarr.Array[Any]", group["wavelength"])[:] = wavelength()
    for name in ("tables", "ingest"):  # groups, so that readers of the root do not warn of strange folders
        group.create_group(name)


def _create_array(group: zarr.Group, entry: dict[str, Any], *, n_rows: int, shard_stars: int) -> None:
    """Make one array; the star arrays sharded, every chunk compressed and then checksummed."""
    attributes = {"long_name": entry["description"]} | ({"units": entry["unit"]} if entry["unit"] else {})
    per_star = entry["dims"][0] == "star"
    shape = (n_rows, N_PIXELS) if per_star else (N_PIXELS,)
    compressor = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
    group.create_array(
        entry["name"],
        shape=shape,
        dtype=entry["dtype"],
        chunks=(CHUNK_STARS, N_PIXELS) if per_star else shape,
        shards=(shard_stars, N_PIXELS) if per_star else None,
        compressors=[compressor, Crc32cCodec()],
        fill_value=NO_STAR_MASK if entry["dtype"] == "int32" else np.nan,
        dimension_names=entry["dims"],
        attributes=attributes,
    )


def open_store(path: Path) -> StoreInfo:
    """Read what a store says of itself.

    Raises
    ------
    UsageError
        If `path` is not a store of this program, or of another version.
    """
    group = _open_group(path)
    attributes = group.attrs.asdict()
    if attributes.get("format") != FORMAT:
        raise UsageError(f"{path}: not a store of spectra; {MAKE_ONE}")
    if attributes.get("version") != store_version():
        found, known = attributes.get("version"), store_version()
        raise UsageError(f"{path}: store format {found}, this version reads {known}; ingest again")
    if missing := [name for name in STAR_ARRAYS if name not in group]:
        raise IntegrityError(f"{path}: has lost its arrays {', '.join(missing)}; ingest into a new store")
    flux = cast("zarr.Array[Any]", group["flux"])
    return StoreInfo(path, int(flux.shape[0]), int(cast("int", attributes["shard_stars"])))


def _open_group(path: Path, mode: str = "r") -> zarr.Group:
    """Open the root group, without looking for metadata that is not in the v3 specification."""
    if not path.exists():
        raise UsageError(f"{path}: no such store; {MAKE_ONE}")
    if not (path / "zarr.json").is_file():
        raise UsageError(f"{path}: not a store of spectra (it has no zarr.json); {MAKE_ONE}")
    try:
        return zarr.open_group(path, mode=cast("Any", mode), zarr_format=3, use_consolidated=False)
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise UsageError(f"{path}: not a store of spectra ({error}); {MAKE_ONE}") from error


def extend_store(path: Path, *, n_rows: int) -> StoreInfo:
    """Lengthen the star axis; nothing that is written moves or changes.

    New stars begin at a shard boundary, so no written shard is ever written again.
    """
    group = _open_group(path, "r+")
    for name in STAR_ARRAYS:
        array = cast("zarr.Array[Any]", group[name])
        if array.shape[0] < n_rows:
            array.resize((n_rows, N_PIXELS))
    return open_store(path)


def shard_files(path: Path, shard: int) -> list[Path]:
    """Return the files of a shard, one for each star array."""
    return [path / name / "c" / str(shard) / "0" for name in STAR_ARRAYS]


def write_shard(
    info: StoreInfo, shard: int, *, offset: IntArray, flux: FloatArray, err: FloatArray, mask: IntArray
) -> list[Path]:
    """Write all rows of one shard, in one call per array.

    Parameters
    ----------
    info : StoreInfo
        The store.
    shard : int
        Number of the shard.
    offset : ndarray of int, shape (n_stars,)
        Row of each star counted from the shard's first row.
    flux, err : ndarray of float32, shape (n_stars, n_pixels)
        Spectra; the other rows of the shard become NaN.
    mask : ndarray of int32, shape (n_stars, n_pixels)
        Pixel mask.

    Returns
    -------
    list of Path
        The files written, flushed to the disk.
    """
    group = _open_group(info.path, "r+")
    start, stop = info.shard_rows(shard)
    for name, values in zip(STAR_ARRAYS, (flux, err, mask), strict=True):
        array = cast("zarr.Array[Any]", group[name]).with_config({"write_empty_chunks": True})
        rows = np.full((stop - start, N_PIXELS), array.fill_value, array.dtype)
        rows[offset] = values
        # zarr merges with an old last shard, damaged or not, since the array covers it in part only
        (info.path / name / "c" / str(shard) / "0").unlink(missing_ok=True)
        array[start:stop] = rows
    written = shard_files(info.path, shard)
    for file in written:
        _flush_file(file)
    return written


def _flush_file(path: Path) -> None:
    """Force a file and its name to the disk; zarr renames into place but does not flush."""
    for target in (path, path.parent):
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_spectra(info: StoreInfo, rows: IntArray, *, with_err: bool = True) -> SpectrumBatch:
    """Read spectra of some rows, which must lie in ascending order.

    Parameters
    ----------
    info : StoreInfo
        The store.
    rows : ndarray of int, shape (n_stars,)
        Rows, ascending.
    with_err : bool
        Whether to read `err`; without it, `err` is filled with NaN (training needs none).

    Raises
    ------
    IntegrityError
        If a shard is missing or damaged; the message names it.
    """
    group = _open_group(info.path)
    flux = _read_rows(group, info, "flux", rows)
    err = _read_rows(group, info, "err", rows) if with_err else np.full_like(flux, np.nan)
    return SpectrumBatch(np.asarray(rows), flux, err)


def _read_rows(group: zarr.Group, info: StoreInfo, name: str, rows: IntArray) -> FloatArray:
    """Read rows of one array, shard by shard: from each, what lies between its first and last row."""
    array = cast("zarr.Array[Any]", group[name])
    out = np.empty((len(rows), N_PIXELS), np.float32)
    shards = np.asarray(rows) // info.shard_stars
    for shard in np.unique(shards):
        file = info.path / name / "c" / str(shard) / "0"
        if not file.is_file():
            raise IntegrityError(f"{file}: shard {shard} of the store is missing; ingest again to restore it")
        chosen = np.flatnonzero(shards == shard)
        first, last = int(rows[chosen[0]]), int(rows[chosen[-1]])
        try:
            block = np.asarray(array[first : last + 1])
        except (ValueError, RuntimeError, OSError) as error:
            raise IntegrityError(f"{file}: shard {shard} of the store is damaged ({error})") from error
        out[chosen] = block[np.asarray(rows)[chosen] - first]
    if not np.isfinite(out).all():
        raise IntegrityError(
            f"{info.path}: {name} of rows that should hold stars is not finite; ingest again"
        )
    return out
