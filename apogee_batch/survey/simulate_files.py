"""apStar files of a simulated survey, byte for byte in the layout of the survey's own.

The headers are written here and not by astropy, which takes longer over one than the sketch of the
spectrum does. HDUs 4-9 of real files (sky, telluric correction, line spread, radial velocities) are
left out: the package reads HDUs 0-3 only.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from apogee_batch.survey.pixels import LOG10_WAVELENGTH_0, LOG10_WAVELENGTH_STEP, N_PIXELS
from apogee_batch.survey.populations import TELESCOPE, SimulatedStar
from apogee_batch.survey.simulate_exposure import Exposure

RELEASE = "r8"
FITS_BLOCK_BYTES = 2880
CARD_LENGTH = 80
Card = tuple[str, str | int | float | bool, str]

GRID_CARDS: tuple[Card, ...] = (
    ("CRVAL1", LOG10_WAVELENGTH_0, "log10 of the first wavelength (Angstrom)"),
    ("CDELT1", LOG10_WAVELENGTH_STEP, "step of log10 of the wavelength"),
    ("CRPIX1", 1, "pixel of the first wavelength"),
    ("CTYPE1", "LOG-LINEAR", "logarithmic wavelength scale"),
    ("DC-FLAG", 1, "logarithmic wavelength scale"),
)
UNITS = ("Flux (10^-17 erg/s/cm^2/Ang)", "Error (10^-17 erg/s/cm^2/Ang)", "Flag Mask (bitwise)")


def apstar_path(star: SimulatedStar) -> Path:
    """Return where DR14 keeps the file of a star, from `redux` on."""
    folder = Path("redux", RELEASE, "stars", TELESCOPE, str(star.field.location_id))
    return folder / f"apStar-{RELEASE}-{star.apogee_id}.fits"


def _card(keyword: str, value: str | int | float | bool, comment: str) -> str:
    """Return one header card in FITS's fixed format."""
    if isinstance(value, bool):
        text = f"{'T' if value else 'F':>20}"
    elif isinstance(value, str):
        text = f"'{value:<8}'".ljust(20)
    elif isinstance(value, int):
        text = f"{value:>20d}"
    else:
        text = f"{value:#.12G}".rjust(20)
    return f"{keyword:<8}= {text} / {comment}"[:CARD_LENGTH].ljust(CARD_LENGTH)


def _header(cards: Iterable[Card]) -> bytes:
    text = "".join(_card(*card) for card in cards) + "END".ljust(CARD_LENGTH)
    return text.ljust(-len(text) % FITS_BLOCK_BYTES + len(text)).encode("ascii")


def _image(values: npt.NDArray[np.generic], bitpix: int, unit: str) -> bytes:
    """Return one image extension: header, data, padding."""
    axes = [(f"NAXIS{number}", size, "") for number, size in enumerate(reversed(values.shape), start=1)]
    cards: list[Card] = [
        ("XTENSION", "IMAGE", "IMAGE extension"),
        ("BITPIX", bitpix, "Number of bits per data pixel"),
        ("NAXIS", values.ndim, "Number of data axes"),
        *axes,
        ("PCOUNT", 0, "No Group Parameters"),
        ("GCOUNT", 1, "One Data Group"),
        *GRID_CARDS,
        ("BUNIT", unit, ""),
    ]
    data = values.tobytes()
    return _header(cards) + data + bytes(-len(data) % FITS_BLOCK_BYTES)


def apstar_bytes(star: SimulatedStar, exposure: Exposure) -> bytes:
    """Return the bytes of an apStar file.

    HDU0 holds the header, HDU1 and HDU2 flux and error as big-endian float32, HDU3 the mask as big-endian
    int16; arrays of shape (n_pixels,) for one visit, else (2 + n_visits, n_pixels).
    """
    cards: list[Card] = [
        ("SIMPLE", True, "image conforms to FITS standard"),
        ("BITPIX", 16, "bits per data value"),
        ("NAXIS", 0, "number of axes"),
        ("EXTEND", True, "file may contain extensions"),
        ("OBJID", star.apogee_id, "Object ID"),
        ("J", star.j, "2MASS J magnitude"),
        ("H", star.h, "2MASS H magnitude"),
        ("K", star.k, "2MASS Ks magnitude"),
        ("SURVEY", "simulated", "not an observation: apogee-batch simulate"),
        ("TELESCOP", TELESCOPE, "Telescope"),
        ("LOCID", star.field.location_id, "LocationID"),
        ("FIELD", star.field.name, "Field name"),
        ("RA", star.ra, "right ascension, deg, J2000"),
        ("DEC", star.dec, "declination, deg, J2000"),
        ("NVISITS", star.n_visits, "number of visit spectra combined"),
        ("VHELIO", star.velocity_km_s, "mean heliocentric velocity (km/s)"),
        ("SNR", exposure.snr, "final median Signal/Noise ratio"),
        ("STARFLAG", star.starflag, "bitwise OR of individual visit starflags"),
        ("ANDFLAG", star.starflag, "bitwise AND of individual visit starflags"),
        ("NWAVE", N_PIXELS, "Number of wavelengths in subsequent HDUs"),
        *GRID_CARDS,
    ]
    return b"".join(
        [
            _header(cards),
            _image(exposure.flux.astype(">f4"), -32, UNITS[0]),
            _image(exposure.err.astype(">f4"), -32, UNITS[1]),
            _image(exposure.mask.astype(">i2"), 16, UNITS[2]),
        ]
    )


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, but do not wait for the disk: a survey can be simulated again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
