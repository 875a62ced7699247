"""Plain torch: the reference that every other engine is compared with."""

import numpy as np
import torch
from torch import Tensor

from apogee_batch.inference.engines import Precision, StarBatch
from apogee_batch.inference.noise import NoiseKey, draw_normals
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.scaling import InputTransform, LabelScaler
from apogee_batch.schema import DoubleArray, FloatArray

MAX_ROWS_PER_FORWARD = 26  # activations then stay near the caches; 101 rows are 4 x 26


class TorchEngine:
    """Compute in exact float32, one star after the other.

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

    name = "torch"
    precision: Precision = "exact"
    stars_per_call = 1

    def __init__(
        self, model: SpectrumNet, transform: InputTransform, scaler: LabelScaler, *, device: str = "cpu"
    ) -> None:
        # TF32 is torch's default for convolutions, and too coarse for bright stars: docs/precision.md.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        self._model = model.to(device).eval()
        self._transform = transform
        self._scaler = scaler
        self._device = torch.device(device)

    def predict(self, stars: StarBatch, n_realizations: int) -> DoubleArray:
        """Return physical labels of clean spectra and of their realizations; see `Engine.predict`."""
        each = zip(stars.flux, stars.err, stars.keys, strict=True)
        return np.stack([self._predict_star(flux, err, key, n_realizations) for flux, err, key in each])

    def _predict_star(
        self, flux: FloatArray, err: FloatArray, key: NoiseKey, n_realizations: int
    ) -> DoubleArray:
        n_rows = 1 + n_realizations
        rows_per_forward = self._rows_per_forward(n_rows)
        padded = -(-n_rows // rows_per_forward) * rows_per_forward
        rows = np.zeros((padded, flux.size), np.float32)
        rows[0] = flux
        noisy = rows[1:n_rows]
        np.multiply(draw_normals(key, n_realizations, flux.size), err, out=noisy)
        noisy += flux
        return self._predict_rows(torch.from_numpy(rows), rows_per_forward)[:n_rows].numpy()

    def _predict_rows(self, rows: Tensor, rows_per_forward: int) -> Tensor:
        """Return the labels, shape (n_rows, n_labels), of copies of the spectrum in the first row."""
        with torch.inference_mode():
            scale = self._transform.scale(rows[:1])
            inputs = self._transform.apply(rows.to(self._device), scale.to(self._device))
            starts = range(0, len(rows), rows_per_forward)
            features = [self._model.extract_features(inputs[i : i + rows_per_forward]) for i in starts]
            # The fully connected layers once for all rows: reading their 17 MB of weights is what they cost.
            standardised = self._model.predict_from_features(torch.cat(features))
            return self._scaler.to_physical(standardised.cpu())

    def _rows_per_forward(self, n_rows: int) -> int:
        """Cut the rows of a star into equal forward passes with as little padding as possible."""
        if self._device.type != "cpu":
            return n_rows
        n_forwards = -(-n_rows // MAX_ROWS_PER_FORWARD)
        return -(-n_rows // n_forwards)
