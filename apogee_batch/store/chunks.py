"""How the chunks of a shard are compressed, and the bytes of a shard file.

Each array of a store names its own chunks in its metadata, so stores of earlier layouts are read, and written
to, as they are.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec

from apogee_batch.errors import UsageError
from apogee_batch.schema import IntArray

CHUNK_STARS = 64  # 2.2 MB of flux: larger ones are read no faster, and cost more for a single star
LEAST_CHUNK_STARS = 16  # of a shard that is no multiple of 64
CHECKSUM_BYTES = 4
PLACE_BYTES = 16  # offset and length of a chunk in the index at the end of a shard
BLOSC_FLAGS_AT = 2  # byte of a Blosc frame whose upper three bits tell the compressor
BLOSC_FORMAT_SHIFT = 5
BLOSC_FORMATS = {"lz4": 1, "zstd": 4}

Values = npt.NDArray[Any]


@dataclass(frozen=True)
class ChunkLayout:
    """The chunks of the star arrays: Blosc with a byte shuffle, then a CRC-32C.

    Attributes
    ----------
    n_stars : int
        Rows of a chunk.
    compressor : {"lz4", "zstd"}
        Inside Blosc.
    level : int
        Of compression, 1 to 9.
    """

    n_stars: int
    compressor: Literal["lz4", "zstd"]
    level: int

    def codecs(self, itemsize: int | None = None) -> list[Any]:
        """Return the codecs as Zarr names them; what it leaves out it takes from the values."""
        blosc = BloscCodec(typesize=itemsize, cname=self.compressor, clevel=self.level, shuffle="shuffle")
        return [blosc, Crc32cCodec()]

    def sharding(self, shape: tuple[int, ...], itemsize: int) -> ShardingCodec:
        """Return all that decides the bytes of a shard with chunks of some shape: little-endian ones."""
        values = BytesCodec(endian="little")
        return ShardingCodec(
            chunk_shape=shape,
            codecs=[values, *self.codecs(itemsize)],
            index_codecs=[values, Crc32cCodec()],
            index_location="end",
        )


FIRST_LAYOUT = ChunkLayout(16, "zstd", 3)
"""That of the first stores."""


def choose_chunks(shard_stars: int) -> ChunkLayout:
    """Return the layout of a new store.

    The mantissas of a spectrum are noise, which zstd takes ten times as long as lz4 to make 5 % smaller.
    """
    return ChunkLayout(math.gcd(shard_stars, CHUNK_STARS), "lz4", 5)


def known_layouts(shard_stars: int) -> tuple[ChunkLayout, ...]:
    """Return the layouts that a store of such shards may have, the newest first."""
    return choose_chunks(shard_stars), FIRST_LAYOUT


def find_chunks(array: "zarr.Array[Any]") -> ChunkLayout:
    """Return the layout that an array names.

    Raises
    ------
    UsageError
        For one that this program does not make.
    """
    codecs = [cast("Any", codec).to_dict() for codec in array.compressors]
    named = codecs[0].get("configuration", {}) if codecs else {}
    layout = ChunkLayout(array.chunks[0], named.get("cname", "lz4"), named.get("clevel", 0))
    found = [codec.to_dict() for codec in getattr(array.metadata, "codecs", ())]
    if found != [layout.sharding(array.chunks, array.dtype.itemsize).to_dict()]:
        raise UsageError(f"{array.store_path}: has chunks of another program; ingest into a new store")
    return layout


class ShardEncoder:
    """The bytes of a shard file, chunk after chunk: those that Zarr would write, in a third of its time.

    Chunks are to be encoded outside the main thread, where Blosc would compress with threads of its own,
    which give other bytes each time.

    Parameters
    ----------
    layout : ChunkLayout
        Of the array.
    dtype : dtype
        Of its values, four bytes each.
    fill : float
        Value of rows that hold no star.
    """

    def __init__(self, layout: ChunkLayout, dtype: np.dtype[Any], fill: float) -> None:
        self.n_stars = layout.n_stars
        self._dtype, self._fill = dtype, fill
        self._codec = Blosc(layout.compressor, layout.level, Blosc.SHUFFLE, typesize=dtype.itemsize)
        self._places: list[tuple[int, int]] = []
        self._at = 0

    def encode_chunk(self, offset: IntArray, values: Values) -> tuple[bytes, bytes]:
        """Return the bytes of the next chunk, and the checksum that follows them.

        Parameters
        ----------
        offset : ndarray of int, shape (n_stars,)
            Row of each star counted from the chunk's first row, ascending.
        values : ndarray, shape (n_stars, n_pixels)
            Of these rows.
        """
        chunk = np.ascontiguousarray(values)
        if len(offset) < self.n_stars:
            chunk = np.full((self.n_stars, values.shape[1]), self._fill, self._dtype)
            chunk[offset] = values
        packed: bytes = self._codec.encode(chunk)
        self._places.append((self._at, len(packed) + CHECKSUM_BYTES))
        self._at += len(packed) + CHECKSUM_BYTES
        return packed, _checksum(packed)

    def encode_index(self) -> bytes:
        """Return what follows the last chunk: where each lies."""
        index = np.array(self._places, "<u8").tobytes()
        return index + _checksum(index)


def _checksum(content: bytes) -> bytes:
    """Return the CRC-32C of some bytes as Zarr writes it."""
    return struct.pack("<I", google_crc32c.value(content))


def is_shard_file(path: Path, layout: ChunkLayout, shard_stars: int) -> bool:
    """Tell whether a shard file seems to have the chunks of a layout: as many, of its compressor."""
    index_bytes = shard_stars // layout.n_stars * PLACE_BYTES + CHECKSUM_BYTES
    with path.open("rb") as file:
        start = file.read(BLOSC_FLAGS_AT + 1)
        file.seek(max(0, path.stat().st_size - index_bytes))
        index = file.read()
    if len(start) <= BLOSC_FLAGS_AT or len(index) != index_bytes:
        return False
    is_compressor = start[BLOSC_FLAGS_AT] >> BLOSC_FORMAT_SHIFT == BLOSC_FORMATS[layout.compressor]
    return is_compressor and _checksum(index[:-CHECKSUM_BYTES]) == index[-CHECKSUM_BYTES:]
