"""Training spectra that differ a little every time they are seen."""

from dataclasses import dataclass

import torch
from torch import Tensor

from apogee_batch.network.recipe import Recipe
from apogee_batch.network.scaling import measure_brightness

LEAST_NOISE_SHARE = 0.01  # the noise of a copy lies between this share of the recipe's and all of it


@dataclass(frozen=True)
class Augmentation:
    """How far a training spectrum may be changed; all zero: not at all.

    Attributes
    ----------
    noise : float
        Largest standard deviation of the added white noise, in units of the spectrum's median flux. Each
        spectrum draws its own, uniform in the logarithm, down to a hundredth of it.
    tilt : float
        Standard deviation of the slope and of the curvature of a random continuum.
    max_shift : int
        Largest shift, in pixels.
    """

    noise: float
    tilt: float
    max_shift: int

    @classmethod
    def from_recipe(cls, recipe: Recipe) -> "Augmentation":
        """Return the augmentation that a recipe asks for."""
        return cls(recipe.noise, recipe.tilt, recipe.max_shift)

    def apply(self, flux: Tensor, generator: torch.Generator) -> Tensor:
        """Return changed copies of spectra; gaps stay 0.

        Parameters
        ----------
        flux : Tensor of float32, shape (n_spectra, n_pixels)
            Gaps hold 0.
        generator : torch.Generator
            On the device of `flux`.
        """
        changed = flux
        if self.noise > 0:
            changed = self._add_noise(changed, generator)
        if self.tilt > 0:
            changed = self._tilt(changed, generator)
        if self.max_shift > 0:
            changed = self._shift(changed, generator)
        return changed

    def _add_noise(self, flux: Tensor, generator: torch.Generator) -> Tensor:
        share = torch.rand((len(flux), 1), generator=generator, device=flux.device)
        sigma = measure_brightness(flux) * self.noise * LEAST_NOISE_SHARE**share  # (n_spectra, 1)
        noise = torch.randn(flux.shape, generator=generator, device=flux.device).mul_(sigma).add_(flux)
        return noise.masked_fill_(flux == 0, 0.0)

    def _tilt(self, flux: Tensor, generator: torch.Generator) -> Tensor:
        position = torch.linspace(-1.0, 1.0, flux.shape[1], device=flux.device)
        shapes = torch.stack((position, position.square() - 1 / 3))  # (2, n_pixels), mean 0
        weights = torch.randn((len(flux), 2), generator=generator, device=flux.device) * self.tilt
        return flux * torch.addmm(torch.ones((), device=flux.device), weights, shapes)

    def _shift(self, flux: Tensor, generator: torch.Generator) -> Tensor:
        shift = torch.randint(
            -self.max_shift, self.max_shift + 1, (len(flux), 1), generator=generator, device=flux.device
        )
        pixels = torch.arange(flux.shape[1], device=flux.device)
        return flux.gather(1, (pixels - shift) % flux.shape[1])  # both ends of a spectrum are gaps
