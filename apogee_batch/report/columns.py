"""Columns of a catalogue as arrays, for the tables and the figures."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apogee_batch.schema import LABEL_NAMES, BoolArray, DoubleArray


def get_numbers(catalog: pa.Table, name: str) -> DoubleArray:
    """Return one numeric column; a null becomes NaN.

    Returns
    -------
    ndarray of float64, shape (n_stars,)
    """
    values: DoubleArray = catalog[name].cast(pa.float64()).to_numpy()
    return values


def get_predictions(catalog: pa.Table) -> DoubleArray:
    """Return the means of the realizations, NaN where there is none.

    Returns
    -------
    ndarray of float64, shape (n_stars, n_labels)
        In the order of `LABEL_NAMES`, in native units.
    """
    return np.column_stack([get_numbers(catalog, name) for name in LABEL_NAMES])


def get_labels(catalog: pa.Table) -> DoubleArray:
    """Return the labels of the label tables, NaN where there is none; shape as `get_predictions`."""
    return np.column_stack([get_numbers(catalog, f"{name}_label") for name in LABEL_NAMES])


def is_equal(catalog: pa.Table, name: str, value: str) -> BoolArray:
    """Tell for each star whether a text column holds `value`; a null does not.

    Returns
    -------
    ndarray of bool, shape (n_stars,)
    """
    found: BoolArray = pc.equal(catalog[name].cast(pa.string()), value).fill_null(False).to_numpy()
    return found


def is_finite(values: DoubleArray) -> BoolArray:
    """Tell for each row of `values`, shape (n_stars, n_labels), whether all its numbers are finite."""
    return np.asarray(np.isfinite(values).all(axis=1))
