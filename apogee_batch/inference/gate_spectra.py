"""The spectra and the network that engines are tried on, where no survey and no model is at hand.

Spectra are sketched from labels (`survey.sketch`) and observed as the telescope would: gaps, night sky, edges
and spikes are in their errors. The network learns for seconds from more of them: random weights would not do,
as their outputs scatter far more with the noise of a spectrum than those of a network that has learned to
average it, and so hide what rounding adds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apogee_batch.inference.engines import StarBatch
from apogee_batch.inference.noise import derive_noise_key
from apogee_batch.inference.realizations import cap_err
from apogee_batch.network.checkpoint import build_model
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.recipe import Recipe, load_recipe
from apogee_batch.network.scaling import InputTransform, LabelScaler
from apogee_batch.network.training import train
from apogee_batch.network.training_set import TrainingSet
from apogee_batch.schema import DATA_TYPES, LABEL_NAMES, FloatArray
from apogee_batch.survey.populations import SimulatedStar, draw_star
from apogee_batch.survey.simulate import simulate_flux
from apogee_batch.survey.simulate_exposure import observe

STARS_SEED, LEARNING_SEED, NOISE_SEED = 1000, 2000, 3000
STARS_TO_CHOOSE_FROM = 20  # for each star wanted: enough for an even spread of temperatures
OBSERVED_SNR = 1000.0  # of the spectra that realizations are drawn around: as good as the best
N_LEARNING_STARS, LEARNING_EPOCHS, STEPS_PER_EPOCH = 512, 4, 30
DEV_EVERY = 8


@dataclass(frozen=True)
class GateSpectra:
    """Spectra to try an engine on.

    Attributes
    ----------
    names : tuple of str, length n_stars
        What reports call the stars; their noise follows from it.
    flux, err : ndarray of float32, shape (n_stars, n_pixels)
        As a store holds them. Of the errors only their spread over the pixels is used.
    """

    names: tuple[str, ...]
    flux: FloatArray
    err: FloatArray

    def __post_init__(self) -> None:
        if not self.flux.shape == self.err.shape == (len(self.names), *self.flux.shape[1:]):
            raise ValueError("names, flux and err belong to the same stars")
        if not self.names:
            raise ValueError("an engine cannot be tried on no star")

    def at_snr(self, snr: float | Sequence[float]) -> StarBatch:
        """Return the stars with the errors of a signal-to-noise ratio.

        The errors keep their spread over the pixels, capped as ever, and none in the gaps; the median flux
        over the median error is `snr`.

        Parameters
        ----------
        snr : float or sequence of float, length n_stars
            Per pixel.
        """
        each = zip(self.flux, self.err, np.broadcast_to(snr, len(self.names)), strict=True)
        err = np.stack([_scaled_err(flux, err, float(one)) for flux, err, one in each])
        keys = tuple(derive_noise_key(NOISE_SEED, name) for name in self.names)
        return StarBatch(self.flux, err, keys)


def _scaled_err(flux: FloatArray, err: FloatArray, snr: float) -> FloatArray:
    """Return the errors of one star for a signal-to-noise ratio, shape (n_pixels,)."""
    capped = cap_err(err)
    has_noise = capped > 0
    if not has_noise.any():
        raise ValueError("a star without a measured pixel has no noise to try an engine with")
    factor = np.median(np.abs(flux[has_noise])) / (snr * np.median(capped[has_noise]))
    return capped * np.float32(factor)


def simulate_spectra(n_stars: int = 16) -> GateSpectra:
    """Return spectra of simulated stars from the coolest to the hottest; the same ones every time.

    Parameters
    ----------
    n_stars : int
        At least one.
    """
    candidates = [draw_star(STARS_SEED, i) for i in range(STARS_TO_CHOOSE_FROM * n_stars)]
    candidates.sort(key=lambda star: star.parameters.teff)
    half = STARS_TO_CHOOSE_FROM // 2
    stars = candidates[half::STARS_TO_CHOOSE_FROM]  # the middle one of each of n_stars groups
    observed = [_observe(star, snr=OBSERVED_SNR) for star in stars]
    names = tuple(f"{i}: {star.population} {star.parameters.teff:.0f} K" for i, star in enumerate(stars, 1))
    flux, err = (np.array(plane) for plane in zip(*observed, strict=True))
    return GateSpectra(names, flux, err)


def _observe(star: SimulatedStar, *, snr: float) -> tuple[FloatArray, FloatArray]:
    """Return flux and error of one visit to a star."""
    exposure = observe(
        simulate_flux(star),
        snr=snr,
        n_visits=1,
        velocity_km_s=star.velocity_km_s,
        rng=np.random.default_rng([STARS_SEED, star.index, 2]),
    )
    return exposure.flux, exposure.err


def train_stand_in(
    *,
    n_stars: int = N_LEARNING_STARS,
    epochs: int = LEARNING_EPOCHS,
    steps_per_epoch: int = STEPS_PER_EPOCH,
    n_threads: int | None = None,
) -> tuple[SpectrumNet, InputTransform, LabelScaler]:
    """Train a network on simulated spectra, long enough for its labels to follow the lines.

    Parameters
    ----------
    n_stars, epochs, steps_per_epoch : int
        Size of the training; the defaults take 11 s on two cores and reach a normalised MSE of 0.03.
    n_threads : int, optional
        As `training.train` takes it.

    Returns
    -------
    tuple of SpectrumNet, InputTransform and LabelScaler
    """
    training_set = _learning_stars(n_stars)
    changes = {
        "name": "stand-in",
        "max_epochs": epochs,
        "min_steps_per_epoch": steps_per_epoch,
        "patience": epochs,
        "adaptation_max_rounds": 0,
    }
    recipe = Recipe.model_validate(load_recipe("robust").to_json() | changes)
    trained = train(training_set, recipe, seed=LEARNING_SEED, n_threads=n_threads)
    return build_model(trained.weights), trained.header.transform, trained.header.scaler


def _learning_stars(n_stars: int) -> TrainingSet:
    """Return simulated stars with their true labels; one of `DEV_EVERY` is in the dev set."""
    stars = [draw_star(LEARNING_SEED, i) for i in range(n_stars)]
    labels = [[getattr(star.parameters, name) for name in LABEL_NAMES] for star in stars]
    is_dev = np.arange(n_stars) % DEV_EVERY == DEV_EVERY - 1
    return TrainingSet(
        flux=np.array([_observe(star, snr=star.snr)[0] for star in stars]),
        labels=np.array(labels, np.float64),
        data_type=np.array([star.data_type or DATA_TYPES[0] for star in stars]),
        data_set=np.where(is_dev, "dev", "train"),
    )
