"""The catalogue as a HATS collection: partitions of the sky and what lies just outside each, by hats-import.

hats-import keeps units, UCDs and descriptions where it is given them as the schema of all files. HATS cannot
hold a row without a position.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from apogee_batch.catalog.annotations import (
    TITLE,
    VOPARQUET_VERSION,
    file_metadata,
    parquet_yaml,
    votable_header,
)
from apogee_batch.catalog.rows import CatalogRows
from apogee_batch.errors import UsageError
from apogee_batch.schema import Column, arrow_schema, catalog_version
from apogee_batch.streams import replace_on_success

CATALOG_NAME = "apogee"  # what lsdb puts behind the names of columns when two catalogues are joined
MARK = "apogee_batch_catalog_version"  # among the properties of a collection: made from our catalogue
PARTITION_ROWS = 100_000  # some 20 MB: the readers' unit of work
MAX_MARGIN_ARCSEC = 600.0
COUNTED_ORDER = 7  # the smallest partition is half a degree wide: counting finer takes half a minute
INDEX = Column(
    "_healpix_29",
    "int64",
    nullable=False,
    unit="",
    ucd="pos.healpix",
    description="HEALPix index of ra and dec, order 29, nested",
)
_WRITTEN = {"compression": "zstd", "write_page_checksum": True}


@dataclass(frozen=True)
class PositionedRows:
    """The rows that a HATS catalogue can hold, in a Parquet file.

    Attributes
    ----------
    path : Path
        The file; its schema is that of all files of the catalogue, but for the column of `INDEX`.
    n_rows, n_without : int
        Rows in it, and rows of the catalogue that have no position.
    n_densest : int
        Most rows in one HEALPix cell of `COUNTED_ORDER`.
    """

    path: Path
    n_rows: int
    n_without: int
    n_densest: int


def refuse_without_hats_import() -> None:
    """Raise UsageError if hats-import is not installed, with the command that installs it."""
    if find_spec("hats_import") is None:
        raise UsageError(
            "--format hats needs hats-import, which is not installed; give, in the clone of apogee-batch: "
            "pip install -c constraints.txt '.[hats]'"
        )


def write_positioned(rows: CatalogRows, path: Path, *, metadata: Mapping[str, str]) -> PositionedRows:
    """Write the rows that have a position, for hats-import to read.

    Parameters
    ----------
    rows : CatalogRows
        The catalogue.
    path : Path
        The file, replaced whole or not at all.
    metadata : mapping of str to str
        What else to say of the catalogue.

    Raises
    ------
    UsageError
        If no row has a position.
    """
    from hats.pixel_math.healpix_shim import order2npix, radec2pix

    schema = arrow_schema(rows.columns).with_metadata(_metadata_of_files(rows, metadata))
    counts = np.zeros(order2npix(COUNTED_ORDER), dtype=np.int64)
    with (
        replace_on_success(path) as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for piece in rows.pieces():
            kept = piece.filter(_has_position(piece))
            writer.write_table(kept.replace_schema_metadata(schema.metadata))
            cells = radec2pix(COUNTED_ORDER, kept["ra"].to_numpy(), kept["dec"].to_numpy())
            counts += np.bincount(cells.astype(np.int64), minlength=len(counts))
        n_rows = int(counts.sum())
        if n_rows == 0:
            raise UsageError("no row of the catalogue has a position; a HATS catalogue would hold none")
    return PositionedRows(path, n_rows, rows.summary.n_rows - n_rows, int(counts.max()))


def _has_position(piece: pa.Table) -> Any:
    """Tell which rows have a place on the sky; a null compares as null, which the filter drops."""
    on_sky = pc.less_equal(pc.abs(piece["dec"]), 90.0)
    return pc.and_(on_sky, pc.is_finite(piece["ra"]))


def _metadata_of_files(rows: CatalogRows, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return what each file says of itself; as for the published Parquet file, and of the column more."""
    columns = (INDEX, *rows.columns)
    widths = rows.summary.text_widths
    # the order of the published file is not that of each partition and margin
    described = file_metadata({name: text for name, text in metadata.items() if name != "sorted_by"})
    # how many rows a file has differs from one to the next, and all have these words
    header = votable_header(columns, widths, rows.summary.n_rows)
    header = header.replace(f' nrows="{rows.summary.n_rows}"', "", 1)
    return {
        **{f"apogee_batch.{name}": text for name, text in described.items()},
        **{f"table::len::{name}": str(width) for name, width in widths.items()},
        "table_meta_yaml": parquet_yaml(columns, widths, described),
        "IVOA.VOTable-Parquet.version": VOPARQUET_VERSION,
        "IVOA.VOTable-Parquet.content": header,
    }


def make_collection(
    table: PositionedRows, folder: Path, client: Any, *, margin_arcsec: float, partition_rows: int
) -> None:
    """Let hats-import make the collection, and verify it.

    Parameters
    ----------
    table : PositionedRows
        What it is made from.
    folder : Path
        The collection, which must not be there yet.
    client : distributed.Client
        Its workers read and write the files by their paths.
    margin_arcsec : float
        Width of what each partition knows of its neighbours, at least.
    partition_rows : int
        Rows of a partition, at most; more where a single cell of `COUNTED_ORDER` has more.

    Raises
    ------
    RuntimeError
        If hats-import does not find in the files what it should have written.
    """
    with _quiet():
        from hats_import.pipeline import pipeline_with_client

        pipeline_with_client(_arguments(table, folder, margin_arcsec, partition_rows), client)
        failed = _verify(table, folder)
    if failed:
        raise RuntimeError(f"hats-import made a catalogue that it finds wrong: {'; '.join(failed)}")


def _arguments(table: PositionedRows, folder: Path, margin_arcsec: float, partition_rows: int) -> Any:
    """Return what hats-import is asked for."""
    from hats_import.collection.arguments import CollectionArguments

    arguments = CollectionArguments(
        output_path=folder.parent,
        output_artifact_name=folder.name,
        progress_bar=False,
        write_table_kwargs=dict(_WRITTEN),
        addl_hats_properties={"obs_title": TITLE, "obs_regime": "Infrared", MARK: str(catalog_version())},
    )
    arguments.catalog(
        output_artifact_name=CATALOG_NAME,
        input_file_list=[table.path],
        use_schema_file=table.path,
        expected_total_rows=table.n_rows,
        file_reader="parquet",
        sort_columns="apstar_id",
        highest_healpix_order=COUNTED_ORDER,
        pixel_threshold=max(partition_rows, table.n_densest),
    )
    properties = dict(arguments.addl_hats_properties) | {"primary_catalog": CATALOG_NAME}
    # else the margin would name the folder that the catalogue is made in
    return arguments.add_margin(
        margin_threshold=margin_arcsec, is_default=True, addl_hats_properties=properties
    )


def _verify(table: PositionedRows, folder: Path) -> list[str]:
    """Return what hats-import's own verification finds wrong."""
    from hats_import.verification.arguments import VerificationArguments
    from hats_import.verification.run_verification import run

    output = table.path.parent / "verification"
    output.mkdir()
    pq.write_metadata(pq.read_schema(table.path), output / "schema")
    arguments = VerificationArguments(
        input_catalog_path=folder,
        output_path=output,
        truth_total_rows=table.n_rows,
        truth_schema=output / "schema",
        check_metadata=True,
        verbose=False,
    )
    return [f"{result.test} ({result.target})" for result in run(arguments).results if not result.passed]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to ourselves what hats-import says while all goes well; what goes wrong it raises."""
    root, nobody = logging.getLogger(), logging.NullHandler()
    root.addHandler(nobody)  # else the first word to the root logger makes it print those of all libraries
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.filterwarnings("ignore", module=r"hats")
            yield
    finally:
        root.removeHandler(nobody)
