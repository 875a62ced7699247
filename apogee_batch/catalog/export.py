"""The published catalogue: one Parquet and one FITS file, the same bytes each time.

Neither holds a date or a name of a machine. What each reader needs to know of units, descriptions
and nulls is written for all of them at once; see `annotations`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits

from apogee_batch.catalog.annotations import (
    FRAME,
    TITLE,
    VOPARQUET_VERSION,
    file_metadata,
    fits_comments,
    is_logarithmic,
    parquet_yaml,
    votable_header,
)
from apogee_batch.catalog.fits_stream import FITS_INT_NULL, FitsTableWriter
from apogee_batch.catalog.rows import CatalogRows, ascii_text, rows_of
from apogee_batch.files import FileDigest
from apogee_batch.schema import Column, arrow_schema, catalog_version
from apogee_batch.streams import StagedFile, replace_on_success

_FITS_FORMATS = {"int32": "J", "int64": "K", "float32": "E", "float64": "D"}
_CHECKSUM_COMMENT = "of this extension"  # astropy would write the date here


def write_parquet(
    catalog: Any, path: Path, *, metadata: Mapping[str, str], staging: Path | None = None
) -> FileDigest:
    """Write the catalogue as one Parquet file.

    Missing values are nulls. Units, UCDs and descriptions are in the metadata of the fields, and
    again in those of the file in the words of astropy and of VOParquet.

    Parameters
    ----------
    catalog : pa.Table or CatalogRows
        The catalogue, in the order it is to have; rows with columns of their own keep them.
    path : Path
        The file, replaced whole or not at all.
    metadata : mapping of str to str
        What else to say of the catalogue (run, model, versions): key-value metadata of the file,
        with `apogee_batch.` before each name. A `title` here takes the place of the catalogue's.
    staging : Path, optional
        Folder for the unfinished file; by default the folder of `path`.
    """
    rows = _as_rows(catalog)
    widths = {name: rows.summary.text_widths[name] for name in _text_columns(rows.columns)}
    described = file_metadata(metadata)
    of_file = {
        **{f"apogee_batch.{name}": text for name, text in described.items()},
        **{f"table::len::{name}": str(width) for name, width in widths.items()},
        "table_meta_yaml": parquet_yaml(rows.columns, widths, described),
        "IVOA.VOTable-Parquet.version": VOPARQUET_VERSION,
        "IVOA.VOTable-Parquet.content": votable_header(rows.columns, widths, rows.summary.n_rows),
    }
    schema = arrow_schema(rows.columns).with_metadata(of_file)
    with (
        replace_on_success(path, staging=staging) as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for group in rows.row_groups():
            writer.write_table(group.replace_schema_metadata(of_file))
    return _digest_of(file)


def write_fits(
    catalog: Any, path: Path, *, metadata: Mapping[str, str], staging: Path | None = None
) -> FileDigest:
    """Write the catalogue as a FITS binary table.

    Missing floats are NaN, missing integers TNULL, missing texts begin with NUL, as the FITS standard
    has it. TUNIT holds the units that FITS knows; the logarithmic ones are words in TCOMM, and
    astropy finds them in the comments.

    Parameters
    ----------
    catalog, path, metadata, staging
        As for `write_parquet`; the metadata become comments, `name: text`.
    """
    rows = _as_rows(catalog)
    primary, header = _fits_headers(rows, metadata)
    with replace_on_success(path, staging=staging) as file:
        writer = FitsTableWriter(file, primary, header, rows.summary.fits_widths, rows.columns)
        for piece in rows.pieces():
            writer.write(piece)
        writer.finish()
    return _digest_of(file)


def _fits_headers(rows: CatalogRows, metadata: Mapping[str, str]) -> tuple[Any, Any]:
    """Return the headers of the primary HDU and of the table, whose sums are still to be made."""
    widths = {name: rows.summary.text_widths[name] for name in _text_columns(rows.columns)}
    columns = [_fits_column(column, rows.summary.fits_widths) for column in rows.columns]
    hdu = fits.BinTableHDU.from_columns(columns, name="CATALOG", character_as_bytes=True)
    header = hdu.header
    for i, column in enumerate(rows.columns, start=1):
        unit = f" [{column.unit}]" if is_logarithmic(column) else ""
        header[f"TUCD{i}"] = column.ucd
        header[f"TCOMM{i}"] = column.description + unit
    header["LONGSTRN"] = ("OGIP 1.0", "texts may go on in CONTINUE cards")  # fitsverify wants to be told
    header["RADESYS"] = (FRAME, "frame of ra and dec")
    header["CATVERS"] = (catalog_version(), "version of the catalogue's columns")
    for name, text in file_metadata(metadata).items():
        header.add_comment(f"{name}: {ascii_text(text)}")
    for comment in fits_comments(rows.columns, widths, with_nulls=rows.summary.with_nulls):
        header.add_comment(comment)
    primary = fits.PrimaryHDU()
    primary.header["TITLE"] = ascii_text(metadata.get("title", TITLE))
    for part in (primary, hdu):
        part.add_datasum(when=_CHECKSUM_COMMENT)
        part.add_checksum(when=_CHECKSUM_COMMENT, override_datasum=True)
    header["NAXIS2"] = rows.summary.n_rows
    return primary.header, header


def _fits_column(column: Column, widths: Mapping[str, int]) -> Any:
    """Return one column as FITS describes it, without a value."""
    if column.dtype == "string":
        width = widths[column.name]
        return fits.Column(column.name, f"{width}A", array=np.empty(0, f"S{width}"))
    is_integer = column.dtype.startswith("int")
    return fits.Column(
        column.name,
        _FITS_FORMATS[column.dtype],
        unit=None if is_logarithmic(column) or not column.unit else column.unit,
        null=FITS_INT_NULL if is_integer and column.nullable else None,
        disp=column.display,
        array=np.empty(0, column.dtype),
    )


def _text_columns(columns: Sequence[Column]) -> list[str]:
    """Return the names of the text columns, in order."""
    return [column.name for column in columns if column.dtype == "string"]


def _as_rows(catalog: Any) -> CatalogRows:
    return catalog if isinstance(catalog, CatalogRows) else rows_of(catalog)


def _digest_of(file: StagedFile) -> FileDigest:
    """Return what was written; the file is settled when its block has ended."""
    if file.digest is None:
        raise RuntimeError("the file was not written")
    return file.digest
