"""A task that ends its worker; a module that loads fast, since each new worker loads it."""

import os
import signal
from collections.abc import Sequence

from apogee_batch.run.ledger import ShardReport

N_INPUTS = 4


def end_worker(
    ends: dict[tuple[int, int], int],
    shard: int,
    *,
    excluded: Sequence[int] = (),
    only: Sequence[int] | None = None,
) -> ShardReport:
    """Stand for a task of which some inputs end their own process."""
    for position in range(N_INPUTS) if only is None else only:
        if position not in excluded and (shard, position) in ends:
            signal.raise_signal(ends[shard, position])
    n_left = N_INPUTS - len(excluded)
    host = os.environ["SLURMD_NODENAME"]
    return ShardReport(shard, N_INPUTS, n_left, len(excluded), (), 0.0, host, {"excluded": list(excluded)})
