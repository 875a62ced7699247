"""Whether predictions agree with labels, and whether the sigmas are honest: section 3.6 of the paper."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from apogee_batch.report.labelled import CALIBRATED, REALIZATIONS, LabelledStars
from apogee_batch.report.measures import (
    MAD_TO_SIGMA,
    OUTLIER_SCATTERS,
    PULL_EDGES,
    Pulls,
    Residuals,
    measure_pulls,
    measure_residuals,
)
from apogee_batch.report.tables import ALL_TYPES, ROW_TITLES, Results, results
from apogee_batch.schema import DATA_SETS, LABEL_NAMES, LABEL_UNITS, BoolArray

FORMAT = "apogee-batch validation"
FORMAT_VERSION = 1
SIGMA_KINDS = (REALIZATIONS, CALIBRATED)
SNR_EDGES = (10.0, 20.0, 50.0, 100.0, 200.0, 400.0)  # the paper finds a ceiling of the sigmas at 10-20
TEFF_EDGES = (3000.0, 3500.0, 4000.0, 4500.0, 5000.0, 5500.0, 6000.0, 6700.0)  # Table 4 ends at 6700 K
UNKNOWN = "unknown"
DEFINITIONS = {
    "residual": "prediction (mean of the realizations) minus label, native units",
    "group": "stars with all three labels and all three predictions; n_left_out lack one of them",
    "bias": "median residual",
    "scatter": f"{MAD_TO_SIGMA} x median |residual - bias|; null with fewer than two stars",
    "outlier": f"|residual - bias| > {OUTLIER_SCATTERS:g} x scatter",
    "slope": "of residual on label, by least squares; 0 if high and low labels are treated alike, -1 if all "
    "predictions are the same; of whole groups, null in bins",
    "pull": "residual / sigma, of the stars with a sigma above 0",
    REALIZATIONS: "sigma: standard deviation of the realizations, as e_teff",
    CALIBRATED: "sigma: calibrated error, as e_teff_total",
    "width": f"{MAD_TO_SIGMA} x median |pull - median|; 1 for honest sigmas",
    "sigma_too_small_by": "68.27th percentile of |pull|; 1 for honest sigmas",
    "within_1_sigma": "fraction with |pull| <= 1; 0.6827 for honest sigmas (within_2_sigma: 0.9545)",
    "within_1_sigma_by_chance": "standard deviation of within_1_sigma for honest sigmas of so many stars",
    "histogram": "stars with a pull below the first edge, between each two, and from the last on",
    "bins": "a bin holds low <= value < high; snr of the combined spectrum; teff is the label",
}


@dataclass(frozen=True)
class Origin:
    """What was validated.

    Attributes
    ----------
    run_id, model_sha256 : str
        The run and its model.
    calibration_sha256 : str or None
        The model's calibration, if it has one.
    against : str or None
        The table of labels that the predictions are compared with; None for those attached to the store.
    n_not_in_table : int
        Labelled stars that this table does not have.
    """

    run_id: str
    model_sha256: str
    calibration_sha256: str | None = None
    against: str | None = None
    n_not_in_table: int = 0


@dataclass(frozen=True)
class Measure:
    """What is known of one label in some stars.

    Attributes
    ----------
    residuals : Residuals
    pulls : dict of Pulls
        By kind of sigma, `SIGMA_KINDS`; empty in bins of Teff.
    """

    residuals: Residuals
    pulls: Mapping[str, Pulls]

    def to_json(self, *, has_histogram: bool) -> dict[str, Any]:
        """Return JSON values."""
        pulls = {kind: found.to_json(has_histogram=has_histogram) for kind, found in self.pulls.items()}
        return {"residuals": self.residuals.to_json(), "pulls": pulls}


@dataclass(frozen=True)
class Bin:
    """The stars of a group within a range of SNR or of Teff.

    Attributes
    ----------
    name : str
        As "10-20", "<10", ">=400" or "unknown".
    low, high : float or None
        The range, `low` included; None where it is open, both if the value is unknown.
    n_stars : int
    measures : dict of Measure
        By label name.
    """

    name: str
    low: float | None
    high: float | None
    n_stars: int
    measures: Mapping[str, Measure]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        labels = {name: found.to_json(has_histogram=False) for name, found in self.measures.items()}
        return {
            "name": self.name,
            "low": self.low,
            "high": self.high,
            "n_stars": self.n_stars,
            "labels": labels,
        }


@dataclass(frozen=True)
class Group:
    """The stars of one type in one set.

    Attributes
    ----------
    data_type, data_set : str
        full, payne, mstar or yso; train, dev or test.
    n_stars, n_left_out : int
        Stars with all numbers; stars that lack one.
    measures : dict of Measure
        By label name.
    by_snr, by_teff : tuple of Bin
        From low to high; the stars whose value is unknown are in the last bin.
    """

    data_type: str
    data_set: str
    n_stars: int
    n_left_out: int
    measures: Mapping[str, Measure]
    by_snr: tuple[Bin, ...]
    by_teff: tuple[Bin, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "data_type": self.data_type,
            "data_set": self.data_set,
            "n_stars": self.n_stars,
            "n_left_out": self.n_left_out,
            "labels": {name: found.to_json(has_histogram=True) for name, found in self.measures.items()},
            "by_snr": [found.to_json() for found in self.by_snr],
            "by_teff": [found.to_json() for found in self.by_teff],
        }


@dataclass(frozen=True)
class Validation:
    """All that is measured of a catalogue.

    Attributes
    ----------
    origin : Origin
    results : Results
        Tables 2 and 3 of the paper.
    groups : tuple of Group
        Full, Payne, MStar and YSO, each with train, dev and test.
    n_catalog, n_labelled : int
        Stars of the catalogue; those with a type and a set.
    """

    origin: Origin
    results: Results
    groups: tuple[Group, ...]
    n_catalog: int
    n_labelled: int

    def get(self, data_type: str, data_set: str) -> Group:
        """Return one group; `data_type` may be `ALL_TYPES`."""
        return next(g for g in self.groups if (g.data_type, g.data_set) == (data_type, data_set))

    def has_sigmas(self, kind: str) -> bool:
        """Tell whether any star has a sigma of that kind."""
        whole = (group for group in self.groups if group.data_type == ALL_TYPES)
        return any(found.pulls[kind].n_stars for group in whole for found in group.measures.values())

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; a number that does not exist is null."""
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "origin": asdict(self.origin),
            "definitions": DEFINITIONS,
            "label_names": list(LABEL_NAMES),
            "label_units": dict(LABEL_UNITS),
            "pull_edges": list(PULL_EDGES),
            "snr_edges": list(SNR_EDGES),
            "teff_edges_k": list(TEFF_EDGES),
            "n_catalog": self.n_catalog,
            "n_labelled": self.n_labelled,
            "tables": self.results.to_json(),
            "groups": [group.to_json() for group in self.groups],
        }


def validate(stars: LabelledStars, *, label_std: Sequence[float], origin: Origin) -> Validation:
    """Measure everything; the order of the stars does not change a digit.

    Parameters
    ----------
    stars : LabelledStars
        The labelled stars of a catalogue, and what to compare them with.
    label_std : sequence of float, length n_labels
        As for `results`.
    origin : Origin
        What the stars are from.
    """
    is_complete = stars.is_complete()
    groups = [
        _measure_group(stars, is_complete, data_type, data_set)
        for data_type in ROW_TITLES
        for data_set in DATA_SETS
    ]
    tables = results(stars, label_std=label_std)
    return Validation(origin, tables, tuple(groups), stars.n_catalog, len(stars))


def _measure_group(stars: LabelledStars, is_complete: BoolArray, data_type: str, data_set: str) -> Group:
    """Measure one type in one set; `is_complete` has the shape (n_stars,)."""
    is_member = stars.in_group(None if data_type == ALL_TYPES else data_type, data_set)
    used = np.flatnonzero(is_member & is_complete)
    teff = stars.labels[LABEL_NAMES.index("teff")]
    return Group(
        data_type,
        data_set,
        n_stars=len(used),
        n_left_out=int(is_member.sum()) - len(used),
        measures=_measure_stars(stars, used, SIGMA_KINDS, with_slope=True),
        by_snr=tuple(_measure_bins(stars, used, stars.snr[used], SNR_EDGES, SIGMA_KINDS)),
        by_teff=tuple(_measure_bins(stars, used, teff[used], TEFF_EDGES, ())),
    )


def _measure_stars(
    stars: LabelledStars, used: npt.NDArray[np.intp], kinds: Sequence[str], *, with_slope: bool = False
) -> dict[str, Measure]:
    """Measure each label in some stars, given by their places, and the pulls of some kinds of sigma."""
    measures = {}
    for i, name in enumerate(LABEL_NAMES):
        labels = stars.labels[i][used].astype(np.float64)
        residuals = stars.predictions[i][used] - labels
        pulls = {kind: measure_pulls(residuals, stars.sigmas[kind][i][used]) for kind in kinds}
        measured = measure_residuals(residuals, labels if with_slope else None)
        measures[name] = Measure(measured, pulls)
    return measures


def _measure_bins(
    stars: LabelledStars,
    used: npt.NDArray[np.intp],
    values: npt.NDArray[np.float32],
    edges: Sequence[float],
    kinds: Sequence[str],
) -> Iterator[Bin]:
    """Measure the stars at the places `used` in bins of their `values`, both of shape (n_used,)."""
    places = np.searchsorted(edges, values, side="right").astype(np.int8)
    places[~np.isfinite(values)] = len(edges) + 1
    ranges = zip((None, *edges), (*edges, None), strict=True)
    named = [(_name_bin(low, high), low, high) for low, high in ranges]
    for place, (name, low, high) in enumerate([*named, (UNKNOWN, None, None)]):
        inside = used[places == place]
        yield Bin(name, low, high, len(inside), _measure_stars(stars, inside, kinds))


def _name_bin(low: float | None, high: float | None) -> str:
    if low is None:
        return f"<{high:g}"
    return f">={low:g}" if high is None else f"{low:g}-{high:g}"
