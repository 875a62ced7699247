"""Published catalogues of stars all over the sky, for tests of what is made from them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.catalog.export import write_parquet
from apogee_batch.files import write_sealed_json
from apogee_batch.run.ledger import relative_digest
from apogee_batch.run.publish import MANIFEST_FILE
from apogee_batch.schema import arrow_schema, catalog_columns


def sky_catalog(n_stars: int, *, n_without: int = 0, **given: Any) -> pa.Table:
    """Stars of random places, the last of which have none; columns may be replaced.

    Each nullable column but the positions lacks every seventh value.
    """
    rng = np.random.default_rng(n_stars)
    columns: dict[str, Any] = {}
    for column in catalog_columns():
        kind = str if column.dtype == "string" else int if column.dtype.startswith("int") else float
        values = [kind(i + 1) for i in range(n_stars)]
        missing = [column.nullable and (i + len(column.name)) % 7 == 0 for i in range(n_stars)]
        columns[column.name] = [None if gone else v for gone, v in zip(missing, values, strict=True)]
    columns["flags"] = [i % 4 for i in range(n_stars)]
    columns["ra"] = list(rng.uniform(0, 360, n_stars))
    columns["dec"] = list(np.degrees(np.arcsin(rng.uniform(-1, 1, n_stars))))
    columns |= given
    for name in ("ra", "dec"):
        columns[name] = [None if i >= n_stars - n_without else x for i, x in enumerate(columns[name])]
    return pa.table(columns, schema=arrow_schema(catalog_columns()))


def publish(catalog: pa.Table, folder: Path) -> Path:
    """Leave a catalogue in a folder as publication does, as far as an export looks."""
    path = folder / "catalog" / "catalog.parquet"
    digest = write_parquet(
        catalog, path, metadata={"run_id": "0123abcd", "precision": "exact", "sorted_by": "x"}
    )
    write_sealed_json(folder / MANIFEST_FILE, {"files": [asdict(relative_digest(digest, folder))]})
    return folder
