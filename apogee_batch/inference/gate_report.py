"""What the gate found about an engine: numbers, what was allowed, and in which words people read it."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from apogee_batch.inference.engines import Precision
from apogee_batch.schema import LABEL_NAMES

ALLOWED_FAST = {
    "sigma_bias": 0.005,  # mean over stars of sigma / sigma of the reference - 1
    "sigma_rms": 0.005,  # and its root mean square
    "mean_shift": 0.03,  # rms difference of the mean of the realizations, in sigma of the reference
    "clean_shift": 0.03,  # rms difference of the clean prediction, in sigma of the reference
}
# Float32 in another order of summation differs by 0.001 % and 0.0001 sigma; so this is no hurdle to it, but
# shuts out what calls itself exact and rounds, as TF32 does.
ALLOWED_EXACT = {name: value / 10 for name, value in ALLOWED_FAST.items()}
MEASURES = {
    "sigma_bias": "bias of sigma",
    "sigma_rms": "rms of sigma",
    "mean_shift": "shift of the mean",
    "clean_shift": "shift of the clean prediction",
}
GROUPS = ("bias of sigma, %", "rms of sigma, %", "mean, sigma", "clean, sigma")  # of the table
WIDTH = 6
ZERO, LEAST_SHOWN, LEAST_NEGATIVE, MOST_SHOWN = 1e-9, 0.001, 0.01, 999.5


@dataclass(frozen=True)
class GateRow:
    """How an engine compares with the reference in one label at one signal-to-noise ratio.

    Attributes
    ----------
    snr : float
    label : str
    sigma_bias, sigma_rms, mean_shift, clean_shift : float
        As at `ALLOWED_FAST`; not finite where a prediction is not, or nothing could be compared.
    n_scattering : int
        Stars whose sigma is large enough to be compared; of the others the engine's has to be as small.
    worst_star : str
        Where sigma differs most.
    worst_ratio : float
        Its sigma over that of the reference.
    """

    snr: float
    label: str
    sigma_bias: float
    sigma_rms: float
    mean_shift: float
    clean_shift: float
    n_scattering: int
    worst_star: str
    worst_ratio: float


@dataclass(frozen=True)
class GateReport:
    """What the gate found about an engine.

    Attributes
    ----------
    engine : str
    precision : {"exact", "fast"}
    stars : tuple of str
        Which stars were compared at each signal-to-noise ratio.
    n_realizations : int
    rows : tuple of GateRow
        By signal-to-noise ratio, then label.
    """

    engine: str
    precision: Precision
    stars: tuple[str, ...]
    n_realizations: int
    rows: tuple[GateRow, ...]

    @property
    def allowed(self) -> dict[str, float]:
        """What each measure may be at most."""
        return ALLOWED_EXACT if self.precision == "exact" else ALLOWED_FAST

    @property
    def passed(self) -> bool:
        """Whether the engine may make catalogues."""
        return bool(self.rows) and not any(self.failures(row) for row in self.rows)

    def failures(self, row: GateRow) -> list[str]:
        """Return the measures of a row that are beyond what is allowed; one that is no number always is."""
        return [name for name, most in self.allowed.items() if not abs(getattr(row, name)) <= most]

    def lines(self) -> list[str]:
        """Return the report for people, 80 columns wide: a table, and what failed at each SNR."""
        verdict = "passed" if self.passed else "FAILED"
        return [f"{self.engine} {self.precision}: {verdict}", *self._table(), *self._explanations()]

    def _table(self) -> list[str]:
        lines = ["".join(["      ", *(f"{group:>{3 * WIDTH}}" for group in GROUPS)])]
        lines.append("   SNR" + "".join(f"{label:>{WIDTH}}" for label in LABEL_NAMES) * len(GROUPS))
        for snr in dict.fromkeys(row.snr for row in self.rows):
            rows = [row for row in self.rows if row.snr == snr]
            cells = [_cell(name, getattr(row, name)) for name in self.allowed for row in rows]
            lines.append(f"{snr:{WIDTH}.0f}" + "".join(f"{cell:>{WIDTH}}" for cell in cells))
        most = [f"at most {_cell(name, value)}" for name, value in self.allowed.items()]
        return [*lines, "".join(["      ", *(f"{text:>{3 * WIDTH}}" for text in most)])]

    def _explanations(self) -> list[str]:
        """Say of each label how it fails, at the SNR where its sigma or its mean differs most."""
        lines = []
        for label in LABEL_NAMES:
            failed = [row for row in self.rows if row.label == label and self.failures(row)]
            if failed:
                lines += self._explain(max(failed, key=_badness))
        return lines

    def _explain(self, row: GateRow) -> list[str]:
        problems = []
        for name in self.failures(row):
            found, most = (_in_words(name, value) for value in (getattr(row, name), self.allowed[name]))
            problems.append(f"{MEASURES[name]} {found}, at most {most} allowed")
        lines = [f"{row.label} at SNR {row.snr:.0f}:", *(f"  {problem}" for problem in problems)]
        if 2 * row.n_scattering < len(self.stars):
            lines.append(f"  sigma of {len(self.stars) - row.n_scattering} stars is 0: nothing to compare")
        else:
            lines.append(f"  worst star {row.worst_star}: sigma x {row.worst_ratio:.4g}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values; what is not a finite number is null."""
        rows = [
            {name: _finite(value) for name, value in asdict(row).items()} | {"failures": self.failures(row)}
            for row in self.rows
        ]
        return {
            "engine": self.engine,
            "precision": self.precision,
            "passed": self.passed,
            "allowed": dict(self.allowed),
            "n_realizations": self.n_realizations,
            "stars": list(self.stars),
            "rows": rows,
        }


def _badness(row: GateRow) -> float:
    values = (row.sigma_rms, row.mean_shift, row.clean_shift)
    return max(abs(value) if math.isfinite(value) else math.inf for value in values)


def _is_ratio(measure: str) -> bool:
    return measure.startswith("sigma")


def _cell(measure: str, value: float) -> str:
    """Return a number of the table, at most five characters."""
    shown = 100.0 * value if _is_ratio(measure) else value
    size = abs(shown)
    if not math.isfinite(shown):
        return str(shown)
    if size > MOST_SHOWN:
        return "-big" if shown < 0 else "big"
    if size < ZERO:
        return "0"
    if size < LEAST_SHOWN or -LEAST_NEGATIVE < shown < 0:
        return f"{shown:.0e}".replace("e-0", "e-")
    return f"{shown:.0f}" if size >= 9.995 else f"{shown:.2f}" if shown < 0 or size >= 1 else f"{shown:.3f}"


def _in_words(measure: str, value: float) -> str:
    return f"{100.0 * value:.3g} %" if _is_ratio(measure) else f"{value:.3g} sigma"


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
