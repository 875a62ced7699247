"""Writing the shards of a store: compressed and on its way to the disk while the next rows are still read."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
import zarr

from apogee_batch.files import FileDigest
from apogee_batch.schema import FloatArray, IntArray
from apogee_batch.store.chunks import ShardEncoder, Values, find_chunks
from apogee_batch.store.layout import STAGING, STAR_ARRAYS, StoreInfo, open_group
from apogee_batch.streams import StagedFile, replace_on_success

START_BYTES = 1 << 20  # what is sent to the disk at a time, meanwhile; the end has to wait for the rest


class _GivenUpError(Exception):
    """Ends the files of a shard that something else ended."""


class _ArrayFile:
    """The file of one array: what was written of it, and of how many rows."""

    def __init__(self, path: Path, encoder: ShardEncoder, values: Values, file: StagedFile) -> None:
        self._path, self._encoder, self._values, self._file = path, encoder, values, file
        self._row = 0  # of the shard: the first of the next chunk
        self._star = 0  # of the values, the same
        self._started = 0

    @property
    def next_row(self) -> int:
        """The row after those of the next chunk."""
        return self._row + self._encoder.n_stars

    def write_chunks(self, offset: Sequence[int], stop: int) -> None:
        """Write the chunks that end before a row, and start them on their way to the disk."""
        while self.next_row <= stop:
            last = int(np.searchsorted(offset[self._star :], self.next_row)) + self._star
            places = np.array(offset[self._star : last], np.int32) - np.int32(self._row)
            for piece in self._encoder.encode_chunk(places, self._values[self._star : last]):
                self._write(piece)
            self._row, self._star = self.next_row, last
        if self._file.tell() - self._started >= START_BYTES:
            self._file.start_flush(self._started)
            self._started = self._file.tell()

    def write_index(self) -> None:
        """Write what ends the file."""
        self._write(self._encoder.encode_index())

    def _write(self, content: bytes) -> None:
        try:
            self._file.write(content)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


class ShardWriter:
    """Write all rows of one shard: each array's file is replaced whole, or not at all.

    To be used in a `with`; the files are there when it ends without an error. A shard is encoded here, with
    the chunks that its store has, because zarr would merge it with what lies there, damaged or not. The bytes
    do not depend on where it lies, nor on when its rows came.

    Parameters
    ----------
    info : StoreInfo
        The store.
    shard : int
        Number of the shard.
    flux, err : ndarray of float32, shape (n_stars, n_pixels)
        Spectra, which the caller fills, one after the other; no longer to be changed once they are added.
    mask : ndarray of int32, shape (n_stars, n_pixels)
        Pixel mask, likewise.

    Attributes
    ----------
    written : list of FileDigest
        The files, flushed to the disk: after the block.
    """

    def __init__(
        self, info: StoreInfo, shard: int, *, flux: FloatArray, err: FloatArray, mask: IntArray
    ) -> None:
        self.written: list[FileDigest] = []
        self._info, self._shard = info, shard
        self._values: dict[str, Values] = dict(zip(STAR_ARRAYS, (flux, err, mask), strict=True))
        self._offset: list[int] = []
        self._at_work: list[Future[None]] = []
        self._stack = ExitStack()

    def __enter__(self) -> "ShardWriter":
        """Begin the files, which nobody sees yet."""
        group, staging = open_group(self._info.path), self._info.path / STAGING
        self._files: list[_ArrayFile] = []
        self._staged: list[StagedFile] = []
        with self._stack:
            for name in reversed(STAR_ARRAYS):  # what is begun last is finished first
                array = cast("zarr.Array[Any]", group[name])
                path = self._info.path / name / "c" / str(self._shard) / "0"
                values, fill = self._values[name], cast("float", array.fill_value)
                encoder = ShardEncoder(find_chunks(array), values.dtype, fill)
                self._staged.insert(0, self._stack.enter_context(replace_on_success(path, staging=staging)))
                self._files.insert(0, _ArrayFile(path, encoder, values, self._staged[0]))
            self._stack = self._stack.pop_all()
        self._chunk_stars = self._next_row = min(file.next_row for file in self._files)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shard")
        return self

    def add(self, offset: int) -> None:
        """Take the next row of the arrays.

        Parameters
        ----------
        offset : int
            Where it belongs, counted from the shard's first row.

        Raises
        ------
        ValueError
            If the rows do not ascend: two of a row would be taken for neighbours.
        OSError
            If what was added before cannot be written.
        """
        if offset <= (self._offset[-1] if self._offset else -1) or offset >= self._info.shard_stars:
            raise ValueError("the rows of a shard must ascend, each once")
        if offset >= self._next_row:
            self._write_until(offset)
            self._next_row = (offset // self._chunk_stars + 1) * self._chunk_stars
        self._offset.append(offset)

    def _write_until(self, stop: int) -> None:
        """Let the thread write what lies before a row, unless what it did before has failed."""
        for future in self._at_work:
            if future.done():
                future.result()
        offset = list(self._offset)
        self._at_work += [self._thread.submit(file.write_chunks, offset, stop) for file in self._files]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the files their names, or remove what there is of them."""
        try:
            if error is None:
                self._finish()
        except BaseException:
            self._give_up()
            raise
        if error is not None:
            self._give_up()
            return
        self._stack.close()
        self.written = [cast("FileDigest", file.digest) for file in self._staged]

    def _finish(self) -> None:
        """Wait until all is written."""
        self._write_until(self._info.shard_stars)
        self._at_work += [self._thread.submit(file.write_index) for file in self._files]
        for future in self._at_work:
            future.result()
        self._thread.shutdown()

    def _give_up(self) -> None:
        """Remove what there is of the files."""
        self._thread.shutdown(cancel_futures=True)
        with suppress(
            _GivenUpError
        ):  # what ended the shard is no fault of these files, and not for them to tell
            self._stack.__exit__(_GivenUpError, _GivenUpError(), None)


def write_shard(
    info: StoreInfo, shard: int, *, offset: IntArray, flux: FloatArray, err: FloatArray, mask: IntArray
) -> list[FileDigest]:
    """Write all rows of one shard at once; see `ShardWriter`.

    Parameters
    ----------
    info : StoreInfo
        The store.
    shard : int
        Number of the shard.
    offset : ndarray of int, shape (n_stars,)
        Row of each star counted from the shard's first row, ascending.
    flux, err : ndarray of float32, shape (n_stars, n_pixels)
        Spectra; the other rows of the shard become NaN.
    mask : ndarray of int32, shape (n_stars, n_pixels)
        Pixel mask.

    Returns
    -------
    list of FileDigest
        The files written, flushed to the disk.
    """
    with ShardWriter(info, shard, flux=flux, err=err, mask=mask) as writer:
        for row in offset.tolist():
            writer.add(row)
    return writer.written
