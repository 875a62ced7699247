"""What Parquet files say of themselves: one file, or all those of a HATS catalogue."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apogee_batch.catalog.facts import FLAGS_COLUMN, ColumnFacts, FileFacts, count_flags, is_ours
from apogee_batch.errors import UsageError

COLLECTION = "collection.properties"
CATALOG_PROPERTIES = ("hats.properties", "properties")  # the second is the older name
_PREFIX = b"apogee_batch."
_ARROW_WORDS = {"float": "float32", "double": "float64", "large_string": "string"}


def is_hats(folder: Path) -> bool:
    """Tell whether a folder is a HATS catalogue, or a collection of some."""
    return any((folder / name).is_file() for name in (COLLECTION, *CATALOG_PROPERTIES))


def parquet_facts(paths: Sequence[Path]) -> FileFacts:
    """Look through Parquet files of one schema, one column of one file after the other.

    Raises
    ------
    OSError, pa.ArrowException
        If a file cannot be read.
    UsageError
        If the columns of a file are not those of the first.
    """
    first = pq.read_schema(paths[0])
    n_missing = dict.fromkeys(first.names, 0)
    n_rows, flags = 0, []
    for path in paths:
        with pq.ParquetFile(path) as file:
            if file.schema_arrow.names != first.names:
                raise UsageError(f"{path}: has other columns than {paths[0]}; is the folder one catalogue?")
            n_rows += file.metadata.num_rows
            for name in first.names:
                values = file.read(columns=[name])[name]
                n_missing[name] += values.null_count
                if name == FLAGS_COLUMN and pa.types.is_integer(values.type):
                    flags.append(np.asarray(values.drop_null().to_numpy()))
    origin = {
        key.removeprefix(_PREFIX).decode(errors="replace"): text.decode(errors="replace")
        for key, text in (first.metadata or {}).items()
        if key.startswith(_PREFIX)
    }
    counts = count_flags(np.concatenate(flags), origin) if flags and is_ours(first.names) else ()
    columns = tuple(_column_facts(column, n_missing[column.name]) for column in first)
    return FileFacts(n_rows, columns, counts, origin)


def _column_facts(column: pa.Field, n_missing: int) -> ColumnFacts:
    told = {
        key.decode(errors="replace"): text.decode(errors="replace")
        for key, text in (column.metadata or {}).items()
    }
    dtype = _ARROW_WORDS.get(str(column.type), str(column.type))
    unit, ucd, description = (told.get(key, "") for key in ("unit", "ucd", "description"))
    return ColumnFacts(column.name, dtype, unit, ucd, description, n_missing)


def hats_facts(folder: Path) -> FileFacts:
    """Look through a HATS catalogue, or the primary one of a collection; hats itself is not needed.

    Raises
    ------
    UsageError
        If files that it should have are missing, or have other rows than its properties say.
    """
    collection = _properties(folder / COLLECTION) if (folder / COLLECTION).is_file() else {}
    main = _inside(folder, collection["hats_primary_table_url"]) if collection else folder
    facts, n_files = _catalog_facts(main)
    remarks = [f"HATS catalogue {main.name} of {n_files:,} partitions"]
    for name in filter(None, collection.get("all_margins", "").split()):
        margin = _catalog_properties(_inside(folder, name))
        width, n_rows = margin.get("hats_margin_threshold", "?"), margin.get("hats_nrows", "?")
        default = " (the default)" if name == collection.get("default_margin") else ""
        remarks.append(f"margin cache {name}{default}: {width} arcsec, {n_rows} rows")
    return FileFacts(facts.n_rows, facts.columns, facts.flag_counts, facts.origin, tuple(remarks))


def _catalog_facts(folder: Path) -> tuple[FileFacts, int]:
    """Return the facts of one catalogue and the number of its partitions, all of which must be there."""
    properties = _catalog_properties(folder)
    with (folder / "partition_info.csv").open(newline="") as file:
        pixels = [(int(row["Norder"]), int(row["Npix"])) for row in csv.DictReader(file)]
    suffix = properties.get("hats_npix_suffix", ".parquet")
    dataset = folder / "dataset"
    paths = [
        dataset / f"Norder={order}" / f"Dir={pixel // 10_000 * 10_000}" / f"Npix={pixel}{suffix}"
        for order, pixel in pixels
    ]
    missing = [path for path in paths if not path.exists()]
    if missing or not paths:
        named = missing[0] if missing else dataset
        raise UsageError(f"{named}: is missing, one of {len(paths)} partitions; is the folder whole?")
    files = [file for path in paths for file in (sorted(path.glob("*")) if path.is_dir() else [path])]
    facts = parquet_facts(files)
    if str(facts.n_rows) != properties.get("hats_nrows", str(facts.n_rows)):
        raise UsageError(
            f"{folder}: its files hold {facts.n_rows} rows, its properties say {properties['hats_nrows']}; "
            "is the folder whole?"
        )
    return facts, len(paths)


def _catalog_properties(folder: Path) -> dict[str, str]:
    return _properties(next((p for n in CATALOG_PROPERTIES if (p := folder / n).is_file()), folder))


def _properties(path: Path) -> dict[str, str]:
    """Return the lines `name=text` of a file."""
    lines = (line.partition("=") for line in path.read_text(encoding="utf-8").splitlines())
    return {name.strip(): text.strip() for name, sign, text in lines if sign and not name.startswith("#")}


def _inside(folder: Path, name: str) -> Path:
    """Return a folder that a collection names, if it lies in that collection."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"{folder / COLLECTION}: names {name}, which lies outside; describe that folder itself"
        )
    return path
