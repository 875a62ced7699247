"""How the files of an ingest agree with the survey's summary: what is told and kept of it."""

import logging
from collections import Counter
from pathlib import Path

from apogee_batch.errors import IntegrityError, RejectReason
from apogee_batch.run.ingest_plan import ingest_folders, read_ingest
from apogee_batch.store.tables import read_table
from apogee_batch.survey.allstar import DUPLICATE_FILE, DUPLICATE_ROW, DUPLICATE_TARGET, Reconciliation
from apogee_batch.survey.apstar import RejectedSpectrum
from apogee_batch.survey.identity import guess_apogee_id

SURVEY_FILE = "allstar_match.parquet"
logger = logging.getLogger(__name__)


def count_survey(survey: Reconciliation) -> dict[str, int]:
    """Return how files and the rows of the summary agree."""
    kinds = Counter(survey.details["kind"].to_pylist())
    return {
        "found": survey.n_found,
        "missing": survey.n_missing,
        "extra": survey.n_extra,
        "duplicate": survey.n_duplicate,
        **{kind: kinds[kind] for kind in (DUPLICATE_FILE, DUPLICATE_ROW, DUPLICATE_TARGET)},
    }


def describe_survey(survey: Reconciliation | None, folder: Path | None = None) -> list[str]:
    """Say how files and rows agree, and where each is listed that does not.

    Parameters
    ----------
    survey : Reconciliation or None
        None where no summary was given.
    folder : Path, optional
        Of the ingest, if it has written the list.
    """
    if survey is None:
        return []
    n = count_survey(survey)
    text = (
        f"allStar: rows: {n['found']} found, {n['missing']} missing, {n[DUPLICATE_ROW]} repeated; "
        f"files: {n['extra']} extra, {n[DUPLICATE_FILE]} duplicate"
    )
    if n[DUPLICATE_TARGET]:
        text += f"; {n[DUPLICATE_TARGET]} rows are of stars with other rows"
    if folder is not None and len(survey.details):
        text += f"; listed in {folder / SURVEY_FILE}"
    return [text]


def further_files(store: Path, *, without: Path | None = None) -> list[RejectedSpectrum]:
    """Return the files that no ingest has read, because another file of the summary's row was taken.

    Parameters
    ----------
    store : Path
        Folder of the store.
    without : Path, optional
        An ingest that is left out, since it is not finished.
    """
    folders = [folder for folder in ingest_folders(store) if folder != without]
    files: dict[str, tuple[str, str]] = {}
    for folder in folders:
        files |= _duplicate_files(folder / SURVEY_FILE)
    if not files:
        return []
    for folder in folders:  # read after all, by another ingest
        for path in read_ingest(folder).inputs["path"].to_pylist():
            files.pop(path, None)
    return [_reject(path, *other) for path, other in sorted(files.items())]


def _duplicate_files(path: Path) -> dict[str, tuple[str, str]]:
    """Return the name of the spectrum and the file taken for each further file; lists of old have no last."""
    if not path.is_file():
        return {}
    try:
        records = read_table(path).to_pylist()
        return {
            record["file"]: (record["apstar_id"], record.get("taken") or "")
            for record in records
            if record["kind"] == DUPLICATE_FILE
        }
    except (IntegrityError, KeyError) as error:  # no result depends on it
        logger.warning("%s: is damaged (%s); the rejects lack the files that it lists", path, error)
        return {}


def _reject(path: str, apstar_id: str, taken: str) -> RejectedSpectrum:
    text = f"{taken or 'a file that is taken'} is {apstar_id or 'of its row of the allStar table'} too"
    return RejectedSpectrum(path, guess_apogee_id(Path(path), None), RejectReason.DUPLICATE_STAR, text)
