"""How unlike the training spectra a spectrum is: a distance between features of the network.

The distance is Mahalanobis': along the directions in which the features of training stars vary most it is
measured in units of their scatter, across all others in units of what scatter is left there. Noise moves the
features too, so a star is compared with what dev stars of its signal-to-noise ratio show.

Products of matrices are torch's: their last bits depend on the number of threads, and a task sets torch's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from apogee_batch.errors import IntegrityError
from apogee_batch.schema import BoolArray, DoubleArray, FloatArray, IntArray

LEAST_TRAINING_STARS = 200
LEAST_DEV_STARS = 80
TOO_FEW_STARS = (
    f"fewer than {LEAST_TRAINING_STARS} training stars or {LEAST_DEV_STARS} dev stars: "
    "too few to tell which spectra are strange"
)
FALSE_RATE = 0.005  # of good stars that may be flagged
MAX_RANK = 256
STARS_PER_DIRECTION = 8  # with fewer the scatter along a direction is not known
RIDGE = 1e-4  # of the mean variance, added to each: no direction is sharper than this
MAX_WEIGHT_QUANTILE = 0.999  # the weight of the strangest training stars is limited to that of this quantile
KNOT_EDGES = (0.03, 0.08, 0.18, 0.32, 0.50, 0.68, 0.85)  # shares of dev stars: close where noise is most
LEAST_STARS_PER_KNOT = 30
ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Metric:
    """A distance from the middle of the training features.

    Attributes
    ----------
    center : ndarray of float32, shape (n_features,)
        Mean of the training stars.
    directions : ndarray of float32, shape (n_features, rank)
        Orthonormal; along these the training stars vary most.
    precision : ndarray of float32, shape (rank + 1,)
        One over the variance along each direction; last, along any other.
    """

    center: FloatArray
    directions: FloatArray
    precision: FloatArray

    def __post_init__(self) -> None:
        """Check shapes."""
        n_features, rank = self.directions.shape
        if self.center.shape != (n_features,) or self.precision.shape != (rank + 1,):
            raise ValueError("center, directions and precision of a metric do not fit together")

    def distance(self, features: FloatArray) -> DoubleArray:
        """Measure how far features lie from the training stars, 1 being typical for these.

        Parameters
        ----------
        features : ndarray of float32, shape (n_stars, n_features)

        Returns
        -------
        ndarray of float64, shape (n_stars,)
            A star's number does not depend on its neighbours: products of matrices have one shape.
        """
        distance = np.empty(len(features))
        for start in range(0, len(features), ROWS_AT_ONCE):
            some = features[start : start + ROWS_AT_ONCE]
            rows = np.zeros((ROWS_AT_ONCE, len(self.center)))
            rows[: len(some)] = some - self.center.astype(np.float64)
            distance[start : start + len(some)] = self._length(rows)[: len(some)]
        return distance

    def _length(self, rows: DoubleArray) -> DoubleArray:
        import torch  # as below: many read what a model knows of itself, and few compute with it

        directions, from_center = torch.from_numpy(self.directions).double(), torch.from_numpy(rows)
        along = from_center @ directions  # (n_rows, rank)
        across = from_center - along @ directions.T
        precision = torch.from_numpy(self.precision).double()
        squares = along.square() @ precision[:-1] + across.square().sum(dim=1) * precision[-1]
        return np.asarray((squares / rows.shape[1]).sqrt().numpy())


@dataclass(frozen=True)
class Strangeness:
    """A score for spectra: above `threshold`, a spectrum is unlike those of the training set.

    Attributes
    ----------
    metric : Metric
    knot_snr : tuple of float
        Signal-to-noise ratios, ascending.
    knot_limit : tuple of float
        The largest distance of a good star at each of them.
    n_train, n_dev : int
        Numbers of stars it was made from.
    """

    metric: Metric
    knot_snr: tuple[float, ...]
    knot_limit: tuple[float, ...]
    n_train: int
    n_dev: int

    def __post_init__(self) -> None:
        """Check the knots."""
        knots = np.array([self.knot_snr, self.knot_limit])
        if knots.size == 0 or not np.isfinite(knots).all() or (knots <= 0).any():
            raise ValueError("the knots of a strangeness score are positive numbers")
        if (np.diff(knots[0]) <= 0).any():
            raise ValueError("the knots of a strangeness score ascend in signal-to-noise ratio")

    @property
    def threshold(self) -> float:
        """The score above which a spectrum is strange: 1, as the score is in units of the limit."""
        return 1.0

    def limit(self, snr: DoubleArray) -> DoubleArray:
        """Return the largest distance of good stars.

        It is interpolated in the logarithm, and constant beyond the first and the last knot. An SNR that is
        no positive number counts as the lowest.

        Parameters
        ----------
        snr : ndarray of float, shape (n_stars,)
            Median of flux/err over the pixels of a spectrum, as in the store.
        """
        ends = self.knot_snr[0], self.knot_snr[-1]
        known = np.clip(np.where(np.isnan(snr), ends[0], snr).astype(np.float64), *ends)
        logarithm = np.interp(np.log(known), np.log(self.knot_snr), np.log(self.knot_limit))
        return np.asarray(np.exp(logarithm))

    def score(self, features: FloatArray, snr: DoubleArray) -> FloatArray:
        """Return the distance of spectra in units of the limit for their signal-to-noise ratio.

        Parameters
        ----------
        features : ndarray of float32, shape (n_stars, n_features)
            What `features_of` gives.
        snr : ndarray of float, shape (n_stars,)
            As in `limit`.

        Returns
        -------
        ndarray of float32, shape (n_stars,)
            NaN where the features are not finite.
        """
        is_finite: BoolArray = np.asarray(np.isfinite(features).all(axis=1))
        known = np.where(is_finite[:, None], features, np.float32(0))
        score = self.metric.distance(known) / self.limit(snr)
        return np.where(is_finite, score, np.nan).astype(np.float32)

    def is_strange(self, score: FloatArray) -> BoolArray:
        """Tell which scores are above the threshold; NaN is not."""
        return np.asarray(score > np.float32(self.threshold))

    def to_json(self) -> dict[str, Any]:
        """Return all but the metric as JSON values."""
        return {
            "false_rate": FALSE_RATE,
            "knot_snr": list(self.knot_snr),
            "knot_limit": list(self.knot_limit),
            "n_train": self.n_train,
            "n_dev": self.n_dev,
        }

    def tensors(self) -> dict[str, FloatArray]:
        """Return the arrays of the metric by name."""
        metric = self.metric
        return {"center": metric.center, "directions": metric.directions, "precision": metric.precision}

    @classmethod
    def from_parts(cls, values: Mapping[str, Any], tensors: Mapping[str, FloatArray]) -> "Strangeness":
        """Return the score that `to_json` and `tensors` describe.

        Raises
        ------
        IntegrityError
            If something is missing or does not fit together.
        """
        try:
            metric = Metric(*(tensors[name] for name in ("center", "directions", "precision")))
            snr, limit = (tuple(map(float, values[name])) for name in ("knot_snr", "knot_limit"))
            return cls(metric, snr, limit, int(values["n_train"]), int(values["n_dev"]))
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"the strangeness score is incomplete: {error!r}") from error


def fit_strangeness(
    train_features: FloatArray, dev_features: FloatArray, dev_snr: DoubleArray
) -> Strangeness | None:
    """Learn the metric from training stars, and the limits from dev stars.

    Training stars far out get more weight in a second pass: a type of star of which there are few (young
    ones) would else be strange in the midst of its own kind.

    Parameters
    ----------
    train_features : ndarray of float32, shape (n_train, n_features)
        What `features_of` gives; some thousand stars are enough.
    dev_features : ndarray of float32, shape (n_dev, n_features)
        Of other stars, which the training has not seen.
    dev_snr : ndarray of float, shape (n_dev,)

    Returns
    -------
    Strangeness or None
        None for `TOO_FEW_STARS`; rows with a number that is not finite do not count.
    """
    train = train_features[np.isfinite(train_features).all(axis=1)]
    is_good = np.isfinite(dev_features).all(axis=1) & np.isfinite(dev_snr) & (dev_snr > 0)
    dev, snr = dev_features[is_good], dev_snr[is_good].astype(np.float64)
    if len(train) < LEAST_TRAINING_STARS or len(dev) < LEAST_DEV_STARS or np.ptp(train) == 0:
        return None
    first = _fit_metric(train, np.ones(len(train)))
    squares = np.square(first.distance(train))
    metric = _fit_metric(train, np.minimum(squares, np.quantile(squares, MAX_WEIGHT_QUANTILE)))
    knot_snr, knot_limit = _fit_limits(metric.distance(dev), snr)
    return Strangeness(metric, knot_snr, knot_limit, n_train=len(train), n_dev=len(dev))


def _fit_metric(features: FloatArray, weight: DoubleArray) -> Metric:
    """Return the metric of weighted features."""
    import torch

    share = weight / weight.sum()
    center = (share[:, None] * features).sum(axis=0)
    scaled = torch.from_numpy((features - center) * np.sqrt(share)[:, None])
    variance, directions = (part.numpy() for part in torch.linalg.eigh(scaled.T @ scaled))
    variance, directions = variance[::-1].clip(min=0), directions[:, ::-1]
    rank = min(MAX_RANK, len(features) // STARS_PER_DIRECTION, len(center) - 1)
    along = np.append(variance[:rank], variance[rank:].mean()) + RIDGE * variance.mean()
    return Metric(
        center.astype(np.float32),
        np.ascontiguousarray(directions[:, :rank], dtype=np.float32),
        (1 / along).astype(np.float32),
    )


def _fit_limits(distance: DoubleArray, snr: DoubleArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return knots in SNR and the limit at each: the running median, times what keeps good stars within."""
    logarithm = np.log(distance.clip(min=np.finfo(np.float32).tiny))
    knots = {
        float(np.median(snr[group])): float(np.median(logarithm[group])) for group in _groups_by_snr(snr)
    }
    at = sorted(knots)
    middle = np.array([knots[each] for each in at])
    excess = logarithm - np.interp(np.log(snr), np.log(at), middle)
    limit = np.exp(middle + np.quantile(excess, 1 - FALSE_RATE, method="higher"))
    return tuple(at), tuple(limit.tolist())


def _groups_by_snr(snr: DoubleArray) -> list[IntArray]:
    """Cut stars, by ascending SNR, into groups that are large enough for a median."""
    edges = [0]
    for share in KNOT_EDGES:
        edge = round(share * len(snr))
        if min(edge - edges[-1], len(snr) - edge) >= LEAST_STARS_PER_KNOT:
            edges.append(edge)
    return np.split(np.argsort(snr, kind="stable"), edges[1:])
