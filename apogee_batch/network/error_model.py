"""How far predictions lie from labels, learned from stars that did not teach the network: honest errors.

The scatter over noise realizations is the part of the error that comes from the noise of the spectrum; the
paper (section 3.6) finds the scatter against labels about four times larger. Here the square of the whole
error of a label is a sum of non-negative terms,

    total^2 = floor(place)^2 + (scale * sigma)^2 + (per_snr * 100 / SNR)^2,

where `sigma` is the scatter over the realizations; `error_fit` lets the stars decide which terms there are.
The noise of the labels is inside: `total` is the scatter of predictions against labels of this quality.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from apogee_batch.schema import LABEL_NAMES, DoubleArray

PLACES = ("cool_dwarf", "cool_between", "giant", "warm_dwarf")
"""Where a star lies in the Kiel diagram, by its predictions: its type is not known where it has no label."""
COOL_TEFF = 4500.0  # K: the red end of what Payne labels do well, and the hot end of the M dwarfs and YSOs
COOL_DWARF_LOGG = 4.4  # above: M and K dwarfs; below: stars that still contract
COOL_GIANT_LOGG = 2.8  # below: red giants
WARM_GIANT_LOGG = 3.5

PlaceArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelErrors:
    """The error of one label.

    Attributes
    ----------
    floor : tuple of float
        Of each of `PLACES`, in the unit of the label.
    scale : float
        By what the scatter over the realizations is multiplied.
    per_snr : float
        What is added in quadrature at SNR 100, in the unit of the label; 0 where the term is not needed.
    factor_95 : float
        How many `total` hold 95.45 percent of the stars: 2 if they are distributed normally, more with
        outliers.
    degrees_of_freedom : float
        Of the Student's t that fits best; infinite for a normal distribution.
    terms : tuple of str
        Those that were kept.
    gains : mapping of str to (float, float)
        For each other set of terms, by how much its held-out log-likelihood a star exceeds that of the
        simplest, and the standard error of that.
    """

    floor: tuple[float, ...]
    scale: float
    per_snr: float
    factor_95: float
    degrees_of_freedom: float
    terms: tuple[str, ...]
    gains: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class ErrorModel:
    """The errors of all labels, in the order of `LABEL_NAMES`.

    Attributes
    ----------
    labels : tuple of LabelErrors, length n_labels
    n_stars : int
        Stars that it was fitted to.
    n_by_place : mapping of str to int
        The same in each of `PLACES`.
    """

    labels: tuple[LabelErrors, ...]
    n_stars: int
    n_by_place: Mapping[str, int]

    def total(self, sigma: DoubleArray, snr: DoubleArray, predicted: DoubleArray) -> DoubleArray:
        """Return one-sigma errors of predictions, shape (n_stars, n_labels), in the units of the labels.

        About 68 percent of stars like those of the fit lie within one of them of their label, and about
        95 percent within `factor_95` of them.

        Parameters
        ----------
        sigma : ndarray of float64, shape (n_stars, n_labels)
            Scatter over the realizations.
        snr : ndarray of float64, shape (n_stars,)
            Signal-to-noise ratio of the spectrum. Where it is not a positive number, a label whose error
            depends on it has none (NaN).
        predicted : ndarray of float64, shape (n_stars, n_labels)
            The predicted labels.
        """
        places = place_of(predicted)
        total = np.empty(sigma.shape)
        for i, label in enumerate(self.labels):
            variance = np.asarray(label.floor)[places] ** 2 + (label.scale * sigma[:, i]) ** 2
            if label.per_snr:
                variance = variance + label.per_snr**2 * inverse_snr(snr)
            total[:, i] = np.sqrt(variance)
        return total

    def to_json(self) -> dict[str, Any]:
        """Return the model as JSON values."""
        labels = {}
        for name, label in zip(LABEL_NAMES, self.labels, strict=True):
            nu = label.degrees_of_freedom
            labels[name] = {
                "floor": dict(zip(PLACES, label.floor, strict=True)),
                "scale": label.scale,
                "per_snr_100": label.per_snr,
                "factor_95": label.factor_95,
                "degrees_of_freedom": nu if np.isfinite(nu) else None,
                "terms": list(label.terms),
                "gains": {terms: list(gain) for terms, gain in label.gains.items()},
            }
        return {"n_stars": self.n_stars, "n_by_place": dict(self.n_by_place), "labels": labels}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ErrorModel":
        """Return the model that `to_json` wrote; KeyError, TypeError or ValueError if it is none."""
        labels = []
        for name in LABEL_NAMES:
            told = values["labels"][name]
            nu = told["degrees_of_freedom"]
            labels.append(
                LabelErrors(
                    floor=tuple(float(told["floor"][place]) for place in PLACES),
                    scale=float(told["scale"]),
                    per_snr=float(told["per_snr_100"]),
                    factor_95=float(told["factor_95"]),
                    degrees_of_freedom=np.inf if nu is None else float(nu),
                    terms=tuple(told["terms"]),
                    gains={
                        terms: (float(gain), float(error)) for terms, (gain, error) in told["gains"].items()
                    },
                )
            )
        return cls(tuple(labels), int(values["n_stars"]), dict(values["n_by_place"]))


def place_of(predicted: DoubleArray) -> PlaceArray:
    """Return the place of each star in the Kiel diagram, as a number of `PLACES`, shape (n_stars,).

    Parameters
    ----------
    predicted : ndarray, shape (n_stars, n_labels)
        Predicted labels; what is not a number counts as warm or as a dwarf.
    """
    logg, teff = (predicted[:, LABEL_NAMES.index(name)] for name in ("logg", "teff"))
    is_cool = teff < COOL_TEFF
    is_giant = np.where(is_cool, logg < COOL_GIANT_LOGG, logg < WARM_GIANT_LOGG)
    is_dwarf = np.where(is_cool, logg >= COOL_DWARF_LOGG, ~is_giant)
    cool = np.where(is_dwarf, PLACES.index("cool_dwarf"), PLACES.index("cool_between"))
    place = np.where(is_cool, cool, PLACES.index("warm_dwarf"))
    return np.asarray(np.where(is_giant, PLACES.index("giant"), place), np.int64)


def inverse_snr(snr: DoubleArray) -> DoubleArray:
    """Return (100 / SNR)^2; not a number where the SNR is not a positive number."""
    return (100.0 / np.where(snr > 0, snr, np.nan)) ** 2
