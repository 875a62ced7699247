"""How many rows of a catalogue have which flag."""

import pyarrow as pa
import pyarrow.compute as pc

from apogee_batch.schema import Flag, catalog_flags

DUPLICATE = "DUPLICATE"
STRANGE = "STRANGE_SPECTRUM"
MOST_STRANGE = 0.05  # part of the rows; of spectra like those that taught the model it is 0.005


class FlagCounts:
    """How many rows have each flag, and how many a prediction."""

    def __init__(self) -> None:
        self._counts = {flag.bit: 0 for flag in catalog_flags().values()}
        self._harmless = 1 << catalog_flags()[DUPLICATE].bit
        self.n_rows = self.n_clean = self.n_clean_but_duplicate = self.n_predicted = 0

    def add(self, piece: pa.Table) -> None:
        """Add a piece of the catalogue with the columns `flags` and `teff`.

        `status` waits for this: nothing here makes Arrow import pandas, as `fill_null` and `to_numpy` do.
        """
        self.n_rows += len(piece)
        self.n_predicted += int(pc.sum(pc.is_finite(piece["teff"])).as_py() or 0)  # a null counts as none
        for item in pc.value_counts(piece["flags"]).to_pylist():  # few values
            flags, n = item["values"], item["counts"]
            self.n_clean += n * (flags == 0)
            self.n_clean_but_duplicate += n * (flags & ~self._harmless == 0)
            for bit in self._counts:
                self._counts[bit] += n * (flags >> bit & 1)

    def by_flag(self) -> list[tuple[Flag, int]]:
        """Return each flag of the catalogue and its rows, in the order of the bits."""
        return [(flag, self._counts[flag.bit]) for flag in catalog_flags().values()]

    def strange_words(self) -> str | None:
        """Return what to warn of if more than `MOST_STRANGE` of the rows are strange; else None."""
        n_strange = self._counts[catalog_flags()[STRANGE].bit]
        if n_strange <= MOST_STRANGE * self.n_rows:
            return None
        return (
            f"{n_strange:,} of {self.n_rows:,} spectra ({100 * n_strange / self.n_rows:.0f} %) are unlike "
            f"those that taught the model ({STRANGE}): do not trust their labels, nor their errors "
            "(docs/strange.md)"
        )
