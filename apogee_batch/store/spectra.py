"""The Zarr v3 store of spectra: flux, err, mask and wavelength in whole shards.

A shard is the unit of work: one task writes all its rows in one call per array, because two
writers inside one shard lose rows without any error. Rows that hold no star are NaN, and so is
everything that was never written; a shard file that should be there and is not is an error, never
zeros.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.schema import FloatArray, IntArray
from apogee_batch.store.chunks import CHUNK_STARS, ChunkLayout, find_chunks
from apogee_batch.store.layout import (
    MAX_SHARD_STARS,
    METADATA_FILE,
    STAGING,
    STAR_ARRAYS,
    StoreInfo,
    choose_shard_stars,
    create_store,
    open_group,
    open_store,
    resize_store,
    shard_files,
)
from apogee_batch.store.shard_reader import Rows, read_rows_of_shard
from apogee_batch.store.shard_writer import ShardWriter, write_shard
from apogee_batch.survey.pixels import N_PIXELS

__all__ = [
    "CHUNK_STARS",
    "MAX_SHARD_STARS",
    "METADATA_FILE",
    "STAGING",
    "STAR_ARRAYS",
    "ShardWriter",
    "SpectrumBatch",
    "StoreInfo",
    "choose_shard_stars",
    "create_store",
    "open_store",
    "read_spectra",
    "resize_store",
    "shard_files",
    "write_shard",
]


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
    group = open_group(info.path)
    flux = _read_rows(group, info, "flux", rows)
    err = _read_rows(group, info, "err", rows) if with_err else np.full_like(flux, np.nan)
    return SpectrumBatch(np.asarray(rows), flux, err)


def _read_rows(group: zarr.Group, info: StoreInfo, name: str, rows: IntArray) -> FloatArray:
    """Read rows of one array, shard by shard: from each, what lies between its first and last row."""
    array = cast("zarr.Array[Any]", group[name])
    layout = _known_layout(array)
    rows = np.asarray(rows)
    shards = rows // info.shard_stars
    pieces = [np.empty((0, N_PIXELS), np.float32)]
    for shard in np.unique(shards):
        file = info.path / name / "c" / str(shard) / "0"
        if not file.is_file():
            raise IntegrityError(f"{file}: shard {shard} of the store is missing; ingest again to restore it")
        wanted = rows[shards == shard]
        first, last = int(wanted[0]), int(wanted[-1])
        try:
            block = _read_block(array, layout, info, file, first, last + 1)
        except (ValueError, RuntimeError, OSError) as error:
            raise IntegrityError(f"{file}: shard {shard} of the store is damaged ({error})") from error
        pieces.append(block if len(block) == len(wanted) else block[wanted - first])
    joined = pieces[1] if len(pieces) == 2 else np.concatenate(pieces)  # most want one shard
    # Zarr says "<f4" where the machine means the same by "f4"; native code asks for the second.
    spectra: FloatArray = joined.astype(np.float32, copy=False).view(np.float32)
    if not np.isfinite(spectra).all():
        raise IntegrityError(
            f"{info.path}: {name} of rows that should hold stars is not finite; ingest again"
        )
    return spectra


def _known_layout(array: "zarr.Array[Any]") -> ChunkLayout | None:
    """Return the layout of an array's chunks; None for one that this program does not make."""
    try:
        return find_chunks(array)
    except UsageError:
        return None


def _read_block(
    array: "zarr.Array[Any]", layout: ChunkLayout | None, info: StoreInfo, file: Path, start: int, stop: int
) -> Rows:
    """Read neighbouring rows of one shard; Zarr reads chunks that are not ours."""
    if layout is None:
        return np.asarray(array[start:stop])
    first_row = start // info.shard_stars * info.shard_stars
    return read_rows_of_shard(file, layout, info.shard_stars, start - first_row, stop - first_row)
