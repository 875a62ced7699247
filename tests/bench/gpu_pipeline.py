"""What a run does with stars on a GPU, store and catalogue left out."""

from collections import deque

from apogee_batch.inference.engines import StarBatch
from apogee_batch.inference.launching import LaunchingEngine, PendingBatch


def estimate_ahead(engine: LaunchingEngine, stars: StarBatch, n_realizations: int) -> None:
    """Begin batches ahead and wait for the means and the scatter of the first."""
    waiting = deque[PendingBatch]()
    for start in range(0, len(stars), engine.stars_per_call):
        some = stars.part(start, start + engine.stars_per_call)
        waiting.append(engine.begin(some, n_realizations, with_features=True))
        if len(waiting) > engine.batches_ahead:
            waiting.popleft().result()
    for pending in waiting:
        pending.result()
