"""Whether the sigmas are honest: the histogram of the pulls, and how many labels lie within one sigma."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from apogee_batch.report.canvas import AXIS_TITLES, INK
from apogee_batch.report.labelled import CALIBRATED, REALIZATIONS
from apogee_batch.report.measures import PULL_EDGES, WITHIN_1
from apogee_batch.report.page_figures import Picture, save_picture
from apogee_batch.report.tables import ALL_TYPES
from apogee_batch.report.validation import UNKNOWN, Group, Validation

SHOWN = ("teff", "logg", "fe_h")
KINDS = {REALIZATIONS: "realizations", CALIBRATED: "calibrated total"}
COLOURS = {REALIZATIONS: "#0072b2", CALIBRATED: "#d55e00"}
MARKERS = {REALIZATIONS: "o", CALIBRATED: "s"}
SHIFT = {REALIZATIONS: -0.12, CALIBRATED: 0.12}  # so that bars of errors do not hide one another
HEIGHT_IN = 5.4
FEWEST_OF_BIN = 5  # stars, below which a part of them says nothing


def draw_pulls(found: Validation, path: Path) -> Picture | None:
    """Draw the pulls of the test set: their histogram, and below it the coverage in bins of SNR.

    Returns
    -------
    Picture or None
        None where no star of the test set has a label and a sigma.
    """
    group = found.get(ALL_TYPES, "test")
    if not any(m.pulls[kind].n_stars for m in group.measures.values() for kind in KINDS):
        return None
    with save_picture(path, HEIGHT_IN) as figure:
        panels = figure.subplots(2, 3, sharey="row")
        for j, name in enumerate(SHOWN):
            _draw_histogram(panels[0, j], group, name)
            _draw_coverage(panels[1, j], group, name)
            panels[0, j].set_title(AXIS_TITLES[name].split("  ")[0])
        panels[0, 0].set_ylabel("part of the stars in a bin")
        panels[1, 0].set_ylabel("part of the labels\nwithin one sigma")
        handles, names = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3, handletextpad=0.6)
    return Picture(path, _describe(group))


def _draw_histogram(axes: Axes, group: Group, name: str) -> None:
    """Draw the histogram of each kind; the outermost bins hold all that lie beyond."""
    step = PULL_EDGES[1] - PULL_EDGES[0]
    edges = np.array([PULL_EDGES[0] - step, *PULL_EDGES, PULL_EDGES[-1] + step])
    for kind, title in KINDS.items():
        pulls = group.measures[name].pulls[kind]
        if pulls.n_stars:
            share = np.array(pulls.histogram) / pulls.n_stars
            axes.stairs(share, edges, color=COLOURS[kind], linewidth=1.6, label=f"sigma: {title}")
    ends = [math.erf(edge / math.sqrt(2)) / 2 for edge in edges]
    style: dict[str, Any] = {"color": INK, "linewidth": 1.0, "linestyle": (0, (3, 2))}
    axes.stairs(np.diff(ends), edges, label="honest sigmas", **style)
    axes.set_xticks([-4, -2, 0, 2, 4])
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("pull: (prediction - label) / sigma", fontsize=9)


def _draw_coverage(axes: Axes, group: Group, name: str) -> None:
    """Draw which part of the labels lies within one sigma, in bins of SNR; bars: one sigma of chance."""
    bins = [found for found in group.by_snr if found.name != UNKNOWN]
    for kind in KINDS:
        pulls = [found.measures[name].pulls[kind] for found in bins]
        chosen = [i for i, pull in enumerate(pulls) if pull.n_stars >= FEWEST_OF_BIN]
        if not chosen:
            continue
        within = np.array([pulls[i].within_1 for i in chosen], dtype=float)
        n_stars = np.array([pulls[i].n_stars for i in chosen])
        chance = np.sqrt(np.maximum(within * (1 - within), 1 / n_stars) / n_stars)
        style: dict[str, Any] = {"color": COLOURS[kind], "marker": MARKERS[kind], "markersize": 4}
        axes.errorbar(np.array(chosen) + SHIFT[kind], within, chance, linestyle="none", **style)
    axes.axhline(WITHIN_1, color=INK, linewidth=1.0, linestyle=(0, (3, 2)))
    axes.set_ylim(0, 1.05)  # a marker at 1 is whole
    axes.set_xlim(-0.6, len(bins) - 0.4)
    axes.set_xticks(range(len(bins)), [found.name for found in bins], rotation=45, fontsize=8)
    axes.set_xlabel("SNR per pixel", fontsize=9)


def _describe(group: Group) -> str:
    """Say in words how many labels lie within one sigma."""
    texts = []
    for kind, title in KINDS.items():
        parts = []
        for name in SHOWN:
            within = group.measures[name].pulls[kind].within_1
            if within is not None:
                parts.append(f"{name} {within:.3f}")
        if parts:
            texts.append(f"{title}: {', '.join(parts)}")
    return (
        "Histogram of the pulls of the test set and their coverage by SNR. Part of the labels within one "
        f"sigma, {WITHIN_1} for honest sigmas: {'; '.join(texts)}."
    )
