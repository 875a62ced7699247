"""The table of labels of young stars: its columns, as `labels attach --yso` reads them."""

import json
from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.labels.photometry import Photometry
from apogee_batch.labels.ysos import FE_H, QUANTITIES, YsoLabels
from apogee_batch.schema import Column, DoubleArray, arrow_schema

_MEANINGS = {  # unit, UCD, description
    "teff": ("K", "phys.temperature.effective", "Effective temperature from photometry and isochrones"),
    "logg": ("dex(cm/s2)", "phys.gravity", "Surface gravity from photometry and isochrones"),
    "log_age": ("dex(yr)", "time.age", "log10 of the age in years, of the isochrones"),
    "mass": ("solMass", "phys.mass", "Mass, of the isochrones"),
    "a_v": ("mag", "phys.absorption;em.opt.V", "Extinction in V"),
}


def yso_columns() -> tuple[Column, ...]:
    """Return the columns of the table, in order."""
    names = [
        Column("apogee_id", "string", True, "", "meta.id;meta.main", "Name of the star"),
        Column("apstar_id", "string", True, "", "meta.id", "Name of the spectrum, where the input has one"),
    ]
    numbers = []
    for name in QUANTITIES:
        unit, ucd, description = _MEANINGS[name]
        numbers.append(Column(name, "double", True, unit, ucd, description))
        error = f"Standard deviation of {name} over noisy copies of the photometry"
        of_error = "dex" if unit.startswith("dex(") else unit  # an error of a logarithm has no zero point
        numbers.append(Column(f"e_{name}", "double", True, of_error, f"stat.error;{ucd}", error))
    fe_h = Column(
        "fe_h", "double", True, "dex", "phys.abund.Fe", "Metallicity, that of the isochrones: not measured"
    )
    others = [
        Column("n_bands", "int32", False, "", "meta.number", "Bands brighter than their limiting magnitude"),
        Column(
            "residual_mag", "double", True, "mag", "stat.fit.residual", "Rms of photometry minus the model"
        ),
        Column("reason", "string", True, "", "meta.code", "Why the star has no label; null where it has one"),
    ]
    return (*names, *numbers[:4], fe_h, *numbers[4:], *others)


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
        "fe_h": _nullable(np.where(has_label, FE_H, np.nan)),
        "n_bands": pa.array(labels.n_bands),
        "residual_mag": _nullable(labels.residual_mag),
        "reason": [None if reason is None else str(reason) for reason in labels.reason],
    }
    for name in QUANTITIES:
        columns[name] = _nullable(labels.values[name])
        columns[f"e_{name}"] = _nullable(labels.errors[name])
    metadata = {"apogee_batch": json.dumps(provenance, sort_keys=True)}
    return pa.table(columns, schema=arrow_schema(yso_columns()).with_metadata(metadata))


def _nullable(values: DoubleArray) -> Any:
    """Return numbers with nulls for NaN."""
    return pa.array(values, mask=np.isnan(values))
