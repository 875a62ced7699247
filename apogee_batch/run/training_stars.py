"""Which stars taught a model: noted in its folder, and told where it meets stars of another kind."""

import logging
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apogee_batch.errors import IntegrityError
from apogee_batch.network.training_stars import (
    PERCENTILES,
    UNKNOWN,
    Spread,
    TrainingStars,
    read_training_stars,
    write_training_stars,
)
from apogee_batch.report.simulated import FIELD_COLUMNS, FieldsSeen
from apogee_batch.run.progress import SAID, WARNING
from apogee_batch.schema import catalog_flags
from apogee_batch.store.tables import read_labels, read_stars

LOW_SNR = "LOW_SNR"
NOT_ALIKE = (
    "the model learned from simulated spectra alone, and these stars are not simulated: the labels that it "
    "gives them are worth nothing, however small their errors"
)
logger = logging.getLogger(__name__)


def note_training_stars(store: Path, folder: Path) -> bool:
    """Note in the folder of a model which stars of a store teach it; return whether that was news.

    Raises
    ------
    IntegrityError
        If a table of the store is damaged.
    """
    found = training_stars(store)
    known = None
    with suppress(IntegrityError):  # it is written anew
        known = read_training_stars(folder)
    if known == found:
        return False
    write_training_stars(folder, found)
    return True


def training_stars(store: Path) -> TrainingStars:
    """Return where the labelled spectra of the training split of a store are from."""
    stars, labels = read_stars(store), read_labels(store)
    rows = pa.array([], pa.int64())
    if labels is not None:
        rows = labels.filter(pc.equal(labels["data_set"], "train"))["row"].combine_chunks()
    taken = stars.filter(pc.is_in(stars["row"], value_set=rows))
    snr = _numbers(taken["snr"])
    limit = catalog_flags()[LOW_SNR].threshold or 0.0
    return TrainingStars(
        n_stars=len(taken),
        releases=_counts(taken["release"]),
        telescopes=_counts(taken["telescope"]),
        n_fields=len(taken.group_by(list(FIELD_COLUMNS)).aggregate([])),
        n_low_snr=int((snr < limit).sum()),
        are_simulated=are_simulated(taken),
        snr=_spread(snr),
        h=_spread(_numbers(taken["h"])),
    )


def are_simulated(stars: pa.Table) -> bool:
    """Return whether all rows of a table with the columns `FIELD_COLUMNS` are known to be simulated."""
    seen = FieldsSeen()
    seen.add(stars)
    return seen.are_simulated


def notes_on_stars(model: Path, store: Path) -> list[str]:
    """Warn if a model learned from simulated stars and is to predict others; the warning is logged, too."""
    taught = read_training_stars(model)
    if taught is None or not taught.are_simulated or are_simulated(read_stars(store)):
        return []
    logger.warning("%s: %s", model, NOT_ALIKE, extra=SAID)
    return [f"{WARNING} {model}: {NOT_ALIKE}"]


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    """Count equal texts, the most frequent first."""
    counted = pc.value_counts(values.combine_chunks()).to_pylist()
    found = {item["values"] or UNKNOWN: int(item["counts"]) for item in counted}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _numbers(values: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    found = np.asarray(values.drop_null().to_numpy(), np.float64)
    return found[np.isfinite(found)]


def _spread(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Spread | None:
    """Return the percentiles to four digits, shape (n,); None of no number."""
    if len(values) == 0:
        return None
    low, middle, high = (float(f"{value:.4g}") for value in np.percentile(values, PERCENTILES))
    return low, middle, high
