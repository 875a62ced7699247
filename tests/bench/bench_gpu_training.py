"""The part of `bench_gpu.py` that trains: its recipes want pydantic."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, product

import numpy as np
import torch

from apogee_batch.network.draws import derive_generator, draw_batches, make_dropout
from apogee_batch.network.inputs import DeviceSpectra, HostSpectra, TrainingInputs
from apogee_batch.network.learner import Learner
from apogee_batch.network.ranks import ALONE, Share
from apogee_batch.network.recipe import load_recipe
from apogee_batch.network.scaling import LabelScaler
from apogee_batch.network.training_set import TrainingSet
from apogee_batch.survey.pixels import N_PIXELS

N_WARM = 3


def make_training_set(n_stars: int) -> TrainingSet:
    """Return bright noise with labels: it is the time of the steps that counts."""
    rng = np.random.default_rng(1)
    flux = 100 + rng.random((n_stars, N_PIXELS), dtype=np.float32)
    labels = rng.normal([3.0, 4700.0, -0.2], [1.0, 700.0, 0.3], (n_stars, 3))
    return TrainingSet(flux, labels, np.full(n_stars, "payne"), np.full(n_stars, "train"))


def time_training(device: str, seconds: Callable[[Callable[[], object]], float]) -> Iterator[str]:
    """Yield a line for each recipe's batch, and for spectra on the device and on the host."""
    n_stars, n_steps = (20_000, 100) if device != "cpu" else (200, 1)
    training_set = make_training_set(n_stars)
    rows = training_set.rows("train")
    scaler = LabelScaler.from_labels(training_set.labels)
    for batch_size, autocast in product((32, 128, 512), ("off", "bfloat16")):
        changes = {"batch_size": batch_size, "autocast": autocast}
        recipe = load_recipe("robust").model_copy(update=changes)
        batches = draw_batches(rows, batch_size, min_steps=n_steps + N_WARM, seed=1, epoch=0)
        batches = batches[: n_steps + N_WARM]
        for place in ("device", "host"):
            prepared = TrainingInputs(training_set, recipe, scaler, device=device)
            is_on_device = place == "device"
            spectra = DeviceSpectra(training_set.flux, rows, device) if is_on_device else None
            prepared._spectra = spectra or HostSpectra(training_set.flux, device)
            learner = Learner(recipe, seed=1, device=device)
            drop = make_dropout(recipe, seed=1, epoch=0, device=device)
            noise = derive_generator(1, "augmentation", 0, device=device)
            steps = enumerate(zip(batches, prepared.each(batches, noise=noise), strict=True))

            def go(n: int, learner=learner, drop=drop, steps=steps) -> None:
                for i, (batch, (inputs, labels)) in islice(steps, n):
                    share = Share.of(len(batch), ALONE)
                    chance = None if drop is None else drop(share)
                    learner.step(inputs, labels, share=share, number=i, learning_rate=1e-3, drop=chance)

            with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                go(N_WARM)
                rate = n_steps * batch_size / seconds(partial(go, n_steps))
            kind = "float32" if autocast == "off" else autocast
            yield f"batches of {batch_size:3}, {kind:8}, spectra on the {place:6} {rate:9.0f} spectra/s"
