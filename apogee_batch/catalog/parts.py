"""The rows of one shard; the catalogue that all of them make is in `merge`.

A part is a Parquet file with the columns of the catalogue, in the order of the store's rows. Its
metadata say which rows they are, so parts can be merged in any order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from apogee_batch.catalog.flags import compute_flags, has_prediction
from apogee_batch.errors import IntegrityError
from apogee_batch.files import FileDigest, write_table
from apogee_batch.schema import (
    LABEL_NAMES,
    N_LABELS,
    BoolArray,
    DoubleArray,
    FloatArray,
    arrow_schema,
    catalog_columns,
    catalog_version,
    star_columns,
)

VERSION_KEY = b"apogee_batch.catalog_version"
FIRST_ROW_KEY = b"apogee_batch.first_row"
LAST_ROW_KEY = b"apogee_batch.last_row"


@dataclass(frozen=True)
class Judgement:
    """What a model's calibration says of the estimates of some stars; all None where it says nothing.

    Attributes
    ----------
    total : ndarray of float64, shape (n_stars, n_labels), optional
        Calibrated one-sigma errors, in the order of `LABEL_NAMES`; NaN where there is none.
    strangeness : ndarray of float32, shape (n_stars,), optional
        How unlike the training spectra each spectrum is; NaN where it is not known.
    is_strange : ndarray of bool, shape (n_stars,), optional
        Whether that is above the calibration's limit.
    is_outside : ndarray of bool, shape (n_stars,), optional
        Whether the labels lie outside the hull of the training labels.
    """

    total: DoubleArray | None = None
    strangeness: FloatArray | None = None
    is_strange: BoolArray | None = None
    is_outside: BoolArray | None = None


UNJUDGED = Judgement()


def build_part(
    stars: Any,
    *,
    mean: DoubleArray,
    std: DoubleArray,
    clean: DoubleArray,
    n_realizations: int,
    labels: Any,
    label_range: Mapping[str, tuple[float, float]] | None,
    judgement: Judgement = UNJUDGED,
) -> Any:
    """Build the catalogue rows of some stars.

    Parameters
    ----------
    stars : pa.Table, n_stars rows
        Star table of the store.
    mean, std, clean : ndarray of float64, shape (n_stars, n_labels)
        Mean and standard deviation over the realizations, and the estimate from the unperturbed
        spectrum, in the order of `LABEL_NAMES`, aligned with `stars`. A star for which one of them is
        not finite gets nulls and the flag NO_PREDICTION.
    n_realizations : int
        Noisy copies behind them; with fewer than two there is no standard deviation, and it is null.
    labels : pa.Table
        Labels by store row (`row`, `apstar_id`, `data_type`, `data_set` and the labels), of these
        stars and maybe of others.
    label_range : mapping of str to (float, float), optional
        Smallest and largest label of the training set, where it is known.
    judgement : Judgement
        What the model's calibration says, aligned with `stars`. Its columns are null for a star without a
        prediction.

    Returns
    -------
    pa.Table
        Of the catalogue's schema, by store row.

    Raises
    ------
    IntegrityError
        If the labels belong to another store.
    """
    for estimate in (mean, std, clean):
        if estimate.shape != (stars.num_rows, N_LABELS):
            raise ValueError(f"estimates of shape {estimate.shape} for {stars.num_rows} stars")
    mean32, std32, clean32 = _single(mean), _single(std), _single(clean)
    is_predicted = has_prediction(mean32, std32, clean32, n_realizations=n_realizations)
    columns = {column.name: stars[column.name] for column in star_columns() if column.name != "row"}
    for i, name in enumerate(LABEL_NAMES):
        columns[name] = _null_unless(is_predicted, mean32[:, i])
        columns[f"e_{name}"] = _null_unless(is_predicted, std32[:, i])
        columns[f"{name}_clean"] = _null_unless(is_predicted, clean32[:, i])
    columns |= _judgement_columns(is_predicted, judgement)
    columns |= _label_columns(stars, labels)
    columns["n_realizations"] = pa.repeat(pa.scalar(n_realizations, pa.int32()), stars.num_rows)
    columns["flags"] = pa.array(
        compute_flags(
            stars,
            mean=mean32,
            std=std32,
            is_predicted=is_predicted,
            label_range=label_range,
            is_outside=judgement.is_outside,
            is_strange=judgement.is_strange,
        )
    )
    schema = arrow_schema(catalog_columns())
    part = pa.table({field.name: _nan_to_null(columns[field.name]) for field in schema}).cast(schema)
    rows = stars["row"].to_numpy()
    return part.take(pa.array(np.argsort(rows))).replace_schema_metadata(_row_metadata(rows))


def write_part(path: Path, table: Any, *, staging: Path | None = None) -> FileDigest:
    """Write what `build_part` built, whole or not at all; pages carry checksums.

    Parameters
    ----------
    path : Path
        The part.
    table : pa.Table
        Its rows.
    staging : Path, optional
        Folder for the unfinished file, where `path`'s own must hold nothing but parts.
    """
    return write_table(path, table.combine_chunks(), staging=staging)


def _row_metadata(rows: npt.NDArray[np.int64]) -> dict[bytes, bytes]:
    """Return what a part says of itself: the version, and which store rows it holds."""
    metadata = {VERSION_KEY: str(catalog_version()).encode()}
    if len(rows):
        metadata[FIRST_ROW_KEY] = str(rows.min()).encode()
        metadata[LAST_ROW_KEY] = str(rows.max()).encode()
    return metadata


def _single(estimate: DoubleArray) -> FloatArray:
    """Return estimates in the precision of the catalogue; too large for it is infinite."""
    with np.errstate(over="ignore"):
        return estimate.astype(np.float32)


def _null_unless(is_valid: BoolArray, values: FloatArray) -> Any:
    return pa.array(values, mask=~is_valid)


def _judgement_columns(is_predicted: BoolArray, judgement: Judgement) -> dict[str, Any]:
    """Return the columns that a calibration gives; those of one that says nothing are null."""
    total, strangeness = judgement.total, judgement.strangeness
    if total is None:
        total = np.full((len(is_predicted), N_LABELS), np.nan)
    if strangeness is None:
        strangeness = np.full(len(is_predicted), np.nan, np.float32)
    total32 = _single(total)
    columns = {
        f"e_{name}_total": _null_unless(is_predicted, total32[:, i]) for i, name in enumerate(LABEL_NAMES)
    }
    return columns | {"strangeness": _null_unless(is_predicted, strangeness.astype(np.float32))}


def _nan_to_null(column: Any) -> Any:
    """Return a column in which what is not a number is null."""
    if not pa.types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))


def _label_columns(stars: Any, labels: Any) -> dict[str, Any]:
    """Return the training labels of each star, null where it has none."""
    of_star = pc.index_in(stars["row"], value_set=labels["row"].combine_chunks())
    picked = labels.take(of_star)
    is_other = pc.fill_null(pc.not_equal(picked["apstar_id"], stars["apstar_id"]), fill_value=False)
    if pc.any(is_other).as_py():
        raise IntegrityError("the labels belong to another store; attach the label tables to this one again")
    columns = {f"{name}_label": picked[name] for name in LABEL_NAMES}
    return columns | {"data_set": picked["data_set"], "data_type": picked["data_type"]}
