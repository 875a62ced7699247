"""Tasks that end their worker; a module that loads fast, since each new worker loads it."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

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
    return ShardReport(
        shard, N_INPUTS, n_left, len(excluded), (), 0.0, str(os.getpid()), {"excluded": list(excluded)}
    )


def die_at_first(
    folder: str, n_times: int, shard: int, *, excluded: Sequence[int] = (), only: Sequence[int] | None = None
) -> ShardReport:
    """Stand for a task that crashes some times, then does its work."""
    marks = Path(folder)
    if shard == 1 and len(list(marks.glob("died-*"))) < n_times:
        (marks / f"died-{os.getpid()}").touch()
        os.abort()
    return end_worker({}, shard, excluded=excluded, only=only)
