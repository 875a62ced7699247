"""What a training gives its network: inputs and labels, batch by batch, from wherever the spectra lie."""

from collections.abc import Generator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from apogee_batch.ahead import map_ahead
from apogee_batch.network.augmentation import add_noise
from apogee_batch.network.ranks import ALONE, Ranks, Share
from apogee_batch.network.recipe import Recipe
from apogee_batch.network.scaling import LabelScaler
from apogee_batch.network.training_set import ROWS_AT_ONCE, RowArray, TrainingSet
from apogee_batch.schema import FloatArray

ROOM_SHARE = 0.7  # of a GPU's free memory may hold spectra; a step of 128 takes 1 GB
THREAD_NAME = "training-spectra"


class Spectra(Protocol):
    """Spectra of a training set, wherever they lie."""

    def each(self, batches: Sequence[RowArray]) -> Generator[Tensor, None, None]:
        """Yield the flux of each batch on the training's device, shape (n_spectra, n_pixels)."""
        ...


class HostSpectra:
    """Spectra that stay in the host's memory, or in a file that is mapped into it.

    For a GPU, a thread gathers the next two batches in pinned memory while a step is computed: the order of
    the stars is that of the batches, and so is all that follows from it.

    Parameters
    ----------
    flux : ndarray of float32, shape (n_stars, n_pixels)
    device : str
        Of the training.
    """

    def __init__(self, flux: FloatArray, device: str) -> None:
        self._flux = flux
        self._device = torch.device(device)

    def each(self, batches: Sequence[RowArray]) -> Generator[Tensor, None, None]:
        """Yield the flux of each batch; see `Spectra.each`."""
        if self._device.type == "cpu":
            yield from (torch.from_numpy(self._flux[rows]) for rows in batches)
            return
        for flux in map_ahead(self._gather, batches, thread_name=THREAD_NAME):
            yield flux.to(self._device, non_blocking=True)

    def _gather(self, rows: RowArray) -> Tensor:
        return torch.from_numpy(self._flux[rows]).pin_memory()


class DeviceSpectra:
    """Spectra that lie on the device from the beginning, copied there a thousand at a time.

    Parameters
    ----------
    flux : ndarray of float32, shape (n_stars, n_pixels)
    rows : ndarray of int64
        The stars that are used, ascending.
    device : str
        Of the training.
    """

    def __init__(self, flux: FloatArray, rows: RowArray, device: str) -> None:
        self._rows = rows
        self._flux = torch.empty((len(rows), flux.shape[1]), device=device)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            self._flux[start : start + len(some)] = torch.from_numpy(flux[some])

    def each(self, batches: Sequence[RowArray]) -> Generator[Tensor, None, None]:
        """Yield the flux of each batch; see `Spectra.each`."""
        for rows in batches:
            yield self._flux[_send(np.searchsorted(self._rows, rows), self._flux.device)]


def _send(rows: RowArray, device: torch.device) -> Tensor:
    """Return rows on a device, without waiting for what it has to do."""
    places = torch.from_numpy(rows)
    return places if device.type == "cpu" else places.pin_memory().to(device, non_blocking=True)


def measure_room(device: str) -> int:
    """Return how many bytes of spectra may lie on a device; none on a CPU, where they lie already."""
    return 0 if torch.device(device).type == "cpu" else int(ROOM_SHARE * torch.cuda.mem_get_info(device)[0])


def place_spectra(training_set: TrainingSet, device: str) -> Spectra:
    """Put the spectra of the training and dev stars where steps get them soonest."""
    rows = np.flatnonzero(training_set.data_set != "test")
    n_bytes = len(rows) * training_set.flux.shape[1] * training_set.flux.itemsize
    if n_bytes <= measure_room(device):
        return DeviceSpectra(training_set.flux, rows, device)
    return HostSpectra(training_set.flux, device)


class TrainingInputs:
    """What the network reads of a training set.

    Parameters
    ----------
    training_set : TrainingSet
    recipe : Recipe
        Its input transform and noise.
    scaler : LabelScaler
    device : str
        Of the training.
    """

    def __init__(
        self, training_set: TrainingSet, recipe: Recipe, scaler: LabelScaler, *, device: str
    ) -> None:
        self._noise = recipe.noise
        self._transform = recipe.transform
        self._spectra = place_spectra(training_set, device)
        self._labels = scaler.standardise(torch.from_numpy(training_set.labels.copy())).float().to(device)
        self._scales = self._measure_scales(training_set).to(device)

    def each(
        self, batches: Sequence[RowArray], *, noise: torch.Generator | None = None, ranks: Ranks = ALONE
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield inputs and standardised labels of each batch, or of this rank's share of it.

        Put the generator into `contextlib.closing`: a thread that reads ahead ends with it.

        Parameters
        ----------
        batches : sequence of ndarray of int64
            Rows of the training set.
        noise : torch.Generator, optional
            Draws the recipe's noise, for all of a batch also where the ranks share it; default none.
        ranks : Ranks, optional
            Those that share the batches.

        Yields
        ------
        Tensor of float32, shape (n_spectra, n_pixels)
        Tensor of float32, shape (n_spectra, n_labels)
        """
        for rows, flux in zip(batches, self._spectra.each(batches), strict=True):
            own = Share.of(len(rows), ranks).slice
            places = _send(rows[own], flux.device)
            noisy = flux if noise is None or not self._noise else add_noise(flux, self._noise, noise)
            yield self._transform.apply(noisy[own], self._scales[places]), self._labels[places]

    def _measure_scales(self, training_set: TrainingSet) -> Tensor:
        """Return the flux scale of each star, shape (n_stars, 1): once, as 32 take a core 5 ms (measured)."""
        scales = torch.ones((len(training_set.flux), 1))
        rows = np.flatnonzero(training_set.data_set != "test")
        batches = np.split(rows, range(ROWS_AT_ONCE, len(rows), ROWS_AT_ONCE))
        for some, flux in zip(batches, self._spectra.each(batches), strict=True):
            scales[some] = self._transform.scale(flux).cpu()
        return scales
