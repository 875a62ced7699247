"""FITS headers as bytes: where each HDU lies and what its cards say, without touching its data.

A spectrum is 86 kB of a file of a megabyte, and astropy takes ten times as long to reach them as
the disk takes to give them. Only what the FITS standard (4.0) fixes is understood here; a file that
departs from it in a place that matters is rejected, one that uses more of it is left to astropy.
"""

import re
import struct
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from math import prod

from apogee_batch.errors import ApStarError, RejectReason
from apogee_batch.survey.byte_ranges import ByteSource

BLOCK_BYTES = 2880
CARD_BYTES = 80
KEYWORD_BYTES = 9  # with the sign of equality
END_CARD = b"END".ljust(CARD_BYTES)
PRIMARY_START = b"SIMPLE  ="
EXTENSION_START = b"XTENSION="
EARLY_BYTES = 2 * BLOCK_BYTES  # what is wanted of a star comes first; after it, 18 cards a visit that are not
MAX_HEADER_BYTES = 4 << 20  # a visit takes 1.4 kB of the primary header: 3000 visits
MAX_KEPT_BYTES = 8 * BLOCK_BYTES  # an image of the survey has one block of header, or two
MAX_HDUS = 100  # an apStar file has ten, and thousands would take minutes to follow
MAX_AXES = 9
BITPIX_VALUES = (8, 16, 32, 64, -32, -64)

# The value field of a card: text, integer, real or logical, then nothing or a comment.
_VALUE = re.compile(
    rb" *(?:'(?P<text>(?:[^']|'')*)'|(?P<integer>[+-]?\d+)|(?P<logical>[TF])"
    rb"|(?P<real>[+-]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][+-]?\d+)?)) *(?:/|\Z)"
)

_KEYWORD_OF_CARD = f"{KEYWORD_BYTES}s{CARD_BYTES - KEYWORD_BYTES}x"

CardValue = str | float | int | bool | None


class HeaderError(ValueError):
    """A header without a card that FITS demands."""


@dataclass(frozen=True)
class Layout:
    """What a header promises of the data behind it.

    Attributes
    ----------
    bitpix : int
        Type of a value as FITS codes it: -32 is float32, 16 is int16.
    shape : tuple of int
        Shape of the data in numpy's order (NAXISn reversed); () where there are none.
    n_bytes : int
        Size of the data, heap included, padding not.
    """

    bitpix: int
    shape: tuple[int, ...]
    n_bytes: int


class Header:
    """The cards of one header.

    Parameters
    ----------
    cards : bytes
        80 bytes a card, whole blocks.
    """

    def __init__(self, cards: bytes) -> None:
        self.cards = cards

    @cached_property
    def _early_fields(self) -> dict[bytes, int]:
        """Where the value field of each early card begins."""
        return self._find_fields(0, EARLY_BYTES)

    @cached_property
    def _late_fields(self) -> dict[bytes, int]:
        """Where those of the others do."""
        return self._find_fields(EARLY_BYTES, len(self.cards))

    def _find_fields(self, start: int, stop: int) -> dict[bytes, int]:
        """Return where value fields begin, by keyword; of a repeated card the first counts."""
        cards = self.cards[start:stop]
        n_cards = len(cards) // CARD_BYTES  # a file may be cut inside the last block of its header
        keywords = struct.unpack_from(n_cards * _KEYWORD_OF_CARD, cards)
        places = range(start + KEYWORD_BYTES, start + KEYWORD_BYTES + n_cards * CARD_BYTES, CARD_BYTES)
        return dict(zip(reversed(keywords), reversed(places), strict=True))

    def value(self, keyword: str) -> CardValue:
        """Return the value of a card; None where there is none, or none that can be understood."""
        card = _start_of_card(keyword)
        at = self._early_fields.get(card) or self._late_fields.get(card)
        if at is None:
            return None
        match = _VALUE.match(self.cards, at, at - KEYWORD_BYTES + CARD_BYTES)
        if match is None or match.lastgroup is None:
            return None
        return _convert(match.lastgroup, match[match.lastgroup])

    def text(self, keyword: str) -> str:
        """Return a card that holds text, without padding; "" where there is none."""
        value = self.value(keyword)
        return value.strip() if isinstance(value, str) else ""

    def number(self, keyword: str) -> float | None:
        """Return a card that holds a number, of either kind."""
        value = self.value(keyword)
        return None if isinstance(value, bool | str) else value

    def integer(self, keyword: str) -> int | None:
        """Return a card that holds an integer."""
        value = self.value(keyword)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @cached_property
    def layout(self) -> Layout:
        """What it promises of its data; `HeaderError` where it lacks a card."""
        bitpix, n_axes = self.integer("BITPIX"), self.integer("NAXIS")
        if bitpix is None or bitpix not in BITPIX_VALUES:
            raise HeaderError("no BITPIX that FITS allows")
        if n_axes is None or not 0 <= n_axes <= MAX_AXES:
            raise HeaderError("no NAXIS that FITS allows")
        shape = []
        for axis in range(n_axes, 0, -1):
            length = self.integer(f"NAXIS{axis}")
            if length is None or length < 0:
                raise HeaderError(f"no NAXIS{axis} that FITS allows")
            shape.append(length)
        n_values = prod(shape) + max(0, self.integer("PCOUNT") or 0) if shape else 0
        return Layout(bitpix, tuple(shape), abs(bitpix) // 8 * n_values)

    @cached_property
    def image(self) -> Layout | None:
        """Type and shape of its image, even where a table holds the image compressed; None for no image."""
        if self.text("XTENSION") == "IMAGE":
            return self.layout
        n_axes, bitpix = self.integer("ZNAXIS"), self.integer("ZBITPIX")
        if self.value("ZIMAGE") is not True or n_axes not in (1, 2) or bitpix not in BITPIX_VALUES:
            return None
        shape = tuple(self.integer(f"ZNAXIS{axis}") or 0 for axis in range(n_axes, 0, -1))
        return Layout(bitpix, shape, self.layout.n_bytes)

    @cached_property
    def is_plain(self) -> bool:
        """Whether the bytes of the data are their values: neither compressed nor scaled."""
        is_scaled = self.value("BSCALE") not in (None, 1) or self.value("BZERO") not in (None, 0)
        return self.text("XTENSION") == "IMAGE" and not is_scaled and self.value("BLANK") is None


@cache
def _start_of_card(keyword: str) -> bytes:
    """Return the bytes that a card with a value begins with."""
    return keyword.ljust(KEYWORD_BYTES - 1).encode("ascii") + b"="


def _convert(kind: str, content: bytes) -> CardValue:
    """Return what the value field of a card means (FITS standard, section 4.2)."""
    if kind == "text":
        return content.decode("ascii", "replace").replace("''", "'")
    if kind == "integer":
        return int(content)
    if kind == "logical":
        return content == b"T"
    return float(content.upper().replace(b"D", b"E"))


# The images of a survey have few different headers (one for each number of visits).
_known_header = lru_cache(maxsize=512)(Header)


def _extension_header(cards: bytes) -> Header:
    """Return the header of an extension, from memory if it is short: hundreds of long ones would fill it."""
    return _known_header(cards) if len(cards) <= MAX_KEPT_BYTES else Header(cards)


@dataclass(frozen=True)
class Hdu:
    """One HDU of a file.

    Attributes
    ----------
    header : Header
        Its cards.
    layout : Layout
        What they promise of its data.
    data_start : int
        Where the data begin in the file.
    """

    header: Header
    layout: Layout
    data_start: int

    @property
    def end(self) -> int:
        """Where the next HDU begins: data are padded to whole blocks."""
        return self.data_start + -(-self.layout.n_bytes // BLOCK_BYTES) * BLOCK_BYTES


def read_hdu(source: ByteSource, start: int, *, ahead: int = BLOCK_BYTES) -> Hdu | None:
    """Read the header that begins at `start`.

    Parameters
    ----------
    source : ByteSource
        The file.
    start : int
        Offset of the HDU; 0 for the primary.
    ahead : int
        Bytes to fetch at once, in the hope that they hold the header and the data wanted next.

    Returns
    -------
    Hdu or None
        None where no HDU begins there.

    Raises
    ------
    ApStarError
        TRUNCATED where the file ends before the header does; MISSING_HDU for a damaged header.
    """
    magic = PRIMARY_START if start == 0 else EXTENSION_START
    n_bytes = max(ahead, BLOCK_BYTES)
    block = source.read(start, n_bytes)
    if not block.startswith(magic):
        if 0 < len(block) < len(magic) and magic.startswith(block):
            raise ApStarError(source.path, RejectReason.TRUNCATED, "the file ends inside a header")
        return None
    try:
        while (end := _find_end(block)) < 0:
            if len(block) < n_bytes:
                raise ApStarError(source.path, RejectReason.TRUNCATED, "the file ends inside a header")
            if n_bytes > MAX_HEADER_BYTES:
                raise HeaderError(f"no END in {MAX_HEADER_BYTES >> 20} MiB")
            n_bytes *= 4
            block = source.read(start, n_bytes)
        header = Header(block[:end]) if start == 0 else _extension_header(block[:end])
        return Hdu(header, header.layout, start + end)
    except HeaderError as error:
        text = f"the header at byte {start} is damaged: {error}"
        raise ApStarError(source.path, RejectReason.MISSING_HDU, text) from error


def _find_end(block: bytes) -> int:
    """Return where the header that begins a block ends, to a whole block; -1 where it does not.

    Raises
    ------
    HeaderError
        Where the next HDU begins before the END, which must have been lost.
    """
    at = block.find(END_CARD)
    while at > 0 and at % CARD_BYTES:
        at = block.find(END_CARD, at + 1)
    end = -1 if at < 0 else -(-(at + CARD_BYTES) // BLOCK_BYTES) * BLOCK_BYTES
    if block.find(EXTENSION_START, 1, end) % BLOCK_BYTES == 0:
        raise HeaderError("no END before the next HDU")
    return end


def check_promise(source: ByteSource, hdu: Hdu) -> None:
    """Raise TRUNCATED where the file ends before the data that a header promises do."""
    promised = hdu.data_start + hdu.layout.n_bytes
    if promised > source.size():
        text = f"{promised} bytes promised, {source.size()} there"
        raise ApStarError(source.path, RejectReason.TRUNCATED, text)


def check_rest(source: ByteSource, start: int) -> None:
    """Check the promises of the HDUs from `start` on.

    A file of whole blocks passes unread: what is cut off at a block's end lies behind the spectrum,
    and to fetch the six headers that follow it costs as many waits on a network file system.

    Raises
    ------
    ApStarError
        TRUNCATED, or MISSING_HDU for a damaged header.
    """
    if source.size() % BLOCK_BYTES == 0:
        return
    for _ in range(MAX_HDUS):
        hdu = read_hdu(source, start)
        if hdu is None:
            return
        check_promise(source, hdu)
        start = hdu.end
