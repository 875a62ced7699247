"""Tables that others made: what their readers raise where one is damaged, and FITS files with tables.

A damaged file is a file like any other here: it ends in one line that names it, and soon.
"""

import csv
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from lzma import LZMAError
from pathlib import Path
from typing import Any

import pyarrow as pa
from astropy.io import fits
from astropy.table.meta import YamlParseError
from astropy.utils.exceptions import AstropyWarning

MAX_HDUS = 100  # of a file with a table; allStar files have two or three
_DAMAGED = "_CorruptedHDU"  # of astropy, which does not export it: a header that cannot be read

UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,  # of an XML parser
    AttributeError,
    ArithmeticError,
    csv.Error,
    struct.error,
    zlib.error,
    LZMAError,
    fits.VerifyError,
    YamlParseError,
    AstropyWarning,  # VOTable's are errors, too; others where a caller makes them errors
    pa.ArrowException,
)
"""What astropy, pyarrow and what they decompress with raise on damaged tables."""


def first_words(error: BaseException) -> str:
    """Return what a reader's error says, in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


@contextmanager
def open_hdus(path: Path) -> Iterator[Iterator[Any]]:
    """Open a FITS file, compressed or not, and give its HDUs one after the other.

    Texts are bytes in them, and their data are mapped: a table has gigabytes, of which little is used. They
    are read as far as they are asked for, so damage behind a table that was found harms nobody.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    iterator of HDUs
        Raises ValueError at a damaged header, and where there are more than `MAX_HDUS`.

    Raises
    ------
    UNREADABLE
        As astropy does.
    """
    # opened here because astropy forgets to close a file that it cannot read
    with path.open("rb") as file, fits.open(file, memmap=True, character_as_bytes=True) as hdus:
        yield _sound_hdus(hdus)


def _sound_hdus(hdus: Any) -> Iterator[Any]:
    """Give the HDUs up to a damaged one, which astropy gives again for ever where the file is compressed."""
    for i, hdu in enumerate(islice(hdus, MAX_HDUS + 1)):
        if type(hdu).__name__ == _DAMAGED:
            raise ValueError(f"the header of HDU {i} is damaged")
        if i == MAX_HDUS:
            raise ValueError(f"it has more than {MAX_HDUS} HDUs")
        yield hdu
