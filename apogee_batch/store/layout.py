"""How a store is laid out: its arrays, the size of its shards, making and opening it."""

import errno
import re
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import flush_file
from apogee_batch.schema import store_arrays, store_version
from apogee_batch.store.chunks import CHUNK_STARS, FIRST_LAYOUT, LEAST_CHUNK_STARS, ChunkLayout, choose_chunks
from apogee_batch.survey.pixels import N_PIXELS, wavelength

MAX_SHARD_STARS = 4096  # 140 MB of flux: about 200 files for the stars of DR14
SHARDS_WANTED = 32  # a small survey is cut finer, so that 16 workers have two shards each, or more
METADATA_FILE = "zarr.json"
STAR_ARRAYS = ("flux", "err", "mask")
NO_STAR_MASK = -1
STAGING = "ingest/staging"  # not in the root, whose readers wonder at folders that Zarr does not know
FORMAT = "apogee-batch spectra"
CANNOT_BE_HERE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
)
MEND = "any 'apogee-batch ingest' command of this store writes it again"
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


def choose_shard_stars(n_stars: int) -> int:
    """Return the rows of a shard for a survey of `n_stars`: a power of two, one chunk or more."""
    wanted = max(1, n_stars // SHARDS_WANTED)
    power = 1 << (wanted.bit_length() - 1)
    return int(np.clip(power, CHUNK_STARS, MAX_SHARD_STARS))


def create_store(path: Path, *, n_rows: int, shard_stars: int) -> StoreInfo:
    """Make an empty store; it appears whole or not at all.

    Parameters
    ----------
    path : Path
        Folder to make; must not exist, or be empty.
    n_rows : int
        Length of the star axis.
    shard_stars : int
        Rows of a shard, a multiple of `LEAST_CHUNK_STARS`.

    Raises
    ------
    UsageError
        If the folder holds something.
    """
    if shard_stars % LEAST_CHUNK_STARS:
        raise UsageError(f"shard size {shard_stars}: give a multiple of {LEAST_CHUNK_STARS} stars")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path}: exists and is not a store of spectra; give another --store")
    _remove_leftovers(path)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        make_empty(temporary, n_rows=n_rows, shard_stars=shard_stars)
        made = [file for file in sorted(temporary.rglob("*")) if file.is_file()]
        with ThreadPoolExecutor(len(made)) as pool:  # at once: the disk then takes them together
            list(pool.map(flush_file, made))
        temporary.rename(path)
        flush_file(path)
    except OSError as error:
        if error.errno in CANNOT_BE_HERE:
            raise UsageError(f"{path}: cannot be made ({error.strerror}); give another --store") from error
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk can be mended
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return StoreInfo(path, n_rows, shard_stars)


def _remove_leftovers(path: Path) -> None:
    """Remove what processes have left that were killed while they made this store, and no other."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{32}}\.partial")
    with suppress(OSError):  # there is no folder yet, or it cannot be listed, which harms nothing
        for leftover in path.parent.iterdir():
            if ours.fullmatch(leftover.name):
                shutil.rmtree(leftover, ignore_errors=True)


def make_empty(path: Any, *, n_rows: int, shard_stars: int, chunks: ChunkLayout | None = None) -> None:
    """Make all groups and arrays of a store that holds no star yet, in a folder or in Zarr's memory.

    Its chunks are those of a new store unless others are given.
    """
    attributes = {"format": FORMAT, "version": store_version(), "Conventions": "CF-1.11"}
    attributes |= {"title": "APOGEE apStar spectra", "shard_stars": shard_stars}
    group = zarr.create_group(path, zarr_format=3, attributes=attributes)
    for entry in store_arrays():
        _create_array(group, entry, n_rows, shard_stars, chunks or choose_chunks(shard_stars))
    cast("zarr.Array[Any]", group["wavelength"])[:] = wavelength()
    for name in ("tables", "ingest"):  # groups, so that readers of the root do not warn of strange folders
        group.create_group(name)


def _create_array(
    group: zarr.Group, entry: dict[str, Any], n_rows: int, shard_stars: int, chunks: ChunkLayout
) -> None:
    """Make one array; the star arrays sharded, every chunk compressed and then checksummed."""
    attributes = {"long_name": entry["description"]} | ({"units": entry["unit"]} if entry["unit"] else {})
    per_star = entry["dims"][0] == "star"
    shape = (n_rows, N_PIXELS) if per_star else (N_PIXELS,)
    group.create_array(
        entry["name"],
        shape=shape,
        dtype=entry["dtype"],
        chunks=(chunks.n_stars, N_PIXELS) if per_star else shape,
        shards=(shard_stars, N_PIXELS) if per_star else None,
        compressors=(chunks if per_star else FIRST_LAYOUT).codecs(),
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
    try:
        return _read_info(path)
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise IntegrityError(f"{path}: one of its {METADATA_FILE} is damaged ({error}); {MEND}") from error


def _read_info(path: Path) -> StoreInfo:
    group = open_group(path)
    attributes = group.attrs.asdict()
    if attributes.get("format") != FORMAT:
        raise UsageError(f"{path}: not a store of spectra; {MAKE_ONE}")
    if attributes.get("version") != store_version():
        found, known = attributes.get("version"), store_version()
        raise UsageError(f"{path}: store format {found}, this version reads {known}; ingest again")
    if missing := [name for name in STAR_ARRAYS if name not in group]:
        raise IntegrityError(
            f"{path}: the {METADATA_FILE} of its arrays {', '.join(missing)} is missing or damaged; {MEND}"
        )
    flux = cast("zarr.Array[Any]", group["flux"])
    return StoreInfo(path, int(flux.shape[0]), int(cast("int", attributes["shard_stars"])))


def open_group(path: Path, mode: str = "r") -> zarr.Group:
    """Open the root group, without looking for metadata that is not in the v3 specification."""
    if not path.exists():
        raise UsageError(f"{path}: no such store; {MAKE_ONE}")
    if not (path / "zarr.json").is_file():
        raise UsageError(f"{path}: not a store of spectra (it has no zarr.json); {MAKE_ONE}")
    try:
        return zarr.open_group(path, mode=cast("Any", mode), zarr_format=3, use_consolidated=False)
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise UsageError(
            f"{path / METADATA_FILE}: is damaged, or not of a store of spectra ({error}); {MEND}"
        ) from error


def resize_store(path: Path, *, n_rows: int) -> StoreInfo:
    """Set the length of the star axis; what lies within it does not move or change.

    New stars begin at a shard boundary, so no written shard is ever written again.
    """
    group = open_group(path, "r+")
    for name in STAR_ARRAYS:
        array = cast("zarr.Array[Any]", group[name])
        if array.shape[0] == n_rows:
            continue
        file = path / name / METADATA_FILE
        try:
            array.resize((n_rows, N_PIXELS))
            flush_file(file)
        except OSError as error:  # Zarr's do not say which file
            raise OSError(error.errno, error.strerror, str(file)) from error
    return open_store(path)


def shard_files(path: Path, shard: int) -> list[Path]:
    """Return the files of a shard, one for each star array."""
    return [path / name / "c" / str(shard) / "0" for name in STAR_ARRAYS]
