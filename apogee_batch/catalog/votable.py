"""The catalogue as a VOTable: an XML header and rows in BINARY2, written piece by piece."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from apogee_batch.catalog.annotations import file_metadata, votable_header
from apogee_batch.catalog.rows import CatalogRows, ascii_texts
from apogee_batch.files import FileDigest
from apogee_batch.schema import Column
from apogee_batch.streams import StagedFile, replace_on_success

_KINDS = {"int32": ">i4", "int64": ">i8", "float32": ">f4", "float64": ">f8"}
_LINE_BYTES = 57  # of the rows, in a line of 76 characters
_START_OF_RESOURCE = '<RESOURCE type="results">'
_END_OF_TABLE = "</TABLE>"


def write_votable(
    rows: CatalogRows, path: Path, *, metadata: Mapping[str, str], staging: Path | None = None
) -> FileDigest:
    """Write the catalogue as a VOTable 1.3 with BINARY2 data.

    Missing values of any type are told by the null bits of BINARY2; missing floats are NaN as well. Units are
    those of the CDS, where [cm.s-2] is log10 of cm/s2 and [-] is dex.

    Parameters
    ----------
    rows : CatalogRows
        The catalogue, in the order it is to have.
    path : Path
        The file, replaced whole or not at all.
    metadata : mapping of str to str
        What else to say of the catalogue; each becomes an INFO.
    staging : Path, optional
        Folder for the unfinished file; by default the folder of `path`.
    """
    widths = rows.summary.fits_widths  # `char` is ASCII, as in FITS
    header = votable_header(rows.columns, widths, rows.summary.n_rows)
    infos = "".join(
        f"<INFO name={quoteattr(name)} value={quoteattr(text)} />"
        for name, text in file_metadata(metadata).items()
    )
    header = header.replace(_START_OF_RESOURCE, _START_OF_RESOURCE + infos)
    before, after = header.split(_END_OF_TABLE)
    with replace_on_success(path, staging=staging) as file:
        file.write(b'<?xml version="1.0" encoding="UTF-8"?>\n')
        file.write(f'{before}<DATA><BINARY2><STREAM encoding="base64">\n'.encode())
        _write_rows(rows, widths, file)
        file.write(f"</STREAM></BINARY2></DATA>{_END_OF_TABLE}{after}\n".encode())
    if file.digest is None:
        raise RuntimeError("the file was not written")
    return file.digest


def _write_rows(rows: CatalogRows, widths: Mapping[str, int], file: StagedFile) -> None:
    """Write all rows in base64, in lines of one length but for the last."""
    rest = b""
    for piece in rows.pieces():
        content = rest + encode_rows(piece, rows.columns, widths)
        n_whole = len(content) // _LINE_BYTES * _LINE_BYTES
        file.write(base64.encodebytes(content[:n_whole]))
        rest = content[n_whole:]
    file.write(base64.encodebytes(rest))


def encode_rows(piece: pa.Table, columns: Sequence[Column], widths: Mapping[str, int]) -> bytes:
    """Return rows as BINARY2 has them: a bit for each column that is null, then the big-endian values.

    Parameters
    ----------
    piece : pa.Table
        Rows of the schema of `columns`.
    columns : sequence of Column
        In the order of the file.
    widths : mapping of str to int
        Bytes of each text column.
    """
    is_null = np.column_stack(
        [np.asarray(pc.is_null(piece[column.name]).to_numpy(zero_copy_only=False)) for column in columns]
    )
    bits = np.packbits(is_null, axis=1)
    formats: list[Any] = [("nulls", "u1", (bits.shape[1],))]
    formats += [(c.name, _KINDS.get(c.dtype) or f"S{widths[c.name]}") for c in columns]
    encoded = np.zeros(len(piece), np.dtype(formats))
    encoded["nulls"] = bits
    for column in columns:
        encoded[column.name] = _values(column, piece[column.name])
    return encoded.tobytes()


def _values(column: Column, values: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return a column without nulls: NaN, 0 and empty texts in their places."""
    if column.dtype == "string":
        return np.asarray([text.encode("ascii") for text in ascii_texts(values).to_pylist()], dtype=bytes)
    null = 0 if column.dtype.startswith("int") else np.nan
    filled: npt.NDArray[Any] = pc.fill_null(values, pa.scalar(null, values.type)).to_numpy()
    return filled
