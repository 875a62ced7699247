"""What the driver costs and how long workers wait between shards, with an engine that only takes time.

    python tests/bench/bench_cluster.py --cluster local --workers 2
    python tests/bench/bench_cluster.py --config slurm.toml --cluster slurm --workers 8
    python tests/bench/bench_cluster.py --workers 1,2,4,8,16 --shards-each 12 --seconds 2 --rounds 3

Every shard is a task as in a real run: it is sent to a worker, writes a part of a real size and is committed
to the ledger. Prints the share of the workers' time between the end of a shard and the begin of the next one,
and the driver's CPU time and peak memory. With several numbers of workers, which take turns in each round,
also the part of linear: how many times the shards a second of one worker they do, over their number. What a
worker does sleeps, so there may be more of them than cores; each has had a shard before time is taken.
`--lock`: a file to lock during each turn, so that several comparisons on a machine take turns.
"""

import argparse
import os
import resource
import socket
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

from pairs import locked

from apogee_batch.files import write_bytes
from apogee_batch.run.clusters import Workers, open_workers
from apogee_batch.run.config import ClusterSettings, load_config
from apogee_batch.run.ledger import Ledger, ShardReport, relative_digest
from apogee_batch.run.progress import SilentView
from apogee_batch.run.stages import run_shards

PART_BYTES_PER_STAR = 200
WARM_UP_ROUNDS = 20


@dataclass(frozen=True)
class Turn:
    """A stage by some workers.

    Attributes
    ----------
    n_places, n_shards : int
        Workers that had a shard; shards.
    seconds, idle, cpu_s : float
        What it took; share of the workers' time between shards; CPU time of the driver.
    """

    n_places: int
    n_shards: int
    seconds: float
    idle: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Shards a second."""
        return self.n_shards / self.seconds


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


def take_turn(settings: ClusterSettings, asked: argparse.Namespace) -> Turn:
    """Do a stage by workers of a new cluster."""
    n_workers = settings.workers
    n_shards = n_workers * asked.shards_each or -(-asked.stars // asked.shard_stars)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ledger = Ledger(folder / "ledger", folder, "bench")
        (folder / "parts").mkdir()
        with open_workers(settings, logs=folder / "logs", folders=[folder], progress=Teller()) as workers:
            workers.crew.ask(None)
            task = partial(stub_shard, str(folder / "parts"), asked.shard_stars, asked.seconds)
            if asked.shards_each:
                warm_up(workers, task, n_shards)
            sizes = dict.fromkeys(range(n_shards), asked.shard_stars)
            with locked(asked.lock):
                began, cpu = time.monotonic(), time.process_time()
                run_shards(workers, task, sizes, ledger, SilentView())
                elapsed, cpu = time.monotonic() - began, time.process_time() - cpu
        reports = ledger.entries()
    n_places = len({report.extra["place"] for report in reports})
    return Turn(n_places, n_shards, elapsed, idle_share(reports), cpu)


def warm_up(workers: Workers, task: partial[ShardReport], first: int) -> None:
    """Wait until all workers are there and have had a shard."""
    for round_ in range(WARM_UP_ROUNDS):
        numbers = range(first + round_ * workers.n_workers, first + (round_ + 1) * workers.n_workers)
        places = {f.result().extra["place"] for f in [workers.executor.submit(task, n) for n in numbers]}
        if len(places) == workers.n_workers:
            return
    raise RuntimeError(f"of {workers.n_workers} workers only {len(places)} take shards")


def tell(turns: dict[int, list[Turn]], kind: str) -> None:
    """Print medians over the rounds."""
    say = Teller().say
    fewest = min(turns)
    for n_workers, each in turns.items():
        of_linear = [
            (turn.rate / n_workers) / (base.rate / fewest)
            for turn, base in zip(each, turns[fewest], strict=True)
        ]
        say(
            f"{each[0].n_shards} shards, {each[0].n_places} workers of {kind}: "
            f"{median(turn.seconds for turn in each):.2f} s, "
            f"{100 * median(of_linear):.2f} % of linear ({100 * min(of_linear):.2f} to "
            f"{100 * max(of_linear):.2f}), "
            f"idle between shards {100 * median(turn.idle for turn in each):.2f} %, "
            f"driver {1e3 * median(turn.cpu_s / turn.n_shards for turn in each):.1f} ms CPU a shard"
        )
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say(f"driver: peak {peak_mib:.0f} MiB")


def main() -> None:
    """Run the stages and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, default=263_000)
    parser.add_argument("--shard-stars", type=int, default=1024)
    parser.add_argument("--shards-each", type=int, default=0, help="shards a worker, instead of --stars")
    parser.add_argument("--seconds", type=float, default=1.0, help="that a shard takes")
    parser.add_argument("--cluster", default="local")
    parser.add_argument("--workers", default="2", help="numbers with commas between")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--lock", type=Path)
    asked = parser.parse_args()
    turns = {int(n): list[Turn]() for n in asked.workers.split(",")}
    for round_ in range(asked.rounds):
        for n_workers in list(turns) if round_ % 2 == 0 else list(turns)[::-1]:
            given = {"cluster": {"kind": asked.cluster, "workers": n_workers}}
            turns[n_workers].append(take_turn(load_config(asked.config, given).cluster, asked))
    tell(turns, asked.cluster)


if __name__ == "__main__":
    main()
