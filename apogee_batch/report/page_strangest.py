"""What the page of a run tells of single stars: the strangest of them, and how many have which flag."""

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apogee_batch.schema import LABEL_NAMES, Flag, catalog_flags

N_STRANGEST = 12
STRANGEST_COLUMNS = (
    "apstar_id", "apogee_id", "strangeness", "snr", *LABEL_NAMES, *(f"e_{name}" for name in LABEL_NAMES),
    "n_bad_pixels", "flags",
)  # fmt: skip
DUPLICATE = "DUPLICATE"


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


class FlagCounts:
    """How many rows have each flag, and how many a prediction."""

    def __init__(self) -> None:
        self._counts = np.zeros(32, np.int64)
        self.n_clean = 0

        self.n_predicted = 0

    def add(self, piece: pa.Table) -> None:
        """Add a piece of the catalogue with the columns `flags` and `teff`."""
        self.n_predicted += int(pc.sum(pc.is_finite(piece["teff"]).fill_null(False)).as_py() or 0)
        flags = piece["flags"].to_numpy()
        self.n_clean += int((flags == 0).sum())
        self._counts += [int(((flags >> bit) & 1).sum()) for bit in range(len(self._counts))]

    def by_flag(self) -> list[tuple[Flag, int]]:
        """Return each flag of the catalogue and its rows, in the order of the bits."""
        return [(flag, int(self._counts[flag.bit])) for flag in catalog_flags().values()]


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
