"""The stars of a run that ended their workers."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from apogee_batch.errors import RejectReason
from apogee_batch.run.ingest_tables import reject_table
from apogee_batch.run.ledger import ShardReport
from apogee_batch.run.run_folder import INPUTS, KILLED
from apogee_batch.run.table_reading import read_some
from apogee_batch.store.tables import STARS
from apogee_batch.survey.spectrum import RejectedSpectrum


def killed_stars(run: Path, reports: Sequence[ShardReport]) -> pa.Table:
    """Return the stars that ended their workers, as rejects."""
    names = [name for report in reports for name in report.extra.get(KILLED, [])]
    if not names:
        return reject_table([])
    stars = read_some(run / INPUTS / f"{STARS}.parquet", ["apstar_id", "apogee_id", "file"])
    text = (
        "each worker that estimated its labels was lost, as by a crash in native code or for want of memory"
    )
    return reject_table(
        [
            RejectedSpectrum(star["file"], star["apogee_id"], RejectReason.WORKER_KILLED, text)
            for star in stars.filter(pc.is_in(stars["apstar_id"], pa.array(names))).to_pylist()
        ]
    )
