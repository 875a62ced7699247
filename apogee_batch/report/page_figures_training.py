"""The curves of a training, and when each worker was at work."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from apogee_batch.report.canvas import INK, TYPE_COLOURS, TYPE_NAMES
from apogee_batch.report.page_figures import Picture, save_picture, show_number
from apogee_batch.schema import DATA_TYPES, DoubleArray

LOSS_HEIGHT_IN = 3.9
ADAPTATION = "adaptation"
ADAPTATION_COLOUR = "#f0e442"  # Okabe & Ito's yellow, made pale
TYPE_LINES = {"payne": (0, (1, 1)), "mstar": (0, (4, 1.5)), "yso": (0, (5, 1, 1, 1))}


def draw_losses(epochs: Sequence[Mapping[str, Any]], path: Path) -> Picture | None:
    """Draw the losses of each epoch; the rounds of adaptation have a background and a number.

    Parameters
    ----------
    epochs : sequence of mapping
        Lines of `metrics.jsonl`.
    path : Path
        The PNG file.

    Returns
    -------
    Picture or None
        None without an epoch.
    """
    if not epochs:
        return None
    numbers = np.array([epoch["epoch"] for epoch in epochs], dtype=float)
    with save_picture(path, LOSS_HEIGHT_IN) as figure:
        axes = figure.add_subplot()
        axes.plot(
            numbers, _losses(epochs, "train_loss"), color="#999999", label="train (with dropout and noise)"
        )
        for data_type in DATA_TYPES:
            losses = np.array([_number(epoch.get("dev_loss_by_type", {}).get(data_type)) for epoch in epochs])
            if np.isfinite(losses).any():
                style: dict[str, Any] = {"linestyle": TYPE_LINES[data_type], "linewidth": 1.2}
                name = f"dev, {TYPE_NAMES[data_type]}"
                axes.plot(numbers, losses, color=TYPE_COLOURS[data_type], label=name, **style)
        axes.plot(numbers, _losses(epochs, "dev_loss"), color="black", linewidth=1.8, label="dev, all")
        n_rounds = _mark_rounds(axes, epochs)
        _mark_best(axes, epochs)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(show_number)
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0.5, float(numbers.max()) + 0.5)
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss: mean squared error\nof standardised labels")
        figure.legend(loc="outside right upper", fontsize=8, handletextpad=0.6)
    rounds = f"{n_rounds} rounds of adaptation are marked" if n_rounds else "there was no round of adaptation"
    return Picture(path, f"Losses of the training and dev sets over {len(epochs)} epochs; {rounds}.")


def _losses(epochs: Sequence[Mapping[str, Any]], name: str) -> DoubleArray:
    return np.array([_number(epoch.get(name)) for epoch in epochs])


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)


def _mark_rounds(axes: Axes, epochs: Sequence[Mapping[str, Any]]) -> int:
    """Put a background behind each round of adaptation, and its number above; return how many there are."""
    rounds = sorted({epoch["round"] for epoch in epochs if epoch.get("phase") == ADAPTATION})
    for i, number in enumerate(rounds):
        inside = [e["epoch"] for e in epochs if e.get("phase") == ADAPTATION and e["round"] == number]
        low, high = min(inside) - 0.5, max(inside) + 0.5
        axes.axvspan(low, high, color=ADAPTATION_COLOUR, alpha=(0.3, 0.15)[i % 2], linewidth=0, zorder=0)
        axes.axvline(low, color=INK, linewidth=0.7, linestyle=":")
        axes.annotate(
            f"adaptation {number}" if high - low > len(epochs) / 6 else str(number),
            ((low + high) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    return len(rounds)


def _mark_best(axes: Axes, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Mark the last epoch that was the best until then: its network is the model."""
    best = [e for e in epochs if e.get("is_best") and e.get("dev_loss") is not None]
    if best:
        place = (best[-1]["epoch"], best[-1]["dev_loss"])
        axes.plot(*place, marker="*", markersize=11, color="#d55e00", linestyle="none", label="kept")
