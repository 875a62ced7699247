"""Compare `read_apstar` with the same done by astropy, on any folder of apStar files; run by hand.

    python tests/bench/bench_read_apstar.py FOLDER [--copies 400] [--rounds 9] [--scratch /tmp]

Copies are made of the files, each with a name, coordinates, magnitudes and an SNR of its own, as the files
of a survey have them: what is remembered of one header must not help with the next. All take turns over all
copies in one process:

* astropy reads flux, err and mask of the combined spectrum into native arrays, and the cards that are needed;
* rows: the same, read by byte range, with the checks of the file and without those of the spectrum;
* read_apstar: also unifies the gaps, measures the SNR, checks the mask and names the star;
* read_apstar_file, as ingest calls it: also hashes what it reads (BLAKE3).

Their arrays are compared first.

Warm: files in the page cache. Cold: dropped from it by posix_fadvise before each pass; what lies
below, as the host of a virtual machine, may still hold them.
"""

import argparse
import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits

from apogee_batch.survey import apstar_images
from apogee_batch.survey.apstar import RejectedSpectrum, read_apstar, read_apstar_file
from apogee_batch.survey.byte_ranges import open_bytes
from apogee_batch.survey.pixels import BAD_PIXEL_ERR, GAP_ERR, GAP_FLUX
from apogee_batch.survey.sources import find_apstar_files

CARDS = ("OBJID", "TELESCOP", "FIELD", "LOCID", "RA", "DEC", "J", "H", "K", "SNR", "NVISITS", "STARFLAG")
NUMBERS = ("RA", "DEC", "J", "H", "K", "SNR")  # cards that differ from star to star


def make_copies(sources: Sequence[Path], folder: Path, n_copies: int) -> list[Path]:
    """Write copies that differ in name and in the cards that differ between stars."""
    rng = np.random.default_rng(1)
    paths = []
    for i in range(n_copies):
        content = bytearray(sources[i % len(sources)].read_bytes())
        name = f"2M{rng.integers(10**8):08d}+{rng.integers(10**7):07d}"
        _write_card(content, "OBJID", f"'{name}'")
        for keyword in NUMBERS:
            _write_card(content, keyword, f"{rng.uniform(5, 15):20.6f}")
        path = folder / "stars" / "apo25m" / str(4100 + i % 300) / f"apStar-r8-{name}.fits"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        paths.append(path)
    os.sync()  # only clean pages can be dropped from the page cache
    return paths


def _write_card(content: bytearray, keyword: str, value: str) -> None:
    """Replace the value of a card of the primary header, where there is one."""
    for start in range(0, content.index(b"END".ljust(80)), 80):
        if content.startswith(f"{keyword:8}= ".encode(), start):
            content[start + 10 : start + 80] = value.ljust(70).encode()
            return


def read_by_astropy(path: Path) -> tuple[list[np.ndarray], dict[str, object]]:
    """Read what a spectrum needs in the usual way."""
    with fits.open(path) as hdus:
        rows = [np.atleast_2d(hdus[number].data)[0] for number in (1, 2, 3)]
        arrays = [
            row.astype(dtype) for row, dtype in zip(rows, (np.float32, np.float32, np.int32), strict=True)
        ]
        return arrays, {name: hdus[0].header.get(name) for name in CARDS}


def read_rows(path: Path) -> tuple[list[np.ndarray], dict[str, object]]:
    """Read by byte range what `read_by_astropy` reads, and nothing more."""
    with open_bytes(path) as source:
        primary = apstar_images.open_primary(source)
        _, arrays = apstar_images.read_images(source, primary, "combined")
        rows = [
            array[0].astype(dtype)
            for array, dtype in zip(arrays, (np.float32, np.float32, np.int32), strict=True)
        ]
        return rows, {name: primary.header.value(name) for name in CARDS}


READERS: dict[str, Callable[[Path], object]] = {
    "astropy": read_by_astropy,
    "rows": read_rows,
    "read_apstar": read_apstar,
    "read_apstar_file": read_apstar_file,
}


def count_equal(paths: Sequence[Path]) -> int:
    """Return how many files give the same arrays both ways, gaps in one form."""
    n_equal = 0
    for path in paths:
        (flux, err, mask), _ = read_by_astropy(path)
        is_gap = ~((err > 0) & (err < BAD_PIXEL_ERR) & np.isfinite(flux))
        flux[is_gap], err[is_gap] = GAP_FLUX, GAP_ERR
        read = read_apstar(path)
        if not isinstance(read, RejectedSpectrum):
            pairs = ((flux, read[0].flux), (err, read[0].err), (mask, read[0].mask))
            n_equal += all(np.array_equal(one, other) for one, other in pairs)
    return n_equal


def seconds_per_file(read: Callable[[Path], object], paths: Sequence[Path], *, is_cold: bool) -> float:
    """Return the mean time of one file."""
    for path in paths if is_cold else ():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    gc.collect()  # what the other left behind is not this one's to clear away
    start = time.perf_counter()
    for path in paths:
        read(path)
    return (time.perf_counter() - start) / len(paths)


def compare(paths: Sequence[Path], n_rounds: int, *, is_cold: bool) -> None:
    """Print the median time of each way, and of its ratio to astropy in the same round."""
    rounds = []
    for round_number in range(n_rounds + 1):
        times = {name: seconds_per_file(READERS[name], paths, is_cold=is_cold) for name in READERS}
        if round_number:  # the first warms the page cache, and imports
            rounds.append(times)
    for name in READERS:
        median = statistics.median(times[name] for times in rounds)
        ratios = sorted(times["astropy"] / times[name] for times in rounds)
        print(  # noqa: T201
            f"{'cold' if is_cold else 'warm'} {name:16s} {median * 1e3:.3f} ms a file, {1 / median:6.0f}/s, "
            f"{statistics.median(ratios):4.1f} times astropy [{ratios[0]:.1f}, {ratios[-1]:.1f}]"
        )


def main() -> None:
    """Make the copies, compare the arrays, then the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder")
    parser.add_argument("--copies", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.scratch))
    try:
        sources = find_apstar_files([given.folder])
        paths = make_copies(sources, folder, given.copies)
        print(f"{len(paths)} copies of {len(sources)} files, {given.rounds} rounds")  # noqa: T201
        print(f"arrays equal: {count_equal(paths)} of {len(paths)}")  # noqa: T201
        for is_cold in (False, True):
            compare(paths, given.rounds, is_cold=is_cold)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
