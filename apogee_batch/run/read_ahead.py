"""Read the next spectra while the last ones are being computed on."""

import dataclasses
from collections.abc import Callable, Generator
from functools import partial
from typing import TypeVar, overload

from apogee_batch.ahead import map_ahead
from apogee_batch.inference.device_copies import pin
from apogee_batch.inference.engines import StarBatch
from apogee_batch.schema import IntArray
from apogee_batch.store.spectra import SpectrumBatch, StoreInfo, read_spectra

THREAD_NAME = "read-ahead"
T = TypeVar("T", SpectrumBatch, StarBatch)


@overload
def read_ahead(
    info: StoreInfo, rows: IntArray, batch_stars: int, *, pinned: bool = ..., n_threads: int = ...
) -> Generator[SpectrumBatch, None, None]: ...


@overload
def read_ahead(
    info: StoreInfo,
    rows: IntArray,
    batch_stars: int,
    *,
    pinned: bool = ...,
    n_threads: int = ...,
    prepare: Callable[[SpectrumBatch], T],
) -> Generator[T, None, None]: ...


def read_ahead(
    info: StoreInfo,
    rows: IntArray,
    batch_stars: int,
    *,
    pinned: bool = False,
    n_threads: int = 1,
    prepare: Callable[[SpectrumBatch], T] | None = None,
) -> Generator[SpectrumBatch | T, None, None]:
    """Read spectra in batches, in threads that are together a few batches ahead; see `map_ahead`.

    Put the generator into `contextlib.closing`: the threads then end with the use of it.

    Parameters
    ----------
    info : StoreInfo
        The store.
    rows : ndarray of int, shape (n_stars,)
        Rows, ascending.
    batch_stars : int
        Stars of a batch; the last may have fewer. Multiples of the store's chunk read nothing twice.
    pinned : bool
        Whether what is yielded lies in memory from which a GPU copies by itself; needs CUDA.
    n_threads : int
        How many batches are read at the same time.
    prepare : callable, optional
        Makes of each batch, in its thread, what is yielded in its stead.

    Yields
    ------
    SpectrumBatch, or what `prepare` returned
        In the order of the rows.

    Raises
    ------
    IntegrityError
        If a shard is missing or damaged; raised as the batch is asked for.
    """
    read = partial(_read, info, pinned=pinned, prepare=prepare)
    parts = (rows[start : start + batch_stars] for start in range(0, len(rows), batch_stars))
    return map_ahead(read, parts, thread_name=THREAD_NAME, n_threads=n_threads)


def _read(
    info: StoreInfo, rows: IntArray, *, pinned: bool, prepare: Callable[[SpectrumBatch], T] | None
) -> SpectrumBatch | T:
    """Read a batch and do with it what is to be done beforehand."""
    batch = read_spectra(info, rows)
    if prepare is None:
        return _pin(batch) if pinned else batch
    prepared = prepare(batch)
    return _pin(prepared) if pinned else prepared  # after it: arrays that it replaced need not be copied


def _pin(batch: T) -> T:
    """Copy spectra into memory from which a GPU copies by itself."""
    return dataclasses.replace(batch, flux=pin(batch.flux), err=pin(batch.err))
