"""Whether the host can keep a GPU busy, measured without one: a stand-in takes its time and no core.

    PYTHONPATH=. python tests/bench/bench_feed.py FOLDER [--shards 4] [--shard-stars 4096] [--rate 4400 13000]
        [--threads 1 2] [--rounds 3] [--only parts run]

"parts" tells what each part of a task takes of a core, in one thread. "run" is the whole `run-catalog` of a
store of several shards with one worker of Dask as a run has it, with so many tasks at the same time
(`--threads`), while the stand-in does `--rate` stars a second: 4,400 are 263,000 stars in a minute, 13,000 in
20 s. It tells how long the stand-in had nothing to do between its first work and its last. FOLDER keeps store
and model for the next time. For the code of another checkout give its folder first in PYTHONPATH.
"""

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import feed_stub
import numpy as np
import torch
from full_survey import make_full_store, make_model

import apogee_batch
from apogee_batch.catalog.parts import build_part, write_part
from apogee_batch.inference.device_noise import key_tensor
from apogee_batch.inference.estimates import LabelEstimates, prepare_stars
from apogee_batch.inference.noise import derive_noise_key
from apogee_batch.inference.realizations import cap_err
from apogee_batch.network.calibration import load_calibration
from apogee_batch.network.checkpoint import load_checkpoint
from apogee_batch.network.memory import keep_freed_memory
from apogee_batch.run import infer
from apogee_batch.run.catalog_run import begin_run, run_catalog
from apogee_batch.run.clusters import open_workers
from apogee_batch.run.config import RunConfig, load_config
from apogee_batch.run.ingest_tables import check_spectra
from apogee_batch.run.lock import hold_lock
from apogee_batch.run.progress import SilentView
from apogee_batch.store.spectra import open_store, read_spectra
from apogee_batch.store.tables import LABELS, STARS, table_path

READ_STARS = 256
N_REALIZATIONS = 100
ACCOUNT = "account.json"


def say(text: str = "") -> None:
    """Print a line."""
    print(text, flush=True)  # noqa: T201


class Parts:
    """Takes the time of the parts of a task.

    Parameters
    ----------
    n_rounds : int
        How often each is done; the fastest counts.
    """

    def __init__(self, n_rounds: int) -> None:
        self._n_rounds = n_rounds
        self._sum = 0.0

    def time(self, name: str, n_stars: int, work: Callable[[], Any]) -> Any:
        """Do a part of the work for so many stars, say what it took, and return its result."""
        cpu, result = self.tell(name, n_stars, work)
        self._sum += cpu
        return result

    def tell(self, name: str, n_stars: int, work: Callable[[], Any]) -> tuple[float, Any]:
        """Do some work and say what it took, without counting it."""
        took = []
        for _ in range(1 + self._n_rounds):
            began = time.perf_counter(), time.process_time()
            result = work()
            took.append((time.perf_counter() - began[0], time.process_time() - began[1]))
        wall, cpu = (1e6 * min(each) / n_stars for each in zip(*took, strict=True))
        say(f"{name:44} {cpu:7.2f} us of CPU a star, {wall:7.2f} us")
        return cpu, result

    def end(self) -> None:
        """Say what all parts took."""
        say(f"{'all':44} {self._sum:7.2f} us of CPU a star")


def time_parts(store: Path, model: Path, scratch: Path, n_rounds: int) -> None:
    """Take the time of each part of a task by itself."""
    keep_freed_memory()
    torch.set_num_threads(1)
    parts, info = Parts(n_rounds), open_store(store)
    n = info.shard_rows(0)[1]
    parts.time("hash of the shard's flux and err", n, lambda: check_spectra(info, 0, ("flux/", "err/")))
    rows = np.arange(min(n, READ_STARS), dtype=np.int32)
    some = parts.time("read and decode 256 stars", len(rows), lambda: read_spectra(info, rows))
    stars = parts.time("star table", n, lambda: infer.read_rows(table_path(store, STARS), 0, n))
    names = stars["apstar_id"].to_pylist()
    of_some = names[: len(rows)]
    parts.time(
        "cap_err, noise keys", len(rows), lambda: prepare_stars(of_some, some.flux, some.err, run_seed=1)
    )
    parts.tell("   of it cap_err", len(rows), lambda: [cap_err(err) for err in some.err])
    parts.tell("   of it keys", n, lambda: [derive_noise_key(1, name) for name in names])
    keys = [derive_noise_key(1, name) for name in of_some]
    parts.time("keys for the device", len(rows), lambda: key_tensor(keys))
    parts.time("copies into pinned memory", len(rows), lambda: feed_stub.pin(some))
    if not hasattr(feed_stub.estimate, "LaunchingEngine"):
        labels = feed_stub.make_labels(len(rows), 1 + N_REALIZATIONS) + 0.0
        parts.time("mean and std", len(rows), lambda: (labels[:, 1:].mean(1), labels[:, 1:].std(1, ddof=1)))
        transform, flux = load_checkpoint(model).transform, torch.from_numpy(some.flux)
        parts.time("scale of the flux for features", len(rows), lambda: transform.scale(flux))
    time_end(parts, store, model, stars, scratch)
    parts.end()


def time_end(parts: Parts, store: Path, model: Path, stars: Any, scratch: Path) -> None:
    """Take the time of what follows the estimates."""
    n, spread = len(stars), 1 + 0.1 * np.random.default_rng(1).standard_normal((len(stars), 1))
    made = feed_stub.make_labels(n, 2) * spread[:, None]
    estimates = LabelEstimates(made[:, 1], np.abs(made[:, 0] / 50), made[:, 0])
    found = load_calibration(model, load_checkpoint(model).sha256)
    calibration, features = None if found is None else found[0], feed_stub.make_features(n)
    snr = stars["snr"].to_numpy().astype(float)
    judgement = parts.time(
        "what the calibration says", n, lambda: infer.judge(calibration, estimates, snr, features)
    )
    labels = parts.time("labels", n, lambda: infer.read_rows(table_path(store, LABELS), 0, n))
    part = parts.time(
        "building the part",
        n,
        lambda: build_part(
            stars,
            mean=estimates.mean,
            std=estimates.std,
            clean=estimates.clean,
            n_realizations=N_REALIZATIONS,
            labels=labels,
            label_range=None,
            judgement=judgement,
        ),
    )
    parts.time("writing the part", n, lambda: write_part(scratch / "part.parquet", part, staging=scratch))


def settings() -> RunConfig:
    """Return the settings of the run."""
    return load_config(None, {"cluster": {"kind": "local", "workers": 1, "device": "cpu"}})


def run_once(store: Path, model: Path, out: Path, rate: float, n_threads: int) -> dict[str, float]:
    """Make a catalogue, and return the account of the stand-in and the seconds of the whole."""
    import distributed

    real = distributed.LocalCluster

    def with_threads(**options: Any) -> Any:
        return real(**{**options, "threads_per_worker": n_threads})

    shutil.rmtree(out, ignore_errors=True)
    view = SilentView()
    with hold_lock(out / "lock", out) as lock, mock.patch.object(distributed, "LocalCluster", with_threads):
        plan = begin_run(store, out, model, settings(), view)
        with open_workers(settings().cluster) as workers:
            workers.executor.submit(feed_stub.install, rate, out / ACCOUNT).result()
            began = time.perf_counter()
            run_catalog(
                store, out, plan, model=model, config=settings(), workers=workers, progress=view, lock=lock
            )
            taken = time.perf_counter() - began
    return {**json.loads((out / ACCOUNT).read_text()), "run": taken}


def time_runs(store: Path, model: Path, scratch: Path, asked: argparse.Namespace) -> None:
    """Make catalogues, the ways in turn, and say what the medians are."""
    n_stars = asked.shards * asked.shard_stars
    ways = [(rate, n_threads) for rate in asked.rate for n_threads in asked.threads]
    found: dict[tuple[float, int], list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(asked.rounds):
        for way in ways:
            found[way].append(run_once(store, model, scratch / "run", *way))
    for (rate, n_threads), accounts in found.items():
        account = {key: statistics.median(each[key] for each in accounts) for key in accounts[0]}
        busy = [100 * (1 - each["idle"] / each["span"]) for each in accounts]
        say(
            f"stand-in of {rate:7.0f} stars/s, {n_threads} at the same time: "
            f"{n_stars / account['span']:8.0f} stars/s, busy {statistics.median(busy):3.0f} % "
            f"[{min(busy):.0f}, {max(busy):.0f}]; worker {1e6 * account['cpu'] / n_stars:.0f} us of CPU a "
            f"star, its start included, {account['gib']:.2f} GiB; run-catalog {account['run']:.2f} s"
        )


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--shard-stars", type=int, default=4096)
    parser.add_argument("--rate", type=float, nargs="+", default=[4400.0, 13000.0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=("parts", "run"), default=("parts", "run"))
    asked = parser.parse_args()
    n_stars, scratch = asked.shards * asked.shard_stars, asked.folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    model = make_model(asked.folder / "model").absolute()
    store = make_full_store(asked.folder / f"s{n_stars}-{asked.shard_stars}.zarr", n_stars, asked.shard_stars)
    say(f"{apogee_batch.__file__}: {asked.shards} shards of {asked.shard_stars} stars")
    if "parts" in asked.only:
        time_parts(store, model, scratch, asked.rounds)
    if "run" in asked.only:
        time_runs(store.absolute(), model, scratch.absolute(), asked)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
