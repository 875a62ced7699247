"""The labelled spectra that a network learns from."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apogee_batch.errors import UsageError
from apogee_batch.schema import DATA_SETS, DATA_TYPES, LABEL_NAMES, N_LABELS, DoubleArray, FloatArray
from apogee_batch.survey.pixels import N_PIXELS

ROWS_AT_ONCE = 1024
RowArray = npt.NDArray[np.int64]
TextArray = npt.NDArray[np.str_]


@dataclass(frozen=True)
class TrainingSet:
    """Spectra with labels, in the order of the store.

    Attributes
    ----------
    flux : ndarray of float32, shape (n_stars, n_pixels)
        As the store holds it: gaps are 0. It may be a memory map; batches are copied out of it.
    labels : ndarray of float64, shape (n_stars, n_labels)
        Physical labels in the order of `LABEL_NAMES`.
    data_type : ndarray of str, shape (n_stars,)
        payne, mstar or yso.
    data_set : ndarray of str, shape (n_stars,)
        train, dev or test; the test stars are never read.
    """

    flux: FloatArray
    labels: DoubleArray
    data_type: TextArray
    data_set: TextArray

    def __post_init__(self) -> None:
        n_stars = len(self.flux)
        if self.flux.shape != (n_stars, N_PIXELS) or self.flux.dtype != np.float32:
            raise ValueError(f"flux is {self.flux.dtype} {self.flux.shape}, not float32 (n, {N_PIXELS})")
        if self.labels.shape != (n_stars, N_LABELS):
            raise ValueError(f"labels have shape {self.labels.shape}, not ({n_stars}, {N_LABELS})")
        for name, column, known in (
            ("data_type", self.data_type, DATA_TYPES),
            ("data_set", self.data_set, DATA_SETS),
        ):
            if column.shape != (n_stars,) or not np.isin(column, known).all():
                raise ValueError(f"{name} must be one of {known} for each of {n_stars} stars")

    def rows(self, data_set: str, *data_types: str) -> RowArray:
        """Return the rows of one split, of some data types (default: all), ascending.

        Parameters
        ----------
        data_set : str
            train, dev or test.
        *data_types : str
        """
        chosen = self.data_set == data_set
        if data_types:
            chosen &= np.isin(self.data_type, data_types)
        return np.flatnonzero(chosen)

    def counts(self, data_set: str) -> dict[str, int]:
        """Return the number of stars of each data type of one split; types without one are left out."""
        present = {t: len(self.rows(data_set, t)) for t in DATA_TYPES}
        return {t: n for t, n in present.items() if n > 0}

    def label_range(self) -> dict[str, tuple[float, float]]:
        """Return the smallest and the largest label of the training stars, by label name."""
        labels = self.labels[self.rows("train")]
        ends = zip(labels.min(axis=0).tolist(), labels.max(axis=0).tolist(), strict=True)
        return dict(zip(LABEL_NAMES, ends, strict=True))

    def check(self) -> str:
        """Read the training and dev stars once, check that they are numbers, and return their hash.

        Returns
        -------
        str
            SHA-256 of spectra, labels, types and splits of the training and dev stars.

        Raises
        ------
        UsageError
            If a split is empty, or a spectrum or label is not a number.
        """
        for data_set in ("train", "dev"):
            if len(self.rows(data_set)) == 0:
                raise UsageError(f"no labelled star is in the {data_set} set: attach labels to more stars")
        used = np.flatnonzero(self.data_set != "test")
        digest = hashlib.sha256()
        for start in range(0, len(used), ROWS_AT_ONCE):
            rows = used[start : start + ROWS_AT_ONCE]
            flux = self.flux[rows]
            is_number = np.isfinite(flux).all(axis=1) & np.isfinite(self.labels[rows]).all(axis=1)
            if not is_number.all():
                raise UsageError(
                    f"training star in row {rows[~is_number][0]}: its spectrum or labels hold NaN or infinity"
                )
            digest.update(flux.astype("<f4", copy=False).tobytes())
        digest.update(self.labels[used].astype("<f8").tobytes())
        digest.update("\n".join([*self.data_type[used], *self.data_set[used]]).encode("utf-8"))
        return digest.hexdigest()
