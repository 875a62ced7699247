"""A table of photometry and parallaxes: which of its columns mean what, and which values are none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from apogee_batch.errors import UsageError
from apogee_batch.labels.columns import list_columns, number_values, text_values
from apogee_batch.labels.formats import TableFile, open_table
from apogee_batch.labels.photometry_columns import (
    BANDS,
    FLUX_OVER_ERROR,
    NUMBER_UNITS,
    PhotometryColumns,
    find_photometry_columns,
)
from apogee_batch.labels.photometry_values import (
    LARGEST_MAG_ERROR,
    clean_errors,
    clean_magnitudes,
    clean_numbers,
    to_unit,
)
from apogee_batch.schema import BoolArray, DoubleArray

__all__ = ["BANDS", "Photometry", "read_photometry"]


@dataclass(frozen=True)
class Photometry:
    """What a table says about the brightness and distance of its stars, in the table's order.

    Attributes
    ----------
    source : str
        The file, for messages.
    apogee_id, apstar_id : tuple of str, length n_stars
        Identifiers, "" where the table gives none.
    magnitude, error : dict of str to ndarray of float64, shape (n_stars,)
        Magnitudes by band, and their one-sigma errors; NaN where the table has none. Every band that was
        asked for is there.
    parallax_mas, parallax_error_mas : ndarray of float64, shape (n_stars,)
        Parallaxes in milliarcseconds, as given (they may be negative); NaN where there is none.
    numbers : dict of str to ndarray of float64, shape (n_stars,)
        Other columns of numbers that were asked for and exist; NaN where missing.
    texts : dict of str to tuple of str, length n_stars
        Other columns of texts that were asked for and exist; "" where missing.
    columns : dict of str to str
        Our name of each column that was found, to the table's. A band with an error has `e_BAND` in it.
    """

    source: str
    apogee_id: tuple[str, ...]
    apstar_id: tuple[str, ...]
    magnitude: dict[str, DoubleArray]
    error: dict[str, DoubleArray]
    parallax_mas: DoubleArray
    parallax_error_mas: DoubleArray
    numbers: dict[str, DoubleArray]
    texts: dict[str, tuple[str, ...]]
    columns: dict[str, str]

    def __post_init__(self) -> None:
        arrays = (*self.magnitude.values(), *self.error.values(), *self.numbers.values())
        shapes = {array.shape for array in (*arrays, self.parallax_mas, self.parallax_error_mas)}
        lengths = {len(names) for names in (self.apogee_id, self.apstar_id, *self.texts.values())}
        if shapes != {(self.n_stars,)} or lengths != {self.n_stars}:
            raise ValueError(f"columns of shapes {shapes} and lengths {lengths} for {self.n_stars} stars")
        if self.magnitude.keys() != self.error.keys():
            raise ValueError("a band has a magnitude or an error, not both")

    @property
    def n_stars(self) -> int:
        """Number of rows."""
        return len(self.apogee_id)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Name of each star: its `apstar_id`, else its `apogee_id`, else ""."""
        return tuple(a or b for a, b in zip(self.apstar_id, self.apogee_id, strict=True))

    @property
    def is_repeated(self) -> BoolArray:
        """Whether an earlier row has the same name, shape (n_stars,); rows without a name are not."""
        seen: set[str] = set()
        repeated = np.zeros(self.n_stars, dtype=bool)
        for i, key in enumerate(self.keys):
            repeated[i] = key in seen
            if key:
                seen.add(key)
        return repeated


def read_photometry(
    path: Path,
    *,
    bands: Sequence[str],
    column_map: Mapping[str, str] | None = None,
    required: Sequence[str] = (),
    numbers: Sequence[str] = (),
    texts: Sequence[str] = (),
) -> Photometry:
    """Read a table of photometry in FITS, CSV, ECSV, Parquet or VOTable.

    It needs `apogee_id` or `apstar_id`. A magnitude is missing where it is null, masked, not finite or a
    filler (99, -999, ...); an error where it is that or negative.

    Parameters
    ----------
    path : Path
        The table; its suffix tells the format.
    bands : sequence of str
        Bands that are looked for, of `BANDS`; one that the table lacks is NaN.
    column_map : mapping of str to str, optional
        Our name of a column (a band, `e_BAND`, `parallax`, `parallax_error`, an identifier, one of `numbers`
        or `texts`) to the table's. Other columns are found by our name and the spellings of Gaia, 2MASS,
        Pan-STARRS, SDSS, WISE and APOGEE.
    required : sequence of str
        Bands, `parallax` or other columns that the table must have.
    numbers, texts : sequence of str
        Other columns that are read if they are there.

    Raises
    ------
    UsageError
        If the file cannot be read or has no rows; a required column is missing, one is ambiguous, no
        number, of another unit, or holds no magnitudes.
    """
    file = open_table(path)
    wanted = PhotometryColumns(tuple(bands), tuple(numbers), tuple(texts), tuple(required))
    columns = find_photometry_columns(path, file.names, wanted, column_map or {})
    reader = _Reader(path, file, columns)
    everything = Photometry(
        source=str(path),
        apogee_id=reader.texts("apogee_id"),
        apstar_id=reader.texts("apstar_id"),
        magnitude={band: clean_magnitudes(reader.numbers(band), reader.where(band)) for band in bands},
        error={band: reader.errors(band) for band in bands},
        parallax_mas=clean_numbers(reader.numbers("parallax")),
        parallax_error_mas=clean_errors(reader.numbers("parallax_error")),
        numbers={
            name: (clean_errors if name.startswith("e_") else clean_numbers)(reader.numbers(name))
            for name in numbers
            if name in columns
        },
        texts={name: reader.texts(name) for name in texts if name in columns},
        columns=columns,
    )
    if everything.n_stars == 0:
        raise UsageError(f"{path}: has no rows; {list_columns(file.names)}")
    return everything


class _Reader:
    """The columns that were found, by our names."""

    def __init__(self, path: Path, file: TableFile, columns: Mapping[str, str]) -> None:
        self._path = path
        self._columns = columns
        self._raw = file.read(tuple(dict.fromkeys(columns.values())))
        self._n_rows = len(next(iter(self._raw.values())).values)

    def where(self, ours: str) -> str:
        """Return file and column, for messages."""
        return f"{self._path}: column {self._columns.get(ours, ours)!r}"

    def numbers(self, ours: str) -> DoubleArray:
        """Return a column in our unit; all NaN if the table has none of that name."""
        if ours not in self._columns:
            return np.full(self._n_rows, np.nan)
        raw = self._raw[self._columns[ours]]
        remedy = f"leave a missing value empty, or map another column: --map {ours}=NAME"
        values = number_values(raw, where=self.where(ours), remedy=remedy)
        unit = NUMBER_UNITS.get(ours.removeprefix("e_"), "")
        if self._columns[ours].endswith(FLUX_OVER_ERROR):
            unit = ""  # a ratio, not yet a magnitude
        return to_unit(values, raw.unit, unit, where=self.where(ours)) if unit else values

    def errors(self, band: str) -> DoubleArray:
        """Return the errors of a band in magnitudes; Gaia gives the significance of the flux instead."""
        values = self.numbers(f"e_{band}")
        if self._columns.get(f"e_{band}", "").endswith(FLUX_OVER_ERROR):
            with np.errstate(divide="ignore", invalid="ignore"):
                values = np.where(values > 0, 2.5 / np.log(10) / values, np.nan)
        return clean_errors(values, below=LARGEST_MAG_ERROR)

    def texts(self, ours: str) -> tuple[str, ...]:
        """Return a column of texts; all "" if the table has none of that name."""
        if ours not in self._columns:
            return ("",) * self._n_rows
        return text_values(self._raw[self._columns[ours]])
