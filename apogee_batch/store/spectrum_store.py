"""A store as its users see it: stars by name, spectra shard by shard, arrays for xarray."""

import math
from collections.abc import Iterator
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zarr

from apogee_batch.errors import UsageError
from apogee_batch.schema import DoubleArray
from apogee_batch.store.layout import open_group, open_store
from apogee_batch.store.spectra import SpectrumBatch, StoreInfo, read_spectra
from apogee_batch.store.tables import read_labels, read_stars
from apogee_batch.survey.spectrum import UNKNOWN_STAR, Spectrum, Star

_MAX_NAMED = 5


class SpectrumStore:
    """The spectra that `apogee-batch ingest` has put into a store.

    Parameters
    ----------
    path : path-like
        The store.

    Raises
    ------
    UsageError
        If there is no store, or its ingest has not finished.

    Examples
    --------
    >>> store = SpectrumStore("dr14.zarr")  # doctest: +SKIP
    >>> spectrum = store.star("2M19390532+4027346")  # doctest: +SKIP
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._info: StoreInfo = open_store(self.path)
        self.stars: pa.Table = read_stars(self.path)
        """Star table of the store, a row a spectrum; `.to_pandas()` makes a frame of it."""

    def __len__(self) -> int:
        """Return the number of spectra."""
        return int(self.stars.num_rows)

    def __repr__(self) -> str:
        """Name the store and its size."""
        return f"SpectrumStore({str(self.path)!r}: {len(self):,} spectra in {self._info.n_shards} shards)"

    @cached_property
    def wavelength(self) -> DoubleArray:
        """Vacuum wavelength of the pixels in the rest frame, Angstrom, shape (n_pixels,)."""
        return np.asarray(cast("zarr.Array[Any]", open_group(self.path)["wavelength"])[:], np.float64)

    @cached_property
    def labels(self) -> pa.Table | None:
        """The attached labels; None where there are none."""
        return read_labels(self.path)

    def star(self, key: str) -> Spectrum:
        """Return the spectrum of a star.

        Parameters
        ----------
        key : str
            `apstar_id`, or an `apogee_id` that has one spectrum here.

        Raises
        ------
        UsageError
            If there is no such spectrum, or several.
        IntegrityError
            If its shard is missing or damaged.
        """
        found = self.stars.filter(pc.equal(self.stars["apstar_id"], key))
        if not found.num_rows:
            found = self.stars.filter(pc.equal(self.stars["apogee_id"], key))
        if found.num_rows > 1:
            names = found["apstar_id"].to_pylist()
            more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
            listed = ", ".join(names[:_MAX_NAMED]) + more
            raise UsageError(f"{self.path}: {key} has {len(names)} spectra; ask for one of {listed}")
        if not found.num_rows:
            raise UsageError(f"{self.path}: holds no star {key!r}; the names are in its `stars` table")
        values = found.to_pylist()[0]
        row = values["row"]
        batch = read_spectra(self._info, np.array([row]))
        mask = cast("zarr.Array[Any]", open_group(self.path)["mask"])[row]
        return Spectrum(_star(values), batch.flux[0], batch.err[0], np.asarray(mask).astype(np.int32))

    def __iter__(self) -> Iterator[tuple[pa.Table, SpectrumBatch]]:
        """Give the stars and the spectra of one shard after the other: memory holds one.

        Yields
        ------
        tuple of pa.Table and SpectrumBatch
            Rows of `stars`, and their flux and err in the same order.
        """
        rows = self.stars["row"].to_numpy()
        shards = rows // self._info.shard_stars
        for shard in np.unique(shards):
            of_shard = np.flatnonzero(shards == shard)
            yield self.stars.take(pa.array(of_shard)), read_spectra(self._info, rows[of_shard])

    def to_xarray(self) -> Any:
        """Return the arrays as an `xarray.Dataset` that reads when it must.

        Rows that hold no star are NaN; `star` of the dataset counts rows as `stars["row"]` does.

        Raises
        ------
        UsageError
            If xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise UsageError("to_xarray needs xarray; install it with: pip install xarray") from error
        return xarray.open_zarr(self.path, consolidated=False, chunks=None)


def _star(values: dict[str, Any]) -> Star:
    """Return a row of the star table as ingest had it."""
    known: dict[str, Any] = {}
    for field in fields(Star):
        value, unknown = values[field.name], getattr(UNKNOWN_STAR, field.name)
        is_float = isinstance(unknown, float) and value is None
        known[field.name] = math.nan if is_float else unknown if value is None else value
    return Star(**known)
