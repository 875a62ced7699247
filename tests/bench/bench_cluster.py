"""What the driver costs and how long workers wait between shards, with an engine that only takes time.

    python tests/bench/bench_cluster.py --cluster local --workers 2
    python tests/bench/bench_cluster.py --config slurm.toml --cluster slurm --workers 8

Every shard is a task as in a real run: it is sent to a worker, writes a part of a real size and is committed
to the ledger. Prints the share of the workers' time between the end of a shard and the begin of the next one,
and the driver's CPU time and peak memory.
"""

import argparse
import os
import resource
import socket
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from apogee_batch.files import write_bytes
from apogee_batch.run.clusters import open_workers
from apogee_batch.run.config import load_config
from apogee_batch.run.ledger import Ledger, ShardReport, relative_digest
from apogee_batch.run.progress import SilentView
from apogee_batch.run.stages import run_shards

PART_BYTES_PER_STAR = 200


class Teller(SilentView):
    """Prints what a user would be told, and nothing else."""

    def say(self, text: str) -> None:
        print(text, flush=True)  # noqa: T201


def stub_shard(
    folder: str,
    n_stars: int,
    seconds: float,
    shard: int,
    *,
    excluded: Sequence[int] = (),
    only: Sequence[int] | None = None,
) -> ShardReport:
    """Stand for inference: take time, write a part."""
    began = time.time()
    time.sleep(seconds)
    content = os.urandom(n_stars * PART_BYTES_PER_STAR)
    written = write_bytes(Path(folder) / f"part-{shard:05d}.parquet", content)
    ended = time.time()
    place = f"{socket.gethostname()}-{os.getpid()}"
    files = (relative_digest(written, Path(folder).parent),)
    extra = {"place": place, "began": began, "ended": ended}
    return ShardReport(shard, n_stars, n_stars, 0, files, ended - began, socket.gethostname(), extra)


def idle_share(reports: Sequence[ShardReport]) -> float:
    """Return the share of time that workers spent between two shards."""
    spans = defaultdict[str, list[tuple[float, float]]](list)
    for report in reports:
        spans[report.extra["place"]].append((report.extra["began"], report.extra["ended"]))
    idle = busy = 0.0
    for tasks in map(sorted, spans.values()):
        idle += sum(after[0] - before[1] for before, after in pairwise(tasks))
        busy += sum(ended - began for began, ended in tasks)
    return idle / (idle + busy)


def main() -> None:
    """Run the stage and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, default=263_000)
    parser.add_argument("--shard-stars", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=1.0, help="that a shard takes")
    parser.add_argument("--cluster", default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--config", type=Path)
    asked = parser.parse_args()
    settings = load_config(
        asked.config, {"cluster": {"kind": asked.cluster, "workers": asked.workers}}
    ).cluster
    n_shards = -(-asked.stars // asked.shard_stars)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ledger = Ledger(folder / "ledger", folder, "bench")
        (folder / "parts").mkdir()
        with open_workers(settings, logs=folder / "logs", folders=[folder], progress=Teller()) as workers:
            workers.crew.ask(None)
            sizes = dict.fromkeys(range(n_shards), asked.shard_stars)
            task = partial(stub_shard, str(folder / "parts"), asked.shard_stars, asked.seconds)
            began, cpu = time.monotonic(), time.process_time()
            run_shards(workers, task, sizes, ledger, SilentView())
            elapsed, cpu = time.monotonic() - began, time.process_time() - cpu
        reports = ledger.entries()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    teller = Teller()
    places = {report.extra["place"] for report in reports}
    teller.say(
        f"{asked.stars} stars, {n_shards} shards, {len(places)} workers of {asked.cluster}: {elapsed:.1f} s"
    )
    teller.say(f"idle between shards: {100 * idle_share(reports):.2f} %")
    teller.say(f"driver: {cpu:.2f} s CPU ({1e3 * cpu / n_shards:.1f} ms a shard), peak {peak_mib:.0f} MiB")


if __name__ == "__main__":
    main()
