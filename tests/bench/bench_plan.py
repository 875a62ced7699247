"""How long it takes to plan the ingest of a whole survey; run by hand.

    python tests/bench/bench_plan.py FOLDER [--files 263000] [--repeats 3]

FOLDER, on the disk that is to be measured, gets that many hard links to one simulated spectrum, 10,000 in a
folder. Nothing is read of them: they are listed, looked at and laid out over the shards, as an `ingest` with
an allStar summary does before its first shard and, the second time, when it goes on with what was begun.
"""

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from apogee_batch.run.ingest import begin_store
from apogee_batch.run.ingest_inputs import IngestInput
from apogee_batch.run.ingest_mend import mend_store
from apogee_batch.run.ingest_plan import plan_ingest
from apogee_batch.survey.simulate import simulate_survey
from apogee_batch.survey.sources import find_apstar_files
from apogee_batch.survey.spectrum import UNKNOWN_STAR

FILES_OF_A_FOLDER = 10_000
T = TypeVar("T")


def make_links(folder: Path, n_files: int) -> Path:
    """Make the files unless they are there."""
    links = folder / "links"
    if links.is_dir():
        return links
    survey = simulate_survey(folder / "survey", n_stars=1, seed=1)
    source = find_apstar_files([str(survey.spectra)])[0]
    for i in range(n_files):
        place = links / f"{i // FILES_OF_A_FOLDER:04d}"
        if i % FILES_OF_A_FOLDER == 0:  # no file may have 65,000 links on ext4
            place.mkdir(parents=True)
            source = Path(shutil.copy(source, place / "template"))
        os.link(source, place / f"apStar-r8-2M{i:08d}+0000000.fits")
    return links


def timed(times: dict[str, list[float]], name: str, call: Callable[[], T]) -> T:
    """Note the seconds that a call takes."""
    started = time.perf_counter()
    result = call()
    times.setdefault(name, []).append(time.perf_counter() - started)
    return result


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=263_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    links, store = make_links(arguments.folder, arguments.files), arguments.folder / "s.zarr"
    times: dict[str, list[float]] = {}
    for _ in range(arguments.repeats):
        shutil.rmtree(store, ignore_errors=True)
        files = timed(times, "find the files", lambda: find_apstar_files([str(links)]))
        inputs = [
            IngestInput(path, replace(UNKNOWN_STAR, apstar_id=f"apogee.{i}", apogee_id=f"2M{i:08d}+0000000"))
            for i, path in enumerate(files)
        ]
        for name in ("plan and write the plan", "plan again and compare"):

            def plan(inputs: list[IngestInput] = inputs) -> None:
                mend_store(store)
                made = plan_ingest(store, inputs, rows="combined", shard_stars=None)
                if made is not None:
                    begin_store(store, made)

            timed(times, name, plan)
    for name, values in times.items():
        print(f"{name}: {statistics.median(values):.2f} s, of {len(values)}")  # noqa: T201


if __name__ == "__main__":
    main()
