"""What the driver needs for surveys of any size: time and memory of planning, of its stage, of publishing.

    python tests/bench/bench_scale.py FOLDER [--stars 263000] [--shard-stars 4096] [--workers 2] [--seconds 0]

FOLDER gets a store without spectra and a run whose shards are tasks as in a real one: sent to a worker of
Dask, with the stars of the shard read and a part written and committed; the network is a stub that takes
`--seconds` a shard. Then the run is published, taken up again with nothing left to do, shown by `status` and
verified. Each step is a process of its own; prints its time, CPU time and peak memory. 10,000,000 stars take
about 6 GB of FOLDER, which is removed at the end.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

STEP = "--step"


def stub_shard(
    store: str, run: str, seconds: float, shard: int, *, excluded: Sequence[int] = (), only: Any = None
) -> Any:
    """Stand for inference: all of its task but spectra and network."""
    import numpy as np

    from apogee_batch.catalog.parts import build_part, write_part
    from apogee_batch.labels.attach import LABELS_SCHEMA
    from apogee_batch.run import infer, run_folder
    from apogee_batch.run.ledger import ShardReport, relative_digest
    from apogee_batch.store.spectra import open_store

    began, base = time.monotonic(), Path(run)
    time.sleep(seconds)
    stars = infer._stars_of_shard(open_store(Path(store)), base, shard)
    read = getattr(infer, "_labels_of_shard", None)
    labels = LABELS_SCHEMA.empty_table() if read is None else read(open_store(Path(store)), base, shard)
    random = np.random.default_rng(shard)
    middle, width = np.array([2.9, 4700.0, -0.2]), np.array([1.1, 700.0, 0.3])
    mean = np.round(random.normal(middle, width, (len(stars), 3)), 2)
    part = build_part(
        stars,
        mean=mean,
        std=np.abs(mean) * 0.01,
        clean=mean,
        n_realizations=100,
        labels=labels,
        label_range=None,
    )
    written = write_part(run_folder.part_path(base, shard), part, staging=base / run_folder.STAGING)
    files = (relative_digest(written, base),)
    extra = {"device": "stub", "killed": []}
    return ShardReport(shard, len(stars), len(part), 0, files, time.monotonic() - began, "here", extra)


def make(folder: Path, asked: argparse.Namespace) -> None:
    """Make store and model."""
    from stub_survey import make_model, make_store

    make_model(folder / "model")
    make_store(folder / "s.zarr", asked.stars, asked.shard_stars)


def settings(asked: argparse.Namespace) -> Any:
    """Return the settings of the run."""
    from apogee_batch.run.config import load_config

    kind = "local" if asked.workers else "serial"
    return load_config(None, {"cluster": {"kind": kind, "workers": asked.workers or 1, "device": "cpu"}})


def plan(folder: Path, asked: argparse.Namespace) -> None:
    """Write the plan of a new run, or compare it."""
    from apogee_batch.run.catalog_run import begin_run
    from apogee_batch.run.progress import SilentView

    begin_run(folder / "s.zarr", folder / "run", folder / "model", settings(asked), SilentView())


def stage(folder: Path, asked: argparse.Namespace) -> None:
    """Do all shards."""
    import pyarrow.parquet as pq

    from apogee_batch.network.checkpoint import load_checkpoint
    from apogee_batch.run.clusters import open_workers
    from apogee_batch.run.model_of_run import inference_ledger
    from apogee_batch.run.plan import read_plan
    from apogee_batch.run.progress import SilentView
    from apogee_batch.run.run_folder import shard_sizes
    from apogee_batch.run.stages import run_shards
    from apogee_batch.store.tables import STARS

    planned = read_plan(folder / "run") or {}
    identity = load_checkpoint(folder / "model").identity
    ledger = inference_ledger(folder / "run", planned, identity)
    rows = pq.read_table(folder / "run" / "inputs" / f"{STARS}.parquet", columns=["row"])
    done = {report.shard for report in ledger.entries()}
    sizes = {s: n for s, n in shard_sizes(rows, asked.shard_stars).items() if s not in done}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with open_workers(settings(asked).cluster, logs=folder / "logs") as workers:
        task = partial(stub_shard, str(folder / "s.zarr"), str(folder / "run"), asked.seconds)
        began, cpu = time.monotonic(), time.process_time()
        run_shards(workers, task, sizes, ledger, SilentView())
        elapsed, cpu = time.monotonic() - began, time.process_time() - cpu
    reports = [report for report in ledger.entries() if report.shard in sizes]
    busy = sum(report.seconds for report in reports)
    say(
        f"  {len(sizes)} shards in {elapsed:.1f} s, {len(sizes) / elapsed:.1f} a second, "
        f"{busy / len(sizes):.3f} s each; workers busy {100 * busy / elapsed / max(1, asked.workers):.1f} %; "
        f"driver {cpu:.2f} s CPU, {1e3 * cpu / len(sizes):.1f} ms a shard; memory before it {before:.0f} MiB"
    )


def publish(folder: Path, asked: argparse.Namespace) -> None:
    """Publish the run, or find that it is published."""
    from apogee_batch.network.checkpoint import load_checkpoint
    from apogee_batch.run.catalog_run import publish_catalog
    from apogee_batch.run.lock import hold_lock
    from apogee_batch.run.plan import read_plan
    from apogee_batch.run.progress import SilentView

    run = folder / "run"
    checkpoint = load_checkpoint(folder / "model")
    with hold_lock(run / "lock", run) as lock:
        publish_catalog(run, read_plan(run) or {}, checkpoint, SilentView(), lock)


def command(*arguments: str) -> Callable[[Path, argparse.Namespace], None]:
    """Return what runs a command of the program."""

    def call(folder: Path, asked: argparse.Namespace) -> None:
        where = ["--workers", str(asked.workers)] if asked.workers else ["--cluster", "serial"]
        places = {"STORE": str(folder / "s.zarr"), "RUN": str(folder / "run"), "MODEL": str(folder / "model")}
        words = [places.get(word, word) for word in arguments]
        program = [sys.executable, "-m", "apogee_batch", *words, *(where if "run-catalog" in words else [])]
        subprocess.run(program, check=True, stdout=subprocess.DEVNULL)

    return call


STEPS = {
    "make store": make,
    "plan": plan,
    "stage": stage,
    "publish": publish,
    "page of the finished run": command("run-catalog", "STORE", "--model", "MODEL", "--out", "RUN"),
    "resume": command("run-catalog", "STORE", "--model", "MODEL", "--out", "RUN"),
    "status": command("status", "RUN"),
    "verify": command("verify", "RUN"),
}


def in_own_process(name: str, folder: Path, given: Sequence[str]) -> None:
    """Run a step and print what it took."""
    subprocess.run([sys.executable, __file__, STEP, name, *given], check=True)


def step(name: str, folder: Path, asked: argparse.Namespace) -> None:
    """Run a step in this process and print what it took."""
    import apogee_batch.run.commands  # noqa: F401  what it costs is another bench's

    began, cpu = time.monotonic(), time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    STEPS[name](folder, asked)
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    is_command = name not in ("make store", "plan", "stage", "publish")
    peak = others.ru_maxrss if is_command else own.ru_maxrss
    used = others.ru_utime + others.ru_stime if is_command else time.process_time() - cpu
    imports = "" if is_command else f", of these {before / 1024:.0f} MiB imports"
    say(f"{name}: {time.monotonic() - began:.2f} s, CPU {used:.2f} s, peak {peak / 1024:.0f} MiB{imports}")


def say(text: str) -> None:
    """Print."""
    print(text, flush=True)  # noqa: T201


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stars", type=int, default=263_000)
    parser.add_argument("--shard-stars", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=2, help="0: the process itself")
    parser.add_argument("--seconds", type=float, default=0.0, help="that the network takes for a shard")
    parser.add_argument("--steps", default="", help="only these, with commas between; nothing is removed")
    parser.add_argument(STEP, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        step(asked.step, asked.folder, asked)
        return
    asked.folder.mkdir(exist_ok=True)
    given = [word for word in sys.argv[1:] if not word.startswith("--steps")]
    say(json.dumps({"stars": asked.stars, "shard_stars": asked.shard_stars, "workers": asked.workers}))
    try:
        for name in asked.steps.split(",") if asked.steps else STEPS:
            in_own_process(name, asked.folder, given)
    finally:
        if not asked.steps:
            shutil.rmtree(asked.folder)


if __name__ == "__main__":
    main()
