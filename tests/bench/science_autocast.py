"""Whether a network learns as well where `autocast = "bfloat16"`: trainings in pairs, as Markdown tables.

    python tests/bench/science_autocast.py RESULTS [--seeds 5] [--epochs 10] [--stars 1500]

Each seed trains the recipe `robust`, without early stopping and adaptation, on the same simulated stars:
in float32, in bfloat16, and once more in float32 with steps longer by a millionth. The three begin with the
same weights and see the same batches, noise and dropout. How far the last one gets from the first shows what
rounding of any kind does to a training, which is chaotic: less cannot be asked of bfloat16.

Each training appends a line to RESULTS; those that are there already are not done again, and `--seeds 0`
shows the tables of what there is. Dev losses are always computed in float32, labels of test stars by the
exact engine.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from apogee_batch.inference.choose import choose_engine, make_engine
from apogee_batch.inference.engines import Engine
from apogee_batch.inference.estimates import estimate_labels
from apogee_batch.network.memory import keep_freed_memory
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.recipe import Recipe, load_recipe
from apogee_batch.network.state import EpochMetrics, TrainingState
from apogee_batch.network.training import TrainedNetwork, train
from apogee_batch.network.training_set import TrainingSet
from apogee_batch.schema import LABEL_NAMES, DoubleArray, FloatArray
from apogee_batch.survey.populations import UNLABELLED, SimulatedStar, data_type_of, draw_star
from apogee_batch.survey.simulate import simulate_flux
from apogee_batch.survey.simulate_exposure import observe

FLOAT32, BFLOAT16, NUDGED = "float32", "bfloat16", "float32 nudged"
VARIANTS: dict[str, dict[str, object]] = {
    FLOAT32: {},
    BFLOAT16: {"autocast": "bfloat16"},
    NUDGED: {"learning_rate": 0.001 * (1 + 1e-6)},
}
SURVEY_SEED = 20
SPLITS = ("train",) * 7 + ("dev",) * 2 + ("test",)
SNRS = (30, 100, 200, 500)
N_REALIZATIONS = 20
UNITS = {"logg": "dex", "teff": "K", "fe_h": "dex"}

Result = dict[str, Any]


@dataclass(frozen=True)
class Survey:
    """Stars to learn from, and test stars at each SNR: their keys, true labels, flux and errors."""

    training_set: TrainingSet
    keys: list[str]
    truth: DoubleArray
    exposures: dict[int, tuple[FloatArray, FloatArray]]


def expose(star: SimulatedStar, snr: float) -> tuple[FloatArray, FloatArray]:
    """Observe a star: flux and errors."""
    rng = np.random.default_rng([SURVEY_SEED, star.index, int(snr)])
    seen = observe(simulate_flux(star), snr=snr, n_visits=1, velocity_km_s=star.velocity_km_s, rng=rng)
    return seen.flux, seen.err


def simulate(n_stars: int) -> Survey:
    """Simulate a survey of stars with labels."""
    indices = [i for i in range(2 * n_stars) if data_type_of(i) != UNLABELLED][:n_stars]
    stars = [draw_star(SURVEY_SEED, i) for i in indices]
    training_set = TrainingSet(
        np.stack([expose(star, star.snr)[0] for star in stars]),
        np.array([[star.labels[name] for name in LABEL_NAMES] for star in stars]),
        np.array([star.data_type for star in stars]),
        np.array([SPLITS[i % len(SPLITS)] for i in range(n_stars)]),
    )
    tested = [star for star, is_in in zip(stars, training_set.data_set == "test", strict=True) if is_in]
    exposures = {}
    for snr in SNRS:
        flux, err = zip(*(expose(star, snr) for star in tested), strict=True)
        exposures[snr] = (np.stack(flux), np.stack(err))
    truth = np.array([[getattr(star.parameters, name) for name in LABEL_NAMES] for star in tested])
    return Survey(training_set, [star.apstar_id for star in tested], truth, exposures)


def recipe_of(variant: str, n_epochs: int) -> Recipe:
    """Return the recipe of a variant."""
    changes = {"max_epochs": n_epochs, "patience": n_epochs, "adaptation_max_rounds": 0}
    return Recipe.model_validate(load_recipe("robust").to_json() | changes | VARIANTS[variant])


def measure(survey: Survey, seed: int, variant: str, n_epochs: int) -> Result:
    """Train once and test."""
    losses: list[float] = []
    by_type: list[dict[str, float]] = []

    def note(metrics: EpochMetrics, state: TrainingState) -> None:
        del state
        losses.append(metrics.dev_loss)
        by_type.append(metrics.dev_loss_by_type)

    begin = time.process_time()
    trained = train(
        survey.training_set,
        recipe_of(variant, n_epochs),
        seed=seed,
        n_threads=1,
        on_epoch=note,
    )
    cpu_s = time.process_time() - begin
    mean, std = {}, {}
    for snr, (flux, err) in survey.exposures.items():
        found = estimate_labels(
            engine_of(trained), survey.keys, flux, err, n_realizations=N_REALIZATIONS, run_seed=1
        )
        mean[str(snr)], std[str(snr)] = found.mean.tolist(), found.std.tolist()
    return {
        "seed": seed,
        "variant": variant,
        "n_stars": len(survey.training_set.flux),
        "n_epochs": n_epochs,
        "cpu_s": cpu_s,
        "dev_loss": losses,
        "dev_loss_by_type": by_type,
        "dev_rms": dev_rms(survey.training_set, trained).tolist(),
        "truth": survey.truth.tolist(),
        "mean": mean,
        "std": std,
    }


def engine_of(trained: TrainedNetwork) -> Engine:
    """Return the exact engine of this machine for a network."""
    model = SpectrumNet().eval()
    model.load_state_dict(trained.weights)
    offer = choose_engine("auto", "exact", "cpu")
    return make_engine(offer, model, trained.header.transform, trained.header.scaler)


def dev_rms(training_set: TrainingSet, trained: TrainedNetwork) -> DoubleArray:
    """Return the rms of the dev stars against their labels, shape (n_labels,)."""
    is_dev = training_set.data_set == "dev"
    flux = training_set.flux[is_dev]
    keys = [str(i) for i in range(len(flux))]
    found = estimate_labels(engine_of(trained), keys, flux, np.ones_like(flux), n_realizations=2, run_seed=1)
    return np.sqrt(np.square(found.clean - training_set.labels[is_dev]).mean(axis=0))


def train_missing(path: Path, n_stars: int, n_epochs: int, wanted: list[tuple[int, str]]) -> None:
    """Do the trainings that RESULTS lacks."""
    done = {(each["seed"], each["variant"]) for each in read(path)}
    missing = [each for each in wanted if each not in done]
    if not missing:
        return
    keep_freed_memory()
    survey = simulate(n_stars)
    for seed, variant in missing:
        result = measure(survey, seed, variant, n_epochs)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        say(f"seed {seed}, {variant}: dev loss {result['dev_loss'][-1]:.5f}, {result['cpu_s']:.0f} s")


def read(path: Path) -> list[Result]:
    """Return what was measured before."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def say(*cells: str) -> None:
    """Print one line: a sentence, or a row of a table."""
    print(cells[0] if len(cells) == 1 else f"| {' | '.join(cells)} |", flush=True)  # noqa: T201


def head(*cells: str) -> None:
    """Print the first lines of a table."""
    say("")
    say(*cells)
    say("---", *("---:" for _ in cells[1:]))


def pair_up(results: list[Result], other: str) -> list[tuple[Result, Result]]:
    """Return the trainings in float32 beside those of another variant with the same seed."""
    by_name = {(each["seed"], each["variant"]): each for each in results}
    seeds = sorted({seed for seed, _ in by_name})
    pairs = [(by_name.get((seed, FLOAT32)), by_name.get((seed, other))) for seed in seeds]
    return [(one, two) for one, two in pairs if one is not None and two is not None]


def difference(pairs: list[tuple[Result, Result]], value: Callable[[Result], float]) -> str:
    """Return the mean of the paired differences with its standard error, in percent of float32."""
    values = np.array([[value(each) for each in pair] for pair in pairs])
    percent = 100 * (values[:, 1] - values[:, 0]) / values[:, 0].mean()
    error = percent.std(ddof=1) / np.sqrt(len(pairs)) if len(pairs) > 1 else np.nan
    return f"{percent.mean():+.2f} ± {error:.2f}"


def mean_of(pairs: list[tuple[Result, Result]], place: int, value: Callable[[Result], float]) -> float:
    """Return the mean over the seeds of one of the two."""
    return float(np.mean([value(pair[place]) for pair in pairs]))


def show_losses(results: list[Result]) -> None:
    """Print the last and the lowest dev loss of each training, and their paired differences."""
    head("seed", *(f"{name}, last / lowest" for name in VARIANTS))
    by_name = {(each["seed"], each["variant"]): each["dev_loss"] for each in results}
    for seed in sorted({seed for seed, _ in by_name}):
        found = [by_name.get((seed, name)) for name in VARIANTS]
        say(str(seed), *("-" if loss is None else f"{loss[-1]:.5f} / {min(loss):.5f}" for loss in found))
    last = np.array([loss[-1] for (_, variant), loss in by_name.items() if variant == FLOAT32])
    if len(last) > 1:
        say(f"\nScatter of float32 from seed to seed: {100 * last.std(ddof=1) / last.mean():.1f} %.")
    head("less float32, same seed, %", "pairs", "last dev loss", "lowest dev loss")
    for name in (BFLOAT16, NUDGED):
        if pairs := pair_up(results, name):
            last_text = difference(pairs, lambda each: each["dev_loss"][-1])
            say(name, str(len(pairs)), last_text, difference(pairs, lambda each: min(each["dev_loss"])))


def show_epochs(pairs: list[tuple[Result, Result]]) -> None:
    """Print mean dev losses by epoch."""
    head("epoch", FLOAT32, BFLOAT16, "difference, %")
    for i in range(len(pairs[0][0]["dev_loss"])):

        def loss(each: Result, i: int = i) -> float:
            return float(each["dev_loss"][i])

        say(str(i + 1), *(f"{mean_of(pairs, k, loss):.5f}" for k in (0, 1)), difference(pairs, loss))


def show_labels(pairs: list[tuple[Result, Result]]) -> None:
    """Print the rms of dev stars, and rms and scatter of test stars at each SNR."""
    head("rms", "label", FLOAT32, BFLOAT16, "difference, %", "sigma, difference, %")
    for k, name in enumerate(LABEL_NAMES):

        def dev(each: Result, k: int = k) -> float:
            return float(each["dev_rms"][k])

        means = [f"{mean_of(pairs, place, dev):.4g} {UNITS[name]}" for place in (0, 1)]
        say("dev, against labels", name, *means, difference(pairs, dev), "")
    for snr in map(str, SNRS):
        for k, name in enumerate(LABEL_NAMES):

            def rms(each: Result, snr: str = snr, k: int = k) -> float:
                error = np.array(each["mean"][snr])[:, k] - np.array(each["truth"])[:, k]
                return float(np.sqrt(np.square(error).mean()))

            def sigma(each: Result, snr: str = snr, k: int = k) -> float:
                return float(np.median(np.array(each["std"][snr])[:, k]))

            means = [f"{mean_of(pairs, place, rms):.4g} {UNITS[name]}" for place in (0, 1)]
            say(f"test, SNR {snr}", name, *means, difference(pairs, rms), difference(pairs, sigma))


def show_shifts(results: list[Result]) -> None:
    """Print how far two networks of the same seed are apart on test stars, and those of two seeds."""
    head("test stars at SNR 100, rms of", *(f"{name}, {UNITS[name]}" for name in LABEL_NAMES))
    plain = [each for each in results if each["variant"] == FLOAT32]
    kinds = {f"{name} less float32, same seed": pair_up(results, name) for name in (BFLOAT16, NUDGED)}
    kinds["float32 less float32, next seed"] = list(pairwise(sorted(plain, key=lambda each: each["seed"])))
    for kind, pairs in kinds.items():
        if pairs:
            apart = np.array([np.subtract(*(each["mean"]["100"] for each in pair)) for pair in pairs])
            rms, shift = np.sqrt(np.square(apart).mean(axis=(0, 1))), -apart.mean(axis=(0, 1))
            say(kind, *(f"{one:.3g} (mean {two:+.2g})" for one, two in zip(rms, shift, strict=True)))


def main() -> None:
    """Train what is missing, and show what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--stars", type=int, default=1500)
    asked = parser.parse_args()
    seeds = range(1, asked.seeds + 1)
    wanted = [(seed, variant) for seed in seeds for variant in (FLOAT32, BFLOAT16)]
    wanted += [(seed, NUDGED) for seed in seeds]
    train_missing(asked.results, asked.stars, asked.epochs, wanted)
    results = read(asked.results)
    show_losses(results)
    if pairs := pair_up(results, BFLOAT16):
        show_epochs(pairs)
        show_labels(pairs)
        show_shifts(results)
    seconds = {name: [each["cpu_s"] for each in results if each["variant"] == name] for name in VARIANTS}
    told = [f"{name} {np.median(found):.0f} s" for name, found in seconds.items() if found]
    say(f"\nProcessor time of a training, median: {', '.join(told)}.")


if __name__ == "__main__":
    main()
