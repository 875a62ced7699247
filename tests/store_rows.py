"""Star and label tables of small stores, for the tests of labels and catalogue."""

from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.labels.attach import LABELS_SCHEMA
from apogee_batch.schema import arrow_schema, star_columns


def star_table(n_stars: int, **columns: Any) -> pa.Table:
    """Return the star table of a clean store; `columns` replace those of the same name."""
    names = [f"2M{i:08d}+0000000" for i in range(n_stars)]
    values: dict[str, Any] = {
        "row": np.arange(n_stars),
        "apstar_id": [f"apogee.apo25m.r8.stars.4102.{name}" for name in names],
        "apogee_id": names,
        "telescope": ["apo25m"] * n_stars,
        "field": ["M67"] * n_stars,
        "location_id": [4102] * n_stars,
        "ra": np.linspace(0, 359, n_stars),
        "dec": np.linspace(-89, 89, n_stars),
        "j": np.full(n_stars, 11.5),
        "h": np.full(n_stars, 11.0),
        "k": np.full(n_stars, 10.875),
        "snr": np.full(n_stars, 100.0),
        "snr_header": np.full(n_stars, 100.0),
        "n_visits": [3] * n_stars,
        "visit": [0] * n_stars,
        "starflag": [0] * n_stars,
        "release": ["r8"] * n_stars,
        "n_bad_pixels": [800] * n_stars,
        "file": [f"apStar-r8-{name}.fits" for name in names],
    }
    values |= columns
    return pa.table({name: values[name] for name in values}).cast(arrow_schema(star_columns()))


def label_rows(stars: pa.Table, rows: list[int], **columns: Any) -> pa.Table:
    """Return labels of some stars as `attach_labels` gives them."""
    chosen = stars.take(rows)
    values: dict[str, Any] = {
        "row": chosen["row"],
        "apstar_id": chosen["apstar_id"],
        "apogee_id": chosen["apogee_id"],
        "data_type": ["payne"] * len(rows),
        "data_set": ["train"] * len(rows),
        "logg": np.full(len(rows), 4.5),
        "teff": np.full(len(rows), 5000.0),
        "fe_h": np.full(len(rows), -0.25),
    }
    return pa.table(values | columns, schema=LABELS_SCHEMA)
