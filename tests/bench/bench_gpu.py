"""What one GPU does: noise, inference in both precisions, the published loop, training. Run by hand.

    PYTHONPATH=. python tests/bench/bench_gpu.py [--stars 512] [--rounds 5] [--only noise engines ...]
        [--catalog-stars 263000] [--precision fast]

Wants torch, numpy and pyarrow, and nothing of this package but the checkout; training wants pydantic as well
and is left out without it. "catalog" makes a store (13 GB) and from it a whole catalogue, twice, in under ten
minutes; it wants all that the package wants, and says what is missing. Spectra are made up and the weights
random: neither changes the time. Ways are measured in turn and the medians shown, with the fastest and the
slowest round. `--device cpu --stars 2 --catalog-stars 32` tries the script itself.
"""

import argparse
import contextlib
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from bench_gpu_catalog import missing_packages, time_catalog
from bench_gpu_loop import convolve_as_published, estimate_as_published
from gpu_pipeline import estimate_ahead

from apogee_batch.inference.cuda_engine import CudaEngine
from apogee_batch.inference.device_copies import pin
from apogee_batch.inference.device_noise import draw_normals_where_keys_are, key_tensor
from apogee_batch.inference.engines import StarBatch
from apogee_batch.inference.noise import derive_noise_key
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.network.model import SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform
from apogee_batch.survey.pixels import N_PIXELS

N_REALIZATIONS = 100
GFLOP_PER_STAR = 5.625  # 101 forward passes
DR14_STARS = 263_000
SNR = 200.0
GAPS = ((0, 206), (3310, 3546), (6117, 6303), (8370, N_PIXELS))
SECTIONS = ("ceilings", "noise", "engines", "kernels", "loop", "layouts", "training", "catalog")
TRANSFORM = InputTransform("contrast")
Ways = dict[str, Callable[[], object]]


def say(text: str = "") -> None:
    """Print a line."""
    print(text, flush=True)  # noqa: T201


def make_stars(n_stars: int) -> StarBatch:
    """Return spectra with lines and gaps, and their errors."""
    rng = np.random.default_rng(1)
    flux = (1 - 0.5 * rng.random((n_stars, N_PIXELS)) ** 8) * 10 ** rng.uniform(2, 4, (n_stars, 1))
    err = np.repeat(np.median(flux, axis=1, keepdims=True) / SNR, N_PIXELS, axis=1)
    for start, stop in GAPS:
        flux[:, start:stop] = err[:, start:stop] = 0
    keys = tuple(derive_noise_key(1, str(i)) for i in range(n_stars))
    return StarBatch(flux.astype(np.float32), err.astype(np.float32), keys)


def make_model(device: str) -> SpectrumNet:
    """Return a network with random weights."""
    model = SpectrumNet()
    initialise_kaiming(model, torch.Generator().manual_seed(1))
    return model.to(device).eval().requires_grad_(False)


class Bench:
    """The device, and how often it is asked."""

    def __init__(self, device: str, n_stars: int, n_rounds: int, catalog_stars: int, precision: str) -> None:
        self.device, self.n_rounds = device, n_rounds
        self.catalog_stars, self.precision = catalog_stars, precision
        self.on_gpu = device.startswith("cuda")
        self.stars = make_stars(n_stars)
        if self.on_gpu:  # as the stars of a run
            self.stars = StarBatch(pin(self.stars.flux), pin(self.stars.err), self.stars.keys)

    def wait(self) -> None:
        """Let the device finish."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        """Return how long some work takes."""
        self.wait()
        started = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - started

    def compare(self, ways: Ways) -> dict[str, list[float]]:
        """Return the seconds of each way in each round, after a first one that is not counted."""
        times: dict[str, list[float]] = {name: [] for name in ways}
        for i in range(1 + self.n_rounds):
            for name, way in ways.items():
                taken = self.seconds(way)
                if i > 0:
                    times[name].append(taken)
        return times

    def ceilings(self) -> None:
        """Measure what the device can do at most."""
        n = 8192 if self.on_gpu else 512
        source = torch.randn(n * n, device=self.device)
        target = torch.empty_like(source)
        a, b = (torch.randn((n, n), device=self.device) for _ in range(2))
        half_a, half_b = a.half(), b.half()
        times = self.compare(
            {
                "copy": lambda: target.copy_(source),
                "float32 product": lambda: torch.mm(a, b),
                "float16 product": lambda: torch.mm(half_a, half_b) if self.on_gpu else None,
            }
        )
        say(f"copy {8 * n * n / min(times['copy']) / 1e9:.0f} GB/s (read + written)")
        for name in ("float32 product", "float16 product"):
            say(f"{name} {2 * n**3 / min(times[name]) / 1e12:.1f} TFLOP/s")

    def noise(self) -> None:
        """Measure the noise alone."""
        keys = key_tensor(self.stars.keys[:32], self.device)
        ways: Ways = {
            "step by step": lambda: draw_normals_where_keys_are(keys, N_REALIZATIONS, N_PIXELS),
            "torch.randn": lambda: torch.randn((len(keys), N_REALIZATIONS, N_PIXELS), device=self.device),
        }
        if self.on_gpu:
            fused = torch.compile(draw_normals_where_keys_are, fullgraph=True, dynamic=False)
            ways["fused"] = lambda: fused(keys, N_REALIZATIONS, N_PIXELS)
        n = len(keys) * N_REALIZATIONS * N_PIXELS
        for name, times in self.compare(ways).items():
            say(f"{name:14} {n / statistics.median(times) / 1e9:8.2f} thousand million normals/s")

    def engines(self) -> None:
        """Measure both precisions, and compare their results with plain torch on the CPU."""
        model = make_model("cpu")
        some = self.stars.part(0, min(4, len(self.stars)))
        wanted = TorchEngine(model, TRANSFORM, OFFICIAL_SCALER).predict(some, N_REALIZATIONS)
        sigma = wanted[:, 1:].std(axis=1, ddof=1)
        made: dict[str, CudaEngine] = {}
        for precision in ("exact", "fast"):
            for compiled in (False, True) if self.on_gpu else (False,):
                for batch_stars in (16, 32) if self.on_gpu else (2,):
                    name = f"{precision}{' fused' if compiled else ''}, {batch_stars} stars"
                    engine = CudaEngine(
                        model,
                        TRANSFORM,
                        OFFICIAL_SCALER,
                        precision=precision,
                        device=self.device,
                        batch_stars=batch_stars,
                        compiled=compiled,
                    )
                    found, text = self._try_engine(engine, some)
                    ratio = found[:, 1:].std(axis=1, ddof=1) / sigma
                    draws = np.abs((found - wanted) / sigma[:, None]).max()
                    say(f"{name:22} {text}; sigma / exact sigma {ratio.min():.5f} to {ratio.max():.5f}")
                    say(f"{'':22} realizations within {draws:.5f} sigma")
                    made[name] = engine
        say()
        times = self.compare({name: self._predict_all(engine) for name, engine in made.items()})
        for name, taken in times.items():
            rate = len(self.stars) / statistics.median(taken)
            busy = self._busy(self._predict_all(made[name]))
            say(
                f"{name:22} {rate:9.1f} stars/s [{len(self.stars) / max(taken):.1f}, "
                f"{len(self.stars) / min(taken):.1f}], {rate * GFLOP_PER_STAR / 1e3:6.2f} TFLOP/s, "
                f"DR14 {DR14_STARS / rate:7.1f} s, GPU busy {busy}"
            )

    def kernels(self) -> None:
        """Show where the time of both precisions goes."""
        activity = torch.profiler.ProfilerActivity
        for precision in ("exact", "fast"):
            model = make_model("cpu")
            engine = CudaEngine(model, TRANSFORM, OFFICIAL_SCALER, precision=precision, device=self.device)
            some = self.stars.part(0, min(64, len(self.stars)))
            engine.predict(some, N_REALIZATIONS)
            with torch.profiler.profile(
                activities=[activity.CPU, *([activity.CUDA] if self.on_gpu else [])]
            ) as profile:
                engine.predict(some, N_REALIZATIONS)
            order = "self_device_time_total" if self.on_gpu else "self_cpu_time_total"
            say(f"{precision}\n{profile.key_averages().table(order, 16, 60)}")

    def _try_engine(self, engine: CudaEngine, some: StarBatch) -> tuple[np.ndarray, str]:
        """Return the labels of some stars, and what the first call cost."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        first = self.seconds(lambda: engine.predict(some, N_REALIZATIONS))
        found = engine.predict(some, N_REALIZATIONS)
        last = StarBatch(some.flux[::-1].copy(), some.err[::-1].copy(), some.keys[::-1])
        is_equal = np.array_equal(engine.predict(last, N_REALIZATIONS)[::-1], found)
        memory = torch.cuda.max_memory_allocated() / 2**30 if self.on_gpu else float("nan")
        places = "same bits" if is_equal else "other bits"
        return found, f"first call {first:5.1f} s, {memory:.1f} GiB, {places} in other places"

    def _predict_all(self, engine: CudaEngine) -> Callable[[], object]:
        return partial(estimate_ahead, engine, self.stars, N_REALIZATIONS)

    def _busy(self, work: Callable[[], object]) -> str:
        """Return the share of time in which nvidia-smi saw a kernel running."""
        if not self.on_gpu:
            return "not measured"
        with sampled() as process:
            end = time.perf_counter() + 3
            while time.perf_counter() < end:
                work()
            self.wait()
        seen = [int(line) for line in process.communicate()[0].split() if line.isdigit()]
        return f"{statistics.mean(seen[3:]):.0f} %" if len(seen) > 3 else "not measured"

    def loop(self) -> float:
        """Measure the published way; returns its stars a second."""
        n = min(len(self.stars), 128)
        work = estimate_as_published(make_model(self.device), TRANSFORM, self.stars.part(0, n), self.device)
        rate = n / statistics.median(self.compare({"published loop": work})["published loop"])
        text = f"{rate:9.1f} stars/s, DR14 {DR14_STARS / rate:7.1f} s, reading not included"
        say(f"{'published loop':22} {text}")
        return rate

    def catalog(self) -> None:
        """Measure a whole catalogue, from the command to what it publishes."""
        if missing := missing_packages():
            say(f"left out, not installed: {missing}")
            return
        device = "cuda" if self.on_gpu else "cpu"
        for line in time_catalog(device, self.catalog_stars, self.precision, loop_rate=self.loop()):
            say(line)

    def layouts(self) -> None:
        """Measure the exact forward pass in the layouts that torch has."""
        model = make_model(self.device)
        rows = torch.randn((32 * 101 if self.on_gpu else 4, N_PIXELS), device=self.device)
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            times = self.compare(
                {
                    "channels last": lambda: model(rows),
                    "channels first": lambda: convolve_as_published(model, rows),
                }
            )
        for name, taken in times.items():
            say(f"{name:22} {len(rows) / 101 / statistics.median(taken):9.1f} stars/s, float32, no noise")

    def training(self) -> None:
        """Measure steps with spectra on the device and on the host."""
        if importlib.util.find_spec("pydantic") is None:
            say("left out: pydantic is not installed")
            return
        from bench_gpu_training import time_training

        for line in time_training(self.device, self.seconds):
            say(line)


@contextlib.contextmanager
def sampled() -> Iterator["subprocess.Popen[str]"]:
    """Let nvidia-smi note ten times a second whether the GPU is busy."""
    query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    process = subprocess.Popen(["nvidia-smi", *query], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stars", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--catalog-stars", type=int, default=DR14_STARS)
    parser.add_argument("--precision", choices=("exact", "fast"), default="fast")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    asked = parser.parse_args()
    if asked.device != "cpu" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device here")
    bench = Bench(asked.device, asked.stars, asked.rounds, asked.catalog_stars, asked.precision)
    name = torch.cuda.get_device_name() if bench.on_gpu else "the CPU: these figures say nothing"
    say(f"torch {torch.__version__} on {name}; {asked.stars} stars, {N_REALIZATIONS} realizations")
    for section in asked.only:
        say(f"\n--- {section}")
        getattr(bench, section)()


if __name__ == "__main__":
    main()
