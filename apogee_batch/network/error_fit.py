"""How an error model is fitted to predictions of labelled stars: which terms, how large, which tails."""

from dataclasses import dataclass
from math import lgamma

import numpy as np

from apogee_batch.network.error_model import (
    PLACES,
    ErrorModel,
    LabelErrors,
    PlaceArray,
    inverse_snr,
    place_of,
)
from apogee_batch.schema import N_LABELS, BoolArray, DoubleArray

MIN_STARS = 50  # fewer say less of a 68 percent interval than the paper's factor of four does
MIN_STARS_OF_PLACE = 25  # others share a floor
N_FOLDS = 5
MAX_ITERATIONS = 1000
MIN_GAIN = 1.0  # in the log-likelihood of all held-out stars, for which another term is worth having
TOLERANCE = 1e-7  # of the mean log-likelihood a star, between iterations
LEAST = 1e-24  # variance; far below that of any label
DEGREES_OF_FREEDOM = (3.0, 4.0, 6.0, 10.0, 30.0, np.inf)  # of Student's t: how heavy the tails may be
PART_68, PART_95 = 0.6827, 0.9545  # of a normal distribution within one and two standard deviations

_FLOOR, _PLACED, _SIGMA, _SNR = "floor", "floor by place", "scale", "SNR"
CANDIDATES = ((_FLOOR, _SIGMA), (_FLOOR, _SIGMA, _SNR), (_PLACED, _SIGMA), (_PLACED, _SIGMA, _SNR))


def fit_error_model(
    residual: DoubleArray,
    sigma: DoubleArray,
    snr: DoubleArray,
    predicted: DoubleArray,
    *,
    weight: DoubleArray | None = None,
) -> ErrorModel:
    """Learn the errors from predictions of labelled stars.

    For each label the terms are fitted by maximum likelihood with the residuals as a Student's t about zero,
    whose degrees of freedom are fitted too: outliers, as from wrong labels, do not widen everybody's error,
    and a bias is part of it. Of several sets of terms the simplest is kept whose log-likelihood of held-out
    residuals, by five-fold cross-validation, is within `MIN_GAIN` of the best. At last the error is
    multiplied by what makes 68.27 percent of the held-out residuals lie within it, and it is noted how many
    such errors hold 95.45 percent: what heavy tails do is in that number.

    Parameters
    ----------
    residual : ndarray of float64, shape (n_stars, n_labels)
        Predicted minus true label; `MIN_STARS` of them or more, finite, in an order that means nothing.
    sigma : ndarray of float64, shape (n_stars, n_labels)
        Scatter over the realizations.
    snr : ndarray of float64, shape (n_stars,)
    predicted : ndarray of float64, shape (n_stars, n_labels)
        Predicted labels.
    weight : ndarray of float64, shape (n_stars,), optional
        How many stars each stands for.

    Raises
    ------
    ValueError
        If there are too few stars.
    """
    n_stars = len(residual)
    if n_stars < MIN_STARS:
        raise ValueError(f"{n_stars} stars are too few for an error model, {MIN_STARS} are needed")
    weights = np.ones(n_stars) if weight is None else weight * (n_stars / weight.sum())
    places = place_of(predicted)
    counts = np.bincount(places, minlength=len(PLACES))
    group_of_place = _group(places)
    per_snr, groups = inverse_snr(snr), group_of_place[places]
    labels = tuple(
        _fit_label(_Stars(residual[:, i] ** 2, sigma[:, i] ** 2, per_snr, groups, weights), group_of_place)
        for i in range(N_LABELS)
    )
    return ErrorModel(labels, n_stars, dict(zip(PLACES, counts.tolist(), strict=True)))


@dataclass(frozen=True)
class _Stars:
    """What one label's fit looks at; all of shape (n_stars,), the first three squared."""

    residual: DoubleArray
    sigma: DoubleArray
    per_snr: DoubleArray
    groups: PlaceArray
    weights: DoubleArray

    def taken(self, chosen: BoolArray) -> "_Stars":
        return _Stars(*(values[chosen] for values in vars(self).values()))


@dataclass(frozen=True)
class _Fit:
    """Squared coefficients of some terms: the floors of the groups, or one of all, and the others."""

    terms: tuple[str, ...]
    found: DoubleArray

    def variance(self, stars: _Stars) -> DoubleArray:
        return _variance(self.found, _design(stars, self.terms))

    def of(self, term: str) -> float:
        return float(self.found[self.terms.index(term) - len(self.terms)]) if term in self.terms else 0.0

    def floors(self, group_of_place: PlaceArray) -> DoubleArray:
        if _PLACED not in self.terms:
            return np.full(len(PLACES), self.found[0])
        floors = self.found[group_of_place]
        return np.where(floors > 0, floors, floors.max())  # of places that no star stands for: the worst


def _fit_label(stars: _Stars, group_of_place: PlaceArray) -> LabelErrors:
    """Choose the terms of one label, fit them, and stretch the result to cover what it should."""
    has_snr = bool(np.isfinite(stars.per_snr).all())  # else the term would leave stars without an error
    candidates = [terms for terms in CANDIDATES if has_snr or _SNR not in terms]
    nu = _find_tails(stars, candidates[-1])
    fits = {terms: _fit(stars, terms, nu) for terms in candidates}
    held_out = {terms: _cross_validate(stars, fits[terms], nu) for terms in candidates}
    base = held_out[candidates[0]][1]
    gains = {terms: _mean_and_error(held_out[terms][1] - base, stars.weights) for terms in candidates}
    least = max(gain for gain, _ in gains.values()) - MIN_GAIN / len(base)
    chosen = next(terms for terms in candidates if gains[terms][0] >= least)
    fit, ratio = fits[chosen], np.sqrt(stars.residual / held_out[chosen][0])
    stretch = _quantile(ratio, stars.weights, PART_68)
    return LabelErrors(
        floor=tuple((stretch * np.sqrt(fit.floors(group_of_place))).tolist()),
        scale=float(stretch * np.sqrt(fit.of(_SIGMA))),
        per_snr=float(stretch * np.sqrt(fit.of(_SNR))),
        factor_95=_quantile(ratio, stars.weights, PART_95) / stretch if stretch > 0 else 2.0,
        degrees_of_freedom=nu,
        terms=chosen,
        gains={" + ".join(terms): gains[terms] for terms in candidates[1:]},
    )


def _find_tails(stars: _Stars, terms: tuple[str, ...]) -> float:
    """Return the degrees of freedom that fit best; of equal ones the most, the lightest tails."""
    fit, best, chosen = None, -np.inf, np.inf
    for nu in reversed(DEGREES_OF_FREEDOM):
        fit = _fit(stars, terms, nu, start=fit)
        reached = _mean(_log_density(stars.residual, fit.variance(stars), nu), stars.weights)
        if reached > best:
            best, chosen = reached, nu
    return chosen


def _cross_validate(stars: _Stars, whole: _Fit, nu: float) -> tuple[DoubleArray, DoubleArray]:
    """Return the variance and the log-likelihood of each star by a fit to others."""
    folds = np.arange(len(stars.weights)) % N_FOLDS
    variance, likelihood = np.empty(len(folds)), np.empty(len(folds))
    for fold in range(N_FOLDS):
        is_out = folds == fold
        out = stars.taken(is_out)
        variance[is_out] = _fit(stars.taken(~is_out), whole.terms, nu, start=whole).variance(out)
        likelihood[is_out] = _log_density(out.residual, variance[is_out], nu)
    return variance, likelihood


def _fit(stars: _Stars, terms: tuple[str, ...], nu: float, *, start: _Fit | None = None) -> _Fit:
    """Fit the squared coefficients of some terms by maximum likelihood.

    The variance is linear in them and none may be negative, so that a multiplicative step that never lowers
    the likelihood does it (as in non-negative matrix factorisation with the Itakura-Saito divergence); a
    Student's t is a mixture of normal distributions of all widths (expectation-maximisation).
    """
    design = _design(stars, terms)
    typical = float(np.median(stars.residual)) + LEAST
    size = design.mean(axis=1)
    first = np.divide(typical / len(design), size, out=np.zeros(len(design)), where=size > 0)
    found = first if start is None else start.found
    before = -np.inf
    for _ in range(MAX_ITERATIONS):
        variance = _variance(found, design)
        now = _mean(_log_density(stars.residual, variance, nu), stars.weights)
        if now - before < TOLERANCE:
            break
        before = now
        pull = stars.weights * _outlier_weight(stars.residual, variance, nu) * stars.residual / variance**2
        expected = (design * (stars.weights / variance)).sum(axis=1)
        step = np.divide((design * pull).sum(axis=1), expected, out=np.ones(len(design)), where=expected > 0)
        found = found * np.sqrt(step)
    return _Fit(terms, found)


def _design(stars: _Stars, terms: tuple[str, ...]) -> DoubleArray:
    """Return what the squared coefficients are multiplied by, shape (n_terms, n_stars)."""
    columns = [np.ones(len(stars.groups))]
    if _PLACED in terms:
        columns = [(stars.groups == group).astype(float) for group in range(len(PLACES) + 1)]
    return np.stack([*columns, stars.sigma, *([stars.per_snr] if _SNR in terms else [])])


def _variance(found: DoubleArray, design: DoubleArray) -> DoubleArray:
    """Return the variance of each star. No product of matrices: its last bits would depend on threads."""
    return np.asarray(np.maximum((found[:, None] * design).sum(axis=0), LEAST))


def _group(places: PlaceArray) -> PlaceArray:
    """Return the group of each place, shape (n_places,): those with few stars share the first."""
    counts = np.bincount(places, minlength=len(PLACES))
    return np.where(counts >= MIN_STARS_OF_PLACE, np.arange(len(PLACES)) + 1, 0)


def _outlier_weight(residual: DoubleArray, variance: DoubleArray, nu: float) -> DoubleArray:
    """Return how much a squared residual counts."""
    if np.isinf(nu):
        return np.ones(len(residual))
    return np.asarray((nu + 1) / (nu + residual / variance))


def _log_density(residual: DoubleArray, variance: DoubleArray, nu: float) -> DoubleArray:
    """Return the logarithm of the density of residuals, given squared."""
    if np.isinf(nu):
        return np.asarray(-0.5 * (np.log(2 * np.pi * variance) + residual / variance))
    norm = lgamma((nu + 1) / 2) - lgamma(nu / 2) - 0.5 * np.log(np.pi * nu)
    return np.asarray(norm - 0.5 * np.log(variance) - (nu + 1) / 2 * np.log1p(residual / (nu * variance)))


def _mean(values: DoubleArray, weights: DoubleArray) -> float:
    return float(np.sum(values * weights) / np.sum(weights))


def _mean_and_error(values: DoubleArray, weights: DoubleArray) -> tuple[float, float]:
    """Return a weighted mean and its standard error."""
    share = weights / weights.sum()
    mean = _mean(values, weights)
    return mean, float(np.sqrt(np.sum((share * (values - mean)) ** 2)))


def _quantile(values: DoubleArray, weights: DoubleArray, part: float) -> float:
    """Return what a part of new stars lies below: of n old ones, the (n + 1) * part th."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) / (weights.sum() + weights.mean())
    place = min(int(np.searchsorted(reached, part)), len(values) - 1)
    return float(values[order[place]])
