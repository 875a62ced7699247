"""The published way on a GPU: star after star, torch's defaults, TF32 among them."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from apogee_batch.inference.engines import StarBatch
from apogee_batch.network.model import N_CONVOLUTIONS, SpectrumNet
from apogee_batch.network.scaling import InputTransform

N_REALIZATIONS = 100


def estimate_as_published(
    model: SpectrumNet, transform: InputTransform, stars: StarBatch, device: str
) -> Callable[[], None]:
    """Return what estimates all of some stars, one after the other."""
    flux, err = torch.from_numpy(stars.flux), torch.from_numpy(stars.err)

    def estimate_all() -> None:
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
            for spectrum, spread in zip(flux, err, strict=True):
                scale = transform.scale(spectrum[None]).to(device)
                clean = spectrum[None].to(device)
                noisy = clean + torch.randn((N_REALIZATIONS, len(spectrum)), device=device) * spread.to(
                    device
                )
                for rows in (clean, noisy):
                    labels = convolve_as_published(model, transform.apply(rows, scale))
                    labels.mean(0).cpu(), labels.std(0, correction=0).cpu()

    return estimate_all


def convolve_as_published(model: SpectrumNet, inputs: Tensor) -> Tensor:
    """Run the network with one-dimensional convolutions, one operation after the other."""
    x = inputs[:, None]
    for i in range(1, N_CONVOLUTIONS + 1):
        x = functional.relu(model.get_submodule(f"conv{i}")(x))
        if i % 2 == 0:
            x = functional.max_pool1d(x, 2)
    return model.predict_from_features(x.flatten(1))
