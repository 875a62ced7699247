"""The page of a run: one HTML file that needs no network and no script.

What it shows comes in sections of text, tables and pictures; everything is escaped.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO

from jinja2 import Environment, StrictUndefined
from PIL import Image

from apogee_batch.report.canvas import DPI
from apogee_batch.report.page_figures import Picture

TEMPLATE = "templates/report.html"
PACKAGE = "apogee_batch.report"
N_COLOURS = 256


@dataclass(frozen=True)
class PageTable:
    """A table of the page.

    Attributes
    ----------
    caption : str
    header : tuple of str
        Titles of the columns; may be empty.
    rows : tuple of tuple of str
        Cells, as many in each row as the header has, if there is one.
    n_texts : int
        How many of the first columns are text, set to the left; numbers are set to the right.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_texts: int = 1

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.rows} | ({len(self.header)} if self.header else set())
        if len(widths) > 1:
            raise ValueError(f"rows of the table {self.caption!r} have {sorted(widths)} cells")

    def without_empty_columns(self) -> "PageTable":
        """Return the table without columns that have no entry in any row; without rows, as it is."""
        n_columns = len(self.rows[0]) if self.rows else 0
        kept = [i for i in range(n_columns) if any(row[i] for row in self.rows)]
        if len(kept) == n_columns:
            return self
        header = tuple(self.header[i] for i in kept) if self.header else ()
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        return PageTable(self.caption, header, rows, sum(i < self.n_texts for i in kept))


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes
    ----------
    anchor, title : str
        Name in links; heading.
    missing : tuple of str
        What cannot be shown, and why.
    pictures : tuple of Picture
        Above the text.
    text : tuple of str
        Paragraphs.
    tables : tuple of PageTable
        Below the text.
    glance : tuple of (str, str)
        Words and the number they stand for, above everything.
    """

    anchor: str
    title: str
    missing: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    text: tuple[str, ...] = ()
    tables: tuple[PageTable, ...] = ()
    glance: tuple[tuple[str, str], ...] = ()


def render_page(title: str, sections: Sequence[Section], *, subtitle: str = "", made_of: str = "") -> str:
    """Return the page as HTML; the pictures are read and become part of it.

    Parameters
    ----------
    title : str
    sections : sequence of Section
    subtitle : str
        Below the title.
    made_of : str
        SHA-256 of what the page was made of, by which it is known again.

    Raises
    ------
    OSError
        If a picture cannot be read.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"embed": _embed, "width_of": _width_of}
    source = resources.files(PACKAGE).joinpath(TEMPLATE).read_text(encoding="utf-8")
    told = {"title": title, "subtitle": subtitle, "made_of": made_of}
    return environment.from_string(source).render(sections=list(sections), **told)


def _embed(picture: Picture) -> str:
    """Return a picture as the address of itself, in 256 colours: a third of the bytes, and no less sharp."""
    with Image.open(picture.path) as opened:
        reduced = opened.convert("RGB").quantize(N_COLOURS, dither=Image.Dither.NONE)
    content = BytesIO()
    reduced.save(content, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getbuffer()).decode("ascii")


def _width_of(picture: Picture) -> int:
    """Return how many pixels of a page a picture is wide: what its inches would be at 120 dots."""
    n_dots = int.from_bytes(picture.path.read_bytes()[16:20], "big")  # of the header of a PNG file
    return round(n_dots / DPI * 120)
