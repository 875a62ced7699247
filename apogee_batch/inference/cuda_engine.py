"""The engine of a GPU: many stars at once, their noise made there, only what is asked for sent back."""

import copy
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from apogee_batch.inference.anchored import AnchoredNet, choose_scales
from apogee_batch.inference.device_copies import Departure, SideStream
from apogee_batch.inference.device_noise import draw_normals_where_keys_are, key_tensor
from apogee_batch.inference.engines import Precision, StarBatch
from apogee_batch.inference.estimates import LabelEstimates, require_scatter
from apogee_batch.inference.launching import BatchResult
from apogee_batch.inference.noise import NoiseKey
from apogee_batch.network.features import activate_hidden
from apogee_batch.network.model import HIDDEN_WIDTH, SpectrumNet
from apogee_batch.network.scaling import InputTransform, LabelScaler
from apogee_batch.schema import DoubleArray, FloatArray

BATCH_STARS = 32  # 3232 spectra: kernels of a tenth of a millisecond, launched faster than they run
MOST_ROWS = BATCH_STARS * 101  # spectra of a batch; with more realizations a batch has fewer stars
BATCHES_PER_CALL = 8  # the GPU is asked for results once in so many batches
CALLS_AHEAD = 2  # one that is computed, one that waits in the GPU's queue
PADDING_KEY = NoiseKey(0, 1)
Program = Callable[..., tuple[Tensor, Tensor]]  # labels of all spectra, and features of the clean ones
_one_at_a_time = threading.Lock()  # settings of torch are those of the process, whatever engine they are for
logger = logging.getLogger(__name__)


def why_not(precision: Precision) -> str:  # noqa: ARG001  both need the same
    """Return why the engine cannot be used here, in one line; empty if it can."""
    if torch.cuda.is_available():
        return ""
    if torch.version.cuda is None and torch.version.hip is None:
        return "this torch is built for CPUs only; install one built for CUDA"
    return "torch sees no CUDA device"


class CudaEngine:
    """Compute batches of one constant shape on a GPU; the last is filled up with empty stars.

    "exact" is float32 throughout, without TF32. "fast" carries differences from the clean spectrum in
    float16, as `AnchoredNet` does; a star whose differences overflow is computed again exactly.

    Parameters
    ----------
    model : SpectrumNet
        The trained network; copied.
    transform : InputTransform
        How the network wants its input.
    scaler : LabelScaler
        From standardised to physical labels.
    precision : {"exact", "fast"}
    device : str
        A torch device. "cpu" computes the same steps there, float16 emulated: for tests.
    batch_stars : int
        Stars of a batch.
    compiled : bool, optional
        Whether `torch.compile` fuses what lies between the convolutions; default on a GPU only. Where it
        fails (it needs Triton and a C compiler) the same steps run one by one.
    tiles : bool
        Whether the convolutions run in the fused tiles of `triton_tiles`; "fast" only.

    Raises
    ------
    RuntimeError
        If torch cannot use the device.
    """

    batches_ahead = CALLS_AHEAD

    def __init__(
        self,
        model: SpectrumNet,
        transform: InputTransform,
        scaler: LabelScaler,
        *,
        precision: Precision = "exact",
        device: str = "cuda",
        batch_stars: int = BATCH_STARS,
        compiled: bool | None = None,
        tiles: bool = False,
    ) -> None:
        self.name = "tiles" if tiles else "cuda"
        self.precision: Precision = precision
        self.stars_per_call = batch_stars * BATCHES_PER_CALL
        self._batch_stars = batch_stars
        self._device = torch.device(device)
        self._model = copy.deepcopy(model).requires_grad_(False).to(self._device).eval()
        self._anchored = AnchoredNet(self._model, tiles=tiles)
        self._transform = transform
        self._scaler = scaler
        # Here already: sending a number to a GPU waits for what it has to do.
        self._label_units = torch.tensor([scaler.std, scaler.mean], dtype=torch.float64, device=self._device)
        self._side = SideStream(self._device)
        fuses = self._device.type == "cuda" if compiled is None else compiled
        self._exact = _fuse(self._predict_exact) if fuses else self._predict_exact
        self._fast = _fuse(self._predict_fast) if fuses else self._predict_fast
        self._program = self._fast if precision == "fast" else self._exact

    def predict(self, stars: StarBatch, n_realizations: int) -> DoubleArray:
        """Return physical labels of clean spectra and of their realizations; see `Engine.predict`."""
        with self._launching():
            standardised = self._predict_all(self._program, stars, n_realizations)
            overflowed = (~standardised.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
            if overflowed and self.precision == "fast":
                again = _choose(stars, overflowed)
                standardised[overflowed] = self._predict_all(self._exact, again, n_realizations)
            return self._scaler.to_physical(standardised).numpy()

    def begin(self, stars: StarBatch, n_realizations: int, *, with_features: bool) -> "PendingStars":
        """Begin to estimate the labels of a batch; see `LaunchingEngine.begin`."""
        departure = self._begin(self._program, stars, n_realizations, with_features=with_features)
        return PendingStars(self, stars, n_realizations, departure)

    def estimate_exactly(self, stars: StarBatch, n_realizations: int) -> DoubleArray:
        """Return mean, scatter and clean labels, (n_stars, 3, n_labels), whatever the precision is."""
        [reduced] = self._begin(self._exact, stars, n_realizations, with_features=False).arrive()
        return reduced.numpy()

    def _begin(
        self, program: Program, stars: StarBatch, n_realizations: int, *, with_features: bool
    ) -> Departure:
        require_scatter(n_realizations)
        with self._launching():
            outputs = self._launch(program, stars, n_realizations)
            leaving = [torch.cat([self._reduce(labels) for labels, _ in outputs])[: len(stars)]]
            if with_features:
                leaving.append(torch.cat([features for _, features in outputs])[: len(stars)])
            return Departure(leaving, self._device)

    def _predict_all(self, program: Program, stars: StarBatch, n_realizations: int) -> Tensor:
        """Return standardised labels, float64 (n_stars, 1 + n_realizations, n_labels), on the CPU."""
        outputs = self._launch(program, stars, n_realizations)
        return torch.cat([labels for labels, _ in outputs])[: len(stars)].cpu()

    def _launch(self, program: Program, stars: StarBatch, n_realizations: int) -> list[tuple[Tensor, Tensor]]:
        """Begin all batches of some stars, and wait for none.

        Returns
        -------
        list of tuple of Tensor
            On the device, of each batch: standardised labels, float64 (batch_stars, 1 + n_realizations,
            n_labels), and features of the clean spectra.
        """
        batch_stars = max(1, min(self._batch_stars, MOST_ROWS // (1 + n_realizations)))
        padding = -len(stars) % batch_stars
        with self._side.entered() as held:
            flux, err = (self._upload(array, padding) for array in (stars.flux, stars.err))
            keys = key_tensor((*stars.keys, *[PADDING_KEY] * padding), self._device)
            flux_scale = self._transform.scale(flux)
            held.extend((flux, err, keys, flux_scale, choose_scales(self._transform, err, flux_scale)))
        batches = zip(*(t.view(-1, batch_stars, t.shape[1]) for t in held), strict=True)
        return [program(*batch, n_realizations) for batch in batches]

    def _reduce(self, standardised: Tensor) -> Tensor:
        """Return what stays of the labels of one whole batch: mean, scatter and clean, in physical units.

        Returns
        -------
        Tensor of float64, shape (batch_stars, 3, n_labels)
        """
        labels = standardised * self._label_units[0] + self._label_units[1]
        noisy = labels[:, 1:]
        return torch.stack([noisy.mean(dim=1), noisy.std(dim=1, correction=1), labels[:, 0]], dim=1)

    @contextmanager
    def _launching(self) -> Iterator[None]:
        """Let one thread at a time begin what the GPU is to do."""
        with _one_at_a_time, torch.inference_mode(), _full_float32():
            yield

    def _upload(self, array: FloatArray, padding: int) -> Tensor:
        """Return the rows of an array on the device, and rows of zeros after them."""
        tensor = torch.zeros((len(array) + padding, array.shape[1]), device=self._device)
        tensor[: len(array)].copy_(torch.from_numpy(array), non_blocking=True)
        return tensor

    def _predict_exact(
        self,
        flux: Tensor,
        err: Tensor,
        keys: Tensor,
        flux_scale: Tensor,
        _scales: Tensor,
        n_realizations: int,
    ) -> tuple[Tensor, Tensor]:
        clean, inputs = self._draw_inputs(flux, err, keys, flux_scale, n_realizations)
        rows = torch.cat((clean[:, None], inputs), dim=1)  # (n_stars, 1 + n_realizations, n_pixels)
        hidden = activate_hidden(self._model, self._model.extract_features(rows.flatten(0, 1)))
        labels: Tensor = self._model.fc3(hidden[:, HIDDEN_WIDTH:])
        hidden = hidden.view(*rows.shape[:2], -1)
        return labels.double().view(*rows.shape[:2], -1), hidden[:, 0]

    def _predict_fast(
        self, flux: Tensor, err: Tensor, keys: Tensor, flux_scale: Tensor, scales: Tensor, n_realizations: int
    ) -> tuple[Tensor, Tensor]:
        clean, inputs = self._draw_inputs(flux, err, keys, flux_scale, n_realizations)
        labels, differences, hidden = self._anchored.predict(clean, inputs, scales)
        labels = labels.double()[:, None]  # (n_stars, 1, n_labels)
        return torch.cat((labels, labels + differences), dim=1), hidden

    def _draw_inputs(
        self, flux: Tensor, err: Tensor, keys: Tensor, flux_scale: Tensor, n_realizations: int
    ) -> tuple[Tensor, Tensor]:
        """Return the network's input for clean spectra and for their realizations."""
        normals = draw_normals_where_keys_are(keys, n_realizations, flux.shape[1])
        noisy = flux[:, None] + err[:, None] * normals  # (n_stars, n_realizations, n_pixels)
        return self._transform.apply(flux, flux_scale), self._transform.apply(noisy, flux_scale[:, None])


class PendingStars:
    """Stars that a `CudaEngine` has begun; see `PendingBatch`."""

    def __init__(
        self, engine: CudaEngine, stars: StarBatch, n_realizations: int, departure: Departure
    ) -> None:
        self._engine, self._n_realizations, self._departure = engine, n_realizations, departure
        self._stars = stars  # until the result is there: the GPU may still be reading them

    def result(self) -> BatchResult:
        """See `PendingBatch`. What is not finite after "fast" is computed again exactly."""
        reduced, *features = (tensor.numpy() for tensor in self._departure.arrive())
        overflowed = np.flatnonzero(~np.isfinite(reduced).all(axis=(1, 2))).tolist()
        if overflowed and self._engine.precision == "fast":
            again = _choose(self._stars, overflowed)
            reduced[overflowed] = self._engine.estimate_exactly(again, self._n_realizations)
        mean, std, clean = (np.ascontiguousarray(reduced[:, i]) for i in range(3))
        return BatchResult(LabelEstimates(mean, std, clean), features[0] if features else None)


def _choose(stars: StarBatch, places: list[int]) -> StarBatch:
    """Return the stars in some places."""
    return StarBatch(stars.flux[places], stars.err[places], tuple(stars.keys[i] for i in places))


def _fuse(program: Program) -> Program:
    """Return a program as `torch.compile` makes it, or as it is if that fails when it is first called.

    It is compiled for each number of realizations, its last argument. Once it has run for one, it stays what
    it is: the two round differently.
    """
    fused: Program = torch.compile(program, fullgraph=True, dynamic=False)
    chosen: dict[Tensor | int, Program] = {}

    def run(*arguments: Tensor | int) -> tuple[Tensor, Tensor]:
        n_realizations = arguments[-1]
        if n_realizations in chosen:
            return chosen[n_realizations](*arguments)
        try:
            result = fused(*arguments)
        except Exception as error:  # of torch's many, some are no RuntimeError, as of a ninth program
            if isinstance(error, torch.OutOfMemoryError) or not _is_of_torch(error):
                raise
            reason = str(error).strip().partition("\n")[0]
            logger.warning("torch.compile cannot be used here, the GPU will be slower: %s", reason)
            chosen[n_realizations] = program
            return program(*arguments)
        chosen[n_realizations] = fused
        return result

    return run


def _is_of_torch(error: Exception) -> bool:
    """Tell whether compiling failed, or launching; all else is a mistake of ours."""
    return isinstance(error, RuntimeError) or type(error).__module__.startswith("torch.")


@contextmanager
def _full_float32() -> Iterator[None]:
    """Multiply float32 numbers as such, and add up products of float16 numbers in float32.

    TF32 is on by default for convolutions and moves the labels of bright stars (docs/precision.md).
    Algorithms are not chosen by their time either: another one would round differently the next time.
    """
    products = torch.backends.cuda.matmul
    before = products.allow_tf32, products.allow_fp16_reduced_precision_reduction
    products.allow_tf32, products.allow_fp16_reduced_precision_reduction = False, False
    try:
        with (
            warnings.catch_warnings(),
            # `flags` switches off what it is not told of: without cuDNN convolutions are many times slower
            torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False, allow_tf32=False),
        ):
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")  # advice not taken, see above
            yield
    finally:
        products.allow_tf32, products.allow_fp16_reduced_precision_reduction = before
