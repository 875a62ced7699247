"""How well predictions agree with labels: Tables 2 and 3 of the paper, for any catalogue."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apogee_batch.report.labelled import LabelledStars
from apogee_batch.report.measures import exact_sum
from apogee_batch.report.text import Block, lay_out, wrap
from apogee_batch.schema import DATA_SETS, LABEL_NAMES, LABEL_UNITS, N_LABELS, BoolArray

ALL_TYPES = "full"  # the paper's word for payne, mstar and yso together
ROW_TITLES = {ALL_TYPES: "Full", "payne": "Payne", "mstar": "MStar", "yso": "YSO"}
LABEL_TITLES = {"logg": "log g (dex)", "teff": "Teff (K)", "fe_h": "[Fe/H] (dex)"}
LABEL_DECIMALS = {"logg": 3, "teff": 1, "fe_h": 4}
MSE_DECIMALS = 4
PAPER_MSE_DECIMALS = 3
RATIO_DECIMALS = 3
DEFAULT_WIDTH = 80
NOTHING = "-"  # a group without stars; a number that the paper does not give stays blank

# Olney et al. 2020, Tables 2 and 3: train, dev, test; in Table 3 each in the order of LABEL_NAMES.
# The paper has no row for the Payne stars alone.
PAPER_MSE = {
    ALL_TYPES: (0.044, 0.049, 0.063),
    "mstar": (0.08, 0.098, 0.196),
    "yso": (0.153, 0.168, 0.217),
}
PAPER_RMS = {
    ALL_TYPES: ((0.189, 144.82, 0.0769), (0.203, 158.72, 0.0792), (0.216, 183.74, 0.0914)),
    "mstar": ((0.186, 129.69, 0.129), (0.216, 167.15, 0.137), (0.346, 273.7, 0.18)),
    "yso": ((0.366, 413.92, 0.0616), (0.364, 436.87, 0.0669), (0.4, 490.99, 0.0879)),
}

Numbers = Mapping[str, float]  # a number for each of LABEL_NAMES in native units, or empty


@dataclass(frozen=True)
class Agreement:
    """Agreement of predictions with labels in one group of stars.

    Attributes
    ----------
    data_type, data_set : str
        The group: full, payne, mstar or yso; train, dev or test.
    n_stars : int
        Stars behind the numbers: those with all three labels and all three predictions.
    n_left_out : int
        Stars of the group that lack one of them.
    mse : float or None
        Mean over stars and labels of (residual / label_std)**2; None without stars.
    rms : mapping of float
        Root mean square of prediction minus label, by label name; empty without stars.
    label_spread : mapping of float
        Standard deviation (ddof 0) of the labels, by label name: the rms of always guessing
        their mean. Empty without stars.
    """

    data_type: str
    data_set: str
    n_stars: int
    n_left_out: int
    mse: float | None
    rms: Numbers
    label_spread: Numbers

    @property
    def paper_mse(self) -> float | None:
        """The paper's number; None where it gives none."""
        row = PAPER_MSE.get(self.data_type)
        return row[DATA_SETS.index(self.data_set)] if row else None

    @property
    def paper_rms(self) -> Numbers:
        """The paper's numbers by label name; empty where it gives none."""
        row = PAPER_RMS.get(self.data_type)
        return dict(zip(LABEL_NAMES, row[DATA_SETS.index(self.data_set)], strict=True)) if row else {}

    def to_json(self) -> dict[str, Any]:
        """Return the group as plain JSON values; a number that does not exist is null."""
        return {
            "data_type": self.data_type,
            "data_set": self.data_set,
            "n_stars": self.n_stars,
            "n_left_out": self.n_left_out,
            "mse": self.mse,
            "rms": _complete(self.rms),
            "label_spread": _complete(self.label_spread),
            "paper": {"mse": self.paper_mse, "rms": _complete(self.paper_rms)},
        }


@dataclass(frozen=True)
class Results:
    """Tables 2 and 3 of one catalogue.

    Attributes
    ----------
    label_std : tuple of float, length n_labels
        What residuals are divided by for the normalised MSE, in the order of `LABEL_NAMES`.
    agreements : tuple of Agreement
        Full, Payne, MStar and YSO, each with train, dev and test.
    """

    label_std: tuple[float, ...]
    agreements: tuple[Agreement, ...]

    def get(self, data_type: str, data_set: str) -> Agreement:
        """Return one group; `data_type` may be `ALL_TYPES`."""
        return next(a for a in self.agreements if (a.data_type, a.data_set) == (data_type, data_set))

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "label_names": list(LABEL_NAMES),
            "label_units": dict(LABEL_UNITS),
            "label_std": dict(zip(LABEL_NAMES, self.label_std, strict=True)),
            "groups": [agreement.to_json() for agreement in self.agreements],
        }

    def to_text(self, width: int = DEFAULT_WIDTH) -> str:
        """Return the tables as aligned plain text that ends with a line break.

        Parameters
        ----------
        width : int
            Columns of the terminal; columns that do not fit beside one another are put below.
        """
        n_left_out = sum(self.get(ALL_TYPES, data_set).n_left_out for data_set in DATA_SETS)
        notes = ["paper: Olney et al. 2020, AJ 159, 182, for spectra and labels of SDSS DR14."]
        if n_left_out:
            notes.append(f"Labelled stars left out for want of a label or a prediction: {n_left_out:,}.")
        tables = [_mse_text(self, width), _rms_text(self, width), _spread_text(self, width)]
        parts = [*tables, "\n".join(wrap(note, width) for note in notes)]
        return "\n\n".join(parts) + "\n"


def results(stars: LabelledStars, *, label_std: Sequence[float]) -> Results:
    """Compare predictions with labels as Tables 2 and 3 of the paper do.

    Parameters
    ----------
    stars : LabelledStars
        The labelled stars of a catalogue; predictions are the means of the realizations.
    label_std : sequence of float, length n_labels
        Standard deviation of the training labels in the order of `LABEL_NAMES`, native units:
        the scaler of the network.

    Returns
    -------
    Results
        The order of the stars does not change a digit.

    Raises
    ------
    ValueError
        If `label_std` is not three positive numbers.
    """
    std = tuple(float(value) for value in label_std)
    if len(std) != N_LABELS or not all(np.isfinite(value) and value > 0 for value in std):
        raise ValueError(f"label_std must be {N_LABELS} positive numbers, not {std}")
    is_complete = stars.is_complete()
    agreements = []
    for data_type in ROW_TITLES:
        for data_set in DATA_SETS:
            is_member = stars.in_group(None if data_type == ALL_TYPES else data_type, data_set)
            is_used = is_member & is_complete
            n_left_out = int(is_member.sum()) - int(is_used.sum())
            agreements.append(_measure((data_type, data_set), stars, is_used, n_left_out, std))
    return Results(std, tuple(agreements))


def _measure(
    group: tuple[str, str],
    stars: LabelledStars,
    is_used: BoolArray,
    n_left_out: int,
    label_std: tuple[float, ...],
) -> Agreement:
    """Measure the stars of one group that have all numbers; `is_used` has the shape (n_stars,)."""
    n_stars = int(is_used.sum())
    if n_stars == 0:
        return Agreement(*group, 0, n_left_out, None, {}, {})
    mean_square, spread = [], []
    for predicted, given in zip(stars.predictions, stars.labels, strict=True):
        labels = given[is_used].astype(np.float64)
        residuals = predicted[is_used] - labels
        mean_square.append(exact_sum(np.square(residuals)) / n_stars)
        mean = exact_sum(labels) / n_stars
        spread.append(math.sqrt(exact_sum(np.square(labels - mean)) / n_stars))
    normalised = [square / std**2 for square, std in zip(mean_square, label_std, strict=True)]
    return Agreement(
        *group,
        n_stars,
        n_left_out,
        mse=math.fsum(normalised) / N_LABELS,
        rms=dict(zip(LABEL_NAMES, map(math.sqrt, mean_square), strict=True)),
        label_spread=dict(zip(LABEL_NAMES, spread, strict=True)),
    )


def _mse_text(measured: Results, width: int) -> str:
    """Return Table 2: the number of stars and the normalised MSE by type and data set."""
    blocks = [
        Block(
            data_set,
            ("stars", "here", "paper"),
            tuple(
                (
                    f"{group.n_stars:,}",
                    show(group.mse, MSE_DECIMALS, NOTHING),
                    show(group.paper_mse, PAPER_MSE_DECIMALS),
                )
                for group in (measured.get(data_type, data_set) for data_type in ROW_TITLES)
            ),
        )
        for data_set in DATA_SETS
    ]
    title = "Table 2. Normalised MSE: mean of (residual / spread of the training labels)^2"
    return f"{wrap(title, width)}\n\n{lay_out(list(ROW_TITLES.values()), blocks, width)}"


def _rms_text(measured: Results, width: int) -> str:
    """Return Table 3: the rms in native units by type, label and data set."""
    lines = [(data_type, label) for data_type in ROW_TITLES for label in LABEL_NAMES]
    blocks = []
    for data_set in DATA_SETS:
        groups = {data_type: measured.get(data_type, data_set) for data_type in ROW_TITLES}
        cells = tuple(
            (
                show(groups[data_type].rms.get(label), LABEL_DECIMALS[label], NOTHING),
                show(groups[data_type].paper_rms.get(label), LABEL_DECIMALS[label]),
            )
            for data_type, label in lines
        )
        blocks.append(Block(data_set, ("here", "paper"), cells))
    first = max(len(title) for title in ROW_TITLES.values())
    row_titles = [
        f"{ROW_TITLES[data_type] if label == LABEL_NAMES[0] else '':{first}}  {LABEL_TITLES[label]}"
        for data_type, label in lines
    ]
    title = "Table 3. RMS of prediction minus label, in native units"
    return f"{wrap(title, width)}\n\n{lay_out(row_titles, blocks, width)}"


def _spread_text(measured: Results, width: int) -> str:
    """Return the rms of the test stars beside the spread of their labels."""
    groups = [measured.get(data_type, "test") for data_type in ROW_TITLES]
    blocks = []
    for label in LABEL_NAMES:
        cells = []
        for group in groups:
            rms, spread = group.rms.get(label), group.label_spread.get(label)
            ratio = rms / spread if rms is not None and spread else None  # one star has no spread
            cells.append(
                (
                    show(rms, LABEL_DECIMALS[label], NOTHING),
                    show(spread, LABEL_DECIMALS[label], NOTHING),
                    show(ratio, RATIO_DECIMALS, NOTHING),
                )
            )
        blocks.append(Block(LABEL_TITLES[label], ("rms", "spread", "ratio"), tuple(cells)))
    title = "Test rms beside the spread of the test labels (ratio 1: as good as their mean)"
    return f"{wrap(title, width)}\n\n{lay_out(list(ROW_TITLES.values()), blocks, width)}"


def show(value: float | None, decimals: int, nothing: str = "") -> str:
    """Return a number with fixed decimals, or `nothing` where there is none."""
    return nothing if value is None else f"{value:,.{decimals}f}"


def _complete(numbers: Numbers) -> dict[str, float | None]:
    """Return a number or None for every label."""
    return {label: numbers.get(label) for label in LABEL_NAMES}
