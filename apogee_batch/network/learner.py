"""The network while it learns: weights, their running mean, the optimiser and its moments."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from apogee_batch.network.draws import derive_generator
from apogee_batch.network.model import SpectrumNet, initialise_kaiming, initialise_torch_default
from apogee_batch.network.ranks import ALONE, Ranks, Share, SharedGradient
from apogee_batch.network.recipe import Recipe
from apogee_batch.schema import N_LABELS

INITIALISERS = {"torch": initialise_torch_default, "kaiming": initialise_kaiming}
AVERAGE_WARMUP_STEPS = 10  # at first the running mean forgets sooner than its decay says


class Learner:
    """A network, and how one step changes it.

    Parameters
    ----------
    recipe : Recipe
    seed : int
        Of the first weights.
    device : str
    ranks : Ranks, optional
        Those that learn together; all hold the same weights.

    Attributes
    ----------
    model : SpectrumNet
        What is trained.
    average : SpectrumNet
        What is evaluated and kept: the running mean of the weights; `model` itself if the recipe has none.
    best : dict of Tensor
        Weights of the best model so far.
    """

    def __init__(self, recipe: Recipe, *, seed: int, device: str, ranks: Ranks = ALONE) -> None:
        self.recipe = recipe
        self.ranks = ranks
        self.model = _empty_model()
        INITIALISERS[recipe.initialisation](self.model, derive_generator(seed, "weights"))
        self.model.to(device)
        self.average = self.model
        if recipe.average_decay > 0:
            self.average = _empty_model().to(device).requires_grad_(False)
            self.average.load_state_dict(self.model.state_dict())
        self.best = _copy(self.average.state_dict())
        self.optimiser = self._new_optimiser()
        self.shared = SharedGradient(self.model) if ranks.n_ranks > 1 else None

    def _new_optimiser(self) -> torch.optim.Optimizer:
        recipe, parameters = self.recipe, self.model.parameters()
        rate, decay = recipe.learning_rate, recipe.weight_decay
        if recipe.optimiser == "sgd":
            return torch.optim.SGD(parameters, rate, recipe.momentum, weight_decay=decay)
        return torch.optim.AdamW(parameters, rate, weight_decay=decay, fused=True)

    def step(
        self,
        inputs: Tensor,
        labels: Tensor,
        *,
        share: Share,
        number: int,
        learning_rate: float,
        drop: Callable[[Tensor], Tensor] | None,
    ) -> Tensor:
        """Take one step down the gradient of a batch.

        Parameters
        ----------
        inputs : Tensor, shape (n_spectra, n_pixels)
            Of this rank's share of the batch.
        labels : Tensor, shape (n_spectra, n_labels)
            Standardised.
        share : Share
            Which of the batch they are.
        number : int
            Of the step in its phase or round, from 0.
        learning_rate : float
        drop : callable or None
            Dropout.

        Returns
        -------
        Tensor
            Mean squared error of the batch before the step; a number, but to ask for it waits for a GPU.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        loss = self._descend(inputs, labels, share, drop)
        if self.recipe.max_gradient_norm > 0:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.max_gradient_norm)
        self.optimiser.step()
        if self.average is not self.model:
            decay = min(self.recipe.average_decay, (1 + number) / (AVERAGE_WARMUP_STEPS + number))
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(self.average.parameters()), list(self.model.parameters()), 1 - decay
                )
        return loss.detach()

    def _descend(
        self, inputs: Tensor, labels: Tensor, share: Share, drop: Callable[[Tensor], Tensor] | None
    ) -> Tensor:
        """Compute the gradient of a batch and return its loss."""
        if self.shared is None:
            self.optimiser.zero_grad()
            loss: Tensor = (self._predict(inputs, drop) - labels).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss
        self.shared.clear()
        part = None
        if not share.is_empty:
            part = (self._predict(inputs, drop) - labels).square().sum() / (share.n_items * N_LABELS)
            part.backward()  # type: ignore[no-untyped-call]
        return self.shared.sum_over(self.ranks, part)

    def _predict(self, inputs: Tensor, drop: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Return the predictions of the model in float32, in whatever they are computed."""
        is_on = self.recipe.autocast == "bfloat16"
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=is_on):
            predicted: Tensor = self.model(inputs, drop=drop)
        return predicted.float()

    @torch.no_grad()
    def losses(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Return the mean squared error of each spectrum.

        Parameters
        ----------
        batches : iterable of (Tensor, Tensor)
            As for `step`.

        Returns
        -------
        Tensor of float64, shape (n_spectra,)
        """
        errors = [self.average(inputs).double() - labels for inputs, labels in batches]
        if not errors:
            return torch.zeros(0, dtype=torch.float64)
        return torch.cat(errors).square().mean(dim=1).cpu()

    def keep_as_best(self) -> None:
        """Remember the weights as those of the best model."""
        self.best = _copy(self.average.state_dict())

    def return_to_best(self) -> None:
        """Go on from the best model, with a fresh optimiser."""
        self.model.load_state_dict(self.best)
        self.average.load_state_dict(self.best)
        self.optimiser = self._new_optimiser()

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of all tensors, named as in `TrainingState`."""
        parts: dict[str, dict[str, Tensor]] = {"weights": self.model.state_dict(), "best": self.best}
        if self.average is not self.model:
            parts["average"] = self.average.state_dict()
        for name, parameter in self.model.named_parameters():
            moments = self.optimiser.state.get(parameter, {})
            parts[f"optimiser.{name}"] = {k: v for k, v in moments.items() if isinstance(v, Tensor)}
        return {f"{part}.{k}": v.detach().clone() for part, held in parts.items() for k, v in held.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `tensors` gave.

        Parameters
        ----------
        tensors : dict of Tensor
            By part and name; copied.
        """
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        self.model.load_state_dict(parts["weights"])
        self.average.load_state_dict(parts.get("average", parts["weights"]))
        device = next(self.model.parameters()).device
        self.best = {name: tensor.to(device, copy=True) for name, tensor in parts["best"].items()}
        self.optimiser = self._new_optimiser()
        by_name = dict(self.model.named_parameters())
        for name, tensor in parts.get("optimiser", {}).items():
            parameter_name, _, moment = name.rpartition(".")
            self.optimiser.state[by_name[parameter_name]][moment] = tensor.to(device, copy=True)


def _empty_model() -> SpectrumNet:
    """Return a model with memory for its parameters, not yet set; the global generator is left alone."""
    with torch.device("meta"):
        model = SpectrumNet()
    return model.to_empty(device="cpu")


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}
