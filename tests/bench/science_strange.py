"""How often strange spectra are flagged, and good ones falsely, as Markdown tables.

    PYTHONPATH=tests python tests/bench/science_strange.py MODEL STORE [--stars 300]

MODEL was trained on STORE. The score is fitted to its training and dev stars; strange spectra are made of the
exposures of its test stars, with noise added down to each signal-to-noise ratio. Labels are those of the
clean spectra.
"""

import argparse
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from strange_spectra import STRANGE, degraded, shifted

from apogee_batch.catalog.flags import catalog_flags
from apogee_batch.network.checkpoint import Checkpoint, load_checkpoint
from apogee_batch.network.features import features_of
from apogee_batch.network.hull import LabelHull, fit_hull
from apogee_batch.network.model import HIDDEN_WIDTH
from apogee_batch.network.strangeness import Strangeness, fit_strangeness
from apogee_batch.schema import DATA_TYPES, LABEL_NAMES, BoolArray, DoubleArray, FloatArray, IntArray
from apogee_batch.store.spectra import SpectrumBatch, open_store, read_spectra
from apogee_batch.store.tables import read_labels, read_stars

SNRS = (20, 50, 100, 200)
SNR_EDGES = (0, 50, 100, 200, 400, np.inf)
TEFF_EDGE = catalog_flags()["TEFF_EDGE"].threshold
assert TEFF_EDGE is not None


@dataclass(frozen=True)
class Survey:
    """A store's labelled stars: row, labels, type and split, SNR."""

    path: Path
    row: IntArray
    labels: DoubleArray
    data_type: np.ndarray
    data_set: np.ndarray
    snr: DoubleArray

    @classmethod
    def read(cls, path: Path) -> "Survey":
        """Read the tables."""
        labels = read_labels(path)
        assert labels is not None, f"{path} has no labels"
        labels = labels.sort_by("row").to_pandas()
        stars = read_stars(path).to_pandas().set_index("row")
        return cls(
            path,
            labels["row"].to_numpy(),
            labels[list(LABEL_NAMES)].to_numpy(float),
            labels["data_type"].to_numpy(str),
            labels["data_set"].to_numpy(str),
            stars["snr"].loc[labels["row"]].to_numpy(float),
        )

    def spectra(self, places: IntArray) -> SpectrumBatch:
        """Read spectra."""
        return read_spectra(open_store(self.path), self.row[places])


@dataclass(frozen=True)
class Judge:
    """Model, score and hull."""

    checkpoint: Checkpoint
    strangeness: Strangeness
    hull: LabelHull

    def flags(self, flux: FloatArray, snr: DoubleArray) -> tuple[BoolArray, BoolArray]:
        """Return which spectra the score calls strange, and which are flagged by their labels."""
        features = features_of(self.checkpoint.model, self.checkpoint.transform, flux)
        labels = predict(self.checkpoint, features)
        is_hot = labels[:, LABEL_NAMES.index("teff")] > (TEFF_EDGE or np.inf)
        score = self.strangeness.score(features, snr)
        return self.strangeness.is_strange(score), is_hot | ~self.hull.contains(labels)


def predict(checkpoint: Checkpoint, features: FloatArray) -> DoubleArray:
    """Return the labels that features stand for."""
    standardised = checkpoint.model.fc3(torch.from_numpy(features[:, HIDDEN_WIDTH:]))
    labels: DoubleArray = checkpoint.scaler.to_physical(standardised).numpy()
    return labels


def choose(survey: Survey, data_set: str, at_most: int, rng: np.random.Generator) -> IntArray:
    """Return places of a split: all M dwarfs and young stars, and as many others as there is room for."""
    places = np.flatnonzero(survey.data_set == data_set)
    is_rare = survey.data_type[places] != DATA_TYPES[0]
    others = rng.permutation(places[~is_rare])[: max(at_most - int(is_rare.sum()), 0)]
    return np.sort(np.concatenate([places[is_rare], others]))


def read_features(checkpoint: Checkpoint, survey: Survey, places: IntArray) -> FloatArray:
    """Compute the features of some stars, some thousand at a time."""
    parts = [places[i : i + 2048] for i in range(0, len(places), 2048)]
    each = (survey.spectra(part).flux for part in parts)
    return np.concatenate([features_of(checkpoint.model, checkpoint.transform, flux) for flux in each])


def fit(checkpoint: Checkpoint, survey: Survey, at_most: int, rng: np.random.Generator) -> Judge:
    """Fit the score and the hull."""
    train, dev = (
        choose(survey, "train", at_most, rng),
        np.flatnonzero(survey.data_set == "dev").astype(np.int32),
    )
    dev_features = read_features(checkpoint, survey, dev)
    strangeness = fit_strangeness(read_features(checkpoint, survey, train), dev_features, survey.snr[dev])
    hull = fit_hull(survey.labels[survey.data_set == "train"], predict(checkpoint, dev_features))
    assert strangeness is not None and hull is not None, "too few stars"  # noqa: PT018
    say(
        f"{len(train)} training stars, {len(dev)} dev stars; cells of the hull {np.round(hull.grid.width, 3)}"
    )
    return Judge(checkpoint, strangeness, hull)


def say(*cells: str) -> None:
    """Print one line: a sentence, or a row of a table."""
    print(cells[0] if len(cells) == 1 else f"| {' | '.join(cells)} |", flush=True)  # noqa: T201


def rate(is_flagged: BoolArray) -> str:
    """Return a percentage."""
    return f"{100 * is_flagged.mean():.1f}" if len(is_flagged) else "-"


def show_strange(judge: Judge, survey: Survey, n_stars: int, rng: np.random.Generator) -> None:
    """Print how often each kind is flagged: by the score / by its labels / by one or the other."""
    say("kind", *(f"SNR {snr}" for snr in SNRS))
    say("---", *("---:" for _ in SNRS))
    bright = np.flatnonzero((survey.data_set == "test") & (survey.snr >= max(SNRS)))
    places = np.sort(rng.permutation(bright)[:n_stars])
    batch = survey.spectra(places)
    exposures = [degraded(batch.flux, batch.err, survey.snr[places, None] / snr, rng) for snr in SNRS]
    for name, build in {"(good stars)": shifted(0), **STRANGE}.items():
        cells = []
        for flux, err in exposures:
            strange = build(flux, err, rng)
            is_strange, is_outside = judge.flags(strange, np.median(strange / err, axis=1))
            cells.append(f"{rate(is_strange)} / {rate(is_outside)} / {rate(is_strange | is_outside)}")
        say(name, *cells)


def show_good(judge: Judge, survey: Survey) -> None:
    """Print how often good test stars are flagged, by type and signal-to-noise ratio."""
    places = np.flatnonzero(survey.data_set == "test").astype(np.int32)
    snr, data_type = survey.snr[places], survey.data_type[places]
    is_strange, is_outside = judge.flags(survey.spectra(places).flux, snr)
    spans = list(pairwise(SNR_EDGES))
    say("type", "all", *(f"SNR {low}-{high}" for low, high in spans))
    say("---", "---:", *("---:" for _ in spans))
    for name in ("all", *DATA_TYPES):
        of_type = (data_type == name) | (name == "all")
        groups = [of_type, *(of_type & (snr >= low) & (snr < high) for low, high in spans)]
        say(name, *(f"{rate(is_strange[g])} / {rate(is_outside[g])} of {g.sum()}" for g in groups))


def main() -> None:
    """Fit the score to a model and its store; print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--train-stars", type=int, default=20_000)
    parser.add_argument("--stars", type=int, default=300, help="strange spectra of each kind")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    survey = Survey.read(asked.store)
    with torch.inference_mode():
        judge = fit(load_checkpoint(asked.model), survey, asked.train_stars, rng)
        say("\nPer cent flagged by the score / by TEFF_EDGE or the hull / by either:\n")
        show_strange(judge, survey, asked.stars, rng)
        say("\nPer cent of good test stars flagged by the score / by TEFF_EDGE or the hull:\n")
        show_good(judge, survey)


if __name__ == "__main__":
    main()
