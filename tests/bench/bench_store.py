"""Measure the store of spectra: how fast it is written and read, how large it is; run by hand.

    python tests/bench/bench_store.py FOLDER [--stars 4096] [--rounds 5] [--processes 2] [--scratch /tmp]

FOLDER holds apStar files. Spectra are made of theirs: other fluxes, and noise of their own errors, so that no
two stars are alike and the mantissas are as random as those of a survey. The layouts take turns. A round
writes all stars (one process), reads their flux and err (as many processes, warm, and after the files were
dropped from the page cache), and reads single stars in random order (the median).
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from apogee_batch.store.chunks import FIRST_LAYOUT, ChunkLayout, choose_chunks
from apogee_batch.store.layout import choose_shard_stars, make_empty, open_store
from apogee_batch.store.spectra import read_spectra, shard_files, write_shard
from apogee_batch.survey.apstar import RejectedSpectrum, read_apstar
from apogee_batch.survey.pixels import GAP_ERR, GAP_FLUX, N_PIXELS
from apogee_batch.survey.sources import find_apstar_files

DR14_STARS = 263_000
N_SINGLE = 20


@dataclass
class Figures:
    """What was measured of a layout, one value a round."""

    write: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    one_ms: list[float] = field(default_factory=list)
    bytes_per_star: float = 0.0


def make_spectra(folder: str, n_stars: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return flux, err and mask of stars that are like the real ones."""
    read = [read_apstar(path) for path in find_apstar_files([folder])]
    known = [found[0] for found in read if not isinstance(found, RejectedSpectrum)]
    rng = np.random.default_rng(1)
    flux, err = (np.empty((n_stars, N_PIXELS), np.float32) for _ in range(2))
    mask = np.empty((n_stars, N_PIXELS), np.int32)
    for i in range(n_stars):
        star, shift = known[i % len(known)], int(rng.integers(-30, 30))
        is_gap = np.roll(star.err == np.float32(GAP_ERR), shift)
        noise = rng.standard_normal((2, N_PIXELS), np.float32)
        err[i] = np.roll(star.err, shift) * (1 + 0.02 * noise[0])
        flux[i] = np.roll(star.flux, shift) * rng.uniform(0.3, 3) + np.minimum(err[i], 100) * noise[1]
        flux[i][is_gap], err[i][is_gap] = GAP_FLUX, GAP_ERR
        mask[i] = np.roll(star.mask, shift)
    return flux, err, mask


def read_part(store: str, first: int, last: int) -> int:
    """Read flux and err of some rows; return how many."""
    return len(read_spectra(open_store(Path(store)), np.arange(first, last, dtype=np.int32)).flux)


def drop_pages(files: Sequence[Path]) -> None:
    """Drop files from the page cache; what lies below may still hold them."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read_rate(store: Path, n_stars: int, pool: ProcessPoolExecutor, n_processes: int) -> float:
    """Return the stars read in a second."""
    edges = np.linspace(0, n_stars, n_processes + 1).astype(int)
    started = time.perf_counter()
    parts = [pool.submit(read_part, str(store), edges[i], edges[i + 1]) for i in range(n_processes)]
    assert sum(part.result() for part in parts) == n_stars
    return n_stars / (time.perf_counter() - started)


def measure(
    store: Path,
    layout: ChunkLayout,
    spectra: tuple[np.ndarray, np.ndarray, np.ndarray],
    shard_stars: int,
    pool: ProcessPoolExecutor,
    n_processes: int,
    figures: Figures,
) -> None:
    """Write and read a store of some layout once."""
    shutil.rmtree(store, ignore_errors=True)
    n_stars = len(spectra[0])
    make_empty(store, n_rows=n_stars, shard_stars=shard_stars, chunks=layout)
    info = open_store(store)
    started = time.perf_counter()
    for shard in range(info.n_shards):
        first, last = info.shard_rows(shard)
        flux, err, mask = (values[first:last] for values in spectra)
        write_shard(
            info, shard, offset=np.arange(last - first, dtype=np.int32), flux=flux, err=err, mask=mask
        )
    figures.write.append(n_stars / (time.perf_counter() - started))
    files = [file for shard in range(info.n_shards) for file in shard_files(store, shard)]
    figures.bytes_per_star = sum(file.stat().st_size for file in files) / n_stars
    figures.warm.append(read_rate(store, n_stars, pool, n_processes))
    drop_pages(files)
    figures.cold.append(read_rate(store, n_stars, pool, n_processes))
    for row in np.random.default_rng(2).integers(0, n_stars, N_SINGLE):
        started = time.perf_counter()
        read_spectra(info, np.array([row]))
        figures.one_ms.append(1e3 * (time.perf_counter() - started))


def is_lossless(store: Path, spectra: tuple[np.ndarray, np.ndarray, np.ndarray]) -> bool:
    """Tell whether what is read is, bit for bit, what was written."""
    read = read_spectra(open_store(store), np.arange(len(spectra[0]), dtype=np.int32))
    return read.flux.tobytes() == spectra[0].tobytes() and read.err.tobytes() == spectra[1].tobytes()


def count_files(folder: Path) -> int:
    """Return the files of the arrays of a store of DR14: three a shard, and the metadata."""
    store, shard_stars = folder / "dr14.zarr", choose_shard_stars(DR14_STARS)
    make_empty(store, n_rows=DR14_STARS, shard_stars=shard_stars)
    n_metadata = sum(path.is_file() for path in store.rglob("*"))
    return n_metadata + 3 * -(-DR14_STARS // shard_stars)


def main() -> None:
    """Measure the layouts in turn and print their medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--stars", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    shard_stars = max(64, given.stars // given.processes)
    others = [ChunkLayout(16, "lz4", 5), ChunkLayout(64, "zstd", 3), FIRST_LAYOUT]
    layouts = [choose_chunks(shard_stars), *others]
    spectra = make_spectra(given.folder, given.stars)
    figures = {layout: Figures() for layout in layouts}
    folder = Path(tempfile.mkdtemp(dir=given.scratch))
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(given.processes, mp_context=context) as pool:
            list(pool.map(time.sleep, [0.5] * given.processes))  # all have imported what they need
            for layout in layouts * given.rounds:
                arguments = (spectra, shard_stars, pool, given.processes, figures[layout])
                measure(folder / "s.zarr", layout, *arguments)
                assert is_lossless(folder / "s.zarr", spectra)
        print(f"{given.stars} stars, {given.rounds} rounds, all read as they were written")  # noqa: T201
        for layout, found in figures.items():
            write, warm, cold, one_ms = map(
                statistics.median, (found.write, found.warm[1:] or found.warm, found.cold, found.one_ms)
            )
            size = found.bytes_per_star
            print(  # noqa: T201
                f"{layout.compressor} {layout.level}, chunks of {layout.n_stars}: {size / 1e3:.1f} kB a star "
                f"({size * DR14_STARS / 1e9:.1f} GB of DR14); written {write:.0f}/s; read {warm:.0f}/s warm, "
                f"{cold:.0f}/s cold, by {given.processes} processes; one star {one_ms:.1f} ms"
            )
        print(f"files of the arrays of DR14: {count_files(folder)}")  # noqa: T201
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
