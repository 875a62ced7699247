"""apStar files in the survey's own layout, and every way in which they come damaged."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO

import numpy as np
from astropy.io import fits

from apogee_batch.errors import RejectReason
from apogee_batch.survey.pixels import N_PIXELS
from apogee_batch.survey.populations import draw_star
from apogee_batch.survey.simulate import simulate_flux
from apogee_batch.survey.simulate_exposure import observe
from apogee_batch.survey.simulate_files import apstar_bytes

BLOCK = 2880
CARD = 80
NAN = np.array(np.nan, ">f4").tobytes()
INFINITY = np.array(np.inf, ">f4").tobytes()
FILLER = np.array(1e10, ">f4").tobytes()
NOTHING = bytes(4)
Change = Callable[[bytes], bytes]


@cache
def good_file(n_visits: int) -> bytes:
    """Return an apStar file of the simulator; the same each time."""
    star = next(star for i in range(5000) if (star := draw_star(7, i)).n_visits == n_visits)
    exposure = observe(
        simulate_flux(star),
        snr=star.snr,
        n_visits=star.n_visits,
        velocity_km_s=star.velocity_km_s,
        rng=np.random.default_rng(n_visits),
    )
    return apstar_bytes(star, exposure)


@dataclass(frozen=True)
class Span:
    """Where an HDU lies: its header, its data, the data without padding."""

    header: int
    data: int
    end: int
    data_end: int


@cache
def spans(content: bytes) -> tuple[Span, ...]:
    """Return where astropy finds the HDUs of a file."""
    found = []
    with fits.open(BytesIO(content), memmap=False) as hdus:
        for number, hdu in enumerate(hdus):
            info = hdus.fileinfo(number)
            size = 0 if hdu.data is None else hdu.data.nbytes
            data = int(info["datLoc"])
            found.append(Span(int(info["hdrLoc"]), data, data + int(info["datSpan"]), data + size))
    return tuple(found)


def put(content: bytes, at: int, new: bytes) -> bytes:
    """Return a file of the same length with other bytes at some place."""
    return content[:at] + new + content[at + len(new) :]


def set_card(content: bytes, span: Span, keyword: str, value: str) -> bytes:
    """Return a file with one card of an HDU changed; a card that it lacks replaces one of no use."""
    names = [keyword.ljust(8).encode() + b"=", b"BUNIT   =", b"SURVEY  =", b"CTYPE1  ="]
    places = [span.header + i for i in range(0, span.data - span.header, CARD)]
    at = next(place for name in names for place in places if content[place:].startswith(name))
    return put(content, at, f"{keyword:<8}= {value}".encode().ljust(CARD))


def drop_cards(keyword: str, content: bytes) -> bytes:
    """Return a file in which no header has a certain card."""
    changed = content
    for span in spans(content)[:4]:
        for at in range(span.header, span.data, CARD):
            if content[at:].startswith(keyword.ljust(8).encode() + b"="):
                changed = put(changed, at, b"COMMENT".ljust(CARD))
    return changed


def without_hdu(number: int, content: bytes) -> bytes:
    """Return a file without one of its HDUs, and without those after the mask."""
    hdus = [content[span.header : span.end] for span in spans(content)[:4]]
    return b"".join(hdus[:number] + hdus[number + 1 :])


def swapped(content: bytes) -> bytes:
    """Return a file with its mask where its flux should be."""
    primary, flux, err, mask = (content[span.header : span.end] for span in spans(content)[:4])
    return primary + mask + err + flux


def filled(number: int, value: bytes, content: bytes) -> bytes:
    """Return a file with one value in all pixels of all rows of an HDU."""
    span = spans(content)[number]
    return put(content, span.data, value * ((span.data_end - span.data) // len(value)))


def with_objid(value: str, content: bytes) -> bytes:
    """Return a file that says it is of another star."""
    return set_card(content, spans(content)[0], "OBJID", f"'{value}'")


def with_card(numbers: Sequence[int], keyword: str, value: object, content: bytes) -> bytes:
    """Return a file with one card changed in some HDUs."""
    changed = content
    for number in numbers:
        changed = set_card(changed, spans(content)[number], keyword, f"{value:>20}")
    return changed


def wide_mask(content: bytes) -> bytes:
    """Return a file whose mask is of 64 bits, and uses the 41st."""
    span = spans(content)[3]
    n_values = (span.data_end - span.data) // 2
    data = np.full(n_values, 1 << 40, ">i8").tobytes()
    header = set_card(content, span, "BITPIX", f"{64:>20d}")[span.header : span.data]
    return content[: span.header] + header + data + bytes(-len(data) % BLOCK)


def table_first(content: bytes) -> bytes:
    """Return a file whose first extension is a table."""
    file = BytesIO()
    table = fits.BinTableHDU(np.zeros(3, [("a", "f4")]))
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(file)
    primary, rest = spans(content)[0], spans(content)[1]
    return content[: primary.end] + file.getvalue()[BLOCK:] + content[rest.header :]


def without_end(number: int, content: bytes) -> bytes:
    """Return a file that lacks the END of one header."""
    span = spans(content)[number]
    at = content.rindex(b"END".ljust(CARD), span.header, span.data)
    return put(content, at, b"COMMENT".ljust(CARD))


def flipped(at: int, content: bytes) -> bytes:
    """Return bytes with one of them changed."""
    return put(content, at, bytes([content[at] ^ 0xFF]))


@dataclass(frozen=True)
class Malformed:
    """One kind of damage: what it is called, how it is made, what is said of it."""

    name: str
    reason: RejectReason
    said: str
    change: Change


def _cuts() -> Iterator[Malformed]:
    """Give the files cut short: in every header, in all data, and where an HDU ends."""
    truncated, missing = RejectReason.TRUNCATED, RejectReason.MISSING_HDU
    inside = "the file ends inside a header"
    promised = "bytes promised, .* there"
    for number, content in enumerate(("", "flux", "err", "mask")):

        def cut(where: Callable[[Span], int], whole: bytes, number: int = number) -> bytes:
            return whole[: where(spans(whole)[number])]

        def give(name: str, reason: RejectReason, said: str, where: Callable[[Span], int]) -> Malformed:
            return Malformed(f"HDU{number} cut {name}", reason, said, partial(cut, where))  # noqa: B023

        yield give("in its header", truncated, inside, lambda span: span.header + 10 * CARD)
        yield give("in the middle of a card", truncated, inside, lambda span: span.header + 777)
        if number:
            yield give("in its first word", truncated, inside, lambda span: span.header + 4)
            yield give("before it", missing, rf"no HDU{number} \({content}\)", lambda span: span.header)
            yield give("before its data", truncated, promised, lambda span: span.data)
            yield give("in its data", truncated, promised, lambda span: (span.data + span.data_end) // 2)
            yield give("by a byte", truncated, promised, lambda span: span.data_end - 1)
            yield give("at a block", truncated, promised, lambda span: span.end - BLOCK)


ALL = (0, 1, 2, 3)
IMAGES = (1, 2, 3)
NOT_FITS = "does not begin as FITS files do"
NO_GRID = "no CRVAL1 and CDELT1"
OTHER_GRID = "wavelengths are 10"
NOT_FINITE = "flux and error are both finite"
NOT_MEASURED = "no pixel with a measurement"
Row = tuple[RejectReason, str, str, Change]
KIND_ROWS: tuple[Row, ...] = (
    (RejectReason.EMPTY, "no byte", "no bytes", lambda _: b""),
    (RejectReason.NOT_FITS, "a web page", NOT_FITS, lambda _: b"<html>404 not found</html>"),
    (RejectReason.NOT_FITS, "zeros", NOT_FITS, lambda whole: bytes(len(whole))),
    (RejectReason.NOT_FITS, "its head lost", NOT_FITS, lambda whole: whole[spans(whole)[1].header :]),
    (RejectReason.NOT_FITS, "its first byte lost", NOT_FITS, lambda whole: whole[1:]),
    (RejectReason.MISSING_HDU, "the mask taken out", "no HDU3", partial(without_hdu, 3)),
    (RejectReason.MISSING_HDU, "flux of 17 bits", "no BITPIX", partial(with_card, [1], "BITPIX", 17)),
    (RejectReason.MISSING_HDU, "mask of -3 axes", "no NAXIS ", partial(with_card, [3], "NAXIS", -3)),
    (RejectReason.MISSING_HDU, "no END", "no END before the next HDU", partial(without_end, 0)),
    (RejectReason.NOT_APSTAR, "err taken out", "HDU2 holds integers", partial(without_hdu, 2)),
    (RejectReason.NOT_APSTAR, "a table", "HDU1 is a table", table_first),
    (RejectReason.NOT_APSTAR, "mask first", "HDU1 holds integers", swapped),
    (RejectReason.NOT_APSTAR, "real mask", "HDU3 holds real", partial(with_card, [3], "BITPIX", -32)),
    (RejectReason.BAD_SHAPE, "a pixel less", "8575", partial(with_card, IMAGES, "NAXIS1", N_PIXELS - 1)),
    (RejectReason.BAD_SHAPE, "err of 1 pixel", r"HDU2 \(err\)", partial(with_card, [2], "NAXIS1", 1)),
    (RejectReason.BAD_SHAPE, "no axis", r"has shape \(\)", partial(with_card, [1], "NAXIS", 0)),
    (RejectReason.BAD_GRID, "another start", OTHER_GRID, partial(with_card, ALL, "CRVAL1", 4.18)),
    (RejectReason.BAD_GRID, "another step", OTHER_GRID, partial(with_card, ALL, "CDELT1", 6.01e-6)),
    (RejectReason.BAD_GRID, "another pixel", OTHER_GRID, partial(with_card, ALL, "CRPIX1", 2)),
    (RejectReason.BAD_GRID, "a grid of text", NO_GRID, partial(with_card, ALL, "CRVAL1", "'4.179'")),
    (RejectReason.BAD_GRID, "no start", NO_GRID, partial(drop_cards, "CRVAL1")),
    (RejectReason.BAD_GRID, "no step", NO_GRID, partial(drop_cards, "CDELT1")),
    (RejectReason.NON_FINITE, "flux of NaN", NOT_FINITE, partial(filled, 1, NAN)),
    (RejectReason.NON_FINITE, "infinite flux", NOT_FINITE, partial(filled, 1, INFINITY)),
    (RejectReason.NON_FINITE, "err of NaN", NOT_FINITE, partial(filled, 2, NAN)),
    (RejectReason.NO_GOOD_PIXELS, "err of fillers", NOT_MEASURED, partial(filled, 2, FILLER)),
    (RejectReason.NO_GOOD_PIXELS, "err of zeros", NOT_MEASURED, partial(filled, 2, NOTHING)),
    (RejectReason.BAD_ID, "a name that climbs", "apogee_id is", partial(with_objid, "../../x")),
    (RejectReason.BAD_ID, "a name of markup", "apogee_id is", partial(with_objid, "<script>")),
    (RejectReason.BAD_MASK, "a wide mask", "do not fit 32 bits", wide_mask),
    (RejectReason.BAD_MASK, "blanks in a mask", "do not fit 32 bits", partial(with_card, [3], "BLANK", 1)),
)
CUTS = tuple(_cuts())
KINDS = tuple(Malformed(name, reason, said, change) for reason, name, said, change in KIND_ROWS)
