"""What a training that goes wrong is told."""

from apogee_batch.network.recipe import Recipe

FEW_STEPS = 500


def explain_plateau(recipe: Recipe, *, dev_loss: float, n_epochs: int, n_steps: int, n_train: int) -> str:
    """Say that nothing was learned, why that may be, and what to do.

    Parameters
    ----------
    recipe : Recipe
    dev_loss : float
        The best so far.
    n_epochs : int
        Done so far.
    n_steps : int
        Optimiser steps of an epoch.
    n_train : int
        Training stars.
    """
    what = (
        f"the network has learned nothing: after {n_epochs} epochs of {n_steps} steps on {n_train} training "
        f"stars the dev loss is {dev_loss:.3f}, and predicting the mean labels for every star gives about 1"
    )
    reasons = []
    if recipe.input == "raw":
        reasons.append("raw fluxes of bright and faint stars differ by a factor of a thousand")
    if recipe.initialisation == "torch":
        reasons.append("torch's default initialisation shrinks the signal in each of 15 layers")
    if recipe.optimiser == "sgd" and n_steps < FEW_STEPS:
        reasons.append(f"{n_steps} SGD steps an epoch are few (the paper had about 1,400)")
    if reasons:
        why = "; ".join(reasons)
        return f"{what}. Why: {why}. Remedy: train with the recipe `robust`, or with more stars."
    return (
        f"{what}. This recipe learns from a few hundred stars, so look at the data: do the labels belong to "
        "these spectra (apogee_id, units, column names), and is the learning rate of the recipe sane?"
    )
