"""A published catalogue in the other formats that astronomers open."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from apogee_batch.catalog.hats import PositionedRows
from apogee_batch.catalog.mrt import write_mrt
from apogee_batch.catalog.rows import PIECE_ROWS, CatalogRows, Summary
from apogee_batch.catalog.text_tables import write_csv, write_ecsv
from apogee_batch.catalog.votable import write_votable
from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import FileDigest, read_sealed_json, sha256_of_file
from apogee_batch.run.hats import DEFAULT_MARGIN_ARCSEC, check_hats_export, export_hats
from apogee_batch.run.run_folder import MANIFEST_FILE
from apogee_batch.schema import arrow_schema, catalog_columns, catalog_version

EXPORT_FOLDER = "export"
_KEY_PREFIX = b"apogee_batch."
_SAID_ANYWAY = ("title", "catalog_version", "flags")  # by every writer, from the schema


class _Writer(Protocol):
    def __call__(
        self, rows: CatalogRows, path: Path, *, metadata: dict[str, str], staging: Path | None = None
    ) -> FileDigest: ...


@dataclass(frozen=True)
class ExportFormat:
    """A format: what it is for, the suffix of its file, and what writes it."""

    purpose: str
    suffix: str
    write: _Writer


HATS = "hats"  # the one format that is a folder
HATS_PURPOSE = "HATS collection with a margin cache, for lsdb and cross-matches of large catalogues"
FORMATS: dict[str, ExportFormat] = {
    "votable": ExportFormat("VOTable 1.3 with BINARY2 data, for TOPCAT and Aladin", "vot", write_votable),
    "csv": ExportFormat("plain CSV, for any program", "csv", write_csv),
    "ecsv": ExportFormat("CSV with units and descriptions, for astropy", "ecsv", write_ecsv),
    "mrt": ExportFormat("Table 4 of the paper as the journals' machine-readable table", "mrt", write_mrt),
}


def export(
    run: Path,
    formats: Sequence[str],
    *,
    out: Path | None = None,
    margin_arcsec: float = DEFAULT_MARGIN_ARCSEC,
) -> list[str]:
    """Write the catalogue of a run in other formats.

    Parameters
    ----------
    run : Path
        Folder of a published run.
    formats : sequence of str
        Names of `FORMATS`, or `HATS`.
    out : Path, optional
        Folder for the files; by default `export` in the run's folder.
    margin_arcsec : float
        Of a HATS catalogue: how far beyond its border each partition knows the stars.

    Returns
    -------
    list of str
        A line for each file or folder, and one on rows that a format cannot hold.

    Raises
    ------
    UsageError
        If a format is unknown or needs what is not installed, or the run is not published.
    IntegrityError
        If the catalogue is not what was published.
    """
    known = (*FORMATS, HATS)
    unknown = [name for name in formats if name not in known]
    if unknown or not formats:
        raise UsageError(
            f"--format {unknown[0] if unknown else ''}: the formats are {', '.join(known)}; "
            "Parquet and FITS are in the run's catalog folder already"
        )
    folder = run / EXPORT_FOLDER if out is None else out
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder for the exported files")
    if HATS in formats:
        check_hats_export(folder / HATS, margin_arcsec)
    rows, metadata = open_published(run)
    lines = []
    for name in dict.fromkeys(formats):
        if name == HATS:
            made = export_hats(rows, folder / HATS, metadata=metadata, margin_arcsec=margin_arcsec)
            lines += _hats_lines(made, folder / HATS, margin_arcsec)
            continue
        chosen = FORMATS[name]
        written = chosen.write(rows, folder / f"catalog.{chosen.suffix}", metadata=metadata)
        lines.append(f"{written.path}: {chosen.purpose}; {written.size / 1e6:,.1f} MB")
    return lines


def _hats_lines(made: PositionedRows, folder: Path, margin_arcsec: float) -> list[str]:
    """Return what there is to say of a HATS catalogue; rows that it lacks are told."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    what = f"{made.n_rows:,} rows, margin {margin_arcsec:g} arcsec, {size / 1e6:,.1f} MB"
    lines = [f"{folder}: {HATS_PURPOSE}; {what}"]
    if made.n_without:
        lines.append(
            f"{folder}: {made.n_without:,} rows without a position are left out, which HATS cannot hold; "
            "they are in the Parquet and FITS files"
        )
    return lines


def open_published(run: Path) -> tuple[CatalogRows, dict[str, str]]:
    """Return the rows of a published catalogue, and what its file says; see `find_published`."""
    path, metadata = find_published(run)
    return _rows(path), metadata


def find_published(run: Path) -> tuple[Path, dict[str, str]]:
    """Return the Parquet file of a published run, and what it says of its origin.

    Raises
    ------
    UsageError
        If the run is not published.
    IntegrityError
        If the catalogue is not what was published.
    """
    path = run / "catalog" / "catalog.parquet"
    if not (run / MANIFEST_FILE).is_file():
        raise UsageError(
            f"{run}: holds no published catalogue ({MANIFEST_FILE} is missing); name the folder of a "
            "finished 'apogee-batch run-catalog', or give that command again"
        )
    remedy = f"delete {run / MANIFEST_FILE} and give the 'run-catalog' command again, which writes it anew"
    try:
        files = read_sealed_json(run / MANIFEST_FILE)["files"]
        planned = {file["path"]: file["sha256"] for file in files}[str(path.relative_to(run))]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{run / MANIFEST_FILE}: damaged ({error!r}); {remedy}") from error
    if not path.is_file() or sha256_of_file(path) != planned:
        raise IntegrityError(f"{path}: is missing or not what was published; {remedy}")
    schema = pq.read_schema(path)
    if not schema.equals(arrow_schema(catalog_columns())):
        raise IntegrityError(f"{path}: no catalogue of version {catalog_version()}; {remedy}")
    metadata = {
        key.removeprefix(_KEY_PREFIX).decode(): value.decode()
        for key, value in (schema.metadata or {}).items()
        if key.startswith(_KEY_PREFIX)
    }
    return path, {name: text for name, text in metadata.items() if name not in _SAID_ANYWAY}


def _rows(path: Path) -> CatalogRows:
    read = _reader(path)
    summary = Summary()
    for piece in read():
        summary.add(piece)
    return CatalogRows(read, summary)


def _reader(path: Path) -> Callable[[], Iterator[pa.Table]]:
    def read() -> Iterator[pa.Table]:
        schema = arrow_schema(catalog_columns())
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(PIECE_ROWS):
                yield pa.Table.from_batches([batch]).replace_schema_metadata(None).cast(schema)

    return read
