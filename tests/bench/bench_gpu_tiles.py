"""The fused tiles of a GPU: against torch.compile on one that is here, counted for one that is not. By hand.

    PYTHONPATH=. python tests/bench/bench_gpu_tiles.py [--stars 512] [--rounds 5] [--try-plans]
    PYTHONPATH=. python tests/bench/bench_gpu_tiles.py --compile-only [--capability 90]

The first wants a GPU, and a torch with Triton: engines in turn, each block alone with its GB/s and TFLOP/s,
and with --try-plans each block with other tiles than it has. The second wants Triton and no GPU: what the
compiler makes of each block, and how long an H200 must take at least, *counted* from machine instructions,
products and bytes. Spectra are made up and the weights random: neither changes the time.
"""

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from apogee_batch.errors import UsageError
from apogee_batch.inference.cuda_engine import BATCH_STARS, CudaEngine
from apogee_batch.inference.engines import StarBatch
from apogee_batch.inference.noise import derive_noise_key
from apogee_batch.inference.tiles_engine import TilesEngine
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.inference.triton_tiles import TilePlan, plan_blocks
from apogee_batch.network.model import HIDDEN_WIDTH, N_FEATURES, SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform
from apogee_batch.survey.pixels import N_PIXELS
from tests.tile_compilation import Compiled, compile_block
from tests.tile_examples import make_block

N_REALIZATIONS = 100
N_STARS = 263_000
# Of an H200: of its maker, but for bytes and products, which were measured elsewhere.
N_MULTIPROCESSORS, N_SCHEDULERS, CLOCK_HZ = 132, 4, 1.7e9
BYTES_PER_S, FLOP_PER_S = 4.3e12, 790e12
TRANSFORM = InputTransform("contrast")


def say(text: str = "") -> None:
    """Print a line."""
    print(text, flush=True)  # noqa: T201


def lengths() -> list[int]:
    """Return how long spectra are before each block."""
    return [N_PIXELS >> i for i in range(len(plan_blocks(1)))]


def count_flop(plan: TilePlan, length: int, *, as_issued: bool) -> float:
    """Return the operations of a realization: those wanted, or with the products with zeros."""
    if not as_issued:
        return 2 * 3 * length * (plan.n_in * plan.n_mid + plan.n_mid * plan.n_out)
    first = plan.k * plan.n_mid * plan.step
    second = plan.n_mid * plan.n_out * (plan.step * 2 * plan.step if plan.is_narrow else 6)
    n_steps = plan.n_segments(length) * plan.steps
    return 2 * (n_steps * (first + second) + plan.n_segments(length) * first)


def count_bytes(plan: TilePlan, length: int) -> float:
    """Return the bytes of a star that a block reads from and writes to the GPU's memory, each once."""
    halves = N_REALIZATIONS * (plan.n_in * length + plan.n_out * (length // 2))
    return 2 * halves + 4 * length * (plan.n_mid + plan.n_out)


def count_issue_seconds(compiled: Compiled, length: int) -> float:
    """Return how long a star's instructions take if every scheduler begins one in every cycle."""
    plan = compiled.plan
    steps = plan.n_programs(1, N_REALIZATIONS, length) * (plan.steps + 1)  # the first is the halo
    warps = steps * plan.n_warps * compiled.instructions
    return warps / (N_MULTIPROCESSORS * N_SCHEDULERS * CLOCK_HZ)


def report_compilation(capability: int) -> None:
    """Say what the compiler makes of each block, and what follows from it."""
    from apogee_batch.inference import triton_kernels

    totals = np.zeros(4)
    say("block  rows step  registers spilled  shared programs  products in instructions at least, s, counted")
    say(
        "                 of a thread   B      kB  at once     the PTX     of a step    issue products memory"
    )
    for i, (plan, length) in enumerate(zip(plan_blocks(N_REALIZATIONS), lengths(), strict=True), start=1):
        compiled = compile_block(triton_kernels, plan, capability)
        padding = plan.n_programs(1, N_REALIZATIONS, length) / plan.n_segments(length) * plan.rows
        seconds = N_STARS * np.array(
            [
                count_issue_seconds(compiled, length),
                padding * count_flop(plan, length, as_issued=True) / FLOP_PER_S,
                count_bytes(plan, length) / BYTES_PER_S,
            ]
        )
        totals += (*seconds, seconds.max())
        kind = max(compiled.products, key=lambda name: compiled.products[name])
        say(
            f"{i:5} {plan.rows:5} {plan.step:4} {compiled.registers:10} {compiled.spilled_bytes:7}"
            f" {compiled.shared_bytes / 1e3:8.1f} {compiled.programs_at_once:7}"
            f" {compiled.products[kind]:8} {kind:5} {compiled.instructions:10}"
            f" {seconds[0]:11.2f} {seconds[1]:8.2f} {seconds[2]:6.2f}"
        )
    connected = 2 * (N_FEATURES + HIDDEN_WIDTH) * HIDDEN_WIDTH * N_REALIZATIONS * N_STARS / FLOP_PER_S
    say(f"  all {'':68} {totals[0]:6.2f} {totals[1]:8.2f} {totals[2]:6.2f}")
    say(f"\nEvery block at the slowest of its three: {totals[3]:.1f} s for {N_STARS} stars; where two thirds")
    say(f"or a half of that speed are reached, {1.5 * totals[3]:.1f} or {2 * totals[3]:.1f} s.")
    say(f"The connected layers take {connected:.1f} s at least.")


def make_stars(n_stars: int) -> StarBatch:
    """Return spectra with lines, and their errors."""
    rng = np.random.default_rng(1)
    flux = (1 - 0.5 * rng.random((n_stars, N_PIXELS)) ** 8) * 10 ** rng.uniform(2, 4, (n_stars, 1))
    err = np.repeat(np.median(flux, axis=1, keepdims=True) / 200, N_PIXELS, axis=1)
    keys = tuple(derive_noise_key(1, str(i)) for i in range(n_stars))
    return StarBatch(flux.astype(np.float32), err.astype(np.float32), keys)


def compare_engines(n_stars: int, n_rounds: int) -> None:
    """Measure both ways of the fast engine in turn, and compare both with plain torch on the CPU."""
    model = SpectrumNet()
    initialise_kaiming(model, torch.Generator().manual_seed(1))
    model.eval().requires_grad_(False)
    stars = make_stars(n_stars)
    some = stars.part(0, 4)
    wanted = TorchEngine(model, TRANSFORM, OFFICIAL_SCALER).predict(some, N_REALIZATIONS)
    sigma = wanted[:, 1:].std(axis=1, ddof=1)
    engines = {
        "torch.compile": CudaEngine(model, TRANSFORM, OFFICIAL_SCALER, precision="fast"),
        "tiles": TilesEngine(model, TRANSFORM, OFFICIAL_SCALER),
        "tiles, noise not fused": TilesEngine(model, TRANSFORM, OFFICIAL_SCALER, compiled=False),
    }
    for name, engine in engines.items():
        started = time.perf_counter()
        engine.predict(some, N_REALIZATIONS)
        first = time.perf_counter() - started
        found = engine.predict(some, N_REALIZATIONS)
        other = StarBatch(some.flux[::-1].copy(), some.err[::-1].copy(), some.keys[::-1])
        places = np.array_equal(engine.predict(other, N_REALIZATIONS)[::-1], found)
        ratio = found[:, 1:].std(axis=1, ddof=1) / sigma
        draws = np.abs((found - wanted) / sigma[:, None]).max()
        say(f"{name:24} first call {first:6.1f} s; sigma / exact {ratio.min():.5f} to {ratio.max():.5f};")
        say(f"{'':24} realizations within {draws:.5f} sigma; same bits in other places: {places}")
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for i in range(1 + n_rounds):
        for name, engine in engines.items():
            started = time.perf_counter()
            for start in range(0, n_stars, engine.stars_per_call):
                engine.predict(stars.part(start, start + engine.stars_per_call), N_REALIZATIONS)
            if i > 0:
                taken[name].append(time.perf_counter() - started)
    for name, seconds in taken.items():
        rate = n_stars / statistics.median(seconds)
        rates = f"[{n_stars / max(seconds):.0f}, {n_stars / min(seconds):.0f}]"
        say(f"{name:24} {rate:9.0f} stars/s {rates}, {N_STARS / rate:6.1f} s for {N_STARS} stars")


def time_on_gpu(work: Callable[[], object], n_rounds: int) -> float:
    """Return the median seconds of some work on the GPU."""
    times = []
    for _ in range(2 + n_rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times[2:])


def other_plans(plan: TilePlan) -> Iterator[TilePlan]:
    """Return plans that differ in what does not change the weights; two warps are no warp group."""
    for rows, n_warps, n_stages, steps in itertools.product((64, 128), (2, 4, 8), (2, 3), (16, 32)):
        yield plan._replace(rows=rows, n_warps=n_warps, n_stages=n_stages, steps=steps)


def time_blocks(n_rounds: int, *, try_plans: bool) -> None:
    """Measure each block alone, with the plan it has or with others."""
    for i, (own, length) in enumerate(zip(plan_blocks(N_REALIZATIONS), lengths(), strict=True), start=1):
        example = make_block(own, length, N_REALIZATIONS, (1.0,) * BATCH_STARS, device="cuda")
        for plan in (own, *(other_plans(own) if try_plans else ())):
            example.plan = plan
            try:
                seconds = time_on_gpu(example.prepare(), n_rounds)
            except UsageError as error:
                say(f"block {i}: {error}")
                continue
            n_rows = BATCH_STARS * N_REALIZATIONS
            flop = n_rows * count_flop(plan, length, as_issued=False)
            gb_per_s = BATCH_STARS * count_bytes(plan, length) / seconds / 1e9
            say(
                f"block {i}, {plan.rows:3} rows, {plan.n_warps} warps, {plan.n_stages} stages,"
                f" {plan.steps:2} steps:"
                f" {seconds * 1e6:8.1f} us, {gb_per_s:6.0f} GB/s, {flop / seconds / 1e12:6.1f} TFLOP/s;"
                f" {seconds / BATCH_STARS * N_STARS:5.2f} s for {N_STARS} stars"
            )


def main() -> None:
    """Measure or count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stars", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--try-plans", action="store_true")
    parser.add_argument("--compile-only", action="store_true")
    parser.add_argument("--capability", type=int, default=90)
    asked = parser.parse_args()
    if asked.compile_only:
        os.environ.pop("TRITON_INTERPRET", None)
        report_compilation(asked.capability)
        return
    if not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device here; --compile-only needs none")
    say(f"torch {torch.__version__} on {torch.cuda.get_device_name()}; {asked.stars} stars")
    compare_engines(asked.stars, asked.rounds)
    time_blocks(asked.rounds, try_plans=asked.try_plans)


if __name__ == "__main__":
    main()
