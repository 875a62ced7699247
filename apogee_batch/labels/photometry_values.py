"""Values of photometric columns: units converted, fillers told from measurements."""

import re
import warnings

import astropy.units as u
import numpy as np
from astropy.units import UnitsWarning

from apogee_batch.errors import UsageError
from apogee_batch.schema import BoolArray, DoubleArray

# stars outside it are not in these surveys: R Doradus has K = -4, and no survey of them goes below 30
BRIGHTEST_MAG, FAINTEST_MAG = -6.0, 40.0
LARGEST_MAG_ERROR = 5.0  # 9.999 and 99 are fillers; a star with a factor 100 of error is not measured
_FILLERS = (99, 999, 9999, 99999)  # integer parts of 99, 99.99, 999, -999, -9999, ...
_NINE_BELOW = -9.0  # -9.99 says missing too; no magnitude is as low
_MAG = re.compile(r"\[?(?:ab|vega)?\s*mag\s*(?:[(\[](?:ab|vega|st)[)\]])?\]?", re.IGNORECASE)
_SPELLINGS = {
    "Rsun": ("sun", "rsun", "solrad"),
    "Lsun": ("sun", "lsun", "sollum"),
    "dex": ("dex", "[-]", "[sun]", "sun", "dex(1)", "-", "1"),
}


def to_unit(values: DoubleArray, unit: str, wanted: str, *, where: str) -> DoubleArray:
    """Convert a column to magnitudes, mas, solar radii or luminosities, or dex.

    A column without a unit is taken to be in the right one already.

    Parameters
    ----------
    values : ndarray of float64, shape (n_stars,)
        The column.
    unit : str
        Its unit in the words of the file; "" for none.
    wanted : str
        "mag", "mas", "Rsun", "Lsun" or "dex".
    where : str
        File and column, for the message.

    Returns
    -------
    ndarray of float64, shape (n_stars,)

    Raises
    ------
    UsageError
        If the unit is unknown or measures something else.
    """
    text = unit.strip()
    if text == "" or text.lower() in _SPELLINGS.get(wanted, ()):
        return values
    if wanted == "mag" and _MAG.fullmatch(text):
        return values
    try:
        if wanted == "dex":
            raise ValueError("it is not a logarithm")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UnitsWarning)
            return np.asarray(u.Unit(text).to(u.Unit(wanted), values), dtype=np.float64)
    except (ValueError, TypeError, AttributeError, UnitsWarning) as error:
        why = " ".join(str(error).split())[:120]
        raise UsageError(
            f"{where} has the unit {unit!r}, which cannot become {wanted} ({why}); "
            f"convert the column to {wanted}, correct or remove its unit, or map another column"
        ) from error


def is_filler(values: DoubleArray) -> BoolArray:
    """Tell which numbers stand for a missing value: 99, 99.99, -999, -9999 and the like."""
    with np.errstate(invalid="ignore"):
        return np.isin(np.floor(np.abs(values)), _FILLERS)


def clean_magnitudes(values: DoubleArray, where: str) -> DoubleArray:
    """Return magnitudes with NaN for everything that is none.

    Raises
    ------
    UsageError
        If most values are neither magnitudes nor fillers: fluxes, for example.
    """
    with np.errstate(invalid="ignore"):
        missing = np.isnan(values) | is_filler(values) | ((values <= _NINE_BELOW) & (values > -100))
        is_magnitude = (values > BRIGHTEST_MAG) & (values < FAINTEST_MAG)
    strange = np.flatnonzero(~missing & ~is_magnitude)
    if len(strange) > 0.5 * int((~missing).sum()):
        raise UsageError(
            f"{where} does not hold magnitudes (row {strange[0] + 1} has {values[strange[0]]:g}); "
            "map a column of magnitudes: --map BAND=NAME"
        )
    return np.where(is_magnitude & ~missing, values, np.nan)


def clean_errors(values: DoubleArray, *, below: float = np.inf) -> DoubleArray:
    """Return one-sigma errors with NaN for those negative, not below a limit, or fillers."""
    with np.errstate(invalid="ignore"):
        return np.where((values >= 0) & (values < below) & ~is_filler(values), values, np.nan)


def clean_numbers(values: DoubleArray) -> DoubleArray:
    """Return numbers with NaN for the surveys' -999 and -9999; 99 may be one."""
    with np.errstate(invalid="ignore"):
        return np.where(is_filler(values) & (values <= -99), np.nan, values)
