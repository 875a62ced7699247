"""What the network reads and writes: transformed spectra, standardised labels."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from apogee_batch.errors import UsageError
from apogee_batch.schema import LABEL_NAMES, N_LABELS, DoubleArray

if TYPE_CHECKING:  # tensors do everything themselves: what only reads a model's header needs no torch
    from torch import Tensor

MAX_CONTRAST = 1.0
CONTRAST_GAIN = 5.0
_LEAST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class LabelScaler:
    """Labels in physical units and standardised ones (paper, equation 4).

    Attributes
    ----------
    mean, std : tuple of float, length n_labels
        Mean and standard deviation of the training set, in the order of `LABEL_NAMES`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != N_LABELS or len(self.std) != N_LABELS:
            raise ValueError(f"a label scaler needs {N_LABELS} means and standard deviations")
        if not all(np.isfinite(self.mean)) or not all(np.isfinite(self.std)) or min(self.std) <= 0:
            raise ValueError("a label scaler needs finite means and positive standard deviations")

    @classmethod
    def from_labels(cls, labels: DoubleArray) -> "LabelScaler":
        """Measure the scaler of a training set.

        Parameters
        ----------
        labels : ndarray of float64, shape (n_stars, n_labels)
            Physical labels of the training set.

        Raises
        ------
        UsageError
            If there are no labels, or a label has one value only.
        """
        if len(labels) == 0:
            raise UsageError("the training set is empty: attach labels to more stars of the store")
        mean, std = labels.mean(axis=0), labels.std(axis=0)
        for name, center, spread in zip(LABEL_NAMES, mean, std, strict=True):
            if not spread > 1e-9 * max(abs(center), 1.0):
                raise UsageError(f"all {name} labels of the training set are {center:g}: nothing to learn")
        return cls(tuple(mean.tolist()), tuple(std.tolist()))

    def standardise(self, labels: "Tensor") -> "Tensor":
        """Return (label - mean) / std as float64.

        Parameters
        ----------
        labels : Tensor, shape (..., n_labels)
            dex(cm/s2), K, dex.
        """
        exact = labels.double()
        return (exact - exact.new_tensor(self.mean)) / exact.new_tensor(self.std)

    def to_physical(self, standardised: "Tensor") -> "Tensor":
        """Return the labels in physical units, as float64: the inverse of `standardise`.

        Parameters
        ----------
        standardised : Tensor, shape (..., n_labels)
        """
        exact = standardised.double()
        return exact * exact.new_tensor(self.std) + exact.new_tensor(self.mean)

    def to_json(self) -> dict[str, Any]:
        """Return the scaler as JSON values."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "LabelScaler":
        """Return the scaler that `to_json` wrote."""
        return cls(tuple(map(float, values["mean"])), tuple(map(float, values["std"])))


OFFICIAL_SCALER = LabelScaler(  # of the authors' training set; Table 1 of the paper rounds these
    mean=(2.880541250669337, 4716.915128138449, -0.22329606176144642),
    std=(1.1648147820369943, 733.0099523547299, 0.3004270650813916),
)


@dataclass(frozen=True)
class InputTransform:
    """How a spectrum becomes the network's input.

    `raw`: the flux as it is (the authors' weights). `contrast`: `gain` times flux / scale - 1, limited
    to +-`clip` before the gain, where the scale is the median of the clean spectrum's good pixels. Gaps
    (flux 0) are 0 in both. A realization takes the scale of its clean spectrum, so that noise which is
    additive in flux stays additive in the input.

    Attributes
    ----------
    kind : {"raw", "contrast"}
    clip : float
        Largest contrast that is told apart.
    gain : float
        Factor that brings the contrast of lines to the order of one.
    """

    kind: Literal["raw", "contrast"] = "contrast"
    clip: float = MAX_CONTRAST
    gain: float = CONTRAST_GAIN

    def __post_init__(self) -> None:
        if self.kind not in ("raw", "contrast"):
            raise ValueError(f"no input transform {self.kind!r}: use 'raw' or 'contrast'")
        if not (0 < self.clip < float("inf") and 0 < self.gain < float("inf")):
            raise ValueError("clip and gain of an input transform are positive numbers")

    def scale(self, flux: "Tensor") -> "Tensor":
        """Measure the flux scale of clean spectra.

        `contrast`: their brightness. `raw`: 1.

        Parameters
        ----------
        flux : Tensor of float32, shape (n_spectra, n_pixels)
            Gaps hold 0.

        Returns
        -------
        Tensor of float32, shape (n_spectra, 1)
        """
        if self.kind == "raw":
            return flux.new_ones((len(flux), 1))
        return measure_brightness(flux)

    def apply(self, flux: "Tensor", scale: "Tensor") -> "Tensor":
        """Transform spectra or realizations of spectra.

        Parameters
        ----------
        flux : Tensor of float32, shape (n_spectra, n_pixels)
            Gaps hold 0.
        scale : Tensor of float32, shape (n_spectra, 1) or broadcastable to it
            What `scale` gave for the clean spectra.

        Returns
        -------
        Tensor of float32, shape (n_spectra, n_pixels)
        """
        if self.kind == "raw":
            return flux
        contrast = flux.div(scale).sub_(1.0).clamp_(-self.clip, self.clip).mul_(self.gain)
        return contrast.masked_fill_(flux == 0, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the transform as JSON values."""
        return {"kind": self.kind, "clip": self.clip, "gain": self.gain}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "InputTransform":
        """Return the transform that `to_json` wrote."""
        return cls(values["kind"], float(values["clip"]), float(values["gain"]))


def measure_brightness(flux: "Tensor") -> "Tensor":
    """Return the median flux of the good pixels of each spectrum.

    It is always finite and above zero, so that a spectrum can be divided by it: where the median is not (a
    spectrum that is mostly noise), it is the median of the absolute flux, and 1 for a spectrum without a good
    pixel.

    Parameters
    ----------
    flux : Tensor of float32, shape (n_spectra, n_pixels)
        Gaps hold 0.

    Returns
    -------
    Tensor of float32, shape (n_spectra, 1)
    """
    good = flux.masked_fill(flux == 0, math.nan)
    brightness = good.nanmedian(dim=1, keepdim=True).values
    # To ask a GPU is to wait for all that it has to do. Where all can be divided by, the bits are the same.
    if brightness.is_cuda or not bool(_can_divide(brightness).all()):
        spread = good.abs().nanmedian(dim=1, keepdim=True).values
        brightness = brightness.where(_can_divide(brightness), spread)
        brightness = brightness.masked_fill(~_can_divide(brightness), 1.0)
    return brightness


def _can_divide(brightness: "Tensor") -> "Tensor":
    """Tell what can be divided by without leaving float32."""
    return (brightness > _LEAST) & (brightness < math.inf)
