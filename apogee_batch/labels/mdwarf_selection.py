"""Which stars of a table are taken for M dwarfs, and why the others are not."""

import re
from collections.abc import Iterable
from enum import StrEnum

import numpy as np

from apogee_batch.labels.mann2015 import is_inside
from apogee_batch.labels.mdwarf_settings import ABSOLUTE, MDwarfSettings, Selection, bands_of
from apogee_batch.labels.photometry import Photometry
from apogee_batch.schema import BoolArray, DoubleArray


class MDwarfReason(StrEnum):
    """Why a star has no label: the `reason` column; the first in this order that applies."""

    NO_NAME = "NO_NAME"  # neither identifier is filled in
    DUPLICATE = "DUPLICATE"  # an earlier row has the same name
    YOUNG_FIELD = "YOUNG_FIELD"  # in a field of a star-forming region or a young cluster
    MISSING_BAND = "MISSING_BAND"  # a band that the cuts need is not measured
    NO_PARALLAX = "NO_PARALLAX"  # the parallax or its error is missing
    WEAK_PARALLAX = "WEAK_PARALLAX"  # negative, or less significant than asked for
    OUTSIDE_CUTS = "OUTSIDE_CUTS"  # of another colour or absolute magnitude than M dwarfs
    M_K_OUT_OF_RANGE = "M_K_OUT_OF_RANGE"  # absolute magnitude outside the calibration
    NO_FE_H = "NO_FE_H"  # no [Fe/H] in the table, or a band of the relation is not measured
    FE_H_COLOR_OUT_OF_RANGE = "FE_H_COLOR_OUT_OF_RANGE"  # outside the colours of the relation for [Fe/H]
    FE_H_OUT_OF_RANGE = "FE_H_OUT_OF_RANGE"  # [Fe/H] outside the calibration
    NO_TEFF_COLOR = "NO_TEFF_COLOR"  # no relation for Teff has its bands measured
    TEFF_COLOR_OUT_OF_RANGE = "TEFF_COLOR_OUT_OF_RANGE"  # redder than where the polynomial turns
    TEFF_OUT_OF_RANGE = "TEFF_OUT_OF_RANGE"  # Teff outside the calibration
    LOGG_OUT_OF_RANGE = "LOGG_OUT_OF_RANGE"  # outside the user's own relation for log g, or no number
    INCONSISTENT = "INCONSISTENT"  # log g from Teff and from M_K differ by more than asked for
    TOO_UNCERTAIN = "TOO_UNCERTAIN"  # so large errors that a sixth of the draws give no label


def screen_stars(photometry: Photometry, settings: MDwarfSettings) -> list[MDwarfReason | None]:
    """Tell of each star why it is not taken for an M dwarf; None for those that are.

    Parameters
    ----------
    photometry : Photometry
        With the bands of the cuts, K, and the texts `field` if fields are left out.
    settings : MDwarfSettings
        Cuts and limits.
    """
    selection = settings.selection
    verdicts: list[tuple[MDwarfReason, BoolArray]] = [
        (MDwarfReason.NO_NAME, np.array([key == "" for key in photometry.keys], dtype=bool)),
        (MDwarfReason.DUPLICATE, photometry.is_repeated),
        (MDwarfReason.YOUNG_FIELD, _is_in_young_field(photometry, selection)),
        (MDwarfReason.MISSING_BAND, ~is_measured(photometry, needed_bands(selection), settings)),
        (MDwarfReason.NO_PARALLAX, ~np.isfinite(photometry.parallax_mas + photometry.parallax_error_mas)),
        (MDwarfReason.WEAK_PARALLAX, ~_is_significant(photometry, selection)),
        (MDwarfReason.OUTSIDE_CUTS, ~_is_inside_cuts(photometry, selection)),
    ]
    reasons: list[MDwarfReason | None] = [None] * photometry.n_stars
    for reason, applies in reversed(verdicts):
        for i in np.flatnonzero(applies).tolist():
            reasons[i] = reason
    return reasons


def needed_bands(selection: Selection) -> tuple[str, ...]:
    """Return the bands without which no star can be judged: those of the cuts, and K for M_K."""
    return tuple(dict.fromkeys(band for cut in (*selection.cuts, "m_k") for band in bands_of(cut)))


def is_measured(photometry: Photometry, bands: Iterable[str], settings: MDwarfSettings) -> BoolArray:
    """Tell which stars have a magnitude with an error in each of some bands, shape (n_stars,).

    Where a table has a column of errors, a magnitude without one is no measurement: 2MASS writes upper
    limits in this way.
    """
    measured = np.ones(photometry.n_stars, dtype=bool)
    for band in bands:
        measured &= np.isfinite(photometry.magnitude[band] + magnitude_error(photometry, band, settings))
    return measured


def magnitude_error(photometry: Photometry, band: str, settings: MDwarfSettings) -> DoubleArray:
    """Return the errors of a band: the table's, else the one that the settings state for all, else NaN."""
    if f"e_{band}" not in photometry.columns and settings.errors.magnitude is not None:
        return np.full(photometry.n_stars, settings.errors.magnitude)
    return photometry.error[band]


def young_field_of(field: str, patterns: Iterable[str]) -> bool:
    """Tell whether a field is one of those left out, whatever its case, blanks, hyphens and underscores."""
    return any(_regex(pattern).fullmatch(_plain(field)) for pattern in patterns)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).upper()


def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(_plain(pattern)).replace(r"\*", ".*").replace(r"\?", "."))


def _is_in_young_field(photometry: Photometry, selection: Selection) -> BoolArray:
    fields = photometry.texts.get("field", ("",) * photometry.n_stars)
    young = {name: young_field_of(name, selection.young_fields) for name in set(fields)}
    return np.array([young[name] for name in fields], dtype=bool)


def _is_significant(photometry: Photometry, selection: Selection) -> BoolArray:
    limit = selection.parallax_over_error * photometry.parallax_error_mas
    return np.asarray((photometry.parallax_mas > 0) & (photometry.parallax_mas >= limit))


def _is_inside_cuts(photometry: Photometry, selection: Selection) -> BoolArray:
    inside = np.ones(photometry.n_stars, dtype=bool)
    for quantity, limits in selection.cuts.items():
        magnitudes = [photometry.magnitude[band] for band in bands_of(quantity)]
        inside &= is_inside(quantity_from(quantity, magnitudes, photometry.parallax_mas), limits)
    return inside


def quantity_from(quantity: str, magnitudes: list[DoubleArray], parallax_mas: DoubleArray) -> DoubleArray:
    """Return a colour, or an absolute magnitude without correction for extinction.

    Parameters
    ----------
    quantity : str
        As of `bands_of`.
    magnitudes : list of ndarray of float64
        Of its bands.
    parallax_mas : ndarray of float64
        Of the same shape; used for an absolute magnitude, NaN where it is not positive.
    """
    if not quantity.startswith(ABSOLUTE):
        return magnitudes[0] - magnitudes[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        modulus = 10 - 5 * np.log10(np.where(parallax_mas > 0, parallax_mas, np.nan))
        return np.asarray(magnitudes[0] - modulus)
