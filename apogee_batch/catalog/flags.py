"""The quality bits of the catalogue; their names, numbers and limits are in `schemas/catalog.json`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from apogee_batch.schema import LABEL_NAMES, BoolArray, FloatArray, IntArray, catalog_flags
from apogee_batch.survey.pixels import BAD_STARFLAG_BITS

_VISIT_OF_APSTAR_ID = r"\.visit[0-9]+$"  # what the visits of one apStar file add to its name


def has_prediction(mean: FloatArray, std: FloatArray, clean: FloatArray, *, n_realizations: int) -> BoolArray:
    """Tell for which stars the network gave finite numbers.

    Parameters
    ----------
    mean, std, clean : ndarray of float32, shape (n_stars, n_labels)
        Estimates as the catalogue gives them.
    n_realizations : int
        With one realization there is no standard deviation: that alone is no lack of a prediction.

    Returns
    -------
    ndarray of bool, shape (n_stars,)
    """
    estimates = [mean, clean, std] if n_realizations > 1 else [mean, clean]
    return np.asarray(np.isfinite(np.stack(estimates)).all(axis=(0, 2)))


def compute_flags(
    stars: Any,
    *,
    mean: FloatArray,
    std: FloatArray,
    is_predicted: BoolArray,
    label_range: Mapping[str, tuple[float, float]] | None,
    is_outside: BoolArray | None = None,
    is_strange: BoolArray | None = None,
) -> IntArray:
    """Compute the flags of each star, all but DUPLICATE, which needs the whole catalogue.

    The limits are compared in float32, the precision of the catalogue, so that a flag can be
    worked out again from the columns of its row.

    Parameters
    ----------
    stars : pa.Table, n_stars rows
        Of its columns `snr`, `snr_header`, `n_bad_pixels` and `starflag` are used.
    mean, std : ndarray of float32, shape (n_stars, n_labels)
        Labels and their scatter over the realizations, in the order of `LABEL_NAMES`.
    is_predicted : ndarray of bool, shape (n_stars,)
        As `has_prediction` tells.
    label_range : mapping of str to (float, float), optional
        Smallest and largest training label: OUTSIDE_TRAINING by them where there is no `is_outside`; without
        both it is never set.
    is_outside : ndarray of bool, shape (n_stars,), optional
        Whether the labels lie outside the hull of the training labels.
    is_strange : ndarray of bool, shape (n_stars,), optional
        Whether the spectrum is unlike those of the training set; without it STRANGE_SPECTRUM is never set.

    Returns
    -------
    ndarray of int32, shape (n_stars,)
    """
    limits = catalog_flags()
    snr = _floats(stars["snr"])
    if is_outside is None:
        is_outside = _is_outside(mean, label_range)
    if is_strange is None:
        is_strange = np.zeros(stars.num_rows, dtype=bool)
    bits = {
        # not "snr < limit": an SNR that could not be measured is not a good one
        "LOW_SNR": ~(snr >= np.float32(_threshold("LOW_SNR"))),
        "TEFF_EDGE": is_predicted
        & (mean[:, LABEL_NAMES.index("teff")] > np.float32(_threshold("TEFF_EDGE"))),
        "OUTSIDE_TRAINING": is_predicted & is_outside,
        "MANY_BAD_PIXELS": stars["n_bad_pixels"].to_numpy() > _threshold("MANY_BAD_PIXELS"),
        "STARFLAG_BAD": (stars["starflag"].to_numpy() & int(BAD_STARFLAG_BITS)) != 0,
        "HIGH_SCATTER": is_predicted
        & (std > _per_label(limits["HIGH_SCATTER"].threshold_by_label)).any(axis=1),
        "SNR_MISMATCH": _differs(snr, _floats(stars["snr_header"]), tolerance=_threshold("SNR_MISMATCH")),
        "NO_PREDICTION": ~is_predicted,
        "STRANGE_SPECTRUM": is_predicted & is_strange,
    }
    flags = np.zeros(stars.num_rows, dtype=np.int32)
    for name, is_set in bits.items():
        flags |= np.where(is_set, np.int32(1 << limits[name].bit), np.int32(0))
    return flags


def mark_duplicates(catalog: Any) -> Any:
    """Set DUPLICATE on the rows of a star that has more than one apStar spectrum, and clear it elsewhere.

    The visits of one apStar file are not duplicates of each other.

    Parameters
    ----------
    catalog : pa.Table
        The whole catalogue.

    Returns
    -------
    pa.Table
    """
    bit = 1 << catalog_flags()["DUPLICATE"].bit
    spectrum = pc.replace_substring_regex(catalog["apstar_id"], pattern=_VISIT_OF_APSTAR_ID, replacement="")
    stars = pa.table({"apogee_id": catalog["apogee_id"], "spectrum": spectrum})
    n_spectra = stars.group_by("apogee_id").aggregate([("spectrum", "count_distinct")])
    repeated = n_spectra.filter(pc.greater(n_spectra["spectrum_count_distinct"], 1))["apogee_id"]
    is_duplicate = pc.is_in(catalog["apogee_id"], value_set=repeated.combine_chunks())
    flags = catalog["flags"].to_numpy()
    flags = np.where(is_duplicate.to_numpy(zero_copy_only=False), flags | bit, flags & ~bit).astype(np.int32)
    i = catalog.schema.get_field_index("flags")
    return catalog.set_column(i, catalog.schema.field(i), pa.array(flags))


def _threshold(name: str) -> float:
    """Return the one limit of a flag."""
    threshold = catalog_flags()[name].threshold
    if threshold is None:
        raise ValueError(f"flag {name} has no limit in schemas/catalog.json")
    return threshold


def _per_label(by_label: Mapping[str, float]) -> FloatArray:
    """Return one number a label in the order of `LABEL_NAMES`."""
    return np.array([by_label[name] for name in LABEL_NAMES], dtype=np.float32)


def _is_outside(mean: FloatArray, label_range: Mapping[str, tuple[float, float]] | None) -> BoolArray:
    """Tell which stars have a label beyond those of the training set."""
    if label_range is None:
        return np.zeros(len(mean), dtype=bool)
    lowest = _per_label({name: low for name, (low, _) in label_range.items()})
    highest = _per_label({name: high for name, (_, high) in label_range.items()})
    return np.asarray(((mean < lowest) | (mean > highest)).any(axis=1))


def _differs(measured: FloatArray, stated: FloatArray, *, tolerance: float) -> BoolArray:
    """Tell where a measured value is not the stated one; where nothing is stated, nothing differs."""
    difference = np.abs(measured.astype(np.float64) - stated)
    agrees = difference <= tolerance * np.abs(stated.astype(np.float64))
    return np.isfinite(stated) & ~agrees


def _floats(column: Any) -> FloatArray:
    """Return a float column as numpy, NaN where it is null."""
    values: npt.NDArray[np.float32] = column.to_numpy().astype(np.float32)
    return values
