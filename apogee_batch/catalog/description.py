"""Which reader tells what a catalogue holds: columns, missing values, flags, origin."""

from pathlib import Path

from apogee_batch.catalog.facts import FileFacts
from apogee_batch.catalog.parquet_facts import hats_facts, is_hats, parquet_facts
from apogee_batch.catalog.table_facts import ASTROPY_FORMATS, table_facts
from apogee_batch.errors import UsageError
from apogee_batch.survey.table_files import UNREADABLE, first_words

PARQUET_SUFFIXES = (".parquet", ".pq")


def read_facts(path: Path) -> FileFacts:
    """Look through a catalogue in Parquet, FITS, VOTable, ECSV, MRT or CSV, or a HATS folder.

    Raises
    ------
    UsageError
        If the format is another, or the catalogue cannot be read, or is not whole.
    """
    suffix = path.suffix.lower()
    if not path.is_file() and not (path.is_dir() and is_hats(path)):
        raise UsageError(f"{path}: there is no such file; name a catalogue or the folder of a published run")
    if path.is_file() and suffix not in (*PARQUET_SUFFIXES, *ASTROPY_FORMATS):
        known = ", ".join((*PARQUET_SUFFIXES, *ASTROPY_FORMATS))
        raise UsageError(f"{path}: no catalogue by its suffix; files that can be described end in {known}")
    try:
        if path.is_dir():
            return hats_facts(path)
        return parquet_facts([path]) if suffix in PARQUET_SUFFIXES else table_facts(path)
    except UNREADABLE as error:
        raise UsageError(f"{path}: cannot be read ({first_words(error)}); is the file whole?") from error
