"""The published catalogue: one Parquet and one FITS file, the same bytes each time.

Neither holds a date or a name of a machine. What each reader needs to know of units, descriptions
and nulls is written for all of them at once; see `annotations`.
"""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.io import fits

from apogee_batch.catalog.annotations import (
    TITLE,
    VOPARQUET_VERSION,
    file_metadata,
    fits_comments,
    is_logarithmic,
    parquet_yaml,
    text_widths,
    votable_header,
)
from apogee_batch.errors import IntegrityError
from apogee_batch.files import FileDigest, write_bytes, write_table
from apogee_batch.schema import Column, arrow_schema, catalog_columns, catalog_version

ROW_GROUP_SIZE = 65536  # rows; a reader that wants a few stars decompresses some megabytes
FITS_INT_NULL = -999999  # TNULL: no field number and no count is negative
_FITS_FORMATS = {"int32": "J", "int64": "K", "float32": "E", "float64": "D"}
_CHECKSUM_COMMENT = "of this extension"  # astropy would write the date here


def write_parquet(
    table: Any, path: Path, *, metadata: Mapping[str, str], staging: Path | None = None
) -> FileDigest:
    """Write the catalogue as one Parquet file.

    Missing values are nulls. Units, UCDs and descriptions are in the metadata of the fields, and
    again in those of the file in the words of astropy and of VOParquet.

    Parameters
    ----------
    table : pa.Table
        The catalogue, in the order it is to have.
    path : Path
        The file, replaced whole or not at all.
    metadata : mapping of str to str
        What else to say of the catalogue (run, model, versions): key-value metadata of the file,
        with `apogee_batch.` before each name.
    staging : Path, optional
        Folder for the unfinished file; by default the folder of `path`.
    """
    checked = _checked(table)
    widths = text_widths(checked)
    described = file_metadata(metadata)
    of_file = {
        **{f"apogee_batch.{name}": text for name, text in described.items()},
        **{f"table::len::{name}": str(width) for name, width in widths.items()},
        "table_meta_yaml": parquet_yaml(widths, described),
        "IVOA.VOTable-Parquet.version": VOPARQUET_VERSION,
        "IVOA.VOTable-Parquet.content": votable_header(widths, checked.num_rows),
    }
    described_table = checked.replace_schema_metadata(of_file)
    return write_table(path, described_table, staging=staging, row_group_size=ROW_GROUP_SIZE)


def write_fits(
    table: Any, path: Path, *, metadata: Mapping[str, str], staging: Path | None = None
) -> FileDigest:
    """Write the catalogue as a FITS binary table.

    Missing floats are NaN, missing integers TNULL, missing texts begin with NUL, as the FITS standard
    has it. TUNIT holds the units that FITS knows; the logarithmic ones are words in TCOMM, and
    astropy finds them in the comments.

    Parameters
    ----------
    table, path, metadata, staging
        As for `write_parquet`; the metadata become comments, `name: text`.
    """
    checked = _checked(table)
    widths = text_widths(checked)
    columns = [_fits_column(column, checked[column.name], widths) for column in catalog_columns()]
    hdu = fits.BinTableHDU.from_columns(columns, name="CATALOG", character_as_bytes=True)
    header = hdu.header
    for i, column in enumerate(catalog_columns(), start=1):
        unit = f" [{column.unit}]" if is_logarithmic(column) else ""
        header[f"TUCD{i}"] = column.ucd
        header[f"TCOMM{i}"] = column.description + unit
    header["CATVERS"] = (catalog_version(), "version of the catalogue's columns")
    for name, text in file_metadata(metadata).items():
        header.add_comment(f"{name}: {_ascii(text)}")
    with_nulls = [field.name for field in checked.schema if checked[field.name].null_count]
    for comment in fits_comments(widths, with_nulls=with_nulls):
        header.add_comment(comment)
    primary = fits.PrimaryHDU()
    primary.header["TITLE"] = TITLE
    for part in (primary, hdu):
        part.add_datasum(when=_CHECKSUM_COMMENT)
        part.add_checksum(when=_CHECKSUM_COMMENT, override_datasum=True)
    content = BytesIO()
    fits.HDUList([primary, hdu]).writeto(content, output_verify="exception")
    return write_bytes(path, content.getbuffer(), staging=staging)


def _checked(table: Any) -> Any:
    """Return the catalogue in one piece, with the descriptions of its columns."""
    schema = arrow_schema(catalog_columns())
    if not table.schema.equals(schema):
        raise IntegrityError(
            f"not a catalogue of version {catalog_version()}: its columns are {', '.join(table.schema.names)}"
        )
    arrays = [table[field.name].combine_chunks() for field in schema]
    return pa.table(arrays, schema=schema)


def _fits_column(column: Column, values: Any, widths: Mapping[str, int]) -> Any:
    """Return one column as FITS has it."""
    if column.dtype == "string":
        texts = [_ascii(text or "") for text in values.to_pylist()]
        width = max([widths[column.name], *map(len, texts)])
        return fits.Column(column.name, f"{width}A", array=np.array(texts, dtype=f"S{width}"))
    is_integer = column.dtype.startswith("int")
    return fits.Column(
        column.name,
        _FITS_FORMATS[column.dtype],
        unit=None if is_logarithmic(column) or not column.unit else column.unit,
        null=FITS_INT_NULL if is_integer and column.nullable else None,
        disp=column.display,
        array=_numbers(values, FITS_INT_NULL if is_integer else np.nan),
    )


def _numbers(values: Any, null: float) -> npt.NDArray[Any]:
    """Return an Arrow column as numpy, with a number in place of null."""
    filled: npt.NDArray[Any] = values.fill_null(pa.scalar(null, values.type)).to_numpy()
    return filled


def _ascii(text: str) -> str:
    """Return a text in the characters that FITS allows; others as Python would escape them."""
    return " ".join(text.split()).encode("ascii", "backslashreplace").decode("ascii")
