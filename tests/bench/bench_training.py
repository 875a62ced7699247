"""How many spectra a second training does on a CPU, against the published way as run and tuned.

    python tests/bench/bench_training.py [--rounds 7] [--seconds 3] [--threads N] [--lock FILE]

The published way: one-dimensional layers in eager float32, a DataLoader, SGD, batches of 128, dropout.
`as run` is what malloc does by default; `tuned` keeps freed memory by environment variables; ours keeps it by
itself. All are processes of their own with as many threads as there are cores, and have their turns in
rounds; the ratios are those within a round. Ours does the same steps on the same spectra (`SGD 128`); beside
it the recipe that a user gets (`robust`: batches of 32, AdamW, a running mean of the weights, noise on the
spectra), which does more for each spectrum. `bf16` is each of them with `autocast = "bfloat16"`. Ours
gathers, scales and transforms each batch within the time; the published way gets its spectra transformed.
Before anything is timed, loss and gradient of the first batch are compared.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from pairs import Contender, Team, Turn, is_quiet, locked, play, quartiles, ratio_text, serve
from published_loop import TUNED, PublishedNet
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from apogee_batch.network.draws import derive_generator, draw_batches, make_dropout
from apogee_batch.network.inputs import TrainingInputs
from apogee_batch.network.learner import Learner
from apogee_batch.network.memory import keep_freed_memory
from apogee_batch.network.model import CHANNELS
from apogee_batch.network.ranks import ALONE, Share
from apogee_batch.network.recipe import Recipe, load_recipe
from apogee_batch.network.scaling import LabelScaler
from apogee_batch.network.training_set import TrainingSet
from apogee_batch.survey.populations import draw_star
from apogee_batch.survey.simulate import simulate_flux
from apogee_batch.survey.simulate_exposure import observe

N_STARS = 1024
SEED = 1
MFLOP_PER_SPECTRUM = 3 * 55.7  # a forward pass, and twice as much for its gradients
PUBLISHED = "published"
AS_RUN, TUNED_NAME, SAME, ROBUST = "published as run", "published tuned", "ours SGD 128", "ours robust"
IN_16_BITS = " bf16"  # ends the name of a contender that computes its passes so
SAME_STEPS = (AS_RUN, TUNED_NAME, SAME)  # to rounding in float32
LARGEST_DIFFERENCE = 1e-3  # relative, of loss and gradient: float32 in other orders of summation

Epoch = Callable[[int], Iterator[object]]


def simulate_training_set() -> TrainingSet:
    """Return simulated stars with their labels, all of them in the training set but the last."""
    stars = [draw_star(SEED, index) for index in range(N_STARS)]
    flux = [
        observe(
            simulate_flux(star),
            snr=star.snr,
            n_visits=1,
            velocity_km_s=0.0,
            rng=np.random.default_rng([SEED, star.index]),
        ).flux
        for star in stars
    ]
    labels = [(one.parameters.logg, one.parameters.teff, one.parameters.fe_h) for one in stars]
    split = np.array(["train"] * (N_STARS - 1) + ["dev"])
    return TrainingSet(np.array(flux), np.array(labels), np.full(N_STARS, "payne"), split)


def recipe_of(name: str) -> Recipe:
    """Return the recipe of a contender; the paper's with an input from which a network learns."""
    changes = {"autocast": "bfloat16" if name.endswith(IN_16_BITS) else "off"}
    if name.startswith(ROBUST):
        return Recipe.model_validate(load_recipe("robust").to_json() | changes)
    changes |= {"input": "contrast", "initialisation": "kaiming"}
    return Recipe.model_validate(load_recipe("paper").to_json() | changes)


class PublishedTrainingNet(PublishedNet):
    """The network as its paper draws it, with the dropout of its training."""

    def forward(self, x: Tensor) -> Tensor:
        """Predict standardised labels of spectra, shape (n_spectra, 1, n_pixels)."""
        for i, _ in enumerate(pairwise(CHANNELS), start=1):
            x = functional.relu(getattr(self, f"conv{i}")(x))
            x = functional.max_pool1d(x, 2) if i % 2 == 0 else x
        x = functional.relu(functional.dropout(self.fc1(x.flatten(1)), 0.1, self.training))
        x = functional.relu(functional.dropout(self.fc2(x), 0.1, self.training))
        return self.fc3(x)


class Published:
    """A training as anyone writes it."""

    def __init__(self, data: TrainingSet, recipe: Recipe) -> None:
        self.batch_size = recipe.batch_size
        flux = torch.from_numpy(data.flux)
        inputs = recipe.transform.apply(flux, recipe.transform.scale(flux))[:, None]
        labels = LabelScaler.from_labels(data.labels).standardise(torch.from_numpy(data.labels)).float()
        self._data = TensorDataset(inputs, labels)
        self._net = PublishedTrainingNet()
        self._net.load_state_dict(Learner(recipe, seed=SEED, device="cpu").model.state_dict())
        self._optimiser = torch.optim.SGD(self._net.parameters(), lr=recipe.learning_rate)

    def first_batch(self) -> tuple[float, float]:
        """Return loss and length of the gradient of the first stars, without dropout."""
        inputs, labels = self._data[: self.batch_size]
        self._net.eval()
        return loss_and_gradient(self._net, functional.mse_loss(self._net(inputs), labels))

    def epoch(self, number: int) -> Iterator[object]:
        """Take the steps of an epoch, one at a time."""
        self._net.train()
        torch.manual_seed(number)
        for inputs, labels in DataLoader(self._data, self.batch_size, shuffle=True, drop_last=True):
            self._optimiser.zero_grad()
            loss = functional.mse_loss(self._net(inputs), labels)
            loss.backward()
            self._optimiser.step()
            yield loss.item()


class Ours:
    """The steps of `training.train`, without its evaluations."""

    def __init__(self, data: TrainingSet, recipe: Recipe) -> None:
        keep_freed_memory()
        self.batch_size = recipe.batch_size
        self._recipe = recipe
        self._inputs = TrainingInputs(data, recipe, LabelScaler.from_labels(data.labels), device="cpu")
        self._learner = Learner(recipe, seed=SEED, device="cpu")

    def first_batch(self) -> tuple[float, float]:
        """Return loss and length of the gradient of the first stars, without dropout and noise."""
        ((inputs, labels),) = self._inputs.each([np.arange(self.batch_size)])
        model = self._learner.model
        return loss_and_gradient(model, (model(inputs) - labels).square().mean())

    def epoch(self, number: int) -> Iterator[object]:
        """Take the steps of an epoch, one at a time."""
        rows = np.arange(N_STARS)
        batches = draw_batches(rows, self.batch_size, min_steps=0, seed=SEED, epoch=number)
        drop = make_dropout(self._recipe, seed=SEED, epoch=number, device="cpu")
        noise = derive_generator(SEED, "augmentation", number)
        share = Share.of(self.batch_size, ALONE)
        for step, (inputs, labels) in enumerate(self._inputs.each(batches, noise=noise)):
            yield self._learner.step(
                inputs,
                labels,
                share=share,
                number=step,
                learning_rate=self._recipe.learning_rate,
                drop=None if drop is None else drop(share),
            )


def loss_and_gradient(model: nn.Module, loss: Tensor) -> tuple[float, float]:
    """Return a loss and the length of its gradient."""
    model.zero_grad()
    loss.backward()
    squares = [grad.double().square().sum() for p in model.parameters() if (grad := p.grad) is not None]
    model.zero_grad()
    return loss.item(), float(torch.stack(squares).sum().sqrt())


def serve_training(name: str) -> None:
    """Be the process of a contender: items are spectra."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    make = Published if name.startswith(PUBLISHED) else Ours
    training = make(simulate_training_set(), recipe_of(name))
    steps = (step for number in range(sys.maxsize) for step in training.epoch(number))

    def work(n_spectra: int) -> None:
        for _ in range(n_spectra // training.batch_size):
            next(steps)

    serve({"first": training.first_batch(), "multiple": training.batch_size}, work)


def start_teams(n_threads: int, seconds: float, lock: Path | None) -> list[Team]:
    """Start everything and fit the length of turns."""
    teams = []
    ours = (SAME, SAME + IN_16_BITS, ROBUST, ROBUST + IN_16_BITS)
    for name, environment in ((AS_RUN, {}), (TUNED_NAME, TUNED), *((name, {}) for name in ours)):
        team = Team(Contender(name, (sys.executable, __file__, "--serve", name), 1, n_threads, environment))
        with locked(lock):
            for _ in range(2):  # the first trial warms up, the second knows roughly how long it may take
                team.fit_share(seconds, team.ready[0]["multiple"])
        teams.append(team)
    return teams


def compare(teams: list[Team]) -> str:
    """Say whether the first steps of those with the same steps agree."""
    wanted, *others = (
        np.array(team.ready[0]["first"]) for team in teams if team.contender.name in SAME_STEPS
    )
    largest = max(float(np.abs(found / wanted - 1).max()) for found in others)
    verdict = "agree" if largest < LARGEST_DIFFERENCE else "DIFFER"
    return f"loss {wanted[0]:.4f} and gradient {wanted[1]:.4f} of the first batch {verdict} ({largest:.0e})"


def table(rounds: list[dict[str, Turn]]) -> list[str]:
    """Return a line for each contender."""
    lines = [f"{'':18s} {'spectra/s [quartiles]':24s} {'x as run':20s} {'x tuned':20s} GFLOP/s"]
    for name in rounds[0]:
        low, rate, high = quartiles([turns[name].rate for turns in rounds])
        ratios = [ratio_text(rounds, name, base) for base in (AS_RUN, TUNED_NAME)]
        speed = f"{rate:.0f} [{low:.0f}, {high:.0f}]"
        useful = rate * MFLOP_PER_SPECTRUM / 1e3
        lines.append(f"{name:18s} {speed:24s} {ratios[0]:20s} {ratios[1]:20s} {useful:7.0f}")
    pairs = {name: ratio_text(rounds, name + IN_16_BITS, name) for name in (SAME, ROBUST)}
    return [*lines, *(f"{name}, bfloat16 over float32: {ratio}" for name, ratio in pairs.items())]


def main() -> None:
    """Compare, or be one of those that are compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--lock", type=Path, help="a file to lock during each round")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve_training(asked.serve)
        return
    teams = start_teams(asked.threads, asked.seconds, asked.lock)
    rounds = play(teams, asked.rounds, lock=asked.lock)
    lines = [compare(teams)]
    for team in teams:
        team.close()
    quiet = [turns for turns in rounds if is_quiet(turns)]
    lines += [f"all {len(rounds)} rounds, {asked.threads} threads", *table(rounds)]
    if 0 < len(quiet) < len(rounds):
        lines += [f"the {len(quiet)} rounds that nobody disturbed", *table(quiet)]
    elif not quiet:
        lines += ["every round was disturbed by others: the ratios hold better than the speeds"]
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main()
