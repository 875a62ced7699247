"""`training_stars.json`: which stars of the survey taught a model, beside its weights, sealed.

It is no part of the model's identity: it says where the training set is from, and changes no number.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apogee_batch.errors import IntegrityError
from apogee_batch.files import read_sealed_json, write_sealed_json

TRAINING_STARS_FILE = "training_stars.json"
FORMAT = "apogee_batch training stars"
FORMAT_VERSION = 1
PERCENTILES = (5, 50, 95)
UNKNOWN = "not known"
REMEDY = "delete it; the command that trained the model writes it anew, and trains nothing again"
Spread = tuple[float, float, float]  # at `PERCENTILES`


@dataclass(frozen=True)
class TrainingStars:
    """Where the spectra of a training set are from; those of the training split alone.

    Attributes
    ----------
    n_stars : int
        Spectra.
    releases, telescopes : mapping of str to int
        Spectra of each; `UNKNOWN` for those that do not tell.
    n_fields : int
        Fields they lie in.
    n_low_snr : int
        Spectra with an SNR so low that the catalogue would flag them.
    are_simulated : bool
        Whether all lie in the fields of `apogee-batch simulate`.
    snr, h : tuple of float, length 3, or None
        Signal-to-noise ratio per pixel, and H magnitude, at `PERCENTILES`; None where none is known.
    """

    n_stars: int
    releases: Mapping[str, int]
    telescopes: Mapping[str, int]
    n_fields: int
    n_low_snr: int
    are_simulated: bool
    snr: Spread | None = None
    h: Spread | None = None


def write_training_stars(folder: Path, stars: TrainingStars) -> None:
    """Write the file into the folder of a model."""
    told = {"format": FORMAT, "format_version": FORMAT_VERSION}
    write_sealed_json(folder / TRAINING_STARS_FILE, told | asdict(stars))


def read_training_stars(folder: Path) -> TrainingStars | None:
    """Read the file of a model; None where it has none: it is older, or was imported.

    Raises
    ------
    IntegrityError
        If it is damaged, or of another format.
    """
    path = folder / TRAINING_STARS_FILE
    if not path.is_file():
        return None
    try:
        values = read_sealed_json(path)
        if values.pop("format_version") != FORMAT_VERSION or values.pop("format") != FORMAT:
            raise IntegrityError(f"{path}: is of a format that this program does not read; {REMEDY}")
        spreads: dict[str, Any] = {name: values[name] and tuple(values[name]) for name in ("snr", "h")}
        return TrainingStars(**values | spreads)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path}: is damaged ({error!r}); {REMEDY}") from error
