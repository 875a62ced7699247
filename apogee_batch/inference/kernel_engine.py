"""Our own fused CPU kernel: noise, input transform and network in one pass over tiles, compiled from C++.

It is compiled several times, for several kinds of CPU (`kernel/`, `setup.py`); which of them this CPU can run
is found out when it is needed. docs/kernel.md explains how it computes.
"""

import importlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch

from apogee_batch.errors import UsageError
from apogee_batch.inference.engines import Precision, StarBatch
from apogee_batch.inference.kernel import REVISION
from apogee_batch.inference.noise import NoiseKey, words_per_realization
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.scaling import InputTransform, LabelScaler
from apogee_batch.schema import N_LABELS, DoubleArray, FloatArray
from apogee_batch.survey.pixels import N_PIXELS

PACKAGE = "apogee_batch.inference.kernel"
PORTABLE = "portable"  # runs everywhere, and knows which of the others do here
FAST_VARIANT = "avx512bf16"
MOST_ROWS = 16 * 101  # of a call: Python, and so a signal, waits for its end; 2 s of the slowest variant
PEAK_SECONDS = 0.02
LEAST_GAIN = 1.1  # in operations a second; the fast pass does some more beside them
REINSTALL = "reinstall apogee-batch where a C++17 compiler is (g++ 10 or newer, or clang++ 12)"


def kernel_variants() -> tuple[str, ...]:
    """Return the compiled variants that this CPU can run, the fastest first; none without a compiler."""
    portable = _import_variant(PORTABLE)
    if portable is None:
        return ()
    return tuple(name for name in portable.runnable_variants() if _import_variant(name) is not None)


def why_not(precision: Precision) -> str:
    """Return why the kernel cannot compute at a precision here, and what helps; "" where it can."""
    portable = _import_variant(PORTABLE)
    if portable is None:
        stale = _find(PORTABLE)
        if stale is None:
            return f"the C++ kernel was not compiled at installation, or cannot be loaded: {REINSTALL}"
        other = f"from revision {_revision(stale)} of its sources, and this version has {REVISION}"
        return f"the C++ kernel was compiled {other}: {REINSTALL}"
    if precision == "exact":
        return ""
    if FAST_VARIANT not in portable.runnable_variants():
        return "this CPU has no dot products of bfloat16 (AVX512-BF16: AMD Zen 4, Intel Cooper Lake or newer)"
    if FAST_VARIANT not in kernel_variants():
        return f"the compiler that built the kernel did not know AVX512-BF16: {REINSTALL}"
    return ""


def caution(precision: Precision) -> str:
    """Return what to know before the kernel is used at a precision where it can be; "" if nothing.

    Some CPUs have dot products of bfloat16 that are slower than their multiply-adds of float32.
    """
    if precision == "exact" or why_not(precision):
        return ""
    peaks = load_variant(FAST_VARIANT).measure_peaks(PEAK_SECONDS)
    gain = peaks["bf16"] / peaks["fma"]
    if gain > LEAST_GAIN:
        return ""
    return f"slower here than exact: this CPU does {gain:.1f} times as many operations a second in bfloat16"


def load_variant(name: str) -> ModuleType:
    """Return a compiled variant.

    Raises
    ------
    UsageError
        If it was not compiled, or this CPU cannot run it.
    """
    available = kernel_variants()
    variant = _import_variant(name) if name in available else None
    if variant is None:
        raise UsageError(
            f"kernel variant {name!r} cannot be used here (there are: {', '.join(available) or 'none'})"
        )
    return variant


def _import_variant(name: str) -> ModuleType | None:
    """Import a variant if it was compiled from the sources of this version: another one computes otherwise.

    Only `portable` may be imported before a variant is known to run here.
    """
    variant = _find(name)
    return variant if variant is not None and _revision(variant) == REVISION else None


def _find(name: str) -> ModuleType | None:
    """Import a variant if it was compiled, from whatever sources."""
    try:
        return importlib.import_module(f"{PACKAGE}._{name}")
    except ImportError:
        return None


def _revision(variant: ModuleType) -> str:
    return str(getattr(variant, "REVISION", "none"))


class KernelEngine:
    """Compute by the fused kernel, several stars a call, with noise made inside its tiles.

    An engine has memory of its own for each thread and serves one call at a time.

    Parameters
    ----------
    model : SpectrumNet
        The trained network, on the CPU; its weights are copied.
    transform : InputTransform
        How the network wants its input.
    scaler : LabelScaler
        From standardised to physical labels.
    precision : {"exact", "fast"}
        "exact": float32, equal in every bit for all variants of CPUs with fused multiply-add. "fast": the
        differences from the clean spectrum in bfloat16.
    variant : str or None
        One of `kernel_variants`; default the fastest.
    threads : int
        Threads among which the stars of a call are divided.

    Raises
    ------
    UsageError
        If this machine cannot do it; names the reason.
    """

    name = "kernel"
    stars_per_call = 16  # 16 stars of 101 rows fill vectors of 16 lanes without a rest

    def __init__(
        self,
        model: SpectrumNet,
        transform: InputTransform,
        scaler: LabelScaler,
        *,
        precision: Precision = "exact",
        variant: str | None = None,
        threads: int = 1,
    ) -> None:
        if reason := why_not(precision):
            raise UsageError(f"the engine kernel cannot compute {precision} here: {reason}")
        if threads < 1:
            raise ValueError(f"{threads} threads compute nothing; use 1 or more")
        self.precision: Precision = precision
        self.variant = variant or kernel_variants()[0]
        self._kernel = load_variant(self.variant)
        is_fast = precision == "fast"
        if is_fast and not self._kernel.HAS_BF16:
            raise UsageError(f"kernel variant {self.variant!r} has no dot products of bfloat16")
        self._network = self._kernel.load_network(_parameters(model), is_fast)
        self._workspaces = [self._kernel.new_workspace(is_fast) for _ in range(threads)]
        self._transform = transform
        self._scaler = scaler

    def predict(self, stars: StarBatch, n_realizations: int) -> DoubleArray:
        """Return physical labels of clean spectra and of their realizations; see `Engine.predict`.

        Raises
        ------
        ValueError
            If the spectra are not float32 of the network's length, or there is no realization.
        """
        if n_realizations < 1:
            raise ValueError(f"{n_realizations} realizations are nothing to compute; ask for 1 or more")
        flux, err = _checked(stars.flux, "flux"), _checked(stars.err, "err")
        scale = self._transform.scale(torch.from_numpy(flux)).numpy()[:, 0]
        standardised = np.empty((len(stars), 1 + n_realizations, N_LABELS), np.float32)
        transform = (self._transform.kind == "contrast", self._transform.clip, self._transform.gain)

        stars_at_once = max(1, MOST_ROWS // (1 + n_realizations))
        most = n_realizations if n_realizations < MOST_ROWS else MOST_ROWS - 1  # of a star in a call

        def compute(part: slice, workspace: object) -> None:
            for start in range(part.start, part.stop, stars_at_once):
                some = slice(start, min(start + stars_at_once, part.stop))
                for first in range(0, n_realizations, most):
                    n_now = min(most, n_realizations - first)
                    labels = np.empty((some.stop - some.start, 1 + n_now, N_LABELS), np.float32)
                    self._kernel.predict(
                        self._network,
                        workspace,
                        transform,
                        n_now,
                        flux[some],
                        err[some],
                        _later(stars.keys[some], first),
                        np.ascontiguousarray(scale[some]),
                        labels,
                    )
                    standardised[some, 0] = labels[:, 0]
                    standardised[some, 1 + first : 1 + first + n_now] = labels[:, 1:]

        n_threads = len(self._workspaces)
        ends = [len(stars) * i // n_threads for i in range(n_threads + 1)]
        parts = [slice(*pair) for pair in pairwise(ends)]
        if n_threads == 1:
            compute(parts[0], self._workspaces[0])
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                list(pool.map(compute, parts, self._workspaces))
        return self._scaler.to_physical(torch.from_numpy(standardised)).numpy()

    def take_parts(self) -> dict[str, float]:
        """Return the seconds spent on each part of the work since the last time, over all threads."""
        each = [self._kernel.take_parts(workspace) for workspace in self._workspaces]
        return {part: sum(seconds[part] for seconds in each) for part in each[0]}


def _parameters(model: SpectrumNet) -> tuple[FloatArray, ...]:
    """Return weight and bias of each layer, in the order of the layers."""
    return tuple(p.detach().to("cpu", torch.float32).contiguous().numpy() for p in model.parameters())


def _later(keys: Sequence[NoiseKey], first: int) -> npt.NDArray[np.uint64]:
    """Return keys, shape (n_stars, 2), whose first realization is another one of the stars'."""
    n_words = first * words_per_realization(N_PIXELS)
    words = [((key.seed + n_words * key.gamma) % 2**64, key.gamma) for key in keys]
    return np.array(words, np.uint64).reshape(-1, 2)


def _checked(spectra: FloatArray, name: str) -> FloatArray:
    """Return spectra as the kernel reads them, or refuse them."""
    if spectra.dtype != np.float32 or spectra.ndim != 2 or spectra.shape[1] != N_PIXELS:
        raise ValueError(
            f"{name}: float32 of shape (n_stars, {N_PIXELS}) is needed, "
            f"not {spectra.dtype} of {spectra.shape}"
        )
    return np.ascontiguousarray(spectra).view(np.float32)  # the same type may have another name, "<f4"
