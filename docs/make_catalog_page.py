"""Fill the tables of `catalog.md` and `store.md` from `schemas/*.json`.

A page is prose written by hand and tables between the marks `<!-- table: NAME -->` and
`<!-- end -->`. Run this script after a change of a schema; a test compares the pages with it.

    python docs/make_catalog_page.py
"""

import re
from collections.abc import Sequence
from pathlib import Path

from apogee_batch.schema import (
    Column,
    catalog_columns,
    catalog_flags,
    reject_columns,
    star_columns,
    store_arrays,
)

DOCS = Path(__file__).resolve().parent
PAGES = ("catalog.md", "store.md")
TABLE = re.compile(r"(<!-- table: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def column_table(columns: Sequence[Column]) -> str:
    """Return the columns of a table: name, meaning, unit, type and UCD."""
    rows = [
        (
            f"`{column.name}`",
            column.description,
            column.unit,
            column.dtype,
            "yes" if column.nullable else "no",
            f"`{column.ucd}`",
        )
        for column in columns
    ]
    return markdown_table(("column", "what it is", "unit", "type", "may be null", "UCD"), rows)


def flag_table() -> str:
    """Return the bits of the catalogue's `flags` column."""
    rows = [
        (str(flag.bit), str(1 << flag.bit), f"`{flag.name}`", flag.description)
        for flag in catalog_flags().values()
    ]
    return markdown_table(("bit", "value", "name", "set when"), rows)


def array_table() -> str:
    """Return the arrays of a store."""
    rows = [
        (
            f"`{array['name']}`",
            array["dtype"],
            ", ".join(array["dims"]),
            array["unit"],
            array["description"],
        )
        for array in store_arrays()
    ]
    return markdown_table(("array", "type", "dimensions", "unit", "what it is"), rows)


def fill(page: str) -> str:
    """Return the text of a page with its tables made anew."""
    tables = {
        "catalog-columns": column_table(catalog_columns()),
        "catalog-flags": flag_table(),
        "store-arrays": array_table(),
        "star-columns": column_table(star_columns()),
        "reject-columns": column_table(reject_columns()),
    }
    return TABLE.sub(lambda found: found[1] + tables[found["name"]] + found[3], page)


def main() -> None:
    """Write the pages."""
    for name in PAGES:
        path = DOCS / name
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
