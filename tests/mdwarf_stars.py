"""M dwarfs to label: a good one, and tables of its copies with something changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apogee_batch.labels.mdwarf_settings import MDwarfSettings
from apogee_batch.labels.photometry import Photometry

NAN = float("nan")
FIELD_STAR = {  # M_K = 8 + 5 log10(50) - 10 = 6.495, g-K = 5.5, J-K = 0.85
    "v": 13.0,
    "g": 13.5,
    "r": 12.0,
    "z": 10.0,
    "bp": 12.5,
    "rp": 10.0,
    "j": 8.85,
    "k": 8.0,
    "parallax": 50.0,
    "parallax_error": 0.1,
    "fe_h": 0.1,
    "e_fe_h": 0.08,
}
BANDS = ("v", "g", "r", "z", "bp", "rp", "j", "k")
ERROR_MAG = 0.02


def photometry_of(
    stars: Sequence[Mapping[str, float]] = ({},),
    *,
    names: Sequence[str] | None = None,
    fields: Sequence[str] | None = None,
) -> Photometry:
    """Return copies of `FIELD_STAR`, each with the values given; `e_BAND` too."""
    rows = [FIELD_STAR | {f"e_{band}": ERROR_MAG for band in BANDS} | dict(star) for star in stars]
    column = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    found = {name: name for name in column} | {"field": "field"}
    return Photometry(
        source="stars.csv",
        apogee_id=tuple(names or [f"2M{i:08d}" for i in range(len(rows))]),
        apstar_id=("",) * len(rows),
        magnitude={band: column[band] for band in BANDS},
        error={band: column[f"e_{band}"] for band in BANDS},
        parallax_mas=column["parallax"],
        parallax_error_mas=column["parallax_error"],
        numbers={"fe_h": column["fe_h"], "e_fe_h": column["e_fe_h"]},
        texts={"field": tuple(fields or ["M67"] * len(rows))},
        columns=found,
    )


def settings_of(**sections: Any) -> MDwarfSettings:
    """Return settings with few draws, and these sections."""
    errors = {"realizations": 100} | sections.pop("errors", {})
    return MDwarfSettings.model_validate({"errors": errors, **sections})


def relation(**values: Any) -> dict[str, Any]:
    """Return an invented linear relation for [Fe/H]: 0.1 for the field star."""
    given = {
        "source": "invented for tests",
        "x": "g-k",
        "y": "j-k",
        "x_origin": 5.5,
        "y_origin": 0.85,
        "coefficients": [[0.1, -0.3], [0.5, 0.0]],
        "scatter": 0.05,
        "valid_x": [3.0, 8.0],
        "valid_y": [0.7, 1.0],
    }
    return given | values


def write_csv(path: Path, columns: Mapping[str, Sequence[object]]) -> Path:
    """Write columns as CSV."""
    rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path
