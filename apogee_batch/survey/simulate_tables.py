"""The tables of a simulated survey: its allStar summary, its label tables, and the truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.io import fits

from apogee_batch.files import write_bytes, write_table, write_text
from apogee_batch.schema import LABEL_UNITS
from apogee_batch.survey.populations import TELESCOPE, SimulatedStar
from apogee_batch.survey.simulate_files import FITS_BLOCK_BYTES, apstar_path

TABLE_LABELS = ("teff", "logg", "fe_h")  # in the order that label tables have
ALLSTAR_DTYPES = {  # the columns of DR14 that matter
    "APSTAR_ID": "S45",
    "FILE": "S64",
    "APOGEE_ID": "S18",
    "TELESCOPE": "S8",
    "LOCATION_ID": "i4",
    "FIELD": "S16",
    "RA": "f8",
    "DEC": "f8",
    "J": "f4",
    "H": "f4",
    "K": "f4",
    "NVISITS": "i4",
    "SNR": "f4",
    "STARFLAG": "i4",
    "EXTRATARG": "i4",
}


def write_allstar(path: Path, stars: Sequence[SimulatedStar], snr: Sequence[float]) -> None:
    """Write the summary of all stars; `snr` is what each was measured at."""
    rows = [
        (
            star.apstar_id,
            apstar_path(star).name,
            star.apogee_id,
            TELESCOPE,
            star.field.location_id,
            star.field.name,
            star.ra,
            star.dec,
            star.j,
            star.h,
            star.k,
            star.n_visits,
            measured,
            star.starflag,
            0,
        )
        for star, measured in zip(stars, snr, strict=True)
    ]
    _write_fits(path, np.array(rows, dtype=list(ALLSTAR_DTYPES.items())), units={})


def _write_fits(path: Path, table: npt.NDArray[np.void], *, units: dict[str, str]) -> None:
    """Write one binary table whose strings are filled with blanks, as in the survey's own tables.

    astropy makes the headers only: it would strip the blanks.
    """
    header = fits.BinTableHDU(table).header
    data = table.astype(table.dtype.newbyteorder(">"))
    for number, name in enumerate(table.dtype.names or (), start=1):
        if name in units:
            header.set(f"TUNIT{number}", units[name], after=f"TFORM{number}")
        if table.dtype[name].kind == "S":
            data[name] = np.char.ljust(table[name], table.dtype[name].itemsize)
    headers = fits.PrimaryHDU().header.tostring() + header.tostring()
    content = headers.encode("ascii") + data.tobytes()
    write_bytes(path, content + bytes(-len(content) % FITS_BLOCK_BYTES))


def write_labels(paths: dict[str, Path], stars: Sequence[SimulatedStar]) -> None:
    """Write the three label tables, each in another format, with the noise of real ones.

    Parameters
    ----------
    paths : dict of str to Path
        Where to write those of payne (FITS), mstar (CSV) and yso (Parquet).
    stars : sequence of SimulatedStar
        All stars of the survey.
    """
    rows = {
        name: [
            (star.apogee_id, *(star.labels[label] for label in TABLE_LABELS))
            for star in stars
            if star.data_type == name
        ]
        for name in paths
    }
    dtype = [("APOGEE_ID", "S18"), *((label.upper(), "f8") for label in TABLE_LABELS)]
    # TEFF alone: the FITS standard has no unit for the others
    _write_fits(paths["payne"], np.array(rows["payne"], dtype=dtype), units={"TEFF": LABEL_UNITS["teff"]})
    lines = [",".join(map(str, row)) for row in [("apogee_id", *TABLE_LABELS), *rows["mstar"]]]
    write_text(paths["mstar"], "\n".join(lines) + "\n")
    schema = pa.schema(
        [
            pa.field("apogee_id", pa.string()),
            *(pa.field(label, pa.float64(), metadata={"unit": LABEL_UNITS[label]}) for label in TABLE_LABELS),
        ]
    )
    columns = list(zip(*rows["yso"], strict=True)) or [()] * len(schema)
    write_table(paths["yso"], pa.table([pa.array(column) for column in columns], schema=schema))


def write_truth(path: Path, stars: Sequence[SimulatedStar], snr: Sequence[float]) -> None:
    """Write what every spectrum was made from; stars that no label table holds have no data_type."""
    columns: dict[str, Any] = {
        "apstar_id": [star.apstar_id for star in stars],
        "apogee_id": [star.apogee_id for star in stars],
        "file": [apstar_path(star).as_posix() for star in stars],
        "data_type": pa.array([star.data_type for star in stars], pa.string()),
        "population": [star.population for star in stars],
    }
    for name in (*TABLE_LABELS, "alpha_fe", "broadening_km_s", "a_v", "veiling"):
        columns[name] = [getattr(star.parameters, name) for star in stars]
    columns |= {
        "h": [star.h for star in stars],
        "n_visits": pa.array([star.n_visits for star in stars], pa.int32()),
        "snr": list(snr),
    }
    write_table(path, pa.table(columns))
