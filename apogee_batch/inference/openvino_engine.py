"""OpenVINO: exact float32 from a wheel, without a compiler, and about twice as fast as torch on a CPU.

The network is built node by node from torch's weights; nothing is converted and no file is read.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import numpy as np
import torch

from apogee_batch.errors import UsageError
from apogee_batch.inference.engines import Precision, StarBatch
from apogee_batch.inference.noise import NoiseKey, draw_normals
from apogee_batch.network.model import KERNEL_SIZE, N_CONVOLUTIONS, N_FEATURES, SpectrumNet
from apogee_batch.network.scaling import InputTransform, LabelScaler
from apogee_batch.schema import N_LABELS, DoubleArray, FloatArray
from apogee_batch.survey.pixels import N_PIXELS

PACKAGE = "openvino"
# What an import raises whose libraries are missing, or were built for another system, Python or numpy.
BROKEN = (ImportError, OSError, RuntimeError, AttributeError, ValueError, TypeError, SystemError)
TELEMETRY_PACKAGE = "openvino_telemetry"
ROWS_PER_CONVOLUTION = 3  # activations stay in a core's L2 cache: measured 3 27.7 ms, 13 30, 101 37 a star
ROWS_PER_BLOCK = 34 * ROWS_PER_CONVOLUTION  # the default 101 rows with one to spare
SETTINGS = {
    "INFERENCE_PRECISION_HINT": "f32",  # ARM would compute in 16 bits, and so would newer x86
    "EXECUTION_MODE_HINT": "ACCURACY",
    "NUM_STREAMS": "1",
    "INFERENCE_NUM_THREADS": "1",  # one process a core
    "ENABLE_CPU_PINNING": "NO",  # where a process runs is for the system and its user to say
    "CPU_DENORMALS_OPTIMIZATION": "NO",  # it would flush tiny numbers of the calling thread to zero
}


def why_not(precision: Precision) -> str:
    """Return why this engine cannot be used here, and what helps; empty where it can. It imports nothing."""
    if precision != "exact":
        return "computes in exact float32 only"
    if importlib.util.find_spec(PACKAGE) is None:
        return f"needs the package {PACKAGE}: pip install {PACKAGE}"
    return ""


def loading_fault() -> str:
    """Return why it cannot be imported though it is installed, in one line; empty where it can."""
    try:
        import_openvino()
    except UsageError as error:
        return str(error)
    return ""


def import_openvino() -> ModuleType:
    """Import OpenVINO so that it reports nothing to anybody.

    Its import alone sends a message to its makers by the package openvino-telemetry, unless the user has
    declined. Where that package is missing it sends nothing, so we let it find none, in all of this process.

    Raises
    ------
    UsageError
        If it is not installed, or does not run on this machine.
    """
    sys.modules.setdefault(TELEMETRY_PACKAGE, None)  # type: ignore[arg-type]  # None: an import fails
    try:
        return importlib.import_module(PACKAGE)
    except BROKEN as error:
        told = " ".join(str(error).split())
        raise UsageError(
            f"--engine openvino needs the package {PACKAGE} ({type(error).__name__}: {told}): "
            f"pip install --force-reinstall {PACKAGE}, or use --engine torch"
        ) from error


class OpenVinoEngine:
    """Compute in exact float32 by OpenVINO, one star after the other.

    The two halves of the network are compiled once, for shapes that never change: the convolutions for a few
    rows that fit in a cache, the fully connected layers for all rows of a star. A star begins both, and rows
    that it does not fill hold zeros: its numbers cannot depend on its neighbours. The arrays between them are
    the engine's own, so it serves one thread at a time.

    Parameters
    ----------
    model : SpectrumNet
        The trained network, on the CPU.
    transform : InputTransform
        How the network wants its input.
    scaler : LabelScaler
        From standardised to physical labels.
    precision : {"exact"}
        There is no other.

    Raises
    ------
    UsageError
        If OpenVINO is not installed, or does not run on this machine, or for another precision.
    """

    name = "openvino"
    precision: Precision = "exact"
    stars_per_call = 1

    def __init__(
        self,
        model: SpectrumNet,
        transform: InputTransform,
        scaler: LabelScaler,
        *,
        precision: Precision = "exact",
    ) -> None:
        if precision != self.precision:
            raise UsageError(f"--engine openvino {why_not(precision)}; use --precision exact")
        self._transform = transform
        self._scaler = scaler
        openvino = import_openvino()
        self.version = str(openvino.__version__).partition("-")[0]  # another one may round differently
        # OpenVINO reads from and writes into these arrays: nothing is copied on the way.
        self._inputs = np.zeros((ROWS_PER_CONVOLUTION, 1, N_PIXELS), np.float32)
        self._features = np.zeros((ROWS_PER_BLOCK, N_FEATURES), np.float32)
        self._standardised = np.zeros((ROWS_PER_BLOCK, N_LABELS), np.float32)
        self._convolutions = _compile(openvino, _build_convolutions(openvino, model))
        self._convolutions.set_input_tensor(_share(openvino, self._inputs))
        starts = range(0, ROWS_PER_BLOCK, ROWS_PER_CONVOLUTION)
        targets = [self._features[start : start + ROWS_PER_CONVOLUTION] for start in starts]
        self._targets = [_share(openvino, target) for target in targets]
        self._connected = _compile(openvino, _build_connected(openvino, model))
        self._connected.set_input_tensor(_share(openvino, self._features))
        self._connected.set_output_tensor(_share(openvino, self._standardised))

    def predict(self, stars: StarBatch, n_realizations: int) -> DoubleArray:
        """Return physical labels of clean spectra and of their realizations; see `Engine.predict`."""
        each = zip(stars.flux, stars.err, stars.keys, strict=True)
        return np.stack([self._predict_star(flux, err, key, n_realizations) for flux, err, key in each])

    def _predict_star(
        self, flux: FloatArray, err: FloatArray, key: NoiseKey, n_realizations: int
    ) -> DoubleArray:
        rows = np.empty((1 + n_realizations, flux.size), np.float32)
        rows[0] = flux
        np.multiply(draw_normals(key, n_realizations, flux.size), err, out=rows[1:])
        rows[1:] += flux
        with torch.inference_mode():
            scale = self._transform.scale(torch.from_numpy(rows[:1]))
            inputs = self._transform.apply(torch.from_numpy(rows), scale).numpy()
        starts = range(0, len(inputs), ROWS_PER_BLOCK)
        standardised = np.concatenate([self._predict_block(inputs[i : i + ROWS_PER_BLOCK]) for i in starts])
        # OpenVINO's ReLU makes 0 of what is no number, and the labels would look like any others.
        standardised[~np.isfinite(inputs).all(axis=1)] = np.nan
        return self._scaler.to_physical(torch.from_numpy(standardised)).numpy()

    def _predict_block(self, inputs: FloatArray) -> FloatArray:
        """Return the standardised labels of at most `ROWS_PER_BLOCK` rows."""
        n_rows = len(inputs)
        for start, target in zip(range(0, n_rows, ROWS_PER_CONVOLUTION), self._targets, strict=False):
            some = inputs[start : start + ROWS_PER_CONVOLUTION]
            self._inputs[: len(some), 0] = some
            self._inputs[len(some) :] = 0
            self._convolutions.set_output_tensor(target)
            self._convolutions.infer()
        self._features[n_rows:] = 0
        # All rows at once: reading their 17 MB of weights is what the fully connected layers cost.
        self._connected.infer()
        return self._standardised[:n_rows].copy()


def _share(openvino: ModuleType, array: FloatArray) -> Any:
    """Return an array as an OpenVINO tensor in the same memory."""
    return openvino.Tensor(array, shared_memory=True)


def _compile(openvino: ModuleType, network: Any) -> Any:
    """Compile for one thread of the CPU and return what runs it."""
    return openvino.Core().compile_model(network, "CPU", SETTINGS).create_infer_request()


def _build_convolutions(openvino: ModuleType, model: SpectrumNet) -> Any:
    """Return `SpectrumNet.extract_features` as a network of OpenVINO."""
    nodes = openvino.opset1
    inputs = nodes.parameter([ROWS_PER_CONVOLUTION, 1, N_PIXELS], np.float32)
    x, border = inputs, [KERNEL_SIZE // 2]
    for i in range(1, N_CONVOLUTIONS + 1):
        weight, bias = _parameters(model, f"conv{i}")
        x = nodes.convolution(x, nodes.constant(weight), [1], border, border, [1])
        x = nodes.relu(nodes.add(x, nodes.constant(bias[None, :, None])))
        if i % 2 == 0:
            x = nodes.max_pool(x, [2], [0], [0], [2], "floor")
    shape = nodes.constant(np.array([ROWS_PER_CONVOLUTION, N_FEATURES], np.int64))
    features = nodes.reshape(x, shape, special_zero=False)  # (rows_per_convolution, n_features)
    return openvino.Model([features], [inputs], "convolutions")


def _build_connected(openvino: ModuleType, model: SpectrumNet) -> Any:
    """Return `SpectrumNet.predict_from_features` as a network of OpenVINO."""
    nodes = openvino.opset1
    features = nodes.parameter([ROWS_PER_BLOCK, N_FEATURES], np.float32)
    x = features
    for name in ("fc1", "fc2", "fc3"):
        weight, bias = _parameters(model, name)
        x = nodes.matmul(x, nodes.constant(weight), transpose_a=False, transpose_b=True)
        x = nodes.add(x, nodes.constant(bias[None, :]))
        if name != "fc3":
            x = nodes.relu(x)
    return openvino.Model([x], [features], "fully connected")  # (rows_per_block, n_labels)


def _parameters(model: SpectrumNet, layer: str) -> tuple[FloatArray, FloatArray]:
    """Return weight and bias of a layer."""
    found = model.get_submodule(layer).state_dict()
    return found["weight"].cpu().numpy(), found["bias"].cpu().numpy()
