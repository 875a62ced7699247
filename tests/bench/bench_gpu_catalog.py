"""A whole catalogue on a GPU machine: a store made there, then `run-catalog` as a user gives it.

Wants the packages that the package itself wants; `bench_gpu.py` has its section "catalog" call it.
"""

import contextlib
import importlib.util
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PACKAGES = (
    *("astropy", "astropy_healpix", "blake3", "cryptography", "dask", "distributed", "jinja2"),
    *("matplotlib", "numpy", "pyarrow", "pydantic", "rich", "safetensors", "typer", "zarr"),
    *("google_crc32c", "numcodecs"),
)
SHARD_STARS = 4096
SAMPLE_MS = 100
Seen = list[tuple[float, int]]


def missing_packages() -> str:
    """Say which packages that a catalogue needs are not here; empty if none."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    try:
        distribution("apogee-batch")
    except PackageNotFoundError:
        missing.append("apogee-batch itself (pip install --no-deps --no-build-isolation . in the checkout)")
    return ", ".join(missing)


def time_catalog(device: str, n_stars: int, precision: str, *, loop_rate: float) -> Iterator[str]:
    """Make a store and a model, then a catalogue of it, and tell what that took.

    Parameters
    ----------
    device : {"cuda", "cpu"}
    n_stars : int
        At least; a store has whole shards of 4,096, or one of a multiple of 16 stars for a try.
    precision : {"exact", "fast"}
    loop_rate : float
        Stars a second of the published loop.

    Yields
    ------
    str
        Lines.
    """
    from full_survey import make_full_store, make_model

    shard_stars = min(SHARD_STARS, -(-n_stars // 16) * 16)
    n_stars = -(-n_stars // shard_stars) * shard_stars
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as name:
        folder, began = Path(name), time.perf_counter()
        model = make_model(folder / "model")
        store = make_full_store(folder / "s.zarr", n_stars, shard_stars)
        gib = sum(path.stat().st_size for path in store.rglob("*") if path.is_file()) / 2**30
        free = shutil.disk_usage(folder).free / 2**30
        yield (
            f"store of {n_stars} stars, {gib:.1f} GiB, made in {time.perf_counter() - began:.0f} s "
            f"({free:.0f} GiB free)"
        )
        for turn in ("first run", "second run, programs compiled"):
            out = folder / turn[:5]
            command = [sys.executable, "-m", "apogee_batch", "run-catalog", str(store), "--out", str(out)]
            command += ["--model", str(model), "--device", device, "--precision", precision]
            yield from _time_run([*command, "--no-report", "--quiet"], device, n_stars, loop_rate, turn)
            yield f"   {read_stages(out)}"


def _time_run(command: list[str], device: str, n_stars: int, loop_rate: float, turn: str) -> Iterator[str]:
    """Make one catalogue with the command line."""
    began = time.perf_counter()
    with gpu_use(device != "cpu") as seen:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        taken = time.perf_counter() - began
    if done.returncode:
        yield f"{turn}: ended with {done.returncode}: {done.stderr.strip()[-2000:]}"
        return
    rate = n_stars / taken
    yield (
        f"{turn}: {taken:.1f} s from command to catalogue, {rate:.0f} stars/s, {rate / loop_rate:.1f} times "
        f"the published loop; {describe(seen)}"
    )


def read_stages(out: Path) -> str:
    """Return how long the stages took, as the run has noted it."""
    from apogee_batch.run.stage_times import read_stage_times

    times = [(each.stage, (each.end_s or math.nan) - each.begin_s) for each in read_stage_times(out)]
    return ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in times)


def describe(seen: Seen) -> str:
    """Say how busy the GPU was, from when it first was to when it last was, and in all."""
    busy = [i for i, (_, percent) in enumerate(seen) if percent > 0]
    if not busy:
        return "GPU busy: not measured"
    within = [percent for _, percent in seen[busy[0] : busy[-1] + 1]]
    seconds = seen[busy[-1]][0] - seen[busy[0]][0]
    whole = sum(percent for _, percent in seen) / len(seen)
    return f"GPU busy {sum(within) / len(within):.0f} % of {seconds:.1f} s, {whole:.0f} % of the whole"


@contextlib.contextmanager
def gpu_use(is_there: bool) -> Iterator[Seen]:
    """Let nvidia-smi note ten times a second for what part of the time a kernel was running.

    Yields
    ------
    list of (float, int)
        Second and percent; filled at the end of the block.
    """
    seen: Seen = []
    if not is_there:
        yield seen
        return
    query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", str(SAMPLE_MS)]
    process = subprocess.Popen(["nvidia-smi", *query], stdout=subprocess.PIPE, text=True)
    try:
        yield seen
    finally:
        process.terminate()
        lines = process.communicate()[0].split()
    seen += [(i * SAMPLE_MS / 1000, int(line)) for i, line in enumerate(lines) if line.isdigit()]
