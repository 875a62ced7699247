"""The page at the end of a run: made if it can be, and never a reason for the run to fail."""

import logging
from contextlib import suppress
from pathlib import Path

from apogee_batch.errors import ApogeeBatchError
from apogee_batch.files import sha256_of_file
from apogee_batch.run.progress import SAID, ProgressView
from apogee_batch.run.run_folder import MANIFEST_FILE

PAGE_FILE = "report/report.html"
ENDS_WITH = b"</html>\n"
HEAD_BYTES = 2048  # of a page, in which it says of which manifest it is
REMEDY = "'apogee-batch report' makes it"
logger = logging.getLogger(__name__)


def make_page_at_end(
    run: Path, *, model: Path | None, store: Path | None, progress: ProgressView
) -> list[str]:
    """Make the page of a run that has just been published, unless it has one of this manifest.

    Whatever goes wrong is told as a warning: the catalogue is there. Only what ends the process, as a signal
    does, passes through.

    Parameters
    ----------
    run : Path
        The run's folder.
    model : Path or None
        Folder of the model that the run was given; None if it trained its own.
    store : Path or None
        The store, of whose spectra the strangest are shown.
    progress : ProgressView
        What the user sees.

    Returns
    -------
    list of str
        Where the page is, for the closing lines; empty without one.
    """
    page = run / PAGE_FILE
    try:
        if not is_page_of(page, sha256_of_file(run / MANIFEST_FILE)):
            from apogee_batch.run.report import write_report  # a second of matplotlib and astropy

            write_report(run, model=model, store=store)
    except ApogeeBatchError as error:
        _warn(progress, f"the page of the run could not be made: {error}; {REMEDY}")
        return []
    except Exception as error:
        logger.info("no page of %s", run, exc_info=True)
        _warn(progress, f"the page of the run could not be made: {type(error).__name__}: {error}; {REMEDY}")
        return []
    return [f"page:      {page}"]


def is_page_of(page: Path, manifest_sha256: str) -> bool:
    """Tell whether there is a whole page that was made of a manifest."""
    try:
        with page.open("rb") as file:
            head = file.read(HEAD_BYTES)
            file.seek(max(page.stat().st_size - len(ENDS_WITH), 0))
            return f'content="{manifest_sha256}"'.encode() in head and file.read() == ENDS_WITH
    except OSError:
        return False


def _warn(progress: ProgressView, text: str) -> None:
    line = " ".join(text.split())
    logger.warning("%s", line, extra=SAID)
    with suppress(OSError, ValueError):  # nobody listens any more
        progress.say(f"WARNING: {line}")
