"""The section of the strangest spectra: which they are, what is strange of each, and what they look like."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from apogee_batch.report.flag_counts import DUPLICATE, STRANGE
from apogee_batch.report.neighbours import N_NEIGHBOURS
from apogee_batch.report.page import PageTable, Section
from apogee_batch.report.page_figures import Picture
from apogee_batch.report.page_strangest import QUANTITIES, StrangeStar, StrangestStars
from apogee_batch.report.spectrum_differences import FEWEST_NEIGHBOURS
from apogee_batch.report.tables import NOTHING, show

TITLE = "The strangest spectra"
NO_STRANGENESS = (
    "No star has a strangeness: the model has no calibration. 'apogee-batch model calibrate' makes one."
)
NOBODY_NEAR = (
    f"None of them has {FEWEST_NEIGHBOURS} stars without a flag ({DUPLICATE} apart) near its labels to be "
    "compared with: the table tells what each spectrum says by itself."
)
NOT_TOLD = "nothing else that the catalogue tells"
DECIMALS = {"teff": 0, "logg": 3, "fe_h": 3}
TITLES = {"teff": "Teff (K)", "logg": "log g (cgs)", "fe_h": "[Fe/H] (dex)"}


@dataclass(frozen=True)
class StrangestSpectra:
    """What the store shows of the strangest stars.

    Attributes
    ----------
    picture : Picture or None
        None without a star, or without a store.
    words : mapping of str to str
        Where each differs from ordinary stars, by `apstar_id`; those without neighbours are missing.
    reach : mapping of str to float
        By how much predictions of ordinary stars differ from those of their strange one at most, by label;
        empty if no star has neighbours.
    """

    picture: Picture | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    reach: Mapping[str, float] = field(default_factory=dict)


def strangest_section(
    stars: StrangestStars, spectra: StrangestSpectra, *, threshold: float | None
) -> Section:
    """Return the section of the strangest stars; `threshold` is that of the model, if it is known."""
    if not stars.n_known:
        return Section("strangest", TITLE, (NO_STRANGENESS,))
    limit = "" if threshold is None else f" The flag {STRANGE} is set above {threshold:.3g}."
    text = [
        "Strangeness: how unlike those of the training set a spectrum is to the network. Look at these "
        f"before you trust their labels.{limit} Errors do not grow with strangeness: of spectra that are "
        "unlike the training set nobody knows how wrong their labels are.",
    ]
    if spectra.picture is None:
        text.append("Their spectra are shown if the report is made with --store STORE.")
    elif spectra.reach:
        text.append(_explain(spectra.reach))
    else:
        text.append(NOBODY_NEAR)
    found = stars.stars()
    is_total = any(star.has_total for star in found)
    what = "total" if is_total else "scatter"
    labels = tuple(f"{TITLES[name]} ± {what}" for name in QUANTITIES)
    header = ("spectrum", "what is strange", "other flags", "strangeness", "SNR", *labels)
    rows = tuple(_row(star, spectra.words, is_total=is_total) for star in found)
    table = PageTable("Highest strangeness", header, rows, n_texts=3)
    pictures = () if spectra.picture is None else (spectra.picture,)
    return Section("strangest", TITLE, (), pictures, tuple(text), (table,))


def _explain(reach: Mapping[str, float]) -> str:
    near = ", ".join(f"{reach[name]:.{n}f} {unit}" for name, (_, unit, n) in QUANTITIES.items())
    return (
        f"Blue: the median of the {N_NEIGHBOURS} stars without a flag whose predictions are nearest to those "
        f"of the strange one, here within {near} of Teff, log g and [Fe/H]. Orange: the difference. Yellow: "
        "where it is largest, in steps of 30 Angstrom, noise and slope of the continuum apart; the table "
        "gives its rms there. If the predictions are wrong, so are these stars, and their lines do not fit."
    )


def _row(star: StrangeStar, differences: Mapping[str, str], *, is_total: bool) -> tuple[str, ...]:
    values = star.values
    names = (values["apogee_id"], values["apstar_id"])
    words = [*star.what_is_strange(), *filter(None, [differences.get(values["apstar_id"])])]
    return (
        names[1] if names[0] in names[1] else " ".join(names),
        "; ".join(words) or NOT_TOLD,
        ", ".join(name for name in star.flag_names if name != STRANGE) or "none",
        show(values["strangeness"], 2, NOTHING),
        show(values["snr"], 1, NOTHING),
        *(
            _with_sigma(values[name], star.sigma(name, is_total=is_total), DECIMALS[name])
            for name in QUANTITIES
        ),
    )


def _with_sigma(value: float | None, sigma: float | None, decimals: int) -> str:
    return f"{show(value, decimals, NOTHING)} ± {show(sigma, decimals, NOTHING)}"
