"""The labelled stars of a catalogue: all that validation needs, gathered from pieces of any length."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from apogee_batch.schema import (
    DATA_SETS,
    DATA_TYPES,
    LABEL_NAMES,
    N_LABELS,
    BoolArray,
    FloatArray,
)

REALIZATIONS, CALIBRATED = "realizations", "calibrated"
SIGMA_COLUMNS = {  # of each kind of sigma: the columns, in the order of LABEL_NAMES
    REALIZATIONS: tuple(f"e_{name}" for name in LABEL_NAMES),
    CALIBRATED: tuple(f"e_{name}_total" for name in LABEL_NAMES),
}
LABEL_COLUMNS = tuple(f"{name}_label" for name in LABEL_NAMES)
GROUP_COLUMNS = ("data_type", "data_set")
AGREEMENT_COLUMNS = (*LABEL_NAMES, *LABEL_COLUMNS, *GROUP_COLUMNS)
# read where the catalogue has them
OTHER_COLUMNS = ("snr", *SIGMA_COLUMNS[REALIZATIONS], *SIGMA_COLUMNS[CALIBRATED])
VALIDATION_COLUMNS = (*AGREEMENT_COLUMNS, *OTHER_COLUMNS)

CodeArray = npt.NDArray[np.int8]


@dataclass(frozen=True)
class LabelledStars:
    """The stars of a catalogue that have a data type and a data set.

    Attributes
    ----------
    data_type, data_set : ndarray of int8, shape (n_stars,)
        Places in `DATA_TYPES` and `DATA_SETS`.
    snr : ndarray of float32, shape (n_stars,)
        NaN where it is unknown.
    predictions, labels : ndarray of float32, shape (n_labels, n_stars)
        In the order of `LABEL_NAMES`, native units; NaN where there is none.
    sigmas : dict of ndarray of float32, shape (n_labels, n_stars)
        Of `REALIZATIONS` and `CALIBRATED`; NaN where there is none.
    n_catalog : int
        Rows that were looked through, labelled or not.
    """

    data_type: CodeArray
    data_set: CodeArray
    snr: FloatArray
    predictions: FloatArray
    labels: FloatArray
    sigmas: dict[str, FloatArray]
    n_catalog: int

    def __post_init__(self) -> None:
        n_stars = len(self.snr)
        of_labels = (self.predictions, self.labels, *self.sigmas.values())
        if self.data_type.shape != (n_stars,) or self.data_set.shape != (n_stars,):
            raise ValueError(f"types and sets of {n_stars} stars do not have one value for each star")
        if any(values.shape != (N_LABELS, n_stars) for values in of_labels):
            raise ValueError(f"numbers of {n_stars} stars do not have the shape ({N_LABELS}, {n_stars})")

    def __len__(self) -> int:
        return len(self.snr)

    def in_group(self, data_type: str | None, data_set: str) -> BoolArray:
        """Tell which stars are of a type, or of any if it is None, and in a set; shape (n_stars,)."""
        is_member: BoolArray = self.data_set == DATA_SETS.index(data_set)
        if data_type is not None:
            is_member = is_member & (self.data_type == DATA_TYPES.index(data_type))
        return is_member

    def is_complete(self) -> BoolArray:
        """Tell which stars have all labels and all predictions; shape (n_stars,)."""
        found = np.ones(len(self), dtype=bool)
        for values in (*self.predictions, *self.labels):
            found &= np.isfinite(values)
        return found


def gather_labelled(pieces: Iterable[pa.Table]) -> LabelledStars:
    """Keep of each piece what the labelled stars need: 54 bytes a labelled star, nothing of the others.

    Parameters
    ----------
    pieces : iterable of Table
        Pieces of a catalogue with the columns `AGREEMENT_COLUMNS`, and any of `OTHER_COLUMNS`.
    """
    kept: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in VALIDATION_COLUMNS}
    n_catalog = 0
    for piece in pieces:
        n_catalog += len(piece)
        codes = {"data_type": _code(piece, "data_type", DATA_TYPES)}
        codes["data_set"] = _code(piece, "data_set", DATA_SETS)
        is_labelled = (codes["data_type"] >= 0) & (codes["data_set"] >= 0)
        if not is_labelled.any():
            continue
        for name, values in kept.items():
            found = codes[name] if name in codes else _floats(piece, name)
            values.append(found[is_labelled])

    def join(names: Sequence[str]) -> FloatArray:
        return np.stack([_join(kept.pop(name), np.float32) for name in names])  # each given up when joined

    return LabelledStars(
        data_type=_join(kept.pop("data_type"), np.int8),
        data_set=_join(kept.pop("data_set"), np.int8),
        snr=_join(kept.pop("snr"), np.float32),
        predictions=join(LABEL_NAMES),
        labels=join(LABEL_COLUMNS),
        sigmas={kind: join(names) for kind, names in SIGMA_COLUMNS.items()},
        n_catalog=n_catalog,
    )


def _join(parts: Sequence[npt.NDArray[Any]], dtype: type[np.generic]) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *parts])


def _code(piece: pa.Table, name: str, words: Sequence[str]) -> CodeArray:
    """Return the place of each text in `words`; -1 for a null or any other text."""
    places = pc.index_in(piece[name].cast(pa.string()), value_set=pa.array(words))
    found: CodeArray = places.fill_null(-1).cast(pa.int8()).to_numpy()
    return found


def _floats(piece: pa.Table, name: str) -> FloatArray:
    """Return a column; NaN where it is null, or everywhere if the piece does not have it."""
    if name not in piece.column_names:
        return np.full(len(piece), np.nan, np.float32)
    found: FloatArray = piece[name].cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    return found
