"""A FITS binary table written row by row: astropy makes the header, which must hold sums of all rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from apogee_batch.catalog.rows import ascii_texts
from apogee_batch.schema import Column
from apogee_batch.streams import StagedFile

BLOCK_BYTES = 2880
FITS_INT_NULL = -999999  # TNULL: no field number and no count is negative
_UNSIGNED_32 = 0xFFFFFFFF
_NO_CHECKSUM = "0" * 16  # what CHECKSUM is while the sum is made
_NOT_IN_A_CHECKSUM = frozenset(b":;<=>?@[\\]^_`")  # the standard wants letters and digits


class FitsTableWriter:
    """Writes the rows of a binary table behind the place of its header, then both headers.

    Parameters
    ----------
    file : StagedFile
        Empty.
    primary : astropy.io.fits.Header
        Of the primary HDU, complete.
    header : astropy.io.fits.Header
        Of the table, with NAXIS2, and with DATASUM and CHECKSUM of any value.
    widths : mapping of str to int
        Bytes of each text column.
    columns : sequence of Column
        As the header describes them.
    """

    def __init__(
        self,
        file: StagedFile,
        primary: Any,
        header: Any,
        widths: Mapping[str, int],
        columns: Sequence[Column],
    ) -> None:
        self._file, self._header, self._widths, self._columns = file, header, widths, columns
        self._start = primary.tostring().encode("ascii")
        self._sum, self._rest = 0, b""
        kinds = {"int32": ">i4", "int64": ">i8", "float32": ">f4", "float64": ">f8"}
        formats = [(column.name, kinds.get(column.dtype) or f"S{widths[column.name]}") for column in columns]
        self._row = np.dtype(formats)
        file.write(self._start + header.tostring().encode("ascii"))

    def write(self, piece: pa.Table) -> None:
        """Append rows of the columns' schema, in one chunk each column."""
        rows = np.empty(len(piece), self._row)
        for column in self._columns:
            rows[column.name] = self._values(column, piece[column.name])
        content = self._rest + rows.tobytes()
        n_whole = len(content) // BLOCK_BYTES * BLOCK_BYTES
        self._append(content[:n_whole])
        self._rest = content[n_whole:]

    def finish(self) -> None:
        """Fill the last block, and write the headers again with the sums."""
        self._append(self._rest + bytes(-len(self._rest) % BLOCK_BYTES))
        self._header["DATASUM"] = str(self._sum)
        self._header["CHECKSUM"] = _NO_CHECKSUM
        total = add_words(self._sum, self._header.tostring().encode("ascii"))
        self._header["CHECKSUM"] = encode_checksum(total ^ _UNSIGNED_32)
        self._file.overwrite_start(self._start + self._header.tostring().encode("ascii"))

    def _append(self, blocks: bytes) -> None:
        self._sum = add_words(self._sum, blocks)
        self._file.write(blocks)

    def _values(self, column: Column, values: pa.ChunkedArray) -> npt.NDArray[Any]:
        """Return a column as FITS has it: missing floats NaN, integers TNULL, texts empty."""
        if column.dtype == "string":
            return _fixed_width(ascii_texts(values), self._widths[column.name])
        null = FITS_INT_NULL if column.dtype.startswith("int") else np.nan
        filled: npt.NDArray[Any] = values.fill_null(pa.scalar(null, values.type)).to_numpy()
        return filled


def _fixed_width(texts: Any, width: int) -> npt.NDArray[np.bytes_]:
    """Return ASCII texts as bytes of one length, NUL behind each."""
    padded = pc.ascii_rpad(texts, width=width, padding="\0")
    array = padded.combine_chunks() if isinstance(padded, pa.ChunkedArray) else padded
    content = array.buffers()[2]
    if not len(array):
        return np.empty(0, f"S{width}")
    return np.frombuffer(content, f"S{width}", count=len(array), offset=array.offset * width)


def add_words(total: int, content: bytes) -> int:
    """Add the 32-bit words of whole blocks to a sum, in the ones' complement of the FITS standard."""
    total += int(np.frombuffer(content, ">u4").sum(dtype=np.uint64))
    while total > _UNSIGNED_32:
        total = (total & _UNSIGNED_32) + (total >> 32)
    return total


def encode_checksum(value: int) -> str:
    """Return 32 bits as the 16 characters of CHECKSUM (FITS standard 4.0, appendix J).

    Each byte becomes four characters whose codes add up to it and four zeros.
    """
    codes = bytearray(16)
    for i, byte in enumerate(value.to_bytes(4, "big")):
        quarter, rest = divmod(byte, 4)
        four = [quarter + ord("0")] * 4
        four[0] += rest
        while _NOT_IN_A_CHECKSUM.intersection(four):
            for j in (0, 2):
                if _NOT_IN_A_CHECKSUM.intersection(four[j : j + 2]):
                    four[j] += 1
                    four[j + 1] -= 1
        codes[i::4] = bytes(four)
    return (codes[-1:] + codes[:-1]).decode("ascii")
