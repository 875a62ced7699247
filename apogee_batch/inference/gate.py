"""The gate: an engine makes catalogues only if its labels and their scatter are those of exact float32.

Rounding hardly shows in a prediction, but it does in the scatter of a hundred: what each rounds off adds to
the noise of the spectrum, and at a high signal-to-noise ratio it outgrows it. So an engine and the reference
get the same noise, from faint to bright, and the scatter, the mean and the clean prediction of every star and
label are compared.
"""

import math
from collections.abc import Sequence

import numpy as np

from apogee_batch.errors import IntegrityError
from apogee_batch.inference.engines import Engine, StarBatch
from apogee_batch.inference.gate_report import GateReport, GateRow
from apogee_batch.inference.gate_spectra import GateSpectra, simulate_spectra
from apogee_batch.schema import LABEL_NAMES, N_LABELS, DoubleArray

GATE_SNRS = (30.0, 100.0, 200.0, 500.0, 1000.0)  # of the survey, from hardly usable to its brightest
LEAST_SIGMA = 2.0**-16  # of the largest label: below, float32 itself rounds off too much to compare
CHECK_SNRS = (GATE_SNRS[0], GATE_SNRS[-1])  # rounding shows at the end, overflow at the beginning
# Largest rms difference of the realizations of a star, in sigma of the reference. Measured at SNR 1000 with
# trained networks: OpenVINO 0.0001, anchored bfloat16 0.01, TF32 0.06-0.2, bfloat16 0.6-0.9.
CHECK_ALLOWED = {"exact": 0.01, "fast": 0.03}
REMEDIES = {
    "exact": "use --engine torch, and please report this",
    "fast": "begin a new run with --precision exact, and please report this",
}


def run_gate(
    engine: Engine, reference: Engine, spectra: GateSpectra, *, n_realizations: int = 100
) -> GateReport:
    """Compare an engine with the reference on the same noise at each of `GATE_SNRS`.

    Parameters
    ----------
    engine : Engine
        To be judged.
    reference : Engine
        `TorchEngine` with the same network.
    spectra : GateSpectra
        16 stars or more; with fewer, the rms over stars is no more than a hint.
    n_realizations : int
        At least 2.

    Raises
    ------
    IntegrityError
        If an engine's answer has another shape than asked for.
    """
    wanted = predict_at_snrs(reference, spectra, n_realizations=n_realizations)
    found = predict_at_snrs(engine, spectra, n_realizations=n_realizations)
    return judge(engine, found, wanted, spectra)


def predict_at_snrs(engine: Engine, spectra: GateSpectra, *, n_realizations: int) -> DoubleArray:
    """Return what an engine predicts for the gate.

    Returns
    -------
    ndarray of float64, shape (n_snrs, n_stars, 1 + n_realizations, n_labels)

    Raises
    ------
    IntegrityError
        If its answer has another shape than asked for.
    """
    return np.stack([_predict(engine, spectra.at_snr(snr), n_realizations) for snr in GATE_SNRS])


def _predict(engine: Engine, stars: StarBatch, n_realizations: int) -> DoubleArray:
    """Return labels, shape (n_stars, 1 + n_realizations, n_labels), by calls as the engine likes them."""
    if n_realizations < 2:
        raise ValueError(f"{n_realizations} realizations have no scatter to compare; ask for 2 or more")
    parts = []
    for start in range(0, len(stars), engine.stars_per_call):
        part = stars.part(start, start + engine.stars_per_call)
        labels = engine.predict(part, n_realizations)
        shape = (len(part), 1 + n_realizations, N_LABELS)
        if labels.shape != shape:
            raise IntegrityError(
                f"engine {engine.name} {engine.precision}: gave labels of shape {labels.shape} instead of"
                f" {shape}; {REMEDIES[engine.precision]}"
            )
        parts.append(labels)
    return np.concatenate(parts)


def judge(engine: Engine, found: DoubleArray, wanted: DoubleArray, spectra: GateSpectra) -> GateReport:
    """Compare what `predict_at_snrs` gave for an engine and for the reference.

    Parameters
    ----------
    engine : Engine
        Its name and precision are those of the report.
    found : ndarray of float64, shape (n_snrs, n_stars, 1 + n_realizations, n_labels)
        Its labels.
    wanted : ndarray of float64, same shape
        Labels of the reference.
    spectra : GateSpectra
        What they were predicted from.
    """
    least = LEAST_SIGMA * np.abs(wanted[:, :, 0]).max(axis=(0, 1))  # (n_labels,)
    rows = [
        _compare(snr, label, found[i, ..., k], wanted[i, ..., k], float(least[k]), spectra.names)
        for i, snr in enumerate(GATE_SNRS)
        for k, label in enumerate(LABEL_NAMES)
    ]
    return GateReport(engine.name, engine.precision, spectra.names, wanted.shape[2] - 1, tuple(rows))


def _compare(
    snr: float, label: str, found: DoubleArray, wanted: DoubleArray, least: float, stars: Sequence[str]
) -> GateRow:
    """Compare one label of all stars, shapes (n_stars, 1 + n_realizations)."""
    with np.errstate(invalid="ignore", over="ignore"):
        sigma, true_sigma = (labels[:, 1:].std(axis=1, ddof=1) for labels in (found, wanted))
        unit = _unit(true_sigma, least)
        excess = (sigma - true_sigma) / unit  # that is sigma / true_sigma - 1, but for a star at rest
        mean_shift = (found[:, 1:].mean(axis=1) - wanted[:, 1:].mean(axis=1)) / unit
        clean_shift = (found[:, 0] - wanted[:, 0]) / unit
        n_scattering = int((true_sigma > least).sum())
        is_telling = 2 * n_scattering >= len(stars)  # a network whose outputs stand still shows no error
        worst = int(np.argmax(np.where(np.isfinite(excess), np.abs(excess), np.inf)))
        return GateRow(
            snr=snr,
            label=label,
            sigma_bias=float(excess.mean()) if is_telling else math.nan,
            sigma_rms=_rms(excess) if is_telling else math.nan,
            mean_shift=_rms(mean_shift),
            clean_shift=_rms(clean_shift),
            n_scattering=n_scattering,
            worst_star=stars[worst],
            worst_ratio=1.0 + float(excess[worst]),
        )


def _unit(sigma: DoubleArray, least: float | DoubleArray) -> DoubleArray:
    """Return by what differences are divided: sigma, where it is not too small."""
    floor = np.maximum(least, np.finfo(np.float64).tiny)
    unit: DoubleArray = np.maximum(sigma, floor)
    return unit


def _rms(values: DoubleArray) -> float:
    return float(np.sqrt(np.square(values).mean()))


def check_engine(engine: Engine, reference: Engine, *, n_realizations: int = 8) -> None:
    """Refuse an engine that computes something else than the reference on this machine.

    The gate in little, for a worker that is about to begin: a faint and a bright star, realization by
    realization, in a fraction of a second.

    Parameters
    ----------
    engine : Engine
        To be judged.
    reference : Engine
        `TorchEngine` with the same network.
    n_realizations : int
        At least 2. An engine that prepares itself for one shape is tried best with the run's number.

    Raises
    ------
    IntegrityError
        If labels differ by more than `CHECK_ALLOWED`, or have another shape than asked for.
    """
    stars = simulate_spectra(len(CHECK_SNRS)).at_snr(CHECK_SNRS)
    found, wanted = (_predict(one, stars, n_realizations) for one in (engine, reference))
    with np.errstate(invalid="ignore", over="ignore"):
        unit = _unit(wanted[:, 1:].std(axis=1, ddof=1), LEAST_SIGMA * np.abs(wanted[:, 0]).max(axis=0))
        difference = np.sqrt(np.square((found - wanted) / unit[:, None]).mean(axis=1))  # (n_stars, n_labels)
        largest = difference.max(axis=0)
    allowed = CHECK_ALLOWED[engine.precision]
    if not (largest <= allowed).all():  # NaN is not
        numbers = ", ".join(f"{name} {value:.2g}" for name, value in zip(LABEL_NAMES, largest, strict=True))
        raise IntegrityError(
            f"engine {engine.name} {engine.precision}: its realizations differ from those of"
            f" {reference.name} by {numbers} (rms in sigma, {allowed:g} is allowed);"
            f" {REMEDIES[engine.precision]}"
        )
