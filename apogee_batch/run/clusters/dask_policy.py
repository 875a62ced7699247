"""What Dask shall do less often, or not at all, in the processes of a run."""

from collections.abc import Mapping

# As it comes, Dask looks at a worker's stack 100 times a second, at its event loop 50 times and at its memory
# ten times: some 2.4 % of a core for each worker and for the driver, of cores that all have work.
SELDOM: Mapping[str, object] = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.memory.monitor-interval": "500ms",
}
# Dask holds no results of ours that it could spill. What a training leaves to the allocator would pause a
# worker for good; one that grows beyond its share is still ended, and told as such.
NEVER_FOR_MEMORY: Mapping[str, object] = {
    f"distributed.worker.memory.{key}": False for key in ("target", "spill", "pause")
}
# A worker that is closed while it starts forgets that it was told to be silent: with this it never speaks.
SILENT: Mapping[str, object] = {"logging.distributed": "critical"}
# What a worker of ours is told.
OF_WORKERS: Mapping[str, object] = {
    **SELDOM,
    **NEVER_FOR_MEMORY,
    "distributed.admin.max-error-length": 1_000_000,  # a longer error loses its type, by which it is judged
}


def as_environment(policy: Mapping[str, object]) -> dict[str, str]:
    """Return the variables that tell a policy to processes that are started elsewhere."""
    names = (f"DASK_{key.upper().replace('.', '__').replace('-', '_')}" for key in policy)
    return dict(zip(names, map(str, policy.values()), strict=True))
