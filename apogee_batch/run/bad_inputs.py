"""How many bad inputs a run accepts before it stops."""

import math
from collections import Counter
from collections.abc import Callable

import pyarrow as pa

from apogee_batch.errors import TooManyBadInputsError
from apogee_batch.run.ledger import ShardReport

LEAST_PART = 1e-6  # 0.29 * 100 is a little less than 29, and 29 of 100 are not more than 0.29
REJECTS_SO_FAR = "rejects_so_far.parquet"  # for people, while a stage stands still for its rejects


class BadInputs:
    """The rejects of a stage, counted as its shards are committed.

    A single bad input never stops a run, however few there are in all; unless none is accepted.

    Parameters
    ----------
    n_inputs : int
        Inputs of the stage.
    max_fraction : float
        Part of them, 0 to 1, that may be bad.
    noun : str
        What they are, for the message: "files", "stars".
    keep_list : callable
        Writes the rejects known so far, and says what and where they are.
    """

    def __init__(
        self, n_inputs: int, max_fraction: float, noun: str, keep_list: Callable[[], str], *, n_known: int = 0
    ) -> None:
        self._n_inputs = n_inputs
        self._max_fraction = max_fraction
        allowed = math.floor(max_fraction * (n_inputs - n_known) + LEAST_PART)
        self._limit = n_known + (max(1, allowed) if max_fraction > 0 else 0)
        self._noun = noun
        self._keep_list = keep_list
        self._n_bad = 0

    def count(self, report: ShardReport) -> None:
        """Count the rejects of a shard.

        Raises
        ------
        TooManyBadInputsError
            As soon as there are too many; what is done is kept.
        """
        self._n_bad += report.n_rejected
        if self._n_bad > self._limit:
            wanted = min(1.0, round(self._n_bad / self._n_inputs + 0.005, 2))
            raise TooManyBadInputsError(
                f"{self._n_bad} of {self._n_inputs} {self._noun} cannot be used, more than "
                f"--max-bad-fraction {self._max_fraction:g} allows: {self._keep_list()}; the same command "
                f"with --max-bad-fraction {wanted:g} goes on from here without them; or mend them, and give "
                "it with --force-new-plan"
            )


def describe_rejects(rejects: pa.Table) -> str:
    """Say how many rejects there are for each reason, and show the first."""
    reasons = sorted(Counter(rejects["reason"].to_pylist()).items())
    counted = ", ".join(f"{n} {reason}" for reason, n in reasons)
    first = rejects.slice(0, 1).to_pylist()[0]
    return f"{counted}; the first is {first['path']}: {first['text']}"
