"""What chance decides in a training: batches, Payne stars of a round, dropout. All follows from the seed."""

import hashlib
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from apogee_batch.network.ranks import Share
from apogee_batch.network.recipe import Recipe
from apogee_batch.network.stopping import FOCUS_TYPES
from apogee_batch.network.training_set import RowArray, TrainingSet


def derive_generator(seed: int, *purpose: str | int, device: str = "cpu") -> torch.Generator:
    """Return a random generator of its own for one purpose of a training.

    Nothing is drawn from a shared stream, so an epoch draws the same numbers whether the training was
    stopped before it or not.

    Parameters
    ----------
    seed : int
        Of the training.
    *purpose : str or int
        For example "order", 12.
    device : str
    """
    text = "/".join(map(str, (seed, *purpose)))
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


def draw_adaptation_rows(training_set: TrainingSet, recipe: Recipe, *, seed: int, round_: int) -> RowArray:
    """Return the training rows of an adaptation round: all M dwarfs and YSOs, a share of the Payne stars.

    Parameters
    ----------
    training_set : TrainingSet
    recipe : Recipe
    seed : int
    round_ : int
        Each round has its own Payne stars.
    """
    payne = training_set.rows("train", "payne")
    focus = training_set.rows("train", *FOCUS_TYPES)
    wanted = max(recipe.adaptation_payne_fraction * len(payne), recipe.adaptation_payne_floor * len(focus))
    n_drawn = min(round(wanted), len(payne))
    order = torch.randperm(len(payne), generator=derive_generator(seed, "payne", round_))
    return np.sort(np.concatenate([focus, payne[order[:n_drawn].numpy()]]))


def draw_batches(rows: RowArray, batch_size: int, *, min_steps: int, seed: int, epoch: int) -> list[RowArray]:
    """Return the batches of an epoch: as many passes through the rows as it takes, each in a new order.

    Parameters
    ----------
    rows : ndarray of int64
    batch_size : int
    min_steps : int
        Least number of batches.
    seed : int
    epoch : int
    """
    n_passes = max(1, math.ceil(min_steps * batch_size / len(rows)))
    generator = derive_generator(seed, "order", epoch)
    order = torch.cat([torch.randperm(len(rows), generator=generator) for _ in range(n_passes)])
    return [rows[part.numpy()] for part in torch.split(order, batch_size)]


def make_dropout(
    recipe: Recipe, *, seed: int, epoch: int, device: str
) -> Callable[[Share], Callable[[Tensor], Tensor]] | None:
    """Return the dropout of an epoch; None for a recipe without.

    It is drawn for the whole batch, also where several ranks share it.

    Parameters
    ----------
    recipe : Recipe
    seed : int
    epoch : int
    device : str
        Of the tensors that it will be called with.

    Returns
    -------
    callable or None
        Takes the share of a batch that the tensors will be of, and gives the dropout of a step.
    """
    rate = recipe.dropout
    if rate == 0:
        return None
    generator = derive_generator(seed, "dropout", epoch, device=device)

    def drop(share: Share, outputs: Tensor) -> Tensor:
        shape = (share.n_items, *outputs.shape[1:])
        keeps = torch.rand(shape, generator=generator, device=outputs.device)[share.slice] >= rate
        return outputs * keeps / (1.0 - rate)

    return lambda share: partial(drop, share)
