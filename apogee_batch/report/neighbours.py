"""Ordinary stars beside a strange one: those whose predicted labels are nearest to its own."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from apogee_batch.report.columns import get_predictions, is_finite
from apogee_batch.report.flag_counts import DUPLICATE
from apogee_batch.report.page_strangest import StrangeStar
from apogee_batch.schema import LABEL_NAMES, DoubleArray, catalog_flags

N_NEIGHBOURS = 20
NEIGHBOUR_COLUMNS = ("apstar_id", *LABEL_NAMES, "flags")
# Differences that count as much as one another, about what predictions and labels of any survey differ by.
SCALES = {"logg": 0.2, "teff": 150.0, "fe_h": 0.1}


class Neighbours:
    """The unflagged stars nearest to each of some stars; memory does not grow with the catalogue.

    A star of which only is said that it has another row is ordinary, too.

    Parameters
    ----------
    stars : sequence of StrangeStar
        They are never neighbours, flagged or not.
    """

    def __init__(self, stars: Sequence[StrangeStar]) -> None:
        self._names = {str(star.values["apstar_id"]) for star in stars}
        self._harmless = 1 << catalog_flags()[DUPLICATE].bit
        self._found: dict[str, list[tuple[float, str, DoubleArray]]] = {}
        self._centres: dict[str, DoubleArray] = {}
        for star in stars:
            centre = [star.values[name] for name in LABEL_NAMES]
            if None not in centre and np.isfinite(centre).all():
                name = str(star.values["apstar_id"])
                self._centres[name], self._found[name] = np.array(centre, np.float64), []

    def add(self, piece: pa.Table) -> None:
        """Add a piece of the catalogue with the columns `NEIGHBOUR_COLUMNS`."""
        predictions = get_predictions(piece)
        is_ordinary = (piece["flags"].to_numpy() & ~self._harmless) == 0
        rows = np.flatnonzero(is_ordinary & is_finite(predictions))
        scales = np.array([SCALES[name] for name in LABEL_NAMES])
        most = N_NEIGHBOURS + len(self._names)  # the strange ones may lie among them
        for star, centre in self._centres.items():
            differences = predictions[rows] - centre
            distance = np.sqrt(((differences / scales) ** 2).sum(axis=1))
            limit = np.partition(distance, most)[most] if len(rows) > most else np.inf
            near = np.flatnonzero(distance <= limit)  # all of equal distance: their names decide
            names = piece["apstar_id"].take(pa.array(rows[near])).to_pylist()
            found = self._found[star]
            found += [
                (float(distance[i]), name, np.abs(differences[i]))
                for i, name in zip(near, names, strict=True)
                if name not in self._names
            ]
            found.sort(key=lambda item: item[:2])
            del found[N_NEIGHBOURS:]

    def names(self, star: str) -> list[str]:
        """Return the `apstar_id` of the neighbours of a star, the nearest first."""
        return [name for _, name, _ in self._found.get(star, ())]

    def reach(self, star: str) -> dict[str, float]:
        """Return by how much the neighbours of a star differ from it at most, in native units, by label."""
        found = self._found.get(star)
        if not found:
            return {}
        widest = np.max([differences for _, _, differences in found], axis=0)
        return dict(zip(LABEL_NAMES, map(float, widest), strict=True))
