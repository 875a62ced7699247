"""The small CNN that tells young stars from their photometry, and how it is trained and kept."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from apogee_batch.errors import ApogeeBatchError
from apogee_batch.labels.synthetic_stars import DISTANCE, OUTPUTS, StarInputs, SyntheticStars
from apogee_batch.schema import DoubleArray

CHANNELS = (32, 64, 128)
HIDDEN = 256
LOSS_BEND = 0.02
"""Residual, over the deviation of its output, from which on the loss is linear. With squares throughout,
stars that dust hides in all but two or three bands would rule: so, the median residual is a third smaller."""
N_PLANES = 3  # of the input: absolute magnitude, colour against the required band, whether it is given


@dataclass(frozen=True)
class TrainingSettings:
    """How the network is trained; the paper does not tell how it trained its own.

    Attributes
    ----------
    epochs, batch_size : int
    learning_rate : float
        The largest: it rises over the first twentieth of the steps, then falls along half a cosine to zero.
    """

    epochs: int = 60
    batch_size: int = 256
    learning_rate: float = 2e-3


class PhotometricNet(nn.Module):
    """Three convolutions with max-pooling and two fully connected layers, as in section 2.4 of the paper.

    The inputs stand in a row, the bands by wavelength, so that a convolution sees colours. Before, a
    magnitude becomes absolute (the distance is one of the inputs, so nothing is lost) and everything is
    brought to mean 0 and deviation 1. Outputs likewise are brought back to their units.

    Parameters
    ----------
    inputs : sequence of str
        Names of the inputs, as `SyntheticSettings.inputs`.
    bands : sequence of str
        Those of them that are bands.
    required_band : str
        Against which colours are taken.
    """

    def __init__(self, inputs: Sequence[str], bands: Sequence[str], required_band: str) -> None:
        super().__init__()
        n_inputs = len(inputs)
        self.n_bands = len(bands)
        self.distance_at = list(inputs).index(DISTANCE)
        self.required_at = list(bands).index(required_band)
        self.input_mean, self.input_std = (
            nn.Buffer(fill((2, n_inputs))) for fill in (torch.zeros, torch.ones)
        )
        self.output_mean, self.output_std = (
            nn.Buffer(fill(len(OUTPUTS))) for fill in (torch.zeros, torch.ones)
        )
        layers: list[nn.Module] = []
        length, n_channels = n_inputs, N_PLANES
        for n_out in CHANNELS:
            layers += [nn.Conv1d(n_channels, n_out, 3, padding=1), nn.SiLU(), nn.MaxPool1d(2, ceil_mode=True)]
            n_channels, length = n_out, (length + 1) // 2
        self.convolutions = nn.Sequential(*layers)
        self.fc1 = nn.Linear(n_channels * length, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, len(OUTPUTS))

    def planes(self, values: Tensor) -> Tensor:
        """Return absolute magnitudes, and colours against the required band; (n_stars, 2, n_inputs)."""
        modulus = 5 * values[:, self.distance_at : self.distance_at + 1] - 5
        absolute, colour = values.clone(), torch.zeros_like(values)
        absolute[:, : self.n_bands] -= modulus
        bands = values[:, : self.n_bands]
        colour[:, : self.n_bands] = bands - bands[:, self.required_at : self.required_at + 1]
        return torch.stack([absolute, colour], dim=1)

    def scaled(self, planes: Tensor, is_given: Tensor) -> Tensor:
        """Return what the convolutions see, (n_stars, 3, n_inputs): 0 for what is not given."""
        shown = is_given[:, None, :].to(planes.dtype)
        return torch.cat([(planes - self.input_mean) / self.input_std * shown, shown], dim=1)

    def forward(self, scaled: Tensor) -> Tensor:
        """Return the outputs with mean 0 and deviation 1, shape (n_stars, 5)."""
        features = self.convolutions(scaled).flatten(1)
        return self.fc2(nn.functional.silu(self.fc1(features)))  # type: ignore[no-any-return]

    def predict(self, inputs: StarInputs) -> DoubleArray:
        """Return `OUTPUTS` of stars in their units, shape (n_stars, 5)."""
        with torch.inference_mode():
            scaled = self.scaled(
                self.planes(torch.from_numpy(inputs.values)), torch.from_numpy(inputs.is_given)
            )
            outputs = self(scaled.float()).double() * self.output_std + self.output_mean
        return np.asarray(outputs.numpy())


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread, so that its sums do not depend on the number of cores.

    For a network as small as this one more of them are no faster.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_net(
    net: PhotometricNet,
    train: SyntheticStars,
    dev: SyntheticStars,
    settings: TrainingSettings,
    *,
    seed: int,
    on_epoch: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> float:
    """Train a network from new weights; it keeps those of its best epoch.

    Parameters
    ----------
    net : PhotometricNet
        Is changed.
    train, dev : SyntheticStars
        Those it learns from, and those that choose the epoch.
    settings : TrainingSettings
    seed : int
        Of the weights and the order of the stars: the same seed gives the same network on one machine.
    on_epoch : callable
        Told the number of epochs done and the loss on `dev`.

    Returns
    -------
    float
        The loss on `dev`, of outputs of deviation 1: see `LOSS_BEND`.

    Raises
    ------
    ApogeeBatchError
        If the loss was a number after no epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    _draw_weights(net, generator)
    _fit_scales(net, train)
    (x, y), (x_dev, y_dev) = _as_tensors(net, train), _as_tensors(net, dev)
    n_steps = settings.epochs * -(-len(x) // settings.batch_size)
    optimiser = torch.optim.Adam(net.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(_learning_rate, n_steps=n_steps))
    best, weights = float("inf"), {}
    for epoch in range(settings.epochs):
        net.train()
        for rows in torch.split(torch.randperm(len(x), generator=generator), settings.batch_size):
            optimiser.zero_grad()
            _loss(net(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        net.eval()
        with torch.inference_mode():
            loss = float(_loss(net(x_dev), y_dev))
        if loss < best:
            best, weights = loss, {name: value.clone() for name, value in net.state_dict().items()}
        on_epoch(epoch + 1, loss)
    if not weights:
        raise ApogeeBatchError(
            "the photometric network diverged: its loss was never a number; look at its bands and limits"
        )
    net.load_state_dict(weights)
    return best


def _learning_rate(step: int, *, n_steps: int) -> float:
    """Return the learning rate of a step over the largest; steps count from 0."""
    n_rising = n_steps // 20 + 1
    if step < n_rising:
        return (step + 1) / n_rising
    return 0.5 * (1 + math.cos(math.pi * (step - n_rising) / max(n_steps - n_rising, 1)))


def _loss(outputs: Tensor, truth: Tensor) -> Tensor:
    """Return the mean of squared residuals that are small and of absolute ones that are not."""
    return nn.functional.smooth_l1_loss(outputs, truth, beta=LOSS_BEND)


def _draw_weights(net: PhotometricNet, generator: torch.Generator) -> None:
    """Draw new weights from a generator of their own: Kaiming's, with biases of zero."""
    for module in net.modules():
        if isinstance(module, nn.Conv1d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def _fit_scales(net: PhotometricNet, train: SyntheticStars) -> None:
    """Take the means and deviations of the stars that are learned from, where they are given."""
    planes = net.planes(torch.from_numpy(train.inputs.values)).numpy()
    shown = np.broadcast_to(train.inputs.is_given[:, np.newaxis, :], planes.shape)
    hidden = np.ma.masked_array(planes, mask=~shown)
    mean, std = hidden.mean(axis=0).filled(0.0), hidden.std(axis=0).filled(1.0)
    net.input_mean.copy_(torch.from_numpy(mean))
    net.input_std.copy_(torch.from_numpy(np.where(std > 1e-6, std, 1.0)))  # the required band has no colour
    net.output_mean.copy_(torch.from_numpy(train.outputs.mean(axis=0)))
    net.output_std.copy_(torch.from_numpy(train.outputs.std(axis=0)))


def _as_tensors(net: PhotometricNet, stars: SyntheticStars) -> tuple[Tensor, Tensor]:
    """Return inputs as the convolutions see them, and outputs of mean 0 and deviation 1."""
    planes = net.planes(torch.from_numpy(stars.inputs.values))
    x = net.scaled(planes, torch.from_numpy(stars.inputs.is_given)).float()
    return x, ((torch.from_numpy(stars.outputs) - net.output_mean) / net.output_std).float()
