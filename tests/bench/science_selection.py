"""How many young stars the selection finds, and how many others: a run on a mock survey against its truth.

    python tests/bench/science_selection.py RUN TRUTH_FITS [--polygon FILE] [--without-flags NAMES]

RUN is a published run. TRUTH_FITS has a row a star with APSTAR_ID or APOGEE_ID, TRUE_TEFF, TRUE_LOGG and TYPE
(payne, mstar, yso or unlabelled). Printed is Markdown.

* recall: selected stars, of those whose true labels lie in the polygon. A young star whose true labels lie
  outside cannot be found by a polygon at all; how many there are is told beside it.
* contamination: selected stars whose true labels lie outside, of all that are selected.
"""

import argparse
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from astropy.table import Table

from apogee_batch.catalog.selection import Polygon
from apogee_batch.run.selection_columns import errors_of, floats
from apogee_batch.run.selection_settings import bits_of, read_polygon

BoolArray = npt.NDArray[np.bool_]
TYPES = ("yso", "mstar", "payne", "unlabelled")
SNR_EDGES = (0, 20, 50, 100, np.inf)


@dataclass(frozen=True)
class Sample:
    """Stars of a run with their truth; all arrays of shape (n_stars,)."""

    kind: npt.NDArray[np.str_]
    data_set: npt.NDArray[np.str_]
    snr: npt.NDArray[np.float64]
    is_true: BoolArray
    is_selected: BoolArray
    p_inside: npt.NDArray[np.float64]


def read_sample(run: Path, truth: Path, polygon: Polygon, bits: int) -> Sample:
    """Match the catalogue of a run with the truth."""
    names = ["apstar_id", "apogee_id", "teff", "logg", "e_teff", "e_logg", "e_teff_total", "e_logg_total"]
    catalog = pq.read_table(
        run / "catalog" / "catalog.parquet", columns=[*names, "snr", "flags", "data_set", "data_type"]
    )
    table = Table.read(truth)
    key = "APSTAR_ID" if "APSTAR_ID" in table.colnames else "APOGEE_ID"
    place = {str(name).strip(): i for i, name in enumerate(table[key])}
    rows = [place.get(name) for name in catalog[key.lower()].to_pylist()]
    if None in rows:
        sys.exit(f"{truth}: has no {key} {catalog[key.lower()][rows.index(None)]}")
    kinds = np.char.strip(np.array(table["TYPE"][rows], str))
    true = [np.array(table[name][rows], np.float64) for name in ("TRUE_TEFF", "TRUE_LOGG")]
    teff, logg = floats(catalog["teff"]), floats(catalog["logg"])
    e_teff, e_logg, _ = errors_of(catalog)
    is_kept = (catalog["flags"].to_numpy() & bits) == 0
    return Sample(
        kind=kinds,
        data_set=np.array(catalog["data_set"].fill_null("").to_pylist(), str),
        snr=floats(catalog["snr"]),
        is_true=polygon.contains(*true),
        is_selected=polygon.contains(teff, logg) & is_kept,
        p_inside=polygon.probability_inside(teff, logg, e_teff, e_logg),
    )


def share(part: BoolArray, whole: BoolArray) -> str:
    """Return `n of m (share)`."""
    n, m = int((part & whole).sum()), int(whole.sum())
    return f"{n} of {m}" + (f" ({n / m:.1%})" if m else "")


def row(name: str, sample: Sample, where: BoolArray) -> str:
    """Return a row of the table: some stars."""
    is_true, is_selected = sample.is_true & where, sample.is_selected & where
    known = np.where(np.isfinite(sample.p_inside), sample.p_inside, 0.0)
    cells = [
        name,
        str(int(where.sum())),
        str(int((where & ~sample.is_true).sum())),
        share(sample.is_selected, is_true),
        share(~sample.is_true, is_selected),
        f"{known[where & ~sample.is_selected].sum():.1f} / {(1 - known)[is_selected].sum():.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def tables(sample: Sample) -> list[str]:
    """Return the lines of Markdown: by type, by data set of the labelled, by SNR."""
    head = [
        "| stars | n | truly outside | recall | contamination | missed / wrong by p_inside |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    everyone = np.ones(sample.kind.shape, bool)
    lines = [*head, row("all", sample, everyone)]
    lines += [row(kind, sample, sample.kind == kind) for kind in TYPES if (sample.kind == kind).any()]
    lines.append(row("never trained on", sample, np.isin(sample.data_set, ["", "test"])))
    is_yso_test = (sample.kind == "yso") & (sample.data_set == "test")
    lines.append(row("yso, test", sample, is_yso_test))
    for low, high in pairwise(SNR_EDGES):
        where = (sample.snr >= low) & (sample.snr < high)
        lines.append(
            row(f"SNR {low} to {high}" if np.isfinite(high) else f"SNR {low} and more", sample, where)
        )
    return lines


def main() -> None:
    """Print recall and contamination."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--polygon", type=Path)
    parser.add_argument("--without-flags", default="")
    arguments = parser.parse_args()
    polygon, source = read_polygon(arguments.polygon)
    flags = tuple(name for name in arguments.without_flags.split(",") if name)
    sample = read_sample(arguments.run, arguments.truth, polygon, bits_of(flags))
    print(f"{source}; without {', '.join(flags) or 'no flags'}\n")  # noqa: T201  by hand
    print("\n".join(tables(sample)))  # noqa: T201


if __name__ == "__main__":
    main()
