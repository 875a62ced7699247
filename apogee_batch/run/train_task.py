"""What a worker does to train: read the labelled spectra, train, leave a model folder."""

import logging
import shutil
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from apogee_batch.errors import IncompleteRunError, UsageError
from apogee_batch.network.ranks import Alone
from apogee_batch.network.recipe import Recipe
from apogee_batch.network.training_folder import train_in_folder
from apogee_batch.network.training_set import TrainingSet
from apogee_batch.run.clusters import is_leaving
from apogee_batch.run.config import Device
from apogee_batch.run.devices import choose_device
from apogee_batch.run.ingest_tables import check_spectra
from apogee_batch.run.machine import cpu_features
from apogee_batch.schema import LABEL_NAMES, FloatArray, IntArray
from apogee_batch.store.spectra import StoreInfo, open_store, read_spectra
from apogee_batch.store.tables import read_labels
from apogee_batch.survey.pixels import N_PIXELS

MAX_BYTES_IN_MEMORY = 1 << 32  # spectra of 125,000 stars
LEAVE_S = 120.0  # Dask ends the process of a worker half a minute after it was told to leave
POLL_S = 0.5
NATIVE_FEATURES = {"bfloat16": {"avx512_bf16", "amx_bf16", "bf16"}}  # as the system names them, x86 and ARM
logger = logging.getLogger(__name__)


class _OnWorker(Alone):
    """The only rank, on a worker whose time may be over before the training is."""

    def check(self) -> None:
        """Stand still where the worker leaves: the training goes on in another one, in the same folder.

        An error would be taken for the training's own, if it came before the worker is gone.
        """
        end = time.monotonic() + LEAVE_S
        while is_leaving():
            if time.monotonic() > end:
                raise IncompleteRunError("the worker of this training should have left long ago")
            time.sleep(POLL_S)


def read_training_set(store: Path) -> TrainingSet:
    """Read the labelled spectra of a store, 34 kB a star.

    Up to 4 GiB of them are held in memory. More lie in a file without a name in the folder for temporary
    files (`TMPDIR`), mapped into memory that the system can take back; in memory all the same if that disk is
    full.

    Raises
    ------
    UsageError
        If the store has no labels, or no training or dev stars among them.
    IntegrityError
        If its spectra are not what was ingested.
    """
    labels = read_labels(store)
    if labels is None:
        raise UsageError(f"{store}: has no labels to train on")
    labels = labels.sort_by("row")
    data_set = labels["data_set"].to_numpy(zero_copy_only=False).astype(str)
    for wanted in ("train", "dev"):
        if not (data_set == wanted).any():
            raise UsageError(f"{store}: none of its {len(labels)} labelled stars is in the {wanted} set")
    info, rows = open_store(store), labels["row"].to_numpy()
    for shard in np.unique(rows // info.shard_stars).tolist():
        check_spectra(info, shard, ("flux/",))
    return TrainingSet(
        flux=_read_flux(info, rows),
        labels=np.stack([labels[name].to_numpy() for name in LABEL_NAMES], axis=1).astype(np.float64),
        data_type=labels["data_type"].to_numpy(zero_copy_only=False).astype(str),
        data_set=data_set,
    )


def _read_flux(info: StoreInfo, rows: IntArray) -> FloatArray:
    """Read the flux of ascending rows shard by shard, shape (n_stars, n_pixels)."""
    shape = (len(rows), N_PIXELS)
    n_bytes = len(rows) * N_PIXELS * np.dtype(np.float32).itemsize
    shards = rows // info.shard_stars
    parts = (read_spectra(info, rows[shards == shard], with_err=False).flux for shard in np.unique(shards))
    if n_bytes <= MAX_BYTES_IN_MEMORY or shutil.disk_usage(tempfile.gettempdir()).free < 2 * n_bytes:
        flux, n_read = np.empty(shape, np.float32), 0
        for part in parts:
            flux[n_read : n_read + len(part)] = part
            n_read += len(part)
        return flux
    with tempfile.TemporaryFile() as file:
        for part in parts:
            _write(file, part)  # a full disk is an error here; in a mapped page it would end the process
        return np.asarray(np.memmap(file, np.float32, "r", shape=shape))


def _write(file: IO[bytes], part: FloatArray) -> None:
    try:
        file.write(part.data)
    except OSError as error:  # a file without a name
        raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from error


def warn_of_slow_autocast(recipe: Recipe, device: str) -> None:
    """Log it if a recipe asks for 16 bits that this device does not compute in itself."""
    if recipe.autocast == "off" or _computes_in(recipe.autocast, device):
        return
    logger.warning(
        'the recipe says autocast = "%s", which this %s has no instructions for: the training is right, but '
        'slower than with autocast = "off"',
        recipe.autocast,
        "GPU" if device == "cuda" else "processor",
    )


def _computes_in(kind: str, device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(NATIVE_FEATURES[kind] & set(cpu_features()))


def train_network(
    store: str, out: str, recipe: dict[str, Any], seed: int, threads: int, device: Device
) -> list[str]:
    """Train on the labels of a store and leave a model folder: a task.

    The state is saved after every epoch; a second call goes on from there.

    Parameters
    ----------
    store, out : str
        Paths of the store and of the model's folder.
    recipe : dict
        JSON values of the recipe.
    seed, threads : int
        Seed of all random numbers; threads on a CPU.
    device : {"auto", "cpu", "cuda"}
        Where to compute.

    Returns
    -------
    list of str
        What the training has against itself; empty when all is well.
    """
    alone, settings, chosen = _OnWorker(), Recipe(**recipe), choose_device(device)
    warn_of_slow_autocast(settings, chosen)
    header = train_in_folder(
        Path(out),
        read_training_set(Path(store)),
        settings,
        seed=seed,
        device=chosen,
        n_threads=threads,
        on_step=lambda _done, _of: alone.check(),
        ranks=alone,
    )
    return list(header.warnings)
