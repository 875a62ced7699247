"""What the network makes of a spectrum before it says labels: the activations of its hidden layers."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from apogee_batch.network.model import HIDDEN_WIDTH, SpectrumNet
from apogee_batch.network.scaling import InputTransform
from apogee_batch.schema import FloatArray
from apogee_batch.survey.pixels import N_PIXELS

N_ACTIVATIONS = 2 * HIDDEN_WIDTH
ROWS_PER_FORWARD = 26  # of all sizes tried the one that a core computes soonest (0.9 ms a star)


def features_of(model: SpectrumNet, transform: InputTransform, flux: FloatArray) -> FloatArray:
    """Compute the features of clean spectra that `Strangeness` judges.

    The first half are the outputs of `fc1` before its ReLU, which still tell where a line lies; the second
    those of `fc2` after it, which the labels are a linear function of. They are computed in float32 in
    batches of constant shape, the last one padded, so that a star's numbers do not depend on its
    neighbours.

    Parameters
    ----------
    model : SpectrumNet
        In evaluation mode.
    transform : InputTransform
        The model's own.
    flux : ndarray of float32, shape (n_stars, n_pixels)
        Spectra as stored: gaps are 0.

    Returns
    -------
    ndarray of float32, shape (n_stars, 1024)
    """
    features = np.empty((len(flux), N_ACTIVATIONS), np.float32)
    for start in range(0, len(flux), ROWS_PER_FORWARD):
        some = flux[start : start + ROWS_PER_FORWARD]
        rows = np.zeros((ROWS_PER_FORWARD, N_PIXELS), np.float32)
        rows[: len(some)] = some
        features[start : start + len(some)] = _forward(model, transform, rows)[: len(some)]
    return features


def _forward(model: SpectrumNet, transform: InputTransform, rows: FloatArray) -> FloatArray:
    """Return the features of one whole batch, shape (rows_per_forward, 1024)."""
    with torch.inference_mode():
        flux = torch.from_numpy(rows)
        scale = transform.scale(flux)
        device = model.fc1.weight.device
        inputs = transform.apply(flux.to(device), scale.to(device))
        activations: FloatArray = activate_hidden(model, model.extract_features(inputs)).cpu().numpy()
    return activations


def activate_hidden(model: SpectrumNet, features: Tensor) -> Tensor:
    """Return what `features_of` tells of spectra, from what the convolutions make of them.

    Parameters
    ----------
    model : SpectrumNet
    features : Tensor, shape (n_spectra, n_features)
        From `SpectrumNet.extract_features`.

    Returns
    -------
    Tensor, shape (n_spectra, 1024)
        The second half is what `fc3` takes.
    """
    first = model.fc1(features)
    second = functional.relu(model.fc2(functional.relu(first)))
    return torch.cat([first, second], dim=1)
