"""The inference stage: one shard of the store in, one part of the catalogue out."""

import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.catalog.parts import UNJUDGED, Judgement, build_part, write_part
from apogee_batch.inference.estimates import LabelEstimates
from apogee_batch.labels.attach import LABELS_SCHEMA
from apogee_batch.network.calibration import Calibration
from apogee_batch.run.estimate import estimate_rows, load_network
from apogee_batch.run.ingest_tables import check_spectra
from apogee_batch.run.ledger import WORKER, ShardReport, name_worker, relative_digest
from apogee_batch.run.run_folder import INPUTS, KILLED, STAGING, part_path
from apogee_batch.run.table_reading import read_rows
from apogee_batch.schema import DoubleArray, FloatArray
from apogee_batch.store.spectra import StoreInfo, open_store
from apogee_batch.store.tables import LABELS, STARS


def infer_shard(
    store: str,
    run: str,
    model: str,
    settings: dict[str, Any],
    shard: int,
    *,
    excluded: Sequence[int] = (),
    only: Sequence[int] | None = None,
) -> ShardReport:
    """Estimate the labels of one shard's stars and write its part: a task.

    Parameters
    ----------
    store, run, model : str
        Paths of the store, the run and the model's folder.
    settings : dict
        `model_sha256`, `calibration_sha256` (None for a model without), `realizations`, `seed`, `err_cap`,
        `precision`, `device` and `engine`.
    shard : int
        The shard.
    excluded : sequence of int
        Places among the shard's stars of those that end a worker; they get no row.
    only : sequence of int, optional
        Estimate just the stars in these places, and write nothing.

    Raises
    ------
    IntegrityError
        If the spectra are not what was ingested.
    """
    started = time.monotonic()
    network = load_network(Path(model), settings)
    info = open_store(Path(store))
    check_spectra(info, shard, ("flux/", "err/"))
    planned = _stars_of_shard(info, Path(run), shard)
    left_out = set(excluded)
    wanted = [i for i in (range(len(planned)) if only is None else only) if i not in left_out]
    stars = planned.take(pa.array(wanted, pa.int64()))
    calibration = network.checkpoint.calibration
    wants_features = calibration is not None and calibration.strangeness is not None
    estimates, features = estimate_rows(network, info, stars, settings, with_features=wants_features)
    part = build_part(
        stars,
        mean=estimates.mean,
        std=estimates.std,
        clean=estimates.clean,
        n_realizations=settings["realizations"],
        labels=_labels_of_shard(info, Path(run), shard),
        label_range=network.checkpoint.header.label_range,
        judgement=judge(calibration, estimates, stars["snr"].to_numpy().astype(np.float64), features),
    )
    base, files = Path(run), []
    if only is None:
        files.append(write_part(part_path(base, shard), part, staging=base / STAGING))
    return ShardReport(
        shard=shard,
        n_inputs=len(planned),
        n_stars=len(part),
        n_rejected=len(excluded),
        files=tuple(relative_digest(file, base) for file in files),
        seconds=time.monotonic() - started,
        host=socket.gethostname(),
        extra={
            "device": network.describe(),
            WORKER: name_worker(),
            KILLED: [planned["apstar_id"][place].as_py() for place in excluded],
        },
    )


def judge(
    calibration: Calibration | None, estimates: LabelEstimates, snr: DoubleArray, features: FloatArray
) -> Judgement:
    """Say what a model's calibration has to say of estimates.

    Parameters
    ----------
    calibration : Calibration or None
    estimates : LabelEstimates
    snr : ndarray of float64, shape (n_stars,)
        NaN where it is not known.
    features : ndarray of float32, shape (n_stars, n_features)
        Of the clean spectra; not looked at where the calibration has no use for them.
    """
    if calibration is None:
        return UNJUDGED
    errors, strangeness, hull = calibration.error_model, calibration.strangeness, calibration.hull
    score = None if strangeness is None else strangeness.score(features, snr)
    # as published, so that what is said of a row follows from it
    mean, std = (part.astype(np.float32).astype(np.float64) for part in (estimates.mean, estimates.std))
    return Judgement(
        total=None if errors is None else errors.total(std, snr, mean),
        strangeness=score,
        is_strange=None if strangeness is None or score is None else strangeness.is_strange(score),
        is_outside=None if hull is None else ~hull.contains(mean),
    )


def _stars_of_shard(info: StoreInfo, run: Path, shard: int) -> pa.Table:
    """Read the rows of the run's star table that lie in a shard."""
    return read_rows(run / INPUTS / f"{STARS}.parquet", *info.shard_rows(shard))


def _labels_of_shard(info: StoreInfo, run: Path, shard: int) -> pa.Table:
    """Read the labels of a shard's stars; a task needs no others."""
    path = run / INPUTS / f"{LABELS}.parquet"
    return read_rows(path, *info.shard_rows(shard)) if path.is_file() else LABELS_SCHEMA.empty_table()
