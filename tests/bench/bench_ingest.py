"""Compare ingest, from FITS files to a store, with the same done by astropy and zarr; run by hand.

    python tests/bench/bench_ingest.py FOLDER [--copies 4096] [--rounds 3] [--shard-stars 1024]
    python tests/bench/bench_ingest.py FOLDER --latency-ms 5 --copies 256

FOLDER holds apStar files, of which copies are made that differ as stars do. Both ways take turns over all
of them, with as many processes, started before the clock is. Each way has processes of its own: a worker of
`ingest` lets the C library keep freed memory, and would make the other way faster than users have it.

* ingest: all that `apogee-batch ingest` does once its workers are there: find the files, plan, check each of
  them, hash what is read, measure, write shards and tables to the disk with their hashes, commit, gather the
  tables.
* astropy: open each file, take flux, err and mask of its combined spectrum and its cards, and assign them, a
  shard at a time, to arrays of the same layout. Nothing is checked, hashed, flushed or recorded.

The shards alone are timed, too: what goes before and after them hardly grows with the number of files. So is
the disk: one process writes the bytes of the arrays to one file, and forces them to the disk.

With `--latency-ms`, every open and every read of a file waits so long, as on a parallel file system far
away, and reading with many files in flight is compared with reading one after the other.
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import zarr
from bench_read_apstar import make_copies, read_by_astropy

from apogee_batch.run import in_flight, ingest_task
from apogee_batch.run.clusters import Workers
from apogee_batch.run.ingest import begin_store, finish_ingest, run_ingest
from apogee_batch.run.ingest_inputs import IngestInput
from apogee_batch.run.ingest_plan import plan_ingest, store_lock
from apogee_batch.run.lock import hold_lock
from apogee_batch.run.progress import SilentView
from apogee_batch.store.layout import create_store
from apogee_batch.survey.pixels import N_PIXELS
from apogee_batch.survey.sources import find_apstar_files

OPEN, PREAD = os.open, os.pread


def astropy_shard(store: str, first: int, paths: Sequence[str]) -> int:
    """Write the rows of a shard in the usual way; return how many cards were read."""
    arrays = [np.empty((len(paths), N_PIXELS), dtype) for dtype in (np.float32, np.float32, np.int32)]
    n_cards = 0
    for i, path in enumerate(paths):
        rows, cards = read_by_astropy(Path(path))
        n_cards += len(cards)
        for array, row in zip(arrays, rows, strict=True):
            array[i] = row
    group: Any = zarr.open_group(store, mode="r+")
    for name, array in zip(("flux", "err", "mask"), arrays, strict=True):
        group[name][first : first + len(paths)] = array
    return n_cards


def by_astropy(folder: Path, store: Path, pool: ProcessPoolExecutor, shard_stars: int) -> float:
    """Read all files into a new store in the usual way; return the seconds of the shards."""
    paths = [str(path) for path in sorted(folder.rglob("*.fits"))]
    create_store(store, n_rows=len(paths), shard_stars=shard_stars)
    starts = range(0, len(paths), shard_stars)
    started = time.perf_counter()
    futures = [pool.submit(astropy_shard, str(store), i, paths[i : i + shard_stars]) for i in starts]
    for future in futures:
        future.result()
    return time.perf_counter() - started


def by_ingest(folder: Path, store: Path, pool: ProcessPoolExecutor, shard_stars: int) -> float:
    """Read all files into a new store as the command does; return the seconds of the shards."""
    inputs = [IngestInput(path, None) for path in find_apstar_files([str(folder)])]
    workers = Workers(pool, pool._max_workers, "processes")  # type: ignore[attr-defined]
    with hold_lock(store_lock(store), store) as lock:
        plan = plan_ingest(store, inputs, rows="combined", shard_stars=shard_stars)
        assert plan is not None
        begin_store(store, plan)
        started = time.perf_counter()
        run_ingest(store, plan, workers, SilentView(), max_bad_fraction=0.0, lock=lock)
        seconds = time.perf_counter() - started
        counts = finish_ingest(store, plan).counts
    assert counts["stars_in_store"] == len(inputs), counts
    return seconds


def count_equal(one: Path, other: Path) -> int:
    """Return how many of the arrays hold the same values, gaps aside."""
    first, second = (zarr.open_group(path, mode="r") for path in (one, other))
    is_gap = np.asarray(second["err"][:]) >= 1e9  # type: ignore[index]
    return sum(
        bool(np.array_equal(np.asarray(first[name][:])[~is_gap], np.asarray(second[name][:])[~is_gap]))  # type: ignore[index]
        for name in ("flux", "err", "mask")
    )


def timed(
    way: Callable[..., float], folder: Path, store: Path, pool: ProcessPoolExecutor, size: int
) -> dict[str, float]:
    """Return the seconds that a way takes in all, and for its shards."""
    shutil.rmtree(store, ignore_errors=True)
    started = time.perf_counter()
    of_shards = way(folder, store, pool, size)
    return {"in all": time.perf_counter() - started, "shards": of_shards}


def disk_seconds(store: Path) -> float:
    """Return how long the disk takes for the bytes of the arrays of a store."""
    content = [path.read_bytes() for path in sorted(store.glob("*/c/*/0"))]
    started = time.perf_counter()
    with (store.parent / "disk.bin").open("wb") as file:
        file.writelines(content)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - started
    (store.parent / "disk.bin").unlink()
    return seconds


def _pool(given: argparse.Namespace) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(given.processes, mp_context=multiprocessing.get_context("spawn"))


def compare(folder: Path, n_files: int, given: argparse.Namespace) -> None:
    """Print the medians of both ways and of their ratio."""
    stores = [folder.parent / name for name in ("astropy.zarr", "ingest.zarr")]
    rounds, of_disk = [], []
    with _pool(given) as first, _pool(given) as second:
        ways = list(zip((by_astropy, by_ingest), stores, (first, second), strict=True))
        for round_number in range(given.rounds + 1):
            pair = [timed(way, folder, store, pool, given.shard_stars) for way, store, pool in ways]
            if round_number:  # the first starts the processes, and warms the page cache
                rounds.append(pair)
                of_disk.append(disk_seconds(stores[1]))
    print(f"arrays equal: {count_equal(*stores)} of 3")  # noqa: T201
    size = sum(path.stat().st_size for path in stores[1].glob("*/c/*/0"))
    print(f"disk: {size / 1e6:.0f} MB in {statistics.median(of_disk):.2f} s")  # noqa: T201
    for part in ("in all", "shards"):
        slow, fast = (statistics.median(pair[i][part] for pair in rounds) for i in range(2))
        ratios = sorted(pair[0][part] / pair[1][part] for pair in rounds)
        print(  # noqa: T201
            f"{part}: astropy {slow:.2f} s, {n_files / slow:.0f} files/s; ingest {fast:.2f} s, "
            f"{n_files / fast:.0f} files/s; ratio {statistics.median(ratios):.1f} "
            f"[{ratios[0]:.1f}, {ratios[-1]:.1f}]"
        )


def compare_slow(paths: Sequence[Path], given: argparse.Namespace) -> None:
    """Print how fast one process reads where every open and every read waits."""

    def slow(call: Callable[..., Any]) -> Callable[..., Any]:
        def waiting(*arguments: Any) -> Any:
            time.sleep(given.latency_ms / 1e3)
            return call(*arguments)

        return waiting

    inputs = [
        {"path": str(path), "size": path.stat().st_size, "row": i, "n_rows": 1, "known": None}
        for i, path in enumerate(paths)
    ]
    with mock.patch.object(os, "open", slow(OPEN)), mock.patch.object(os, "pread", slow(PREAD)):
        for name, slow_s in (("one at a time", float("inf")), ("many in flight", in_flight.SLOW_S)):
            with mock.patch.object(in_flight, "SLOW_S", slow_s):
                started = time.perf_counter()
                ingest_task.read_files(inputs, "combined")
                rate = len(paths) / (time.perf_counter() - started)
            print(f"{given.latency_ms} ms a call, {name}: {rate:.0f} files/s")  # noqa: T201


def main() -> None:
    """Make the copies and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--copies", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shard-stars", type=int, default=1024)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--latency-ms", type=float)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    base = Path(tempfile.mkdtemp(dir=given.scratch))
    try:
        paths = make_copies(find_apstar_files([given.folder]), base / "files", given.copies)
        print(f"{len(paths)} copies, {given.rounds} rounds, {given.processes} processes")  # noqa: T201
        if given.latency_ms is None:
            compare(base / "files", len(paths), given)
        else:
            compare_slow(paths, given)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
