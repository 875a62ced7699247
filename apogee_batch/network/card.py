"""`MODEL_CARD.md`: what a model is, for people."""

from pathlib import Path

from apogee_batch.files import write_text
from apogee_batch.network.calibration import Calibration
from apogee_batch.network.error_model import PLACES, ErrorModel
from apogee_batch.network.header import CheckpointHeader
from apogee_batch.schema import LABEL_NAMES, LABEL_UNITS

CARD_FILE = "MODEL_CARD.md"
CALIBRATION_HEADING = "## Calibration"
PAPER = "Olney et al. 2020, AJ 159, 182"


def write_model_card(
    folder: Path, header: CheckpointHeader, sha256: str, calibrated: tuple[Calibration, str] | None = None
) -> None:
    """Write the card of a checkpoint into its folder.

    Parameters
    ----------
    folder : Path
    header : CheckpointHeader
    sha256 : str
        The model's identity.
    calibrated : tuple of Calibration and str, optional
        Its calibration, and the hash of that.
    """
    write_text(folder / CARD_FILE, render_model_card(header, sha256, calibrated))


def render_model_card(
    header: CheckpointHeader, sha256: str, calibrated: tuple[Calibration, str] | None = None
) -> str:
    """Return the card as Markdown; for the parameters see `write_model_card`."""
    sections = [
        "# Model card",
        "A convolutional network that reads a spectrum of SDSS/APOGEE (apStar, 8575 pixels) and gives log g, "
        f"Teff and [Fe/H]: the architecture of APOGEE Net I ({PAPER}).",
        _origin(header),
        *(f"**Warning:** {text}" for text in header.warnings),
        "## Identity",
        _list({"sha256": sha256, **header.versions}),
        "## Input and output",
        _input(header),
        _labels(header),
    ]
    if header.origin == "trained":
        sections += ["## Training", _training(header)]
    if calibrated is not None:
        sections += [CALIBRATION_HEADING, _calibration(*calibrated)]
    sections += ["## Limits", _limits(header)]
    return "\n\n".join(sections) + "\n"


def _origin(header: CheckpointHeader) -> str:
    if header.origin == "official":
        return "The weights are those that the authors published; they were imported, not trained here."
    n_train = ", ".join(f"{n} {kind}" for kind, n in sorted(header.n_train.items()))
    return f"Trained with the recipe `{(header.recipe or {}).get('name')}` on {n_train} stars."


def _list(values: dict[str, object]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in values.items())


def _input(header: CheckpointHeader) -> str:
    transform = header.transform
    if transform.kind == "raw":
        return "Input: the flux as in apStar, 1e-17 erg/s/cm^2/Angstrom; gaps are 0."
    return (
        f"Input: {transform.gain:g} x (flux / median of the good pixels - 1), the contrast limited to "
        f"+-{transform.clip:g}; gaps are 0."
    )


def _labels(header: CheckpointHeader) -> str:
    lines = ["| label | unit | mean | std | least in training | most |", "|---|---|---|---|---|---|"]
    for name, mean, std in zip(LABEL_NAMES, header.scaler.mean, header.scaler.std, strict=True):
        low, high = ("not known",) * 2
        if header.label_range is not None:
            low, high = (f"{end:.6g}" for end in header.label_range[name])
        lines.append(f"| {name} | {LABEL_UNITS[name]} | {mean:.6g} | {std:.6g} | {low} | {high} |")
    return "\n".join(lines)


def _training(header: CheckpointHeader) -> str:
    by_type = ", ".join(f"{kind} {loss:.4f}" for kind, loss in sorted(header.dev_loss_by_type.items()))
    facts: dict[str, object] = {
        "dev loss (mean squared error of standardised labels)": f"{header.dev_loss:.4f} ({by_type})",
        "seed": header.seed,
        "device": header.device,
        "sha256 of the training set": header.training_set_hash,
    }
    settings = "\n".join(f"{name} = {value!r}" for name, value in sorted((header.recipe or {}).items()))
    return f"{_list(facts)}\n\nRecipe:\n\n```\n{settings}\n```"


def _calibration(calibration: Calibration, sha256: str) -> str:
    n_stars = ", ".join(f"{n} {kind}" for kind, n in sorted(calibration.n_stars.items())) or "none"
    facts: dict[str, object] = {
        "sha256 of the calibration": sha256,
        "dev stars": n_stars,
        "sha256 of their labels": calibration.settings.get("labels_sha256"),
        "strange spectra": "not told" if calibration.strangeness is None else "flagged",
        "hull of the training labels": "none" if calibration.hull is None else "known",
    }
    lines = [_list(facts), *calibration.notes]
    if calibration.error_model is not None:
        lines += [
            "Errors: total^2 = floor^2 + (scale x sigma)^2 + (at SNR 100 x 100 / SNR)^2, sigma being the "
            "scatter over the realizations. 68 percent of such stars lie within one total of their label, "
            "95 percent within as many as the last column says.",
            _errors(calibration.error_model),
        ]
    return "\n\n".join(lines)


def _errors(errors: ErrorModel) -> str:
    floors = " | ".join(f"floor: {place.replace('_', ' ')}" for place in PLACES)
    lines = [
        f"| label | unit | {floors} | scale | at SNR 100 | 95 percent |",
        "|---" * (5 + len(PLACES)) + "|",
    ]
    for name, label in zip(LABEL_NAMES, errors.labels, strict=True):
        floor = " | ".join(f"{each:.3g}" for each in label.floor)
        lines.append(
            f"| {name} | {LABEL_UNITS[name]} | {floor} | {label.scale:.3g} | {label.per_snr:.3g} | "
            f"{label.factor_95:.3g} |"
        )
    return "\n".join(lines)


def _limits(header: CheckpointHeader) -> str:
    if header.label_range is None:
        return (
            "The range of the training labels is not known; the paper leaves out stars above 6700 K, where "
            "the labels suffer from edge effects."
        )
    low, high = header.label_range["teff"]
    return (
        f"Labels outside the range of the training set (Teff {low:.0f}-{high:.0f} K) are extrapolations. The "
        "scatter over noise realizations is the part of the error that comes from the spectrum's noise; "
        "the error of the training labels comes on top."
    )
