"""The engine of a GPU whose convolutions are our own fused tiles, in Triton: asked for by name only."""

import importlib.util

from apogee_batch.inference import cuda_engine
from apogee_batch.inference.engines import Precision
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.scaling import InputTransform, LabelScaler


def why_not(precision: Precision) -> str:
    """Return why the engine cannot be used here, in one line; empty if it can."""
    if precision == "exact":
        return "computes differences in 16 bits only; use --precision fast"
    if reason := cuda_engine.why_not(precision):
        return reason
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed; it comes with torch's builds for CUDA on Linux"
    return ""


class TilesEngine(cuda_engine.CudaEngine):
    """A `CudaEngine` that runs each block of the network in one kernel (`triton_tiles`).

    Parameters
    ----------
    model : SpectrumNet
        The trained network; copied.
    transform : InputTransform
        How the network wants its input.
    scaler : LabelScaler
        From standardised to physical labels.
    precision : {"fast"}
    device : str
        A torch device; "cpu" is for Triton's interpreter, which is for tests.
    batch_stars : int
        Stars of a batch.
    compiled : bool, optional
        As in `CudaEngine`, for what comes before and after the tiles.

    Raises
    ------
    ValueError
        If another precision is asked for.
    RuntimeError
        If torch cannot use the device.
    """

    def __init__(
        self,
        model: SpectrumNet,
        transform: InputTransform,
        scaler: LabelScaler,
        *,
        precision: Precision = "fast",
        device: str = "cuda",
        batch_stars: int = cuda_engine.BATCH_STARS,
        compiled: bool | None = None,
    ) -> None:
        if precision != "fast":
            raise ValueError(f"tiles compute differences in 16 bits: {precision} they cannot")
        super().__init__(
            model,
            transform,
            scaler,
            precision=precision,
            device=device,
            batch_stars=batch_stars,
            compiled=compiled,
            tiles=True,
        )
