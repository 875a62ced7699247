"""The table of labels of young stars: its columns, as `labels attach --yso` reads them."""

import json
from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.labels.label_columns import NAME_COLUMNS, REASON_COLUMN, nullable, value_columns
from apogee_batch.labels.photometry import Photometry
from apogee_batch.labels.ysos import FE_H, QUANTITIES, YsoLabels
from apogee_batch.schema import Column, arrow_schema

_MEANINGS = {  # unit, UCD, description
    "teff": ("K", "phys.temperature.effective", "Effective temperature from photometry and isochrones"),
    "logg": ("dex(cm/s2)", "phys.gravity", "Surface gravity from photometry and isochrones"),
    "log_age": ("dex(yr)", "time.age", "log10 of the age in years, of the isochrones"),
    "mass": ("solMass", "phys.mass", "Mass, of the isochrones"),
    "a_v": ("mag", "phys.absorption;em.opt.V", "Extinction in V"),
}


def yso_columns() -> tuple[Column, ...]:
    """Return the columns of the table, in order."""
    numbers = value_columns(
        QUANTITIES,
        _MEANINGS,
        "Standard deviation of {name} over noisy copies of the photometry",
    )
    fe_h = Column(
        "fe_h", "double", True, "dex", "phys.abund.Fe", "Metallicity, that of the isochrones: not measured"
    )
    others = [
        Column("n_bands", "int32", False, "", "meta.number", "Bands brighter than their limiting magnitude"),
        Column(
            "residual_mag",
            "double",
            True,
            "mag",
            "stat.fit.residual",
            "Rms of photometry minus model, without noise",
        ),
        REASON_COLUMN,
    ]
    return (*NAME_COLUMNS, *numbers[:4], fe_h, *numbers[4:], *others)


def yso_table(photometry: Photometry, labels: YsoLabels, *, provenance: dict[str, Any]) -> Any:
    """Put the labels of all stars into an Arrow table; a star without a label has nulls and a reason.

    Parameters
    ----------
    photometry : Photometry
        The stars.
    labels : YsoLabels
        Their labels, in the same order.
    provenance : dict
        What they were made of and how; kept as JSON in the metadata under `apogee_batch`.

    Returns
    -------
    pa.Table
        Of `yso_columns`, in the order of `photometry`.
    """
    has_label = np.array([reason is None for reason in labels.reason], dtype=bool)
    columns: dict[str, Any] = {
        "apogee_id": [text or None for text in photometry.apogee_id],
        "apstar_id": [text or None for text in photometry.apstar_id],
        "fe_h": nullable(np.where(has_label, FE_H, np.nan)),
        "n_bands": pa.array(labels.n_bands),
        "residual_mag": nullable(labels.residual_mag),
        "reason": [None if reason is None else str(reason) for reason in labels.reason],
    }
    for name in QUANTITIES:
        columns[name] = nullable(labels.values[name])
        columns[f"e_{name}"] = nullable(labels.errors[name])
    metadata = {"apogee_batch": json.dumps(provenance, sort_keys=True)}
    return pa.table(columns, schema=arrow_schema(yso_columns()).with_metadata(metadata))
