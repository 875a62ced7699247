"""What a bad disk or a clumsy hand does to files that were written whole, one kind of file after another."""

import random
import re
from pathlib import Path

WAYS = ("truncate", "flip", "zero", "delete")
LOGS = ("logs/", "stages.jsonl")  # for people only

STORE_KINDS = (  # one of each kind of file that a finished store with labels holds
    "zarr.json",
    "flux/zarr.json",
    "err/zarr.json",
    "mask/zarr.json",
    "wavelength/zarr.json",
    "tables/zarr.json",
    "ingest/zarr.json",
    "wavelength/c/0",
    "flux/c/1/0",
    "err/c/2/0",
    "mask/c/0/0",
    "ingest/0001/plan.json",
    "ingest/0001/inputs.parquet",
    "ingest/0001/ledger.tar",
    "ingest/0001/parts.tar",
    "ingest/0001/allstar_match.parquet",
    "ingest/0001/summary.json",
    "tables/stars.parquet",
    "tables/rejects.parquet",
    "tables/labels.parquet",
    "tables/unmatched_labels.parquet",
    "tables/ingested.json",
    "tables/attached.json",
)
RUN_KINDS = (  # of a finished run with a given model
    "plan.json",
    "settings.json",
    "inputs/stars.parquet",
    "inputs/labels.parquet",
    "inputs/rejects.parquet",
    "ledger/00001.json",
    "parts/part-00002.parquet",
    "catalog/catalog.parquet",
    "catalog/catalog.fits",
    "rejects.parquet",
    "report/results.json",
    "report/results.txt",
    "report/validation.json",
    "report/validation.txt",
    "report/kiel.png",
    "report/labels.png",
    "manifest.json",
)
MODEL_KINDS = (
    "plan.json",
    "model.json",
    "model.safetensors",
    "MODEL_CARD.md",
    "metrics.jsonl",
    "training_stars.json",
    "calibration.json",
    "calibration.safetensors",
)

# The last file of all: without it, not finished. A model is whole without the metrics of its training.
UNFINISHED = ("ingest/0001/summary.json", "manifest.json", "metrics.jsonl", "calibration.json")
# The summary's match is there only where a summary was given; here it has no rows, so nothing but a footer.
UNTOLD = {("ingest/0001/allstar_match.parquet", way) for way in ("flip", "delete")}


def kinds_of(folder: Path) -> set[str]:
    """Return the kinds of files in a store or run: their paths with every number as N."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {kind_of(path) for path in paths if not any(name in path for name in LOGS)}


def kind_of(path: str) -> str:
    """Return the kind of a file."""
    return re.sub(r"\d+", "N", path)


def tear(path: Path, way: str, *, seed: int = 0, within: tuple[float, float] = (0.0, 1.0)) -> None:
    """Damage a file: cut it in half, flip one bit, write zeros over it, or delete it.

    Parameters
    ----------
    path : Path
        The file.
    way : str
        One of `WAYS`.
    seed : int
        Chooses the bit.
    within : tuple of float
        Part of the file in which the bit lies.
    """
    content = bytearray(path.read_bytes())
    if way == "delete":
        path.unlink()
        return
    if way == "truncate":
        content = content[: len(content) // 2]
    elif way == "zero":
        content = bytearray(len(content))
    else:
        chosen = random.Random(f"{path.name} {seed}")
        low, high = (int(end * len(content)) for end in within)
        content[chosen.randrange(low, high)] ^= 1 << chosen.randrange(8)
    path.write_bytes(content)
