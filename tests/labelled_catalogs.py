"""Catalogues of labelled stars for the tests of validation."""

from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.report.labelled import gather_labelled
from apogee_batch.report.validation import Origin, Validation, validate
from apogee_batch.schema import DATA_TYPES, LABEL_NAMES

LABEL_STD = (1.16, 733.0, 0.3)
ORIGIN = Origin("0123456789abcdef", "f" * 64)


def make_catalog(n_stars: int, **given_columns: Any) -> pa.Table:
    """A catalogue whose residuals are Gaussian with the sigmas that it states; columns may be replaced."""
    rng = np.random.default_rng(n_stars)
    columns: dict[str, Any] = {
        "data_type": [DATA_TYPES[i % 3] for i in range(n_stars)],
        "data_set": ["test"] * n_stars,
        "snr": rng.uniform(5, 600, n_stars),
    }
    middle, sigma = (3.0, 4700.0, -0.2), (0.1, 64.0, 0.03)
    for i, name in enumerate(LABEL_NAMES):
        label = rng.uniform(middle[i] - 5 * sigma[i], middle[i] + 5 * sigma[i], n_stars)
        error = sigma[i] * rng.uniform(0.5, 1.5, n_stars)
        columns[f"{name}_label"] = label
        columns[name] = label + error * rng.standard_normal(n_stars)
        columns[f"e_{name}"] = error / 4  # as small as the paper says of its own
        columns[f"e_{name}_total"] = error
    columns |= given_columns
    texts = ("data_type", "data_set")
    return pa.table(
        {
            name: pa.array(list(v), pa.string() if name in texts else pa.float32())
            for name, v in columns.items()
        }
    )


def validate_catalog(*pieces: pa.Table) -> Validation:
    return validate(gather_labelled(pieces), label_std=LABEL_STD, origin=ORIGIN)
