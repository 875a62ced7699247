"""The published way, in our own writing: star after star is read, predicted, and appended to a file.

    python tests/bench/published_loop.py SPECTRA MODEL CATALOGUE.csv [--processes 2] [--threads 1] [--tuned]

SPECTRA is a folder of apStar files, MODEL a folder that `train` wrote. For each star (paper, section 3.5)
the network predicts the labels of the spectrum, then those of 100 realizations flux + err * randn as one
batch; their mean and standard deviation go into a line. Nothing is shared between stars, compiled, or laid
out for the processor. `--tuned` runs the same code with glibc told by the environment to keep freed memory,
which halves the time: by default every activation is mapped, cleared by page faults, and unmapped again.

One thing is not as the paper has it, so that results can be compared: errors are limited to five times their
median, and pixels without a measurement get no noise.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits
from torch import Tensor, nn
from torch.nn import functional

from apogee_batch.network.checkpoint import load_checkpoint
from apogee_batch.network.model import CHANNELS, HIDDEN_WIDTH, N_FEATURES
from apogee_batch.network.scaling import InputTransform, LabelScaler
from apogee_batch.schema import N_LABELS
from apogee_batch.survey.sources import find_apstar_files

N_REALIZATIONS = 100
LARGEST_ERR = 1e9  # of a measured pixel
TUNED = {
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "1000000000",
}


class PublishedNet(nn.Module):
    """The network as its paper draws it: one-dimensional layers, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        for i, (n_in, n_out) in enumerate(pairwise(CHANNELS), start=1):
            setattr(self, f"conv{i}", nn.Conv1d(n_in, n_out, 3, padding=1))
        self.fc1 = nn.Linear(N_FEATURES, HIDDEN_WIDTH)
        self.fc2 = nn.Linear(HIDDEN_WIDTH, HIDDEN_WIDTH)
        self.fc3 = nn.Linear(HIDDEN_WIDTH, N_LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Predict standardised labels of spectra, shape (n_spectra, 1, n_pixels)."""
        for i in range(1, len(CHANNELS), 2):
            x = functional.relu(getattr(self, f"conv{i}")(x))
            x = functional.relu(getattr(self, f"conv{i + 1}")(x))
            x = functional.max_pool1d(x, 2)
        x = functional.relu(self.fc1(x.flatten(1)))
        x = functional.relu(self.fc2(x))
        return self.fc3(x)


class PublishedLoop:
    """Estimate one star at a time."""

    def __init__(
        self, state: dict[str, Tensor], transform: InputTransform, scaler: LabelScaler, *, seed: int = 0
    ) -> None:
        self._net = PublishedNet()
        self._net.load_state_dict(state)
        self._net.eval()
        self._transform, self._scaler = transform, scaler
        torch.manual_seed(seed)

    @torch.no_grad()
    def estimate(self, flux: np.ndarray, err: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the clean labels of a star, and mean and scatter of those of its realizations."""
        spectrum = torch.from_numpy(flux)[None]
        scale = self._transform.scale(spectrum)
        clean = self._predict(spectrum, scale)[0]
        spread = torch.from_numpy(err)
        measured = spread < LARGEST_ERR
        spread = torch.where(measured, spread.clamp(max=5 * spread[measured].median()), 0.0)
        noisy = spectrum + spread * torch.randn(N_REALIZATIONS, spectrum.shape[1])
        labels = self._predict(noisy, scale)
        return clean.numpy(), labels.mean(0).numpy(), labels.std(0).numpy()

    def _predict(self, flux: Tensor, scale: Tensor) -> Tensor:
        return self._scaler.to_physical(self._net(self._transform.apply(flux, scale)[:, None]))


def read_spectrum(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read flux and err of a combined spectrum by astropy."""
    with fits.open(path) as hdus:
        flux, err = (np.atleast_2d(hdus[number].data)[0].astype(np.float32) for number in (1, 2))
    return flux, err


def run_loop(paths: list[Path], model: Path, catalogue: Path) -> float:
    """Do the stars, and return how many seconds the loop took without starting up."""
    checkpoint = load_checkpoint(model)
    loop = PublishedLoop(checkpoint.model.state_dict(), checkpoint.transform, checkpoint.scaler)
    started = time.perf_counter()
    for path in paths:
        clean, mean, std = loop.estimate(*read_spectrum(path))
        with catalogue.open("a", newline="") as file:
            csv.writer(file).writerow([path.stem, *clean, *mean, *std])
    return time.perf_counter() - started


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("spectra")
    parser.add_argument("model", type=Path)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--stars", type=int, help="the first ones only")
    parser.add_argument("--tuned", action="store_true", help="let malloc keep freed memory")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Start the processes, or be one of them."""
    asked = parse()
    paths = find_apstar_files([asked.spectra])[: asked.stars]
    if asked.part is not None:
        torch.set_num_threads(asked.threads)
        seconds = run_loop(paths[asked.part :: asked.processes], asked.model, asked.catalogue)
        print(f"process {asked.part}: {seconds:.2f} s in the loop")  # noqa: T201
        return
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment |= {"OMP_NUM_THREADS": str(asked.threads)} | (TUNED if asked.tuned else {})
    started = time.perf_counter()
    parts = [
        subprocess.Popen([sys.executable, *sys.argv, "--part", str(part)], env=environment)
        for part in range(asked.processes)
    ]
    codes = [part.wait() for part in parts]
    if any(codes):
        sys.exit("a process failed")
    seconds = time.perf_counter() - started
    print(f"{len(paths)} stars, {seconds:.2f} s with starting up, {len(paths) / seconds:.2f} stars/s")  # noqa: T201


if __name__ == "__main__":
    main()
