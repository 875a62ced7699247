"""The lines of `apogee-batch describe`."""

import io
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from apogee_batch.catalog.description import read_facts
from apogee_batch.catalog.facts import ColumnFacts, FileFacts
from apogee_batch.catalog.parquet_facts import is_hats

ORIGIN_WORDS = ("run_id", "catalog_version", "software", "precision", "n_realizations", "reference")
WIDE = 130  # columns of a terminal that has room for UCDs


def describe_file(path: Path, *, width: int) -> list[str]:
    """Describe a catalogue file, or that of a run, in a few lines and two tables.

    Parameters
    ----------
    path : Path
        A file, a HATS folder, or the folder of a published run.
    width : int
        Columns of the terminal.

    Raises
    ------
    UsageError
        If there is no catalogue that can be read.
    """
    is_run = path.is_dir() and not is_hats(path)
    file = path / "catalog" / "catalog.parquet" if is_run else path
    facts = read_facts(file)
    lines = [f"{file}: {facts.n_rows:,} rows, {len(facts.columns)} columns", *map(_printable, facts.remarks)]
    lines += [_printable(f"{word}: {facts.origin[word]}") for word in ORIGIN_WORDS if word in facts.origin]
    lines += ["", *_to_lines(_columns_table(facts.columns, is_wide=width >= WIDE), width)]
    if facts.flag_counts:
        lines += ["", *_to_lines(_flags_table(facts), width)]
    return lines


def _table(title: str) -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, title=title, title_justify="left")


def _columns_table(columns: tuple[ColumnFacts, ...], *, is_wide: bool) -> Table:
    table = _table("Columns")
    for head in ("name", "type", "unit"):
        table.add_column(head, no_wrap=True)
    table.add_column("missing", justify="right", no_wrap=True)
    if is_wide:
        table.add_column("UCD", overflow="fold")
    table.add_column("description")
    for column in columns:
        cells = [column.name, column.dtype, column.unit, f"{column.n_missing:,}"]
        table.add_row(*cells, *([column.ucd] if is_wide else []), column.description)
    return table


def _flags_table(facts: FileFacts) -> Table:
    table = _table("Bits of the column flags")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("name", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("meaning")
    for flag, n_rows in facts.flag_counts:
        table.add_row(str(1 << flag.bit), flag.name, f"{n_rows:,}", flag.description)
    return table


def _to_lines(table: Table, width: int) -> list[str]:
    """Lay out a table as plain text; texts of files are shown as they are, markup and all."""
    console = Console(
        file=io.StringIO(), width=width, color_system=None, markup=False, emoji=False, highlight=False
    )
    with console.capture() as captured:
        console.print(table)
    return [_printable(line).rstrip() for line in captured.get().split("\n") if line.strip()]


def _printable(text: str) -> str:
    """Return a text without what a terminal would obey, which any file may hold."""
    return "".join(c if c.isprintable() else "?" for c in text)
