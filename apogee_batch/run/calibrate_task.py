"""What a worker does to calibrate a model: predict stars that did not teach it, and learn from the errors."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import sha256_of_file
from apogee_batch.inference.estimates import LabelEstimates
from apogee_batch.network.calibration import Calibration, save_calibration
from apogee_batch.network.error_fit import MIN_STARS, fit_error_model
from apogee_batch.network.error_model import ErrorModel
from apogee_batch.network.features import N_ACTIVATIONS, features_of
from apogee_batch.network.hull import TOO_FEW_LABELS, fit_hull
from apogee_batch.network.strangeness import TOO_FEW_STARS, fit_strangeness
from apogee_batch.run.estimate import Network, estimate_rows, load_network
from apogee_batch.run.ingest_tables import check_spectra
from apogee_batch.run.table_reading import read_some
from apogee_batch.schema import DATA_TYPES, LABEL_NAMES, DoubleArray, FloatArray
from apogee_batch.store.spectra import StoreInfo, open_store, read_spectra
from apogee_batch.store.tables import LABELS, STARS, table_path

MAX_DEV_STARS = 2000  # they leave the 68 percent of an interval uncertain by 1 percent
MAX_TRAINING_STARS = 12_000  # a quarter of them holds the paper's M dwarfs
MAX_PART_OF_RARE = 0.25  # of the stars chosen, for each type but the first: the rest are Payne stars
LABEL_COLUMNS = ("row", "apstar_id", "data_type", "data_set", *LABEL_NAMES)
RowArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Seen:
    """What was computed of dev and training stars, all in the order of the store."""

    estimates: LabelEstimates
    dev_features: FloatArray
    training_features: FloatArray


def calibrate_network(store: str, model: str, settings: dict[str, Any]) -> dict[str, int]:
    """Calibrate a model and leave the calibration in its folder: a task.

    Test stars are not looked at. The same arguments give the same bytes on the same kind of computer, which
    the calibration names.

    Parameters
    ----------
    store, model : str
        Paths of a store with labels and of the model's folder.
    settings : dict
        `calibration`: what the result depends on, and will say of itself, with `realizations`, `seed`,
        `err_cap` and `precision`. Beside it `model_sha256`, `device` and `engine`.

    Returns
    -------
    dict of int
        Dev stars by data type.

    Raises
    ------
    IntegrityError
        If the spectra are not what was ingested, or the model is another one.
    UsageError
        If there are no labels, or no such engine or device here.
    """
    labels = read_labelled(Path(store))
    path = table_path(Path(store), LABELS)
    if sha256_of_file(path) != settings["calibration"]["labels_sha256"]:  # a task may have waited in a queue
        raise IntegrityError(f"{path}: changed since the calibration was begun; give the command again")
    dev = choose_stars(labels, "dev", MAX_DEV_STARS)
    training = choose_stars(labels, "train", MAX_TRAINING_STARS)
    options = settings["calibration"] | {
        name: settings[name] for name in ("model_sha256", "device", "engine")
    }
    parts: dict[str, Any] = {}
    computed_on = ""
    if len(dev) < MIN_STARS:
        notes = [
            f"{len(dev)} dev stars are too few to calibrate errors or to tell strange spectra ({MIN_STARS})"
        ]
    else:
        network = load_network(Path(model), options)
        computed_on = network.describe()
        seen = _look(network, open_store(Path(store)), labels, dev, training, options)
        parts, notes = _learn(labels, dev, seen)
    counts = count_types(labels.take(pa.array(dev)))
    calibration = Calibration(
        model_sha256=settings["model_sha256"],
        settings=settings["calibration"],
        n_stars=counts,
        notes=tuple(notes),
        computed_on=computed_on,
        **parts,
    )
    save_calibration(Path(model), calibration)
    return counts


def require_dev_stars(store: Path) -> None:
    """Refuse a store that has no labels, or too few dev stars to calibrate with.

    Raises
    ------
    UsageError
        Says how many there are, and are needed.
    """
    n_dev = len(choose_stars(read_labelled(store), "dev", MAX_DEV_STARS))
    if n_dev < MIN_STARS:
        raise UsageError(
            f"{store}: has {n_dev} dev stars, and {MIN_STARS} are needed to calibrate; attach more labels"
        )


def read_labelled(store: Path) -> pa.Table:
    """Read labels and SNR of the labelled stars of a store, by row.

    Raises
    ------
    UsageError
        If there are none.
    """
    if not table_path(store, LABELS).is_file():
        raise UsageError(f"{store}: has no labels to calibrate with; attach them with 'labels attach'")
    labels = read_some(table_path(store, LABELS), LABEL_COLUMNS).sort_by("row")
    stars = read_some(table_path(store, STARS), ["row", "snr"])
    place = np.searchsorted(stars["row"].to_numpy(), labels["row"].to_numpy())
    return labels.append_column("snr", stars["snr"].take(pa.array(place))).combine_chunks()


def choose_stars(labels: pa.Table, data_set: str, n_most: int) -> RowArray:
    """Choose stars of a split, at most so many: their places in the table, ascending.

    Of each type but Payne's at most a quarter of them are taken, since these are few and differ most; Payne
    stars fill the rest. Which ones is decided by a hash of their names.

    Parameters
    ----------
    labels : pa.Table
        `apstar_id`, `data_type`, `data_set`.
    data_set : str
        dev or train.
    n_most : int
    """
    names = labels["apstar_id"].to_pylist()
    data_type, of_set = _texts(labels, "data_type"), _texts(labels, "data_set")
    chosen = list[int]()
    for kind in reversed(DATA_TYPES):
        places = np.flatnonzero((of_set == data_set) & (data_type == kind)).tolist()
        room = n_most - len(chosen) if kind == DATA_TYPES[0] else int(n_most * MAX_PART_OF_RARE)
        chosen += sorted(places, key=lambda place: _rank(names[place]))[:room]
    return np.array(sorted(chosen), np.int64)


def _rank(name: str) -> bytes:
    """Return what orders stars in a way that has to do with nothing."""
    return sha256(f"calibration {name}".encode()).digest()


def weights_of(labels: pa.Table, chosen: RowArray, data_set: str) -> DoubleArray:
    """Return how many stars of the split each chosen one stands for, shape (n_chosen,)."""
    data_type, of_set = _texts(labels, "data_type"), _texts(labels, "data_set")
    weights = np.ones(len(chosen))
    for kind in DATA_TYPES:
        of_kind = data_type[chosen] == kind
        if of_kind.any():
            weights[of_kind] = np.sum((data_type == kind) & (of_set == data_set)) / of_kind.sum()
    return weights


def count_types(labels: pa.Table) -> dict[str, int]:
    """Return the number of stars of each data type that has any."""
    data_type = _texts(labels, "data_type")
    return {kind: int(n) for kind in DATA_TYPES if (n := np.sum(data_type == kind))}


def _look(
    network: Network,
    info: StoreInfo,
    labels: pa.Table,
    dev: RowArray,
    training: RowArray,
    options: dict[str, Any],
) -> _Seen:
    """Estimate the dev stars, and compute the features of both, shard by shard."""
    rows = labels["row"].to_numpy()
    estimates, of_dev, of_training = [], *([np.empty((0, N_ACTIVATIONS), np.float32)] for _ in range(2))
    checkpoint = network.checkpoint
    for shard in np.unique(rows[np.union1d(dev, training)] // info.shard_stars).tolist():
        check_spectra(info, shard, ("flux/", "err/"))
        here = dev[rows[dev] // info.shard_stars == shard]
        found, features = estimate_rows(
            network, info, labels.take(pa.array(here)), options, with_features=True
        )
        estimates.append(found)
        of_dev.append(features)
        taught = rows[training[rows[training] // info.shard_stars == shard]]
        if len(taught):
            flux = read_spectra(info, taught, with_err=False).flux
            of_training.append(features_of(checkpoint.model, checkpoint.transform, flux))
    return _Seen(LabelEstimates.joined(estimates), np.concatenate(of_dev), np.concatenate(of_training))


def _learn(labels: pa.Table, dev: RowArray, seen: _Seen) -> tuple[dict[str, Any], list[str]]:
    """Fit what can be fitted, the parts of a calibration by name; say what cannot."""
    snr = labels["snr"].to_numpy()[dev].astype(np.float64)
    true = _labels_of(labels)
    parts = {
        "error_model": _fit_errors(labels, dev, seen.estimates, snr),
        "strangeness": fit_strangeness(seen.training_features, seen.dev_features, snr),
        "hull": fit_hull(true[_texts(labels, "data_set") == "train"], seen.estimates.mean),
    }
    missing = {
        "error_model": f"no calibrated errors: fewer than {MIN_STARS} dev stars have finite predictions",
        "strangeness": f"no strangeness: {TOO_FEW_STARS}",
        "hull": f"no hull of the training labels: {TOO_FEW_LABELS}",
    }
    return parts, [text for name, text in missing.items() if parts[name] is None]


def _labels_of(labels: pa.Table) -> DoubleArray:
    """Return the labels, shape (n_stars, n_labels)."""
    return np.stack([labels[name].to_numpy() for name in LABEL_NAMES], axis=1).astype(np.float64)


def _fit_errors(
    labels: pa.Table, dev: RowArray, estimates: LabelEstimates, snr: DoubleArray
) -> ErrorModel | None:
    """Fit the error model to the dev stars with finite predictions; None if these are too few."""
    true = _labels_of(labels)[dev]
    numbers = np.concatenate([estimates.mean, estimates.std, true], axis=1)
    names = labels["apstar_id"].to_pylist()
    places = [place for place in range(len(dev)) if np.isfinite(numbers[place]).all()]
    places.sort(key=lambda place: _rank(names[dev[place]]))  # neighbours in the store are of one field
    if len(places) < MIN_STARS:
        return None
    return fit_error_model(
        (estimates.mean - true)[places],
        estimates.std[places],
        snr[places],
        estimates.mean[places],
        weight=weights_of(labels, dev, "dev")[places],
    )


def _texts(labels: pa.Table, name: str) -> npt.NDArray[np.str_]:
    texts: npt.NDArray[np.str_] = labels[name].to_numpy(zero_copy_only=False).astype(str)
    return texts
