"""What computes the forward pass: one seam, so that faster engines can take torch's place."""

from typing import Protocol

import numpy as np
import torch

from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.scaling import InputTransform, LabelScaler
from apogee_batch.schema import DoubleArray, FloatArray

MAX_ROWS_PER_FORWARD_CPU = 26  # activations then stay near the caches; 101 rows are 4 x 26


class Engine(Protocol):
    """Predict labels of the rows of one star."""

    def predict(self, flux: FloatArray, clean_flux: FloatArray) -> DoubleArray:
        """Return physical labels, shape (n_rows, n_labels), of noisy copies of one clean spectrum.

        Parameters
        ----------
        flux : ndarray of float32, shape (n_rows, n_pixels)
            Copies of the spectrum.
        clean_flux : ndarray of float32, shape (n_pixels,)
            The spectrum itself, whose scale all copies share.
        """
        ...


class TorchEngine:
    """Plain torch in exact float32: the reference that every other engine is compared with.

    Every forward pass has the same shape, and a star always begins one: its numbers cannot depend on
    its neighbours.

    Parameters
    ----------
    model : SpectrumNet
        The trained network.
    transform : InputTransform
        How the network wants its input.
    scaler : LabelScaler
        From standardised to physical labels.
    device : str
        A torch device, "cpu" or "cuda".
    """

    def __init__(
        self, model: SpectrumNet, transform: InputTransform, scaler: LabelScaler, *, device: str = "cpu"
    ) -> None:
        # TF32 is on by default for convolutions and makes sigma 11 percent too large at SNR 1000.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        self._model = model.to(device).eval()
        self._transform = transform
        self._scaler = scaler
        self._device = torch.device(device)

    def predict(self, flux: FloatArray, clean_flux: FloatArray) -> DoubleArray:
        """Return physical labels of copies of one spectrum; see `Engine.predict`."""
        n_rows = len(flux)
        rows_per_forward = self._rows_per_forward(n_rows)
        padded = -(-n_rows // rows_per_forward) * rows_per_forward
        rows = np.zeros((padded, flux.shape[1]), np.float32)
        rows[:n_rows] = flux
        with torch.inference_mode():
            scale = self._transform.scale(torch.from_numpy(clean_flux[None]))
            inputs = self._transform.apply(torch.from_numpy(rows).to(self._device), scale.to(self._device))
            starts = range(0, padded, rows_per_forward)
            features = [self._model.extract_features(inputs[i : i + rows_per_forward]) for i in starts]
            # The fully connected layers once for all rows: reading their 17 MB of weights is what they cost.
            standardised = self._model.predict_from_features(torch.cat(features))
            labels = self._scaler.to_physical(standardised[:n_rows].cpu())  # (n_rows, n_labels)
        return labels.numpy()

    def _rows_per_forward(self, n_rows: int) -> int:
        """Cut the rows of a star into equal forward passes with as little padding as possible."""
        if self._device.type != "cpu":
            return n_rows
        n_forwards = -(-n_rows // MAX_ROWS_PER_FORWARD_CPU)
        return -(-n_rows // n_forwards)
