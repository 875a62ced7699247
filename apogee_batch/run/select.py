"""What `apogee-batch select` does: the stars of a published catalogue in a region of (Teff, log g).

The catalogue is read by row groups, and of a row group without such a star only a few columns. The rows found
wait in an unnamed file, since a table begins with what must be known of all its rows: memory does not grow
with the number of stars.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from apogee_batch.catalog.rows import CatalogRows, Summary
from apogee_batch.catalog.selection import Polygon
from apogee_batch.errors import IntegrityError
from apogee_batch.files import make_folder, sha256_of_file
from apogee_batch.run.export import find_published
from apogee_batch.run.selection_columns import AddedColumns, LoggBins, Tally, floats
from apogee_batch.run.selection_settings import (
    SELECTIONS,
    SelectionSettings,
    bits_of,
    read_mesh,
    read_polygon,
    writer_of,
)
from apogee_batch.schema import DATA_TYPES, BoolArray, arrow_schema, catalog_columns, catalog_flags

TITLE = "Young stars from APOGEE spectra: a region of Teff and log g"
_DECIDING = ("teff", "logg", "flags", "data_type")
_WITHOUT_LABEL = "no label"


@dataclass
class _Counts:
    """What was seen in the catalogue: stars, those selected, both by type of label; those left out."""

    seen: Counter[str] = field(default_factory=Counter)
    selected: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)
    n_without_prediction: int = 0
    n_left_out: int = 0


def select_ysos(run: Path, out: Path | None, settings: SelectionSettings) -> list[str]:
    """Write the young stars of a run's catalogue as a table.

    Parameters
    ----------
    run : Path
        Folder of a published run.
    out : Path, optional
        The table; its suffix tells the format. By default `selections/ysos.parquet` in the run's folder.
    settings : SelectionSettings

    Returns
    -------
    list of str
        How many of how many, and of which kinds.

    Raises
    ------
    UsageError
        If a setting, the polygon's file or an isochrone is of no use, or the run is not published.
    IntegrityError
        If the catalogue is damaged.
    """
    path = run / SELECTIONS / "ysos.parquet" if out is None else out
    write = writer_of(path, run)
    polygon, source = read_polygon(settings.polygon)
    bits = bits_of(settings.without_flags)
    mesh, notes = read_mesh(settings)
    bins = None if settings.logg_bins is None else LoggBins.parse(settings.logg_bins)
    added = AddedColumns(polygon if settings.with_probability else None, mesh, bins)
    catalog, metadata = find_published(run)
    make_folder(path.parent)
    counts, tally = _Counts(), Tally()
    with tempfile.TemporaryFile(dir=path.parent) as spool:
        found = _selected(catalog, polygon, bits, counts)
        rows = _spooled((added.add_to(piece, tally) for piece in found), added, spool)
        written = write(rows, path, metadata=metadata | _metadata(settings, polygon, added))
    lines = [*_count_lines(counts, source, settings), *notes, *_added_lines(added, tally)]
    return [*lines, f"{written.path}: {rows.summary.n_rows} stars, {written.size / 1e6:,.2f} MB"]


def _selected(catalog: Path, polygon: Polygon, bits: int, counts: _Counts) -> Iterator[pa.Table]:
    """Give the rows in the polygon, and count; of other row groups only a few columns are read."""
    schema = arrow_schema(catalog_columns())
    try:
        with pq.ParquetFile(catalog, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                deciding = file.read_row_group(group, columns=list(_DECIDING))
                is_selected = _decide(deciding, polygon, bits, counts)
                if is_selected.any():
                    rows = file.read_row_group(group).filter(pa.array(is_selected))
                    yield rows.replace_schema_metadata(None).cast(schema)
    except (pa.ArrowException, OSError) as error:
        text = " ".join(str(error).split())
        raise IntegrityError(
            f"{catalog}: damaged ({text}); give the same 'apogee-batch run-catalog' command again"
        ) from error


def _decide(rows: pa.Table, polygon: Polygon, bits: int, counts: _Counts) -> BoolArray:
    """Tell which rows are selected, and count them."""
    teff, logg = floats(rows["teff"]), floats(rows["logg"])
    flags = rows["flags"].to_numpy()
    is_inside, is_flagged = polygon.contains(teff, logg), (flags & bits) != 0
    is_selected: BoolArray = is_inside & ~is_flagged
    counts.n_without_prediction += int(np.isnan(teff + logg).sum())
    counts.n_left_out += int((is_inside & is_flagged).sum())
    kinds = rows["data_type"].fill_null(_WITHOUT_LABEL)
    for counter, chosen in ((counts.seen, kinds), (counts.selected, kinds.filter(pa.array(is_selected)))):
        counter.update({kind["values"]: kind["counts"] for kind in pc.value_counts(chosen).to_pylist()})
    for name, flag in catalog_flags().items():
        counts.flagged[name] += int((flags[is_selected] & (1 << flag.bit) != 0).sum())
    return is_selected


def _spooled(pieces: Iterator[pa.Table], added: AddedColumns, spool: IO[bytes]) -> CatalogRows:
    """Put rows into an open file; return them, to be read from there as often as is needed."""
    columns = (*catalog_columns(), *added.columns)
    summary = Summary()
    summary.add(arrow_schema(columns).empty_table())
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(spool, arrow_schema(columns), options=options) as stream:
        for piece in pieces:
            summary.add(piece)
            stream.write_table(piece)

    def read() -> Iterator[pa.Table]:
        spool.seek(0)
        return (pa.Table.from_batches([batch]) for batch in pa.ipc.open_stream(spool))

    return CatalogRows(read, summary, columns)


def _metadata(settings: SelectionSettings, polygon: Polygon, added: AddedColumns) -> dict[str, str]:
    """Return what the table says of the selection: nothing that changes with time or machine."""
    told = {
        "title": TITLE,
        "polygon": json.dumps(polygon.vertices),
        "without_flags": ",".join(sorted(settings.without_flags)),
    }
    if settings.isochrones:
        hashes = sorted((path.name, sha256_of_file(path)) for path in settings.isochrones)
        told["isochrones"] = json.dumps(hashes)
    return told | dict(added.metadata())


def _count_lines(counts: _Counts, source: str, settings: SelectionSettings) -> list[str]:
    """Say how many of how many were selected, by type of label and by flag."""
    n_selected, n_seen = counts.selected.total(), counts.seen.total()
    share = f" ({n_selected / n_seen:.2%})" if n_seen else ""
    lines = [f"{n_selected} of {n_seen} stars{share} lie in {source}"]
    if set(counts.seen) - {_WITHOUT_LABEL}:
        kinds = [kind for kind in (*DATA_TYPES[::-1], _WITHOUT_LABEL) if counts.seen[kind]]
        told = ", ".join(f"{kind} {counts.selected[kind]} of {counts.seen[kind]}" for kind in kinds)
        lines.append(f"by label: {told}")
    flagged = ", ".join(f"{name} {n}" for name, n in counts.flagged.items() if n)
    lines.append(f"flagged among them: {flagged or 'none'}")
    if settings.without_flags:
        lines.append(f"left out of it: {counts.n_left_out} flagged {', '.join(settings.without_flags)}")
    if counts.n_without_prediction:
        lines.append(f"never selected: {counts.n_without_prediction} without a prediction")
    return lines


def _added_lines(added: AddedColumns, tally: Tally) -> list[str]:
    """Say what the added columns hold."""
    lines = []
    if added.probability_of or added.mesh:
        names = {
            "calibrated": "calibrated",
            "realizations": "from the scatter of realizations",
            "none": "unknown",
        }
        told = ", ".join(f"{tally.errors[name]} {words}" for name, words in names.items())
        lines.append(f"errors: {told}")
    if added.probability_of:
        lines.append(f"p_inside: its sum is {tally.expected:.1f}")
    if added.mesh:
        told = ", ".join(f"{name} {n}" for name, n in tally.age_flags.items() if n)
        lines.append(f"ages: {tally.n_ages}; flagged: {told or 'none'}")
    if added.logg_bins:
        numbers = range(len(added.logg_bins.edges) + 1)
        told = ", ".join(f"{added.logg_bins.name(i)}: {tally.logg_bins[i]}" for i in numbers)
        lines.append(f"log g {told}")
    return lines
