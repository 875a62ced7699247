"""`MODEL_CARD.md`: what a model is, for people."""

from collections.abc import Mapping
from pathlib import Path

from apogee_batch.files import write_text
from apogee_batch.network.calibration import Calibration
from apogee_batch.network.error_model import PLACES, ErrorModel
from apogee_batch.network.header import CheckpointHeader
from apogee_batch.network.training_stars import TrainingStars, read_training_stars
from apogee_batch.schema import DATA_TYPES, LABEL_NAMES, LABEL_UNITS
from apogee_batch.survey.pixels import N_PIXELS

CARD_FILE = "MODEL_CARD.md"
CALIBRATION_HEADING = "## Calibration"
PAPER = "Olney et al. 2020, AJ 159, 182"
OTHER_LIMITS = {"logg": "log g", "fe_h": "[Fe/H]"}
POPULATIONS = {  # data type to the stars it stands for
    "payne": "giants and dwarfs of a catalogue like that of The Payne",
    "mstar": "M dwarfs",
    "yso": "young stars",
}
N_WEIGHTS = 4_655_275
STARS_FACT = "training spectra by reduction"  # begins what is told of them
SIMULATED = "**Trained on simulated spectra: the labels that this model gives real stars are worth nothing.**"
MFLOP_OF_A_PASS = 55.7  # counted: two operations for each multiply-add of the layers


def write_model_card(
    folder: Path, header: CheckpointHeader, sha256: str, calibrated: tuple[Calibration, str] | None = None
) -> None:
    """Write the card of a checkpoint into its folder, with what that notes of the training stars.

    Parameters
    ----------
    folder : Path
    header : CheckpointHeader
    sha256 : str
        The model's identity.
    calibrated : tuple of Calibration and str, optional
        Its calibration, and the hash of that.

    Raises
    ------
    IntegrityError
        If what the folder notes of the training stars is damaged.
    """
    stars = read_training_stars(folder)
    write_text(folder / CARD_FILE, render_model_card(header, sha256, calibrated, stars))


def render_model_card(
    header: CheckpointHeader,
    sha256: str,
    calibrated: tuple[Calibration, str] | None = None,
    stars: TrainingStars | None = None,
) -> str:
    """Return the card as Markdown; for the parameters see `write_model_card`.

    Without `stars` it is word for word the card of a model whose folder notes nothing of them.
    """
    sections = [
        "# Model card",
        f"A convolutional network that reads a spectrum of SDSS/APOGEE (apStar, {N_PIXELS} pixels) and gives "
        f"log g, Teff and [Fe/H]: the architecture of APOGEE Net I ({PAPER}).",
        _origin(header),
        *([SIMULATED] if stars is not None and stars.are_simulated else []),
        *(f"**Warning:** {text}" for text in header.warnings),
        "## Identity",
        _list({"sha256": sha256, "weights": f"{N_WEIGHTS}, safetensors", **header.versions}),
        "## Intended use",
        _use(header),
        "## Input and output",
        _input(header),
        _labels(header),
        "## Training data",
        _training_data(header),
        *([] if stars is None else [_stars(stars)]),
    ]
    if header.origin == "trained":
        sections += ["## Training", _training(header)]
    sections += ["## Evaluation", _evaluation(header)]
    if calibrated is not None:
        sections += [CALIBRATION_HEADING, _calibration(*calibrated)]
    sections += [
        "## Limits",
        _limits(header, with_all=stars is not None),
        "## Who is missing",
        _missing(header),
    ]
    sections += ["## Cost", _cost(header), "## Licence and citation", _licence(header)]
    return "\n\n".join(sections) + "\n"


def _origin(header: CheckpointHeader) -> str:
    if header.origin == "official":
        return "The weights are those that the authors published; they were imported, not trained here."
    n_train = ", ".join(f"{n} {kind}" for kind, n in sorted(header.n_train.items()))
    return f"Trained with the recipe `{(header.recipe or {}).get('name')}` on {n_train} stars."


def _use(header: CheckpointHeader) -> str:
    calibrates = ""
    if header.origin == "official":
        calibrates = " Calibrate it with labels of your own (`apogee-batch model calibrate`) to have errors."
    return (
        "For labels of stars from combined apStar spectra, by `apogee-batch run-catalog STORE --model MODEL "
        "--out RUN` or from Python by `apogee_batch.load_model(MODEL).predict(flux, err)`."
        f"{calibrates}\n\nNot for spectra on another grid or not at rest, for other instruments, for "
        "abundances other than [Fe/H], or for stars unlike those of the training data: the network gives "
        "numbers for any input. Look at `flags` and `strangeness` of the catalogue before using a row."
    )


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


def _training_data(header: CheckpointHeader) -> str:
    if header.origin == "official":
        return f"Not known to this program; the authors describe it in section 2 of the paper ({PAPER})."
    n_all = max(sum(header.n_train.values()), 1)
    lines = ["| type | stands for | training stars | share |", "|---|---|---|---|"]
    for kind in DATA_TYPES:
        n = header.n_train.get(kind, 0)
        lines.append(f"| {kind} | {POPULATIONS[kind]} | {n} | {100 * n / n_all:.1f} % |")
    table = "\n".join(lines)
    return (
        f"{table}\n\nSpectra and labels are those of the store that was given to the training. A type says "
        "which table the label came from, not what the star is. The model holds neither; the hash covers "
        "spectra, labels, types and splits of the training and dev stars.\n\n"
        f"{_list({'sha256 of the training set': header.training_set_hash})}"
    )


def _stars(stars: TrainingStars) -> str:
    """Say where the training spectra are from, and how good they are."""

    def count(found: Mapping[str, int]) -> str:
        return ", ".join(f"{name} {n}" for name, n in found.items()) or "none"

    facts: dict[str, object] = {
        STARS_FACT: count(stars.releases),
        "by telescope": count(stars.telescopes),
        "fields": stars.n_fields,
        "SNR below 20": f"{stars.n_low_snr} spectra",
    }
    for name, spread in (("SNR per pixel", stars.snr), ("H (mag)", stars.h)):
        told = "not known" if spread is None else ", ".join(f"{value:g}" for value in spread)
        facts[f"{name} at 5, 50, 95 percent"] = told
    return f"{_list(facts)}\n\nNo spectrum was left out for its quality: whatever had a label taught."


def _training(header: CheckpointHeader) -> str:
    facts: dict[str, object] = {"seed": header.seed, "device": header.device}
    settings = "\n".join(f"{name} = {value!r}" for name, value in sorted((header.recipe or {}).items()))
    return f"{_list(facts)}\n\nRecipe:\n\n```\n{settings}\n```"


def _evaluation(header: CheckpointHeader) -> str:
    test = (
        "No test star is in this card: training never reads them. What the model reaches on them is told by "
        "each run with it (`RUN/report/results.txt`, `apogee-batch validate RUN`)."
    )
    if header.dev_loss is None:
        return f"None was made here. {test}"
    lines = ["| dev stars | mean squared error of standardised labels |", "|---|---|"]
    lines += [f"| {kind} | {loss:.4f} |" for kind, loss in sorted(header.dev_loss_by_type.items())]
    lines += [f"| all | {header.dev_loss:.4f} |"]
    table = "\n".join(lines)
    return (
        f"{table}\n\nFor all of them together, a network that knows only the mean labels has about 1. "
        f"The dev stars chose the epoch, so these numbers are a little too good.\n\n{test}"
    )


def _calibration(calibration: Calibration, sha256: str) -> str:
    n_stars = ", ".join(f"{n} {kind}" for kind, n in sorted(calibration.n_stars.items())) or "none"
    facts: dict[str, object] = {
        "sha256 of the calibration": sha256,
        "dev stars": n_stars,
        "sha256 of their labels": calibration.settings.get("labels_sha256"),
        "strange spectra": "not told" if calibration.strangeness is None else "flagged",
        "hull of the training labels": "none" if calibration.hull is None else "known",
    }
    if calibration.computed_on:
        facts["computed on"] = calibration.computed_on
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


def _limits(header: CheckpointHeader, *, with_all: bool) -> str:
    if header.label_range is None:
        return (
            "The range of the training labels is not known; the paper leaves out stars above 6700 K, where "
            "the labels suffer from edge effects."
        )
    low, high = header.label_range["teff"]
    ranges = [f"Teff {low:.0f}-{high:.0f} K"]
    for name, title in OTHER_LIMITS.items() if with_all else ():
        low, high = header.label_range[name]
        ranges.append(f"{title} {low:.2f} to {high:.2f}")
    return (
        f"Labels outside the range of the training set ({', '.join(ranges)}) are extrapolations. The "
        "scatter over noise realizations is the part of the error that comes from the spectrum's noise; "
        "the error of the training labels comes on top."
    )


def _missing(header: CheckpointHeader) -> str:
    """Say which stars the model has not seen, as far as the header tells."""
    unseen = [POPULATIONS[kind] for kind in DATA_TYPES if not header.n_train.get(kind)]
    if header.origin == "official":
        told = "This program does not know which stars the authors' training set lacks."
    elif unseen:
        told = f"**No training star stands for: {', '.join(unseen)}.** Labels of such stars are guesses."
    else:
        told = (
            "Each of the three types has training stars; the table above tells how unequal their shares are."
        )
    if header.label_range is not None:
        ends = [f"{name} {low:.6g} to {high:.6g}" for name, (low, high) in header.label_range.items()]
        told += f" No training star has labels outside {', '.join(ends)}."
    return (
        f"{told}\n\nRare types are known worse than common ones, and predictions are pulled towards the "
        "middle of the training labels. Surveys choose their targets, and who made the labels chose again; "
        "what either left out is not known here. Wrong labels of one type are learned as if they were true."
    )


def _cost(header: CheckpointHeader) -> str:
    """Say what computing takes; times are not told here, so that the same training gives the same card."""
    told = f"A forward pass is {MFLOP_OF_A_PASS} million operations (counted, not measured)."
    if header.origin == "trained":
        per_epoch = 3 * MFLOP_OF_A_PASS * 1e6 * sum(header.n_train.values())  # backward: twice the forward
        told += (
            f" To learn from each training star once takes three times as many a star, {per_epoch:.2g} in "
            f"all. The device was {header.device}. How long each epoch took is in `metrics.jsonl`."
        )
    return f"{told} Energy was not measured."


def _licence(header: CheckpointHeader) -> str:
    licence = "This program sets no licence for weights that it trains: whoever publishes them says which."
    if header.origin == "official":
        licence = "The licence of the weights is their authors' to say; the imported file does not tell it."
    return (
        f"{licence} That of apogee-batch (BSD-3-Clause) is for the program.\n\nPlease cite the program "
        f"(CITATION.cff), the paper whose method it follows ({PAPER}, arXiv:2002.08390), and the sources of "
        "the spectra and labels."
    )
