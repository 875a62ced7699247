"""How fast the fused kernel is, and how near to what the CPU's arithmetic units can do.

    python tests/bench/bench_kernel.py                        one process, one thread
    python tests/bench/bench_kernel.py --processes 2          as a run does it: one process a core
    python tests/bench/bench_kernel.py --threads 2 --precision exact --variant avx2

Prints for each precision: stars/s of all processes together (the best round of each), useful GFLOP/s, their
share of the measured peak (multiply-adds on registers alone, the best of as many rounds), and where the time
goes, in ms a star.
"""

import argparse
import multiprocessing as mp
import time
from multiprocessing.synchronize import Barrier

import numpy as np
import torch

from apogee_batch.inference.engines import Precision, StarBatch
from apogee_batch.inference.kernel_engine import KernelEngine, kernel_variants, load_variant, why_not
from apogee_batch.inference.noise import derive_noise_key
from apogee_batch.network.model import SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform
from apogee_batch.survey.pixels import N_PIXELS

FLOP_PER_FORWARD = 55.70e6  # convolutions 46.45, fully connected layers 9.24
PEAK_SECONDS = 0.1
Measured = tuple[float, dict[str, float], dict[str, float]]


def make_stars(n_stars: int) -> StarBatch:
    """Return stars as bright as most, with the survey's share of gaps."""
    rng = np.random.default_rng(1)
    flux = rng.normal(1000, 50, (n_stars, N_PIXELS)).astype(np.float32)
    err = rng.uniform(5, 20, flux.shape).astype(np.float32)
    for gap in (slice(0, 250), slice(3310, 3546), slice(6117, 6302), slice(8370, None)):
        flux[:, gap] = err[:, gap] = 0
    return StarBatch(flux, err, tuple(derive_noise_key(1, f"star{i}") for i in range(n_stars)))


def measure(arguments: argparse.Namespace, precision: Precision, barrier: Barrier) -> Measured:
    """Return seconds a star, its parts and the peak rates of one process; all processes measure together."""
    torch.set_num_threads(1)
    model = SpectrumNet()
    initialise_kaiming(model, torch.Generator().manual_seed(1))
    engine = KernelEngine(
        model,
        InputTransform("contrast"),
        OFFICIAL_SCALER,
        precision=precision,
        variant=arguments.variant,
        threads=arguments.threads,
    )
    stars = make_stars(arguments.stars)
    engine.predict(stars, arguments.realizations)  # touches all memory
    best, parts = float("inf"), {}
    peaks = dict.fromkeys(("fma", "bf16"), 0.0)
    for _ in range(arguments.rounds):
        engine.take_parts()
        barrier.wait()
        began = time.perf_counter()
        engine.predict(stars, arguments.realizations)
        seconds = (time.perf_counter() - began) / arguments.stars
        if seconds < best:
            best, parts = seconds, engine.take_parts()
        barrier.wait()
        for unit, rate in load_variant(engine.variant).measure_peaks(PEAK_SECONDS).items():
            peaks[unit] = max(peaks[unit], rate)
    return best, {name: value / arguments.stars for name, value in parts.items()}, peaks


def work(
    arguments: argparse.Namespace, precision: Precision, barrier: Barrier, results: "mp.Queue[Measured]"
) -> None:
    """Measure in a process of its own."""
    results.put(measure(arguments, precision, barrier))


def report(arguments: argparse.Namespace, precision: Precision, measured: list[Measured]) -> None:
    """Print what all processes found."""
    rate = sum(1 / seconds for seconds, _, _ in measured)
    useful = rate * (1 + arguments.realizations) * FLOP_PER_FORWARD
    unit = "fma" if precision == "exact" else "bf16"
    peak = sum(peaks[unit] for _, _, peaks in measured) * arguments.threads
    n_processes = len(measured)
    parts = {name: 1e3 * sum(p[name] for _, p, _ in measured) / n_processes for name in measured[0][1]}
    total = 1e3 * arguments.threads * sum(seconds for seconds, _, _ in measured) / n_processes
    parts["other"] = total - sum(parts.values())
    say(
        f"{precision:5} {rate:6.1f} stars/s  {useful / 1e9:5.0f} GFLOP/s = {100 * useful / peak:.0f} % of "
        f"the {unit} peak of {peak / 1e9:.0f}; ms a star and core: "
        + ", ".join(f"{name} {ms:.2f}" for name, ms in parts.items())
    )


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", choices=("exact", "fast", "both"), default="both")
    parser.add_argument("--variant", help="one of those that this CPU can run; default the fastest")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--stars", type=int, default=KernelEngine.stars_per_call, help="of each call")
    parser.add_argument("--realizations", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    say(f"variants: {', '.join(kernel_variants()) or why_not('exact')}")
    context = mp.get_context("spawn")
    precisions: list[Precision] = ["exact", "fast"]
    for precision in precisions:
        if arguments.precision not in (precision, "both"):
            continue
        if reason := why_not(precision):
            say(f"{precision}: {reason}")
            continue
        barrier, results = context.Barrier(arguments.processes), context.Queue()
        workers = [
            context.Process(target=work, args=(arguments, precision, barrier, results))
            for _ in range(arguments.processes)
        ]
        for worker in workers:
            worker.start()
        report(arguments, precision, [results.get(timeout=300) for _ in workers])
        for worker in workers:
            worker.join()


if __name__ == "__main__":
    main()
