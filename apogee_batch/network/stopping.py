"""When a training stops, and what follows: early stopping, then the rounds of adaptation.

Adaptation (paper, section 3.4) teaches a converged model more about M dwarfs and YSOs without losing the
Payne stars. The paper gives no formula for "did not show continuing improvement"; here it is this:

* A model is better than the best one if its dev loss over M dwarfs and YSOs together (every star counts
  the same) is lower, **and** its Payne dev loss is at most `1 + adaptation_payne_tolerance` times what it
  was when adaptation began.
* A round ends when `patience` evaluations in a row were not better. The next round starts from the best
  model with other Payne stars.
* Adaptation ends when `adaptation_stale_rounds` rounds in a row brought no better model.

Without M dwarfs or YSOs in both the training and the dev set there is no adaptation.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from apogee_batch.network.recipe import Recipe
from apogee_batch.network.state import Progress

FOCUS_TYPES = ("mstar", "yso")  # the stars that adaptation is for


def mean_loss(by_type: Mapping[str, float], n_dev: Mapping[str, int], types: Iterable[str]) -> float:
    """Return the mean loss over all stars of some types, every star counting the same.

    Parameters
    ----------
    by_type : mapping of float
        Mean loss of each type.
    n_dev : mapping of int
        Number of stars of each type.
    types : iterable of str
        Types without a star are left out.
    """
    present = [t for t in types if n_dev.get(t, 0) > 0]
    return sum(by_type[t] * n_dev[t] for t in present) / sum(n_dev[t] for t in present)


def can_adapt(n_train: Mapping[str, int], n_dev: Mapping[str, int], recipe: Recipe) -> bool:
    """Tell whether there are stars to adapt to, and stars to judge it by."""
    has_stars = all(sum(n.get(t, 0) for t in FOCUS_TYPES) > 0 for n in (n_train, n_dev))
    return has_stars and recipe.adaptation_max_rounds > 0


def judge(
    progress: Progress,
    by_type: Mapping[str, float],
    n_dev: Mapping[str, int],
    *,
    n_steps: int,
    recipe: Recipe,
) -> Progress:
    """Return the progress after an epoch, still in its phase and round.

    The model of the epoch is the best one if `best_epoch` of the result is its `epoch`.

    Parameters
    ----------
    progress : Progress
        Before the epoch.
    by_type : mapping of float
        Dev loss of each data type after the epoch.
    n_dev : mapping of int
        Number of dev stars of each data type.
    n_steps : int
        Optimiser steps of the epoch.
    recipe : Recipe
    """
    is_main = progress.phase == "main"
    loss = mean_loss(by_type, n_dev, by_type if is_main else FOCUS_TYPES)
    is_accepted = progress.payne_limit is None or by_type["payne"] <= progress.payne_limit
    after = replace(
        progress,
        epoch=progress.epoch + 1,
        round_epoch=progress.round_epoch + 1,
        step=progress.step + n_steps,
        n_stale=progress.n_stale + 1,
    )
    if is_main and math.isfinite(loss) and progress.epoch < recipe.plateau_epochs:
        after = replace(after, first_losses=(*progress.first_losses, loss))
    if is_accepted and loss < (math.inf if progress.best_loss is None else progress.best_loss):
        return replace(after, n_stale=0, best_epoch=after.epoch, best_loss=loss, best_by_type=dict(by_type))
    return after


def is_round_over(progress: Progress, recipe: Recipe) -> bool:
    """Tell whether a phase or round has ended: nothing better for long, or as many epochs as allowed."""
    limit = recipe.max_epochs if progress.phase == "main" else recipe.adaptation_max_epochs
    return progress.n_stale >= recipe.patience or progress.round_epoch >= limit


def begin_next_round(
    progress: Progress, n_dev: Mapping[str, int], *, adapts: bool, recipe: Recipe
) -> Progress:
    """Return the progress with which the next round begins, or that of the end.

    Parameters
    ----------
    progress : Progress
        At the end of a phase or round.
    n_dev : mapping of int
        Number of dev stars of each data type.
    adapts : bool
        What `can_adapt` said.
    recipe : Recipe
    """
    gained = progress.best_epoch > progress.epoch - progress.round_epoch
    n_stale_rounds = 0 if gained or progress.phase == "main" else progress.n_stale_rounds + 1
    is_last = (
        n_stale_rounds >= recipe.adaptation_stale_rounds or progress.round >= recipe.adaptation_max_rounds
    )
    after = replace(progress, n_stale_rounds=n_stale_rounds, round_epoch=0, step=0, n_stale=0)
    if not adapts or is_last or progress.best_loss is None:
        return replace(after, phase="done")
    after = replace(after, phase="adaptation", round=progress.round + 1)
    if progress.phase == "adaptation":
        return after
    payne = progress.best_by_type.get("payne")
    return replace(
        after,
        best_loss=mean_loss(progress.best_by_type, n_dev, FOCUS_TYPES),
        payne_limit=None if payne is None else payne * (1.0 + recipe.adaptation_payne_tolerance),
    )
