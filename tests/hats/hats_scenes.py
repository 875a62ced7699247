"""What the tests of the HATS collection share: how many stars, where a border is, what was exported."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

N_STARS, N_WITHOUT, PARTITION_ROWS = 600, 7, 60
BORDER_DEC = 20.0
ARCSEC = 1 / 3600


@dataclass(frozen=True)
class Exported:
    """A collection with what it was made from; `border_ra` lies between two partitions at `BORDER_DEC`."""

    run: Path
    folder: Path
    catalog: pa.Table
    border_ra: float


def find_border() -> float:
    """Return a right ascension at which the sky is divided at every order."""
    from hats.pixel_math.healpix_shim import radec2pix

    low, high = 10.0, 45.0
    below, above = (int(radec2pix(0, [ra], [BORDER_DEC])[0]) for ra in (low, high))
    assert below != above
    while high - low > ARCSEC / 100:
        middle = (low + high) / 2
        if int(radec2pix(0, [middle], [BORDER_DEC])[0]) == below:
            low = middle
        else:
            high = middle
    return low
