"""The cards of one FITS header, as bytes: what each says, and what they promise of the data.

Only what the FITS standard (4.0) fixes is understood here.
"""

import re
from collections.abc import Mapping
from functools import cached_property, lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

BLOCK_BYTES = 2880
CARD_BYTES = 80
KEYWORD_BYTES = 9  # with the sign of equality
VALUE_BYTES = CARD_BYTES - KEYWORD_BYTES
EARLY_BYTES = 2 * BLOCK_BYTES  # what is wanted of a star comes first; after it, 18 cards a visit that are not
MAX_AXES = 9
NONE: frozenset[int] = frozenset()
BITPIX_VALUES = (8, 16, 32, 64, -32, -64)
PLAIN_NUMBER = b"0123456789+-. "
NO_SCALE = {
    "BSCALE": 1,
    "BZERO": 0,
}  # said by a card, or by none; one that says anything else is astropy's to judge

# The value field of a card: text, integer, real or logical, then nothing or a comment.
_VALUE = re.compile(
    rb" *(?:'(?P<text>(?:[^']|'')*)'|(?P<integer>[+-]?\d+)|(?P<logical>[TF])"
    rb"|(?P<real>[+-]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][+-]?\d+)?)) *(?:/|\Z)"
)

CardValue = str | float | int | bool | None


class HeaderError(ValueError):
    """A header without a card that FITS demands."""


class Layout(NamedTuple):
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
        self.accepted_as: frozenset[int] = NONE  # numbers of HDUs that it was found to be good for
        # Where the value field of each early card begins.
        self._early_fields = _known_fields(self._keywords(0, EARLY_BYTES), 0)
        self._layout: Layout | None = None

    @cached_property
    def grid(self) -> tuple[float | None, float | None, float | None]:
        """Start, step and reference pixel of its first axis (CRVAL1, CDELT1, CRPIX1)."""
        return self.number("CRVAL1"), self.number("CDELT1"), self.number("CRPIX1")

    @cached_property
    def _late_fields(self) -> Mapping[str, int]:
        """Where the value fields of the other cards begin."""
        return _find_fields(self._keywords(EARLY_BYTES, len(self.cards)), EARLY_BYTES)

    def _keywords(self, start: int, stop: int) -> bytes:
        """Return the first bytes of each card, one after the other."""
        # A file may be cut inside the last block of its header.
        n_cards = max(0, min(stop, len(self.cards)) - start) // CARD_BYTES
        values = np.frombuffer(self.cards, np.uint8, n_cards * CARD_BYTES, start if n_cards else 0)
        return values.reshape(n_cards, CARD_BYTES)[:, :KEYWORD_BYTES].tobytes()

    def has(self, keyword: str) -> bool:
        """Tell whether there is a card with a value, be it one that can be understood or not."""
        return keyword in self._early_fields or keyword in self._late_fields

    def value(self, keyword: str) -> CardValue:
        """Return the value of a card; None where there is none, or none that can be understood."""
        at = self._early_fields.get(keyword) or self._late_fields.get(keyword)
        return None if at is None else _known_value(self.cards[at : at + VALUE_BYTES])

    def text(self, keyword: str) -> str:
        """Return a card that holds text, without padding; "" where there is none."""
        at = self._early_fields.get(keyword) or self._late_fields.get(keyword)
        if at is None:
            return ""
        field = self.cards[at : at + VALUE_BYTES]
        before, quote, rest = field[2:].partition(b"'")
        if field.startswith(b" '") and quote and not rest.partition(b"/")[0].strip(b" "):
            return before.decode("ascii", "replace").strip()  # as almost always, without the expression
        value = _known_value(field)
        return value.strip() if isinstance(value, str) else ""

    def number(self, keyword: str) -> float | None:
        """Return a card that holds a number, of either kind."""
        at = self._early_fields.get(keyword) or self._late_fields.get(keyword)
        if at is None:
            return None
        field = self.cards[at : at + VALUE_BYTES]
        number = field.partition(b"/")[0]
        if not number.translate(None, PLAIN_NUMBER):  # as of most: the expression takes four times as long
            try:
                return float(number) if b"." in number else int(number)
            except ValueError:  # as 1-2 and 1 2 and nothing, which the expression does not take either
                return None
        value = _known_value(field)
        return value if type(value) is float or type(value) is int else None

    def numbers(self, *keywords: str) -> list[float | None]:
        """Return several cards that hold numbers, each as `number` does."""
        early, cards = self._early_fields, self.cards
        found: list[float | None] = []
        for keyword in keywords:
            at = early.get(keyword, 0)
            number = cards[at : at + VALUE_BYTES].partition(b"/")[0]
            if at and b"." in number and not number.translate(None, PLAIN_NUMBER):
                try:
                    found.append(float(number))
                    continue
                except ValueError:
                    pass
            found.append(self.number(keyword))
        return found

    def integer(self, keyword: str) -> int | None:
        """Return a card that holds an integer."""
        value = self.value(keyword)
        return value if type(value) is int else None

    @property
    def layout(self) -> Layout:
        """What it promises of its data; `HeaderError` where it lacks a card."""
        if self._layout is None:  # `cached_property` takes a lock, and each file has a header of its own
            self._layout = self._find_layout()
        return self._layout

    def _find_layout(self) -> Layout:
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
        is_scaled = any(self.has(name) and self.number(name) != value for name, value in NO_SCALE.items())
        return self.text("XTENSION") == "IMAGE" and not is_scaled and not self.has("BLANK")


def _find_fields(keywords: bytes, start: int) -> Mapping[str, int]:
    """Return where value fields begin, by keyword, of cards from `start` on; of a repeated one the first."""
    found: dict[str, int] = {}
    for i in range(len(keywords) // KEYWORD_BYTES):
        name = keywords[i * KEYWORD_BYTES : (i + 1) * KEYWORD_BYTES]
        if name.endswith(b"="):
            keyword = name[:-1].decode("latin-1").rstrip(" ")
            found.setdefault(keyword, start + i * CARD_BYTES + KEYWORD_BYTES)
    return found


# The headers of a survey name the same things in the same order: two blocks of 72 cards in all.
_known_fields = lru_cache(maxsize=512)(_find_fields)


@lru_cache(maxsize=4096)
def _known_value(field: bytes) -> CardValue:
    """Return what a value field means (FITS standard, section 4.2); many are the same for all stars."""
    match = _VALUE.match(field)
    kind = None if match is None else match.lastgroup
    if match is None or kind is None:
        return None
    content = match[kind]
    if kind == "real":
        return float(content.upper().replace(b"D", b"E") if b"D" in content or b"d" in content else content)
    if kind == "text":
        return content.decode("ascii", "replace").replace("''", "'")
    return int(content) if kind == "integer" else content == b"T"
