"""What the page of a run tells of single stars: the strangest of them."""

import heapq
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from apogee_batch.schema import LABEL_NAMES, catalog_flags

N_STRANGEST = 12
TOTALS = tuple(f"e_{name}_total" for name in LABEL_NAMES)
STRANGEST_COLUMNS = (
    "apstar_id", "apogee_id", "strangeness", "snr", *LABEL_NAMES, *(f"e_{name}" for name in LABEL_NAMES),
    *TOTALS, *(f"{name}_label" for name in LABEL_NAMES), "data_type", "data_set", "n_bad_pixels", "flags",
)  # fmt: skip
FEW_PIXELS = 1000  # without a measurement: the gaps between the chips alone are some 800
FAR_FROM_LABEL = 3.0  # total errors
TYPES = {"payne": "a Payne star", "mstar": "an M dwarf", "yso": "a young star"}
QUANTITIES = {"teff": ("Teff", "K", 0), "logg": ("log g", "dex", 2), "fe_h": ("[Fe/H]", "dex", 2)}
FLAG_WORDS = {
    "OUTSIDE_TRAINING": "labels outside the hull of the training set",
    "TEFF_EDGE": "hotter than 6700 K, where few stars are learnt from",
    "STARFLAG_BAD": "STARFLAG tells of bad pixels, a bright neighbour or a failed velocity",
    "HIGH_SCATTER": "its noisy copies scatter more than the paper's ceiling",
    "SNR_MISMATCH": "the SNR of its file is not that of its errors",
    "NO_PREDICTION": "the network gave no finite number",
}


@dataclass(frozen=True)
class StrangeStar:
    """A star whose spectrum is unlike those of the training set.

    Attributes
    ----------
    values : dict
        Of the columns `STRANGEST_COLUMNS`; None where there is none.
    flag_names : tuple of str
        Its flags.
    """

    values: dict[str, Any]
    flag_names: tuple[str, ...]

    @property
    def has_total(self) -> bool:
        """Whether it has calibrated total errors."""
        return any(self.values.get(name) is not None for name in TOTALS)

    def sigma(self, name: str, *, is_total: bool) -> float | None:
        """Return the calibrated total error of a label, or its scatter over realizations."""
        found: float | None = self.values.get(f"e_{name}_total" if is_total else f"e_{name}")
        return found

    def what_is_strange(self) -> list[str]:
        """Return in words what the catalogue knows of it that most stars do not have."""
        values = self.values
        words = [text for name, text in FLAG_WORDS.items() if name in self.flag_names]
        if "LOW_SNR" in self.flag_names and values["snr"] is not None:
            words.append(f"SNR of only {values['snr']:.0f}")
        if values["n_bad_pixels"] > FEW_PIXELS:
            words.append(f"{values['n_bad_pixels']:,} pixels without a measurement")
        if values.get("data_type") in TYPES:
            data_set = f" ({values['data_set']})" if values.get("data_set") else ""
            words.append(f"labelled as {TYPES[values['data_type']]}{data_set}")
        return [*words, *self._far_from_labels()]

    def _far_from_labels(self) -> list[str]:
        words = []
        for name, (title, unit, decimals) in QUANTITIES.items():
            prediction, label = self.values[name], self.values.get(f"{name}_label")
            sigma = self.sigma(name, is_total=self.has_total)
            if prediction is None or label is None or sigma is None:
                continue
            if abs(prediction - label) > FAR_FROM_LABEL * sigma:
                words.append(f"{title} differs from its label by {prediction - label:+,.{decimals}f} {unit}")
        return words


class StrangestStars:
    """The stars of highest strangeness; of equal ones those whose names come first."""

    def __init__(self, n_stars: int = N_STRANGEST) -> None:
        self._n_stars = n_stars
        self._found: list[tuple[float, str, dict[str, Any]]] = []
        self.n_known = 0

    def add(self, piece: pa.Table) -> None:
        """Add a piece of the catalogue with those of `STRANGEST_COLUMNS` that it has."""
        if "strangeness" not in piece.column_names:
            return
        known = piece.filter(pc.is_finite(piece["strangeness"]).fill_null(False))
        self.n_known += len(known)
        order = [("strangeness", "descending"), ("apstar_id", "ascending")]
        places = pc.sort_indices(known.select(["strangeness", "apstar_id"]), sort_keys=order)
        rows = known.take(places[: self._n_stars]).to_pylist()
        self._found += [(-row["strangeness"], row["apstar_id"], row) for row in rows]
        self._found = heapq.nsmallest(self._n_stars, self._found, key=lambda found: found[:2])

    def stars(self) -> list[StrangeStar]:
        """Return them, the strangest first."""
        flags = catalog_flags().values()
        return [
            StrangeStar(row, tuple(flag.name for flag in flags if row["flags"] >> flag.bit & 1))
            for _, _, row in self._found
        ]
