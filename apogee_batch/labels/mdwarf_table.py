"""The table of labels of M dwarfs: its columns, as `labels attach --mstar` reads them."""

import json
from typing import Any

import pyarrow as pa

from apogee_batch.labels.label_columns import NAME_COLUMNS, REASON_COLUMN, nullable, value_columns
from apogee_batch.labels.mdwarfs import QUANTITIES, MDwarfLabels
from apogee_batch.labels.photometry import Photometry
from apogee_batch.schema import Column, arrow_schema

_MEANINGS = {  # unit, UCD, description
    "teff": ("K", "phys.temperature.effective", "Effective temperature from a colour"),
    "logg": ("dex(cm/s2)", "phys.gravity", "Surface gravity from Teff and [Fe/H]"),
    "fe_h": ("dex", "phys.abund.Fe", "Metallicity [Fe/H], by a relation in colours or as given"),
    "radius": ("solRad", "phys.size.radius", "Radius from Teff and [Fe/H]"),
    "mass": ("solMass", "phys.mass", "Mass from the radius"),
    "m_k": ("mag", "phys.magAbs", "Absolute 2MASS K magnitude from the parallax, no extinction"),
    "radius_m_k": ("solRad", "phys.size.radius", "Radius from M_K and [Fe/H], for comparison"),
    "mass_m_k": ("solMass", "phys.mass", "Mass from M_K, for comparison"),
    "logg_m_k": ("dex(cm/s2)", "phys.gravity", "Surface gravity from M_K and [Fe/H], for comparison"),
}


def mdwarf_columns() -> tuple[Column, ...]:
    """Return the columns of the table, in order."""
    numbers = value_columns(
        QUANTITIES,
        _MEANINGS,
        "One-sigma error of {name}, from draws of the measurements and of the relations' scatter",
    )
    codes = [
        Column("teff_relation", "string", True, "", "meta.code", "Relation that gave Teff"),
        Column("field", "string", True, "", "obs.field", "Field of the star, where the input has one"),
        REASON_COLUMN,
    ]
    return (*NAME_COLUMNS, *numbers, *codes)


def mdwarf_table(photometry: Photometry, labels: MDwarfLabels, *, provenance: dict[str, Any]) -> Any:
    """Put the labels of all stars into an Arrow table; a star without a label has nulls and a reason.

    Parameters
    ----------
    photometry : Photometry
        The stars.
    labels : MDwarfLabels
        Their labels, in the same order.
    provenance : dict
        What they were made of and how; kept as JSON in the metadata under `apogee_batch`.

    Returns
    -------
    pa.Table
        Of `mdwarf_columns`, in the order of `photometry`.
    """
    texts = {
        "apogee_id": photometry.apogee_id,
        "apstar_id": photometry.apstar_id,
        "teff_relation": labels.teff_relation,
        "field": photometry.texts.get("field", ("",) * photometry.n_stars),
        "reason": tuple("" if reason is None else str(reason) for reason in labels.reason),
    }
    columns: dict[str, Any] = {name: [text or None for text in column] for name, column in texts.items()}
    for name in QUANTITIES:
        columns[name] = nullable(labels.values[name])
        columns[f"e_{name}"] = nullable(labels.errors[name])
    metadata = {"apogee_batch": json.dumps(provenance, sort_keys=True)}
    return pa.table(columns, schema=arrow_schema(mdwarf_columns()).with_metadata(metadata))
