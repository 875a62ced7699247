"""Compare `read_apstar` with the same done by astropy, on any folder of apStar files; run by hand.

    python tests/bench/bench_read_apstar.py FOLDER [ROUNDS]

Both take turns over all files (200 at most) in one process, files warm in the page cache. astropy
reads flux, err and mask of the combined spectrum and the cards that `Star` needs; `read_apstar` also
checks the file, unifies the gaps and measures the SNR.
"""

import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits

from apogee_batch.survey.apstar import read_apstar
from apogee_batch.survey.sources import find_apstar_files

CARDS = ("OBJID", "TELESCOP", "FIELD", "LOCID", "RA", "DEC", "J", "H", "K", "SNR", "NVISITS", "STARFLAG")


def read_by_astropy(path: Path) -> tuple[list[np.ndarray], dict[str, object]]:
    """Read what a spectrum needs in the usual way."""
    with fits.open(path) as hdus:
        rows = [np.atleast_2d(hdus[number].data)[0] for number in (1, 2, 3)]
        arrays = [
            row.astype(dtype) for row, dtype in zip(rows, (np.float32, np.float32, np.int32), strict=True)
        ]
        return arrays, {name: hdus[0].header.get(name) for name in CARDS}


def seconds_per_file(read: Callable[[Path], object], paths: Sequence[Path]) -> float:
    """Return the mean time of one file."""
    gc.collect()  # what the other left behind is not this one's to clear away
    start = time.perf_counter()
    for path in paths:
        read(path)
    return (time.perf_counter() - start) / len(paths)


def main() -> None:
    """Print the medians of both and of their ratio."""
    paths = find_apstar_files([sys.argv[1]])[:200]
    n_rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    pairs = []
    for round_number in range(n_rounds + 1):
        pair = (seconds_per_file(read_by_astropy, paths), seconds_per_file(read_apstar, paths))
        if round_number:  # the first warms the page cache
            pairs.append(pair)
    astropy, direct = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
    ratios = sorted(slow / fast for slow, fast in pairs)
    print(f"{len(paths)} files, {n_rounds} rounds")  # noqa: T201
    print(f"astropy     {astropy:.3f} ms a file, {1e3 / astropy:.0f} files/s")  # noqa: T201
    print(f"read_apstar {direct:.3f} ms a file, {1e3 / direct:.0f} files/s")  # noqa: T201
    print(f"ratio       {statistics.median(ratios):.1f} [{ratios[0]:.1f}, {ratios[-1]:.1f}]")  # noqa: T201


if __name__ == "__main__":
    main()
