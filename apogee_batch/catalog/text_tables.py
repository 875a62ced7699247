"""The catalogue as text: CSV for any program, ECSV with units and descriptions for astropy."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow.csv as pa_csv

from apogee_batch.catalog.annotations import file_metadata, parquet_yaml
from apogee_batch.catalog.facts import ROW_COUNT
from apogee_batch.catalog.rows import CatalogRows
from apogee_batch.files import FileDigest
from apogee_batch.streams import replace_on_success


def write_csv(
    rows: CatalogRows, path: Path, *, metadata: Mapping[str, str], staging: Path | None = None
) -> FileDigest:
    """Write the catalogue as CSV: one line of names, missing values empty, no comments.

    Parameters
    ----------
    rows : CatalogRows
        The catalogue, in the order it is to have.
    path : Path
        The file, replaced whole or not at all.
    metadata : mapping of str to str
        Not written: plain CSV has no place for it.
    staging : Path, optional
        Folder for the unfinished file; by default the folder of `path`.
    """
    del metadata
    return _write(rows, path, "", staging)


def write_ecsv(
    rows: CatalogRows, path: Path, *, metadata: Mapping[str, str], staging: Path | None = None
) -> FileDigest:
    """Write the catalogue as ECSV: the same rows below a header that astropy reads units from.

    Parameters
    ----------
    rows, path, metadata, staging
        As for `write_csv`; the metadata are in the header, and how many rows there are.
    """
    described = {ROW_COUNT: str(rows.summary.n_rows), **file_metadata(metadata)}
    yaml = parquet_yaml(rows.columns, rows.summary.text_widths, described)
    lines = ["%ECSV 1.0", "---", "delimiter: ','", *yaml.splitlines()]
    return _write(rows, path, "".join(f"# {line}\n" for line in lines), staging)


def _write(rows: CatalogRows, path: Path, header: str, staging: Path | None) -> FileDigest:
    options = pa_csv.WriteOptions(include_header=False, quoting_style="needed")
    names = ",".join(column.name for column in rows.columns)
    with replace_on_success(path, staging=staging) as file:
        file.write(f"{header}{names}\n".encode())
        for piece in rows.pieces():
            pa_csv.write_csv(piece, file, options)
    if file.digest is None:
        raise RuntimeError("the file was not written")
    return file.digest
