"""Units of label columns: converted where astropy can, refused where not, never guessed."""

import re
from typing import Any

import astropy.units as u
import numpy as np

from apogee_batch.errors import UsageError
from apogee_batch.schema import LABEL_UNITS, DoubleArray

# dex(cm/s2), log(cm.s**-2), log10(cm/s^2), [cm/s2], [Sun], [-]: each archive words a logarithm its own way
_LOGARITHM = re.compile(r"(?:dex|log|log10|lg)?\s*(?:\((?P<round>.*)\)|\[(?P<square>.*)\])")
_NO_DIMENSION = {"", "-", "---", "1", "sun", "solar"}
_PLAIN_DEX = {"dex", "[-]", "[sun]", "sun", "dex(1)"}


def to_label_unit(label: str, values: DoubleArray, unit: str, *, where: str) -> DoubleArray:
    """Convert a label column to K, log10 of cm/s2, or dex.

    A column without a unit is taken to be in the right one already.

    Parameters
    ----------
    label : str
        Name of the label, one of `LABEL_NAMES`.
    values : ndarray of float64, shape (n_rows,)
        The column.
    unit : str
        Its unit in the words of the file; "" for none.
    where : str
        File and column, for the message.

    Returns
    -------
    ndarray of float64, shape (n_rows,)
        In the unit `LABEL_UNITS[label]`.

    Raises
    ------
    UsageError
        If the unit is unknown or measures something else.
    """
    text = unit.strip()
    if not text or (label != "teff" and text.lower() in _PLAIN_DEX):
        return values
    try:
        with np.errstate(over="ignore"):  # kelvins called dex(K) come out infinite: no labels
            return _convert(label, values, _parse(text))
    except (ValueError, TypeError) as error:  # astropy's UnitsError is a ValueError
        reason = "" if str(error) == "" else f" ({' '.join(str(error).split())[:120]})"
        raise UsageError(
            f"{where} has the unit {unit!r}, which cannot become {LABEL_UNITS[label]}{reason}; "
            f"convert the column to {LABEL_UNITS[label]}, or correct or remove its unit"
        ) from error


def _parse(text: str) -> Any:
    """Return an astropy unit, a logarithmic one for any spelling of a logarithm."""
    logarithm = _LOGARITHM.fullmatch(text)
    if logarithm is None:
        return u.Unit(text)
    inner = (logarithm["round"] or logarithm["square"] or "").strip()
    return u.dex(u.dimensionless_unscaled if inner.lower() in _NO_DIMENSION else u.Unit(inner))


def _convert(label: str, values: DoubleArray, unit: Any) -> DoubleArray:
    """Convert between astropy units; a ValueError says why it cannot be done."""
    if label == "teff":
        equivalencies = [] if isinstance(unit, u.function.FunctionUnitBase) else u.temperature()
        return np.asarray(unit.to(u.K, values, equivalencies=equivalencies), dtype=np.float64)
    if unit == u.dimensionless_unscaled:
        return values
    if not isinstance(unit, u.function.FunctionUnitBase):
        # astropy would take the logarithm; but most such columns are logarithms with a careless unit
        raise ValueError("it is not logarithmic")
    target = u.dex(u.cm / u.s**2) if label == "logg" else u.dex(u.dimensionless_unscaled)
    return np.asarray(unit.to(target, values), dtype=np.float64)
