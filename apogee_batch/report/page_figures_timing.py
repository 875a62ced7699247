"""When each worker was at work, and how fast it was."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import inf
from pathlib import Path

import numpy as np
from matplotlib.collections import PolyCollection

from apogee_batch.report.page_figures import Picture, number_colours, save_picture

LONGEST_IDLE_S = 60.0  # a longer time in which nothing was done is cut out: the run was stopped and went on
OVERLAP = 0.1  # of a shard's time, by which the notes of its begin and end may be wrong
SECONDS_BELOW_S = 60.0  # a shorter run has an axis in seconds
MOST_NAMED = 40  # lanes; with more only the first one of each host is named
LONGEST_NAME = 28  # letters of a worker's name beside its lane


@dataclass(frozen=True)
class Span:
    """The work at one shard.

    Attributes
    ----------
    host, device : str
        Where it was done, and what computed.
    begin_s, seconds : float
        When it began, from any moment; how long it took.
    n_stars : int
    worker : str
        Name of the process that did it; empty in a ledger of before it was noted.
    """

    host: str
    device: str
    begin_s: float
    seconds: float
    n_stars: int
    worker: str = ""

    @property
    def end_s(self) -> float:
        """When it ended."""
        return self.begin_s + self.seconds


@dataclass(frozen=True)
class WorkerLane:
    """What one worker of a host did: one shard after the other, or two at once on a GPU.

    Attributes
    ----------
    host : str
    number : int
        From 1 on, among the workers of the host.
    spans : tuple of Span
        In the order of their begins.
    worker : str
        Its name, where it is known.
    """

    host: str
    number: int
    spans: tuple[Span, ...]
    worker: str = ""

    @property
    def name(self) -> str:
        """What to call it on the page."""
        return self.worker or f"{self.host} {self.number}"

    @property
    def n_stars(self) -> int:
        """Stars of all its shards."""
        return sum(span.n_stars for span in self.spans)

    @property
    def seconds(self) -> float:
        """Time it was at work; that in which two shards were under way counts once."""
        at_work, until = 0.0, -inf
        for span in self.spans:
            at_work += max(0.0, span.end_s - max(span.begin_s, until))
            until = max(until, span.end_s)
        return at_work

    @property
    def rate(self) -> float | None:
        """Stars a second while it was at work; None where no time is known."""
        n_timed = sum(span.n_stars for span in self.spans if span.seconds > 0)
        return n_timed / self.seconds if self.seconds > 0 else None

    @property
    def tracks(self) -> list[list[Span]]:
        """Its spans on as many tracks as it had shards under way at once."""
        return _infer_lanes(self.spans)


def without_pauses(spans: Sequence[Span]) -> tuple[list[Span], int]:
    """Return spans from 0 on, without times of no work above `LONGEST_IDLE_S`, and how many those are."""
    shifted, n_pauses = [], 0
    last = min((span.begin_s for span in spans), default=0.0)
    cut = last
    for span in sorted(spans, key=lambda span: (span.begin_s, span.host)):
        if span.begin_s - last > LONGEST_IDLE_S:
            cut += span.begin_s - last
            n_pauses += 1
        last = max(last, span.end_s)
        shifted.append(replace(span, begin_s=span.begin_s - cut))
    return shifted, n_pauses


def find_lanes(spans: Sequence[Span]) -> list[WorkerLane]:
    """Give each worker its lane; where a ledger does not name them, as many lanes as worked at once.

    Parameters
    ----------
    spans : sequence of Span
        In any order.
    """
    lanes = []
    ordered = sorted(spans, key=lambda span: (span.host, span.begin_s, span.end_s, span.worker))
    for host, of_host in groupby(ordered, key=lambda span: span.host):
        named: dict[str, list[Span]] = {}
        for span in of_host:
            named.setdefault(span.worker, []).append(span)
        unnamed = [("", lane) for lane in _infer_lanes(named.pop("", []))]
        found = [*unnamed, *named.items()]
        lanes += [WorkerLane(host, i + 1, tuple(lane), worker) for i, (worker, lane) in enumerate(found)]
    return lanes


def _infer_lanes(spans: Sequence[Span]) -> list[list[Span]]:
    """Put each span of a host, by rising begin, into the first lane that is free."""
    found: list[list[Span]] = []
    for span in spans:
        tolerance = OVERLAP * span.seconds
        free = [lane for lane in found if lane[-1].end_s <= span.begin_s + tolerance]
        if free:
            max(free, key=lambda lane: lane[-1].end_s).append(span)
        else:
            found.append([span])
    return found


def _shorten(name: str) -> str:
    """Return a name whose middle is left out if it is long: what tells workers apart stands at its end."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 13]}…{name[-12:]}"


def _bars(lanes: Sequence[WorkerLane], unit_s: float) -> tuple[list[list[tuple[float, float]]], list[float]]:
    """Return the corners of the bar of each shard, and its stars a second; two at once share the lane."""
    bars, rates = [], []
    for i, lane in enumerate(lanes):
        tracks = lane.tracks
        height = 0.8 / len(tracks)
        for n_above, track in enumerate(tracks):
            top, bottom = i - 0.4 + n_above * height, i - 0.4 + (n_above + 1) * height
            for span in track:
                low, high = span.begin_s / unit_s, span.end_s / unit_s
                bars.append([(low, top), (high, top), (high, bottom), (low, bottom)])
                rates.append(span.n_stars / span.seconds)
    return bars, rates


def draw_timing(spans: Sequence[Span], path: Path) -> Picture | None:
    """Draw a bar for each shard in the lane of its worker, the darker the more stars a second.

    Returns
    -------
    Picture or None
        None where no shard tells its time.
    """
    timed, n_pauses = without_pauses([span for span in spans if span.seconds > 0])
    lanes = find_lanes(timed)
    if not lanes:
        return None
    height = min(1.4 + 0.16 * len(lanes), 7.0)
    end_s = max(span.end_s for span in timed)
    unit, unit_s = ("minutes", 60.0) if end_s >= SECONDS_BELOW_S else ("seconds", 1.0)
    end = end_s / unit_s
    with save_picture(path, height) as figure:
        axes = figure.add_subplot()
        bars, rates = _bars(lanes, unit_s)
        drawn = PolyCollection(bars, cmap=number_colours(), edgecolors="white", linewidths=0.4)
        drawn.set_array(np.array(rates))
        drawn.set_clim(0, max(rates) or 1)
        axes.add_collection(drawn)
        named = [i for i, lane in enumerate(lanes) if lane.number == 1 or len(lanes) <= MOST_NAMED]
        texts = [_shorten(lanes[i].name) for i in named]
        axes.set_yticks(named, texts, fontsize=7)
        for label in axes.get_yticklabels():
            label.set_parse_math(False)  # names of hosts are shown as they are
        axes.set_xlim(0, end)
        axes.set_ylim(len(lanes) - 0.4, -0.6)
        axes.set_xlabel(f"time ({unit})")
        figure.colorbar(drawn, ax=axes, pad=0.01, aspect=12).set_label("stars/s", fontsize=9)
    pauses = f", {n_pauses} pauses cut out" if n_pauses else ""
    return Picture(
        path,
        f"When each of {len(lanes)} workers estimated its {len(timed)} shards, over {end:.1f} {unit}"
        f"{pauses}.",
    )
