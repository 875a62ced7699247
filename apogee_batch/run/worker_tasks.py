"""Tasks as a driver sends them: each imports what it needs where it runs.

A driver tells its workers paths and numbers, and looks at no spectrum; what they compute with takes longer to
import than a small run to compute.
"""

from collections.abc import Sequence
from typing import Any

from apogee_batch.run.ledger import ShardReport

INFER_MODULE = "apogee_batch.run.infer"  # what a worker can import before its first task is there


def infer_shard(
    store: str,
    run: str,
    model: str,
    settings: dict[str, Any],
    shard: int,
    *,
    excluded: Sequence[int] = (),
    only: Sequence[int] | None = None,
) -> ShardReport:
    """Estimate the labels of one shard's stars and write its part; see `run.infer`."""
    from apogee_batch.run.infer import infer_shard as infer

    return infer(store, run, model, settings, shard, excluded=excluded, only=only)
