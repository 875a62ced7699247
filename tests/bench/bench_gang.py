"""What a training shared by two ranks gains, and what the exchange of gradients costs: run by hand.

    python tests/bench/bench_gang.py

Ranks are processes of this machine, with keys of their own and one thread each; batches are those of the
recipe `robust`. Ways are measured in turn, so that a busy moment falls on all of them; the medians are shown.
"""

import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from training_sets import make_training_set

from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.ranks import ALONE, Ranks
from apogee_batch.network.recipe import load_recipe
from apogee_batch.network.training import train
from apogee_batch.run.clusters.keys import RunKeys, run_keys
from apogee_batch.run.gang.exchange import FirstRank, OtherRank
from apogee_batch.run.gang.frames import Patience
from apogee_batch.run.gang.gate import Gate, knock

ATTEMPT = bytes(16)
N_STARS, N_STEPS, N_WARM, N_TURNS = 400, 25, 5, 4
PATIENT = Patience(120.0, lambda: None)
WAYS = {"1 rank, 1 thread": (1, 1), "1 rank, 2 threads": (1, 2), "2 ranks, 1 thread each": (2, 1)}


class EnoughError(Exception):
    """Ends a training."""


def time_steps(ranks: Ranks, n_threads: int) -> list[float]:
    """Return the seconds of some steps."""
    times = [time.perf_counter()]

    def on_step(_done: int, _of: int) -> None:
        times.append(time.perf_counter())
        if len(times) > N_STEPS + N_WARM:
            raise EnoughError

    try:
        stars = make_training_set(N_STARS)
        train(stars, load_recipe("robust"), seed=1, n_threads=n_threads, on_step=on_step, ranks=ranks)
    except EnoughError:
        pass
    return np.diff(times)[N_WARM:].tolist()


def time_exchanges(ranks: Ranks) -> list[float]:
    """Return the seconds of some sums of gradients."""
    gradient = np.ones(sum(p.numel() for p in SpectrumNet().parameters()) + 1, dtype=np.float32)
    times = []
    for _ in range(N_STEPS):
        began = time.perf_counter()
        ranks.sum_gradients(gradient)
        times.append(time.perf_counter() - began)
    return times[2:]


def run_rank(rank: int, n_ranks: int, n_threads: int, keys: RunKeys, port: Any, found: Any) -> None:
    """One rank: steps, or exchanges alone if it has no threads."""
    ranks: Ranks = ALONE
    if n_ranks > 1 and rank == 0:
        gate = Gate(keys.server_context(), "127.0.0.1", ATTEMPT, n_ranks, PATIENT)
        for _ in range(n_ranks - 1):
            port.put(gate.port)
        ranks = FirstRank(gate.admit(120), lambda: False)
    elif n_ranks > 1:
        address = ("127.0.0.1", port.get())
        channel = knock(
            keys.client_context(),
            address,
            ATTEMPT,
            rank=rank,
            n_ranks=n_ranks,
            patience=PATIENT,
            timeout_s=60,
        )
        ranks = OtherRank(rank, n_ranks, channel, lambda: False)
    times = time_steps(ranks, n_threads) if n_threads else time_exchanges(ranks)
    if rank == 0:
        found.put(times)


def measure(n_ranks: int, n_threads: int, keys: RunKeys) -> list[float]:
    """Run ranks in processes; return the times of the first one."""
    context = multiprocessing.get_context("spawn")
    port, found = context.Queue(), context.Queue()
    settings = (n_ranks, n_threads, keys, port, found)
    ranks = [context.Process(target=run_rank, args=(rank, *settings)) for rank in range(n_ranks)]
    for rank in ranks:
        rank.start()
    times = found.get(timeout=300)
    for rank in ranks:
        rank.join()
    return times


def main() -> None:
    """Measure and show."""
    with tempfile.TemporaryDirectory() as folder, run_keys(Path(folder) / "keys") as keys:
        for n_ranks in (2, 4):
            times = measure(n_ranks, 0, keys)
            print(f"exchange of {n_ranks} ranks: {1e3 * statistics.median(times):.0f} ms")  # noqa: T201
        steps: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(N_TURNS):
            for way, (n_ranks, n_threads) in WAYS.items():
                steps[way] += measure(n_ranks, n_threads, keys)
        for way, times in steps.items():
            low, middle, high = (1e3 * q for q in statistics.quantiles(times, n=4))
            print(f"step with {way}: {middle:.0f} ms (quartiles {low:.0f}, {high:.0f})")  # noqa: T201


if __name__ == "__main__":
    main()
