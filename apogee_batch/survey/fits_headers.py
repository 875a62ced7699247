"""FITS headers as bytes: where each HDU of a file lies, without touching its data.

A spectrum is 86 kB of a file of a megabyte, and astropy takes fifteen times as long to reach them as
they take to read. A file that departs from the FITS standard (4.0) in a place that matters is rejected, one
that uses more of it than is understood here is left to astropy.
"""

from typing import NamedTuple

from apogee_batch.errors import ApStarError, RejectReason
from apogee_batch.survey.byte_ranges import ByteSource
from apogee_batch.survey.fits_cards import BLOCK_BYTES, CARD_BYTES, Header, HeaderError, Layout

__all__ = ["BLOCK_BYTES", "Hdu", "Header", "HeaderError", "Layout", "check_promise", "check_rest", "read_hdu"]

END_CARD = b"END".ljust(CARD_BYTES)
PRIMARY_START = b"SIMPLE  ="
EXTENSION_START = b"XTENSION="
MAX_HEADER_BYTES = 4 << 20  # a visit takes 1.4 kB of the primary header: 3000 visits
MAX_KEPT_BYTES = 8 * BLOCK_BYTES  # an image of the survey has one block of header, or two
MAX_RECENT = 512
RECENT_KEY_BYTES = 5 * CARD_BYTES  # XTENSION, BITPIX, NAXIS and the lengths of two axes
MAX_HDUS = 100  # an apStar file has ten, and thousands would take minutes to follow


class _RecentHeaders:
    """Headers of extensions that were read: the images of a survey have one for each number of visits.

    To compare the bytes of a header with those of one that was read takes a tenth of the time of reading it.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[int, bytes], Header] = {}

    def find(self, ahead: int, block: bytes) -> Header | None:
        """Return the header that a block begins with, if it was read before: its last card was there, too."""
        header = self._held.get((ahead, block[:RECENT_KEY_BYTES]))
        return header if header is not None and block.startswith(header.cards) else None

    def keep(self, ahead: int, header: Header) -> None:
        """Keep a header for later, if it is whole, and short: hundreds of long ones would fill the memory."""
        if len(header.cards) <= MAX_KEPT_BYTES and len(header.cards) % BLOCK_BYTES == 0:
            if len(self._held) >= MAX_RECENT:
                self._held.clear()
            self._held[ahead, header.cards[:RECENT_KEY_BYTES]] = header


_recent = _RecentHeaders()


class Hdu(NamedTuple):
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
    if start > 0 and (known := _recent.find(n_bytes, block)) is not None:
        return Hdu(known, known.layout, start + len(known.cards))
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
        header = Header(block[:end])
        hdu = Hdu(header, header.layout, start + end)
    except HeaderError as error:
        text = f"the header at byte {start} is damaged: {error}"
        raise ApStarError(source.path, RejectReason.MISSING_HDU, text) from error
    if start > 0:
        _recent.keep(max(ahead, BLOCK_BYTES), header)
    return hdu


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
    stop = len(block) if end < 0 else end
    for start in range(BLOCK_BYTES, stop, BLOCK_BYTES):
        if block.startswith(EXTENSION_START, start):
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
