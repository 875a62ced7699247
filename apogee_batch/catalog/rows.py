"""A catalogue of any length: read piece by piece, as often as is needed."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from apogee_batch.errors import IntegrityError
from apogee_batch.schema import Column, arrow_schema, catalog_columns, catalog_version

PIECE_ROWS = 65536
ROW_GROUP_ROWS = 8192  # of Parquet at most; half of it makes the footer as large as what is saved by it
PUBLISH_AGAIN = "give the same 'apogee-batch run-catalog' command again"
NULL_WORD = "None"  # astropy's Parquet reader shows a null text as this word; a narrower column would cut it
_ASCII_WORDS = r"^([!-~]+( [!-~]+)*)?$"  # what a FITS file can hold as it is


@dataclass
class Summary:
    """What must be known of all rows before the first is written.

    Attributes
    ----------
    n_rows : int
        Rows of the catalogue.
    text_widths : dict of int
        Characters that each text column needs, at least 1.
    fits_widths : dict of int
        The same in a FITS file, where some characters are escaped.
    with_nulls : set of str
        Columns with a null.
    """

    n_rows: int = 0
    text_widths: dict[str, int] = field(default_factory=dict)
    fits_widths: dict[str, int] = field(default_factory=dict)
    with_nulls: set[str] = field(default_factory=set)

    def add(self, piece: pa.Table) -> None:
        """Take in more rows, of some or all columns."""
        self.n_rows += len(piece)
        for column in piece.schema:
            values = piece[column.name]
            if values.null_count:
                self.with_nulls.add(column.name)
            if pa.types.is_string(column.type):
                least = len(NULL_WORD) if values.null_count else 1
                longest = pc.max(pc.utf8_length(values)).as_py() or 1
                width = max(longest, least, self.text_widths.get(column.name, 1))
                self.text_widths[column.name] = width
                escaped = pc.max(pc.utf8_length(ascii_texts(values))).as_py() or 1
                self.fits_widths[column.name] = max(width, escaped, self.fits_widths.get(column.name, 1))


@dataclass(frozen=True)
class CatalogRows:
    """The rows of a catalogue.

    Attributes
    ----------
    read : callable
        Gives all rows from the first on, in tables of the schema of `columns` and of any length.
    summary : Summary
        Of all of them.
    columns : tuple of Column
        By default those of the catalogue; a table made from it may have more.
    groups : tuple of int
        How many rows each row group of a Parquet file has; without it `ROW_GROUP_ROWS`, the last one fewer.
    """

    read: Callable[[], Iterable[pa.Table]]
    summary: Summary
    columns: tuple[Column, ...] = field(default_factory=catalog_columns)
    groups: tuple[int, ...] = ()

    def pieces(self) -> Iterator[pa.Table]:
        """Give the rows in tables of `PIECE_ROWS`, the last one shorter; one empty one if there are none."""
        return self._cut(repeat(PIECE_ROWS))

    def row_groups(self) -> Iterator[pa.Table]:
        """Give the rows in tables of the lengths of `groups`; one empty one if there are none."""
        return self._cut(chain(self.groups, repeat(ROW_GROUP_ROWS)))

    def _cut(self, lengths: Iterator[int]) -> Iterator[pa.Table]:
        """Give the rows in tables of some lengths, the last one shorter."""
        held, n_held, n_read = list[pa.Table](), 0, 0
        length = next(lengths)
        for table in self.read():
            held.append(table)
            n_held += len(table)
            n_read += len(table)
            if n_held < length:
                continue
            joined, start = pa.concat_tables(held), 0
            while n_held >= length:
                yield joined.slice(start, length).combine_chunks()
                start, n_held, length = start + length, n_held - length, next(lengths)
            held = [joined.slice(start)]
        if n_read != self.summary.n_rows:
            raise IntegrityError(
                "parts of the catalogue changed while they were read; give the command again"
            )
        if n_held or not n_read:
            empty = arrow_schema(self.columns).empty_table()
            yield pa.concat_tables(held or [empty]).combine_chunks()


def rows_of(catalog: Any) -> CatalogRows:
    """Return the rows of a whole table.

    Raises
    ------
    IntegrityError
        If it is no catalogue of this version.
    """
    schema = arrow_schema(catalog_columns())
    if not catalog.schema.equals(schema):
        names = ", ".join(catalog.schema.names)
        raise IntegrityError(f"not a catalogue of version {catalog_version()}: its columns are {names}")
    table = catalog.cast(schema)
    summary = Summary()
    summary.add(table)
    return CatalogRows(lambda: [table], summary)


def read_pieces(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Give those of the columns that a published catalogue has, in tables of `PIECE_ROWS` at most.

    There is always one, be it empty.

    Raises
    ------
    IntegrityError
        If the file is damaged.
    """
    try:
        # Arrow takes a name that is text to be UTF-8, which those of a file system need not be.
        with pq.ParquetFile(pa.OSFile(os.fsencode(path)), page_checksum_verification=True) as file:
            present = [name for name in dict.fromkeys(columns) if name in file.schema_arrow.names]
            if not file.metadata.num_rows:
                yield file.read(columns=present)
            for batch in file.iter_batches(PIECE_ROWS, columns=present):
                yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException) as error:
        text = " ".join(str(error).split())
        raise IntegrityError(f"{path}: is damaged ({text}); {PUBLISH_AGAIN}") from error


def ascii_texts(values: Any) -> Any:
    """Return texts as `ascii_text` does, nulls as empty ones."""
    filled = pc.fill_null(values, "")
    if pc.all(pc.match_substring_regex(filled, _ASCII_WORDS), min_count=0).as_py():
        return filled
    return pa.array([ascii_text(text) for text in filled.to_pylist()], pa.string())


def ascii_text(text: str) -> str:
    """Return a text in the characters that FITS allows, others as Python would escape them."""
    return " ".join(text.split()).encode("ascii", "backslashreplace").decode("ascii")
