"""Tables of plain text, for the terminal and for `results.txt`."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

GAP = "  "
BLOCK_GAP = "   "


@dataclass(frozen=True)
class Block:
    """Columns that stay together, under one title.

    Attributes
    ----------
    title : str
        Stands centred above the columns.
    header : tuple of str
        Column titles.
    rows : tuple of tuple of str
        Cells, as many in each row as the header has.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.header) for row in self.rows):
            raise ValueError(f"a row of block {self.title!r} has not {len(self.header)} cells")

    def lines(self) -> list[str]:
        """Return title, header and rows as lines of one width, cells set to the right."""
        table = [self.header, *self.rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(self.header))]
        cells = [
            GAP.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table
        ]
        width = max(len(self.title), len(cells[0]))
        return [self.title.center(width), *(line.rjust(width) for line in cells)]


def lay_out(row_titles: Sequence[str], blocks: Sequence[Block], width: int) -> str:
    """Put blocks beside one another, and below one another where they do not fit.

    Parameters
    ----------
    row_titles : sequence of str
        Titles of the rows, at the left of each line of blocks.
    blocks : sequence of Block
        Blocks with as many rows as there are titles.
    width : int
        Columns available; a single block that is wider is shown whole all the same.

    Returns
    -------
    str
        Lines without trailing blanks.
    """
    heads = _pad(["", "", *row_titles])
    bands: list[list[list[str]]] = []
    for block in blocks:
        column = block.lines()
        if bands and _width([heads, *bands[-1], column]) <= width:
            bands[-1].append(column)
        else:
            bands.append([column])
    joined = [[BLOCK_GAP.join(cells).rstrip() for cells in zip(heads, *band, strict=True)] for band in bands]
    return "\n\n".join("\n".join(lines) for lines in joined)


def wrap(text: str, width: int) -> str:
    """Break a sentence into lines of at most `width` characters."""
    return textwrap.fill(text, max(width, 20), break_long_words=False)


def _pad(lines: Sequence[str]) -> list[str]:
    """Return lines of one width, set to the left."""
    width = max(len(line) for line in lines)
    return [line.ljust(width) for line in lines]


def _width(columns: Sequence[Sequence[str]]) -> int:
    """Return the width of columns beside one another."""
    return sum(len(column[0]) for column in columns) + len(BLOCK_GAP) * (len(columns) - 1)
