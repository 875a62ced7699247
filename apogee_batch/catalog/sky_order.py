"""The order of a published catalogue: by position in the sky, in memory that grows by 40 bytes a star.

Neighbours in the sky are neighbours in the file: who wants a field of the sky reads a small part of it.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy import units as u
from astropy_healpix import lonlat_to_healpix

from apogee_batch.catalog.rows import PIECE_ROWS, ROW_GROUP_ROWS, CatalogRows
from apogee_batch.errors import IntegrityError
from apogee_batch.files import make_folder
from apogee_batch.schema import DoubleArray, arrow_schema

HEALPIX_ORDER = 29  # the finest whose index fits into 64 bits: 0.4 milliarcseconds
ORDER_WORDS = (
    f"HEALPix index (order {HEALPIX_ORDER}, nested) of ra and dec; rows without a position last; "
    "equal ones as in the store"
)
NOWHERE = np.iinfo(np.int64).max  # behind every index
POSITION_COLUMNS = ("ra", "dec")
BUCKET_ROWS = PIECE_ROWS  # consecutive rows of the sorted catalogue that are put in order at once
LOAD_ROWS = 4 * PIECE_ROWS  # rows that are handed out to the buckets at once; so few need no file
IntegerArray = npt.NDArray[np.int64]


def healpix_index(ra: DoubleArray, dec: DoubleArray) -> IntegerArray:
    """Return the nested HEALPix index of order `HEALPIX_ORDER` of some positions.

    Parameters
    ----------
    ra, dec : ndarray of float64, shape (n_stars,)
        Degrees. A right ascension may be negative, or 360 and more.

    Returns
    -------
    ndarray of int64, shape (n_stars,)
        `NOWHERE` where there is no such place in the sky.
    """
    is_known = np.isfinite(ra) & (np.abs(dec) <= 90)
    index = np.full(len(ra), NOWHERE)
    index[is_known] = lonlat_to_healpix(
        ra[is_known] * u.deg, dec[is_known] * u.deg, 1 << HEALPIX_ORDER, order="nested"
    )
    return index


@contextmanager
def in_sky_order(rows: CatalogRows, positions: Iterable[pa.Table], *, staging: Path) -> Iterator[CatalogRows]:
    """Give a catalogue's rows in the order of `ORDER_WORDS`, for as long as the block lasts.

    More than `LOAD_ROWS` are written into an unnamed file first, handed out to buckets of `BUCKET_ROWS`
    consecutive rows of the new order. Nothing is left of it when the process ends, however it ends.

    Parameters
    ----------
    rows : CatalogRows
        By store row.
    positions : iterable of Table
        Their `ra` and `dec`, in the same order.
    staging : Path
        Folder for the unnamed file, which takes about as much space as the published Parquet file twice.

    Yields
    ------
    CatalogRows

    Raises
    ------
    IntegrityError
        If there are not as many positions as rows.
    OSError
        If the file cannot be written; `filename` is the folder.
    """
    found = [healpix_index(*(_degrees(piece, name) for name in POSITION_COLUMNS)) for piece in positions]
    index = np.concatenate([np.empty(0, np.int64), *found])
    if len(index) != rows.summary.n_rows:
        raise IntegrityError("parts of the catalogue changed while they were read; give the command again")
    order = np.argsort(index, kind="stable")
    groups = cut_into_fields(index[order])
    del index, found
    if len(order) <= LOAD_ROWS:
        yield replace(rows, read=lambda: [_whole(rows.read(), rows).take(pa.array(order))], groups=groups)
        return
    make_folder(staging)
    with tempfile.TemporaryFile(dir=staging, prefix=".catalog.", suffix=".partial") as spool:
        try:
            _hand_out(rows, order, spool)
        except OSError as error:
            if error.errno is None:
                raise
            raise OSError(error.errno, os.strerror(error.errno), str(staging)) from error
        yield replace(rows, read=lambda: _collect(spool, order), groups=groups)


def cut_into_fields(index: IntegerArray) -> tuple[int, ...]:
    """Return how many rows each row group is to have, so that each lies in one pixel of a coarse grid.

    Where a group goes on beyond a pixel's end, its ranges of ra and dec can be half the sky: in groups of
    equal length a field of two degrees meets three times as many rows.

    Parameters
    ----------
    index : ndarray of int64, shape (n_stars,)
        Of `healpix_index`, in rising order.
    """
    if len(index) <= ROW_GROUP_ROWS:
        return (len(index),) if len(index) else ()
    order = 0  # the finest grid whose pixels hold half a group in the mean
    while 2 * len(index) >= 12 * 4 ** (order + 1) * ROW_GROUP_ROWS:
        order += 1
    pixel = index >> 2 * (HEALPIX_ORDER - order)
    ends = np.flatnonzero(pixel[1:] != pixel[:-1]) + 1
    lengths: list[int] = []
    for n_rows in np.diff([0, *ends.tolist(), len(index)]).tolist():
        n_groups = -(-n_rows // ROW_GROUP_ROWS)
        lengths += [n_rows * (i + 1) // n_groups - n_rows * i // n_groups for i in range(n_groups)]
    return tuple(lengths)


def _degrees(piece: pa.Table, name: str) -> DoubleArray:
    """Return a coordinate, NaN where it is null."""
    values: DoubleArray = piece[name].cast(pa.float64()).to_numpy()
    return values


def _hand_out(rows: CatalogRows, order: IntegerArray, spool: IO[bytes]) -> None:
    """Write the rows: of each load one batch for each bucket, in which they stay by store row."""
    bucket = np.empty(len(order), np.int32)
    bucket[order] = np.arange(len(order)) // BUCKET_ROWS
    edges = np.arange(_count_buckets(order) + 1)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(spool, arrow_schema(rows.columns), options=options) as file:
        start = 0
        for load in _loads(rows):
            own = bucket[start : start + len(load)]
            start += len(load)
            by_bucket = np.argsort(own, kind="stable")
            handed = load.take(pa.array(by_bucket)).to_batches()[0]
            for first, stop in pairwise(np.searchsorted(own[by_bucket], edges).tolist()):
                file.write_batch(handed.slice(first, stop - first))
    spool.flush()


def _loads(rows: CatalogRows) -> Iterator[pa.Table]:
    """Give all rows in tables of `LOAD_ROWS` or a little more, the last one shorter; none is empty."""
    held, n_held = list[pa.Table](), 0
    for table in rows.read():
        held.append(table)
        n_held += len(table)
        if n_held >= LOAD_ROWS:
            yield _whole(held, rows)
            held, n_held = [], 0
    if n_held:
        yield _whole(held, rows)


def _collect(spool: IO[bytes], order: IntegerArray) -> Iterator[pa.Table]:
    """Give the rows of each bucket, in the order of the sky."""
    n_buckets = _count_buckets(order)
    spool.seek(0)
    file = pa.ipc.open_file(spool)
    for i in range(n_buckets):
        batches = [file.get_batch(j) for j in range(i, file.num_record_batches, n_buckets)]
        places = order[i * BUCKET_ROWS : (i + 1) * BUCKET_ROWS]
        in_bucket = np.argsort(np.argsort(places))  # the batches hold the rows by store row
        yield pa.Table.from_batches(batches).combine_chunks().take(pa.array(in_bucket))


def _count_buckets(order: IntegerArray) -> int:
    return -(-len(order) // BUCKET_ROWS)


def _whole(tables: Iterable[pa.Table], rows: CatalogRows) -> pa.Table:
    """Join tables into one with one chunk a column."""
    return pa.concat_tables([arrow_schema(rows.columns).empty_table(), *tables]).combine_chunks()
