"""A trained photometric network on disk: safetensors and JSON, with the isochrones that it was made of."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import read_sealed_json, sha256_of_bytes, write_bytes, write_sealed_json
from apogee_batch.labels.isochrone_grid import Isochrone, Isochrones
from apogee_batch.labels.photometric_net import PhotometricNet
from apogee_batch.labels.synthetic_stars import OUTPUTS, SyntheticSettings

FORMAT_VERSION = 1
WEIGHTS_FILE = "photometric_net.safetensors"
HEADER_FILE = "photometric_net.json"
_NET, _ISOCHRONE = "net.", "isochrone."
_COLUMNS = ("mass", "log_teff", "logg", "log_luminosity", "log_radius", "stage")
_BAND = "magnitude_"


@dataclass(frozen=True)
class TrainedNet:
    """A photometric network that can predict.

    Attributes
    ----------
    net : PhotometricNet
        In evaluation mode.
    settings : SyntheticSettings
        Of the stars that it learned from.
    isochrones : Isochrones
        Which those came from.
    files : mapping of str to str
        SHA-256 of each isochrone table, by its name.
    held_out : mapping of str to Any
        Its precision on synthetic stars that it never saw.
    training : mapping of str to Any
        Seed, numbers of stars, and settings of the training.
    """

    net: PhotometricNet
    settings: SyntheticSettings
    isochrones: Isochrones
    files: Mapping[str, str]
    held_out: Mapping[str, Any]
    training: Mapping[str, Any]


def save_net(folder: Path, trained: TrainedNet) -> str:
    """Write the weights and, last, the header; return the SHA-256 of the weights.

    The same network gives the same bytes.
    """
    tensors = {_NET + name: value.contiguous() for name, value in trained.net.state_dict().items()}
    for i, isochrone in enumerate(trained.isochrones.isochrones):
        arrays = {name: getattr(isochrone, name) for name in _COLUMNS}
        arrays |= {_BAND + band: values for band, values in isochrone.magnitude.items()}
        tensors |= {f"{_ISOCHRONE}{i}.{name}": torch.tensor(values) for name, values in arrays.items()}
    sha256 = write_bytes(folder / WEIGHTS_FILE, save(dict(sorted(tensors.items())))).sha256
    header = {
        "format_version": FORMAT_VERSION,
        "inputs": list(trained.settings.inputs),
        "outputs": list(OUTPUTS),
        "synthetic_stars": trained.settings.to_json(),
        "isochrones": [[one.log_age, one.source] for one in trained.isochrones.isochrones],
        "notes": list(trained.isochrones.notes),
        "isochrone_files": dict(trained.files),
        "held_out": dict(trained.held_out),
        "training": dict(trained.training),
        "weights_sha256": sha256,
    }
    write_sealed_json(folder / HEADER_FILE, header)
    return sha256


def load_net(folder: Path) -> TrainedNet:
    """Read what `save_net` wrote.

    Raises
    ------
    UsageError
        If there is no photometric network in the folder.
    IntegrityError
        If a file of it is missing, damaged or of another format.
    """
    path = folder / HEADER_FILE
    if not path.is_file():
        raise UsageError(
            f"{folder}: no photometric network here ({HEADER_FILE} is missing); "
            "name a folder that 'labels ysos' wrote, or leave --network out to train one"
        )
    try:
        header = read_sealed_json(path)
        if header["format_version"] != FORMAT_VERSION or header["outputs"] != list(OUTPUTS):
            raise ValueError(f"format {header['format_version']}, not {FORMAT_VERSION}")
        content = (folder / WEIGHTS_FILE).read_bytes()
        if sha256_of_bytes(content) != header["weights_sha256"]:
            raise ValueError(f"{WEIGHTS_FILE} is not what was written")
        return _trained_net(header, load(content))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise IntegrityError(
            f"{path}: the photometric network is damaged ({error}); train it again without --network"
        ) from error


def _trained_net(header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> TrainedNet:
    """Put a network together from its header and tensors."""
    settings = SyntheticSettings.from_json(header["synthetic_stars"])
    net = PhotometricNet(settings.inputs, settings.bands, settings.required_band)
    net.load_state_dict({k.removeprefix(_NET): v for k, v in tensors.items() if k.startswith(_NET)})
    arrays: list[dict[str, Any]] = [{} for _ in header["isochrones"]]
    for name, value in tensors.items():
        if found := re.fullmatch(re.escape(_ISOCHRONE) + r"(\d+)\.(\w+)", name):
            arrays[int(found[1])][found[2]] = value.numpy()
    named = zip(header["isochrones"], arrays, strict=True)
    isochrones = Isochrones(
        tuple(_isochrone(log_age, source, columns) for (log_age, source), columns in named),
        tuple(header["notes"]),
    )
    return TrainedNet(
        net.eval(),
        settings,
        isochrones,
        header["isochrone_files"],
        header["held_out"],
        header["training"],
    )


def _isochrone(log_age: float, source: str, columns: Mapping[str, Any]) -> Isochrone:
    """Put one isochrone together; those that a network learns from have the sun's metallicity."""
    quantities: dict[str, Any] = {name: np.asarray(columns[name]) for name in _COLUMNS}
    magnitude = {k.removeprefix(_BAND): v for k, v in columns.items() if k.startswith(_BAND)}
    return Isochrone(log_age=log_age, source=source, magnitude=magnitude, **quantities)
