"""Spectra of the strangest stars of a run, and of ordinary ones beside them, out of its store."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apogee_batch.errors import UsageError
from apogee_batch.report.neighbours import Neighbours
from apogee_batch.report.page_figures_spectra import NamedSpectrum, draw_spectra
from apogee_batch.report.page_sections_strangest import StrangestSpectra
from apogee_batch.report.page_strangest import StrangeStar
from apogee_batch.report.spectrum_differences import describe_alone, find_difference, in_medians, median_of
from apogee_batch.schema import LABEL_NAMES, FloatArray
from apogee_batch.store.chunks import CHUNK_STARS
from apogee_batch.store.spectra import StoreInfo, open_store, read_spectra
from apogee_batch.store.spectrum_store import SpectrumStore


def draw_strangest(
    stars: list[StrangeStar], store: Path, catalog: Iterable[pa.Table], path: Path
) -> StrangestSpectra:
    """Draw the spectra of the strangest stars, and the median of ordinary stars of like predictions.

    Parameters
    ----------
    stars : list of StrangeStar
        The strangest first.
    store : Path
        The run's store.
    catalog : iterable of Table
        Pieces of the catalogue with the columns `NEIGHBOUR_COLUMNS`.
    path : Path
        The PNG file.

    Raises
    ------
    UsageError
        If the store does not hold one of the stars.
    """
    if not stars:  # as of a model without a calibration
        return StrangestSpectra()
    neighbours = Neighbours(stars)
    for piece in catalog:
        neighbours.add(piece)
    names = [str(star.values["apstar_id"]) for star in stars]
    wanted = {*names, *(other for name in names for other in neighbours.names(name))}
    opened = SpectrumStore(store)
    spectra = _read(opened, wanted)
    drawn, words, compared = [], {}, list[str]()
    for star, name in zip(stars, names, strict=True):
        flux, err = spectra[name]
        reference = median_of([in_medians(*spectra[other]) for other in neighbours.names(name)])
        found = None if reference is None else find_difference(opened.wavelength, flux, err, reference)
        marked = () if found is None else found.intervals
        drawn.append(NamedSpectrum(_title(star), flux, err, reference, marked))
        if found is not None:
            words[name] = found.words
            compared.append(name)
        elif alone := describe_alone(flux, err):
            words[name] = alone
    reached = [neighbours.reach(name) for name in compared]
    reach = {label: max(found[label] for found in reached) for label in LABEL_NAMES} if reached else {}
    return StrangestSpectra(draw_spectra(opened.wavelength, drawn, path), words, reach)


def _read(store: SpectrumStore, names: set[str]) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Read flux and err of some spectra by name, those of a chunk together."""
    place = pc.index_in(store.stars["apstar_id"], value_set=pa.array(sorted(names), pa.string()))
    known = store.stars.filter(place.is_valid()).select(["row", "apstar_id"]).sort_by("row")
    found = known["apstar_id"].to_pylist()
    if missing := names - set(found):
        raise UsageError(f"{store.path}: is not the store of this run, it has no {min(missing)}")
    info: StoreInfo = open_store(store.path)
    rows = known["row"].to_numpy()
    spectra = {}
    for chunk in np.unique(rows // CHUNK_STARS):
        chosen = np.flatnonzero(rows // CHUNK_STARS == chunk)
        batch = read_spectra(info, rows[chosen])
        for i, flux, err in zip(chosen, batch.flux, batch.err, strict=True):
            spectra[found[i]] = (flux.copy(), err.copy())  # not the whole chunk
    return spectra


def _title(star: StrangeStar) -> str:
    values = star.values
    said = [values["apogee_id"], f"strangeness {values['strangeness']:.2f}", f"SNR {values['snr'] or 0:.0f}"]
    if values["teff"] is None:
        said.append("no prediction")
    else:
        said += [f"{values['teff']:.0f} K", f"log g {values['logg']:.2f}", f"[Fe/H] {values['fe_h']:+.2f}"]
    return "   ".join(said)
