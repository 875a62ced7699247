"""What the commit protocol costs: ingest and run-catalog with and without flushing and hashing.

    python tests/bench/bench_protocol.py FOLDER [--stars 256] [--realizations 100] [--pairs 7]

FOLDER is on the disk that is to be measured. Both ways are run in turn, in this process; the ratio is the
median of those of the pairs. Without the protocol nothing is flushed, and nothing written is hashed or
compared.
"""

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch

from apogee_batch.files import FileDigest, write_bytes
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.official import import_official
from apogee_batch.run import commands
from apogee_batch.run.config import RunConfig, load_config
from apogee_batch.run.progress import SilentView
from apogee_batch.survey.simulate import SimulatedSurvey, simulate_survey

WRITE_BYTES = write_bytes


def write_unhashed(path: Path, content: bytes | memoryview, *, staging: Path | None = None) -> FileDigest:
    """Write a file as the project does, and hash nothing."""
    with mock.patch("apogee_batch.files.sha256_of_bytes", return_value="0" * 64):
        return WRITE_BYTES(path, content, staging=staging)


@contextmanager
def without_protocol() -> Iterator[None]:
    """Let nothing be flushed, hashed or compared."""
    with (
        mock.patch.object(os, "fsync", return_value=None),
        mock.patch("apogee_batch.files.write_bytes", write_unhashed),
        mock.patch("apogee_batch.streams.sha256_of_file", return_value="0" * 64),
        mock.patch("apogee_batch.store.spectra.write_bytes", write_unhashed),
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


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stars", type=int, default=256)
    parser.add_argument("--realizations", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    folder = arguments.folder
    sections = {
        "ingest": {"shard_stars": 64},
        "inference": {"realizations": arguments.realizations},
        "cluster": {"kind": "serial", "device": "cpu"},
    }
    config = load_config(None, sections)
    survey = simulate_survey(folder / "survey", n_stars=arguments.stars, seed=1)
    model, store = make_model(folder / "model"), folder / "s.zarr"
    compare("ingest", lambda: ingest(survey, store, config), 3 * arguments.pairs)
    compare("run-catalog", lambda: run_catalog(store, folder / "run", model, config), arguments.pairs)


if __name__ == "__main__":
    main()
