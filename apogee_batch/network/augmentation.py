"""Training spectra that differ a little every time they are seen."""

import torch
from torch import Tensor

from apogee_batch.network.scaling import measure_brightness

LEAST_NOISE_SHARE = 0.01  # a copy's noise lies between this share of the recipe's and all of it


def add_noise(flux: Tensor, max_noise: float, generator: torch.Generator) -> Tensor:
    """Return copies of spectra with white noise; gaps stay 0.

    Each spectrum draws its own standard deviation, uniform in the logarithm between a hundredth of the
    largest and the largest, so that the network sees it as a bright and as a faint star.

    Parameters
    ----------
    flux : Tensor of float32, shape (n_spectra, n_pixels)
        Gaps hold 0.
    max_noise : float
        Largest standard deviation, in units of the spectrum's median flux.
    generator : torch.Generator
        On the device of `flux`.

    Returns
    -------
    Tensor of float32, shape (n_spectra, n_pixels)
    """
    share = torch.rand((len(flux), 1), generator=generator, device=flux.device)
    sigma = measure_brightness(flux) * max_noise * LEAST_NOISE_SHARE**share  # (n_spectra, 1)
    noise = torch.randn(flux.shape, generator=generator, device=flux.device)
    return noise.mul_(sigma).add_(flux).masked_fill_(flux == 0, 0.0)
