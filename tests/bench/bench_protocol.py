"""What the commit protocol costs: ingest and run-catalog with and without flushing and hashing.

    python tests/bench/bench_protocol.py FOLDER [--stars 256] [--realizations 100] [--pairs 7] [--rate 38]

FOLDER is on the disk that is to be measured. Both ways are run in turn, in this process; the ratio is the
median of those of the pairs. Without the protocol nothing is flushed, and nothing written is hashed or
compared.

Then, of shards of the size of a survey's: what sending, committing, showing and logging them costs for each
(`--shards` of `--shard-stars` stars, whose labels are drawn and not computed, with a log file and a view),
with and without the protocol, as a part of the time that the engine takes for such a shard at `--rate` stars
a second.
"""

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from bench_scale import plan as begin_stub
from bench_scale import stub_shard
from rich.console import Console
from stub_survey import make_store

from apogee_batch.files import FileDigest, write_bytes
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.official import import_official
from apogee_batch.run import commands
from apogee_batch.run.clusters import open_workers
from apogee_batch.run.config import RunConfig, load_config
from apogee_batch.run.ledger import Ledger
from apogee_batch.run.logs import log_to_folder
from apogee_batch.run.plan import read_plan, run_id
from apogee_batch.run.progress import PlainView, SilentView
from apogee_batch.run.run_folder import shard_sizes
from apogee_batch.run.stages import run_shards
from apogee_batch.store.tables import STARS, read_table
from apogee_batch.survey.simulate import SimulatedSurvey, simulate_survey

WRITE_BYTES = write_bytes


def write_unhashed(path: Path, content: bytes | memoryview, *, staging: Path | None = None) -> FileDigest:
    """Write a file as the project does, and hash nothing."""
    with mock.patch("apogee_batch.files.sha256_of_bytes", return_value="0" * 64):
        return WRITE_BYTES(path, content, staging=staging)


class Unhashed:
    """Stand for a hash."""

    def update(self, content: object) -> None:
        """Do nothing."""

    def hexdigest(self) -> str:
        """Return what a SHA-256 looks like."""
        return "0" * 64


@contextmanager
def without_protocol() -> Iterator[None]:
    """Let nothing be flushed, hashed or compared."""
    with (
        mock.patch.object(os, "fsync", return_value=None),
        mock.patch("apogee_batch.files.write_bytes", write_unhashed),
        mock.patch("apogee_batch.streams.sha256_of_file", return_value="0" * 64),
        mock.patch("apogee_batch.streams.hashlib", SimpleNamespace(sha256=Unhashed)),
        mock.patch("apogee_batch.run.ingest_tables.find_damage", return_value=None),
        mock.patch("apogee_batch.run.ledger.find_damage", return_value=None),
    ):
        yield


@contextmanager
def with_protocol() -> Iterator[None]:
    """Leave everything as it is."""
    yield


def make_model(folder: Path) -> Path:
    """Save a network that has learned nothing: its speed is that of any other."""
    torch.manual_seed(1)
    file = folder.with_suffix(".pt")
    torch.save(SpectrumNet().state_dict(), file)
    import_official(file, folder)
    return folder


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def ingest(survey: SimulatedSurvey, store: Path, config: RunConfig) -> None:
    """Ingest the survey into a new store."""
    shutil.rmtree(store, ignore_errors=True)
    commands.ingest(
        [str(survey.spectra)],
        store,
        allstar=survey.allstar,
        config=config,
        is_dry_run=False,
        progress=SilentView(),
    )


def run_catalog(store: Path, out: Path, model: Path, config: RunConfig) -> None:
    """Make a catalogue in a new folder."""
    shutil.rmtree(out, ignore_errors=True)
    commands.make_catalog(store, out, model=model, config=config, is_dry_run=False, progress=SilentView())


def compare(name: str, call: Callable[[], None], n_pairs: int) -> None:
    """Time a call both ways in turn and print the medians."""
    call()  # warm
    times: dict[str, list[float]] = {"with": [], "without": []}
    for i in range(n_pairs):
        ways = [("with", with_protocol), ("without", without_protocol)]
        for label, way in ways if i % 2 else ways[::-1]:
            with way():
                times[label].append(timed(call))
    ratios = [a / b for a, b in zip(times["with"], times["without"], strict=True)]
    medians = {label: statistics.median(values) for label, values in times.items()}
    print(  # noqa: T201
        f"{name}: with {medians['with']:.3f} s, without {medians['without']:.3f} s, "
        f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), {n_pairs} pairs"
    )


def stub_run(folder: Path, asked: argparse.Namespace) -> Callable[[bool], float]:
    """Return what goes through all shards of a stub run, quietly or not, and tells the seconds of it."""
    asked = argparse.Namespace(**vars(asked))
    asked.stars, asked.workers = asked.shards * asked.shard_stars, 0
    make_store(folder / "s.zarr", asked.stars, asked.shard_stars)
    begin_stub(folder, asked)
    run = folder / "run"
    sizes = shard_sizes(read_table(run / "inputs" / f"{STARS}.parquet"), asked.shard_stars)
    task = partial(stub_shard, str(folder / "s.zarr"), str(run), 0.0)
    settings = load_config(None, {"cluster": {"kind": "serial", "device": "cpu"}}).cluster

    def go(is_told: bool) -> float:
        for name in ("ledger", "parts"):
            shutil.rmtree(run / name, ignore_errors=True)
        ledger = Ledger(run / "ledger", run, run_id(read_plan(run) or {}))
        with open_workers(settings, logs=folder / "logs") as workers, (folder / "told").open("w") as told:
            view = PlainView(Console(file=told)) if is_told else SilentView()
            with log_to_folder(folder / "logs") if is_told else nullcontext():
                view.start("infer", asked.stars, "stars", done=0)
                return timed(lambda: run_shards(workers, task, sizes, ledger, view))

    return go


def compare_shards(folder: Path, asked: argparse.Namespace) -> None:
    """Print what a shard of real size costs beside its computation, and what of that is the protocol's."""
    rounds = asked.pairs
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make_model(folder / "model")
    go = stub_run(folder, asked)
    go(True)
    pairs = []
    for _ in range(rounds):
        with without_protocol():
            bare = go(False)
        pairs.append((go(True), bare))
    whole, bare = (1e3 * statistics.median(times) / asked.shards for times in zip(*pairs, strict=True))
    extra = 1e3 * statistics.median(full - less for full, less in pairs) / asked.shards
    engine = 1e3 * asked.shard_stars / asked.rate
    print(  # noqa: T201
        f"shards of {asked.shard_stars} stars, {rounds} pairs: {whole:.1f} ms each with everything but "
        f"spectra and network, {bare:.1f} ms without protocol, progress and log; difference {extra:.1f} ms = "
        f"{100 * extra / engine:.3f} % of the {engine / 1e3:.1f} s of the engine at {asked.rate:g} stars/s"
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stars", type=int, default=256)
    parser.add_argument("--realizations", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--shard-stars", type=int, default=4096)
    parser.add_argument(
        "--rate", type=float, default=38.0, help="stars a second of one process: the kernel's"
    )
    arguments = parser.parse_args()
    folder = arguments.folder
    sections = {
        "ingest": {"shard_stars": 64},
        "inference": {"realizations": arguments.realizations},
        "cluster": {"kind": "serial", "device": "cpu"},
    }
    config = load_config(None, sections)
    compare_shards(folder / "stub", arguments)
    if not arguments.stars:
        return
    survey = simulate_survey(folder / "survey", n_stars=arguments.stars, seed=1)
    model, store = make_model(folder / "model"), folder / "s.zarr"
    compare("ingest", lambda: ingest(survey, store, config), 3 * arguments.pairs)
    compare("run-catalog", lambda: run_catalog(store, folder / "run", model, config), arguments.pairs)


if __name__ == "__main__":
    main()
