"""Ordinary stars beside the strangest ones, where their spectra differ, and what is said of it."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from apogee_batch.report import neighbours
from apogee_batch.report.neighbours import N_NEIGHBOURS, Neighbours
from apogee_batch.report.page_figures import Picture
from apogee_batch.report.page_figures_spectra import DIFFERENCE_COLOUR
from apogee_batch.report.page_sections_strangest import StrangestSpectra, strangest_section
from apogee_batch.report.page_strangest import STRANGEST_COLUMNS, StrangeStar, StrangestStars
from apogee_batch.report.spectrum_differences import (
    FEWEST_NEIGHBOURS,
    describe_alone,
    find_difference,
    in_medians,
    median_of,
)
from apogee_batch.schema import LABEL_NAMES

N_PIXELS = 8575
WAVELENGTH = 10 ** (4.179 + 6e-6 * np.arange(N_PIXELS))
DUPLICATE, LOW_SNR, OUTSIDE, STRANGE = 64, 1, 4, 512


def star(**others: Any) -> StrangeStar:
    """The strangest star of a catalogue that has just this one."""
    known = {"apstar_id": "odd", "apogee_id": "odd", "strangeness": 2.0, "snr": 12.0, "n_bad_pixels": 840}
    known |= {"flags": STRANGE, "teff": 4500.0, "logg": 2.5, "fe_h": 0.0}
    known |= {"e_teff": 14.0, "e_logg": 0.01, "e_fe_h": 0.01}
    values = dict.fromkeys(STRANGEST_COLUMNS) | known | others
    found = StrangestStars()
    found.add(pa.Table.from_pylist([values]))
    return found.stars()[0]


def catalog(n_stars: int, **columns: Any) -> pa.Table:
    """Stars s0000, s0001, ... each 10 K hotter than the one before, from 4500 K on."""
    known: dict[str, Any] = {"apstar_id": [f"s{i:04d}" for i in range(n_stars)], "flags": [0] * n_stars}
    known |= {"teff": [4500.0 + 10 * i for i in range(n_stars)]}
    known |= {"logg": [2.5] * n_stars, "fe_h": [0.0] * n_stars}
    return pa.table(known | columns)


def test_neighbours_are_the_nearest_unflagged_stars_in_any_pieces() -> None:
    table = catalog(300, flags=[STRANGE, LOW_SNR, DUPLICATE] + [0] * 297)
    found = []
    for cuts in ([0, 300], [0, 1, 7, 150, 300], list(range(0, 301, 30))):
        near = Neighbours([star()])
        for begin, end in pairwise(cuts):
            near.add(table.slice(begin, end - begin))
        found.append((near.names("odd"), near.reach("odd")))
    assert found[0] == found[1] == found[2]
    assert found[0][0] == [f"s{i:04d}" for i in range(2, 2 + N_NEIGHBOURS)]
    assert found[0][1] == {"teff": 210.0, "logg": 0.0, "fe_h": 0.0}


def test_of_stars_equally_near_the_names_decide() -> None:
    table = catalog(100, teff=[4500.0] * 100)
    near = Neighbours([star()])
    for begin in (70, 0):  # later names come first
        near.add(table.slice(begin, 70 if begin == 0 else 30))
    assert near.names("odd") == [f"s{i:04d}" for i in range(N_NEIGHBOURS)]


def test_strange_stars_and_stars_without_numbers_are_no_neighbours() -> None:
    teff = [None, float("nan")] + [4500.0] * 28
    near = Neighbours([star(apstar_id="s0002"), star(apstar_id="s0003"), star(teff=None)])
    near.add(catalog(30, teff=pa.array(teff, pa.float32())))
    assert near.names("s0002") == near.names("s0003") == [f"s{i:04d}" for i in range(4, 24)]
    assert (near.names("odd"), near.reach("odd"), near.names("unknown")) == ([], {}, [])


def test_each_label_counts_in_its_own_scale() -> None:
    scales = [neighbours.SCALES[name] for name in LABEL_NAMES]
    shifts = np.array([[2.0, 0, 0], [0, 0.5, 0], [0, 0, 1.0]]) * scales
    table = catalog(3, **dict(zip(LABEL_NAMES, (shifts + np.array([2.5, 4500.0, 0.0])).T, strict=True)))
    near = Neighbours([star()])
    near.add(table)
    assert near.names("odd") == ["s0001", "s0002", "s0000"]


def spectrum(seed: int, noise: float = 0.01) -> tuple[Any, Any]:
    """A flat spectrum of 300 units with lines each 10 Angstrom, and two gaps."""
    rng = np.random.default_rng(seed)
    lines = 0.2 * np.exp(-0.5 * ((WAVELENGTH % 10 - 5) / 0.5) ** 2)
    flux = 300 * (1 - lines + noise * rng.standard_normal(N_PIXELS))
    err = np.full(N_PIXELS, 300 * noise)
    for begin, end in ((0, 250), (2900, 3200), (5600, 5900)):
        flux[begin:end], err[begin:end] = 0.0, 1e10
    return flux.astype(np.float32), err.astype(np.float32)


REFERENCE = median_of([in_medians(*spectrum(seed)) for seed in range(1, 21)])


def difference_of(factor: Any, noise: float = 0.01) -> Any:
    flux, err = spectrum(99, noise)
    assert REFERENCE is not None
    return find_difference(WAVELENGTH, (flux * factor).astype(np.float32), err, REFERENCE)


def test_an_ordinary_spectrum_differs_nowhere() -> None:
    for noise in (0.001, 0.01, 0.05):
        assert difference_of(1.0, noise).words == "no interval differs by more than 1.5 % or the noise"


def test_the_interval_in_which_a_spectrum_differs_is_named() -> None:
    band = np.where((WAVELENGTH > 15_270) & (WAVELENGTH < 15_300), 0.9, 1.0)
    found = difference_of(band)
    assert found.intervals == ((15_270.0, 15_300.0),)
    assert found.words == "differs most at 15,270-15,300 Angstrom (by 9 %)"
    both = band * np.where((WAVELENGTH > 16_500) & (WAVELENGTH < 16_560), 0.9, 1.0)
    assert "15,270-15,300 and 16,500-16,560 Angstrom" in difference_of(both).words


def test_a_slope_of_the_continuum_is_told_apart() -> None:
    slope = (WAVELENGTH - WAVELENGTH[0]) / (WAVELENGTH[-1] - WAVELENGTH[0])
    words = difference_of(1 + 0.2 * slope).words
    assert words.startswith("no interval differs by more than 1.5 % or the noise; continuum redder by 1")
    assert "continuum bluer by 2" in difference_of(1 - 0.2 * slope).words


def test_single_pixels_are_counted_and_no_interval() -> None:
    factor = np.ones(N_PIXELS)
    factor[[500, 900, 1500, 4000, 4500, 7000]] = 1.6
    found = difference_of(factor)
    assert found.words == "no interval differs by more than 1.5 % or the noise; 6 single pixels stand out"
    factor[[1500, 4000, 4500]] = 1.0
    assert "single" not in difference_of(factor).words
    factor[:] = 1.0
    factor[np.add.outer(np.arange(1000, 2000, 100), [0, 1, 2]).ravel()] = 1.6  # as wide as lines
    assert "single" not in difference_of(factor).words


def test_weaker_lines_everywhere_are_no_place() -> None:
    flux, err = spectrum(99)
    weaker = np.where(flux == 0, 0, 150 + 0.5 * flux).astype(np.float32)
    assert REFERENCE is not None
    found = find_difference(WAVELENGTH, weaker, err, REFERENCE)
    assert found.intervals == ()
    assert found.words.startswith("differs everywhere alike")


def test_of_a_spectrum_alone_pixels_far_above_and_below_are_counted() -> None:
    flux, err = spectrum(99)
    assert describe_alone(flux, err) == ""
    flux[500:509] = 1000.0
    assert describe_alone(flux, err) == ""
    flux[509:512] = 1000.0
    assert describe_alone(flux, err) == "12 pixels above twice the median (sky lines, or emission?)"
    flux[600:615] = -300.0
    assert describe_alone(flux, err).endswith(", 15 pixels below 0")
    err[500:520] = 200.0
    assert describe_alone(flux, err) == "15 pixels below 0"  # the others may be noise


def test_what_has_nothing_to_be_compared_with_says_so(tmp_path: Path) -> None:
    found = StrangestStars()
    found.add(pa.Table.from_pylist([star().values]))
    picture = Picture(tmp_path / "x.png", "x")
    alone = strangest_section(found, StrangestSpectra(picture, {"odd": "15 pixels below 0"}), threshold=1.0)
    assert alone.tables[0].rows[0][1] == "15 pixels below 0"
    assert "None of them has 5 stars without a flag" in alone.text[-1]
    assert "do not grow with strangeness" in alone.text[0]


def test_the_words_name_the_colours_of_the_picture(tmp_path: Path) -> None:
    found = StrangestStars()
    found.add(pa.Table.from_pylist([star().values]))
    seen = StrangestSpectra(Picture(tmp_path / "x.png", "x"), {}, dict.fromkeys(LABEL_NAMES, 1.0))
    assert "Orange: the difference" in strangest_section(found, seen, threshold=1.0).text[-1]
    assert DIFFERENCE_COLOUR == "#d55e00"  # Okabe and Ito call it vermilion; on the page it looks orange


def test_an_empty_spectrum_and_few_neighbours_are_no_error() -> None:
    nothing = np.zeros(N_PIXELS, np.float32), np.full(N_PIXELS, 1e10, np.float32)
    assert np.isnan(in_medians(*nothing)).all()
    assert describe_alone(*nothing) == ""
    assert REFERENCE is not None
    assert "too few pixels" in find_difference(WAVELENGTH, *nothing, REFERENCE).words
    assert median_of([REFERENCE] * (FEWEST_NEIGHBOURS - 1)) is None
    assert np.isnan(REFERENCE[0])  # no star has it


def rows_of(*stars: dict[str, Any], spectra: StrangestSpectra | None = None) -> tuple[tuple[str, ...], Any]:
    """The header and the rows of the table of some stars."""
    found = StrangestStars()
    for one in stars:
        found.add(pa.Table.from_pylist([star(**one).values]))
    section = strangest_section(found, spectra or StrangestSpectra(), threshold=1.0)
    return section.tables[0].header, section.tables[0].rows


def test_the_strangest_have_their_total_errors_where_they_are_known() -> None:
    header, rows = rows_of(
        {"e_teff_total": 64.7, "e_logg_total": 0.1, "e_fe_h_total": 0.05}, {"strangeness": 1.5}
    )
    assert header[-3:] == ("Teff (K) ± total", "log g (cgs) ± total", "[Fe/H] (dex) ± total")
    assert rows[0][-3:] == ("4,500 ± 65", "2.500 ± 0.100", "0.000 ± 0.050")
    assert rows[1][-3] == "4,500 ± -"  # its scatter is not what the header says
    header, rows = rows_of({})
    assert header[-3] == "Teff (K) ± scatter"
    assert rows[0][-3] == "4,500 ± 14"


def test_what_is_strange_is_said_in_words() -> None:
    of_label = {"data_type": "mstar", "data_set": "test", "teff_label": 3900.0, "logg_label": 2.51}
    flags = {
        "flags": STRANGE | LOW_SNR | OUTSIDE,
        "n_bad_pixels": 1900,
        "e_teff_total": 60.0,
        "e_logg_total": 0.1,
    }
    _, rows = rows_of(flags | of_label)
    assert rows[0][1:3] == (
        "labels outside the hull of the training set; SNR of only 12; 1,900 pixels without a measurement; "
        "labelled as an M dwarf (test); Teff differs from its label by +600 K",
        "LOW_SNR, OUTSIDE_TRAINING",
    )
    _, rows = rows_of({})
    assert rows[0][1:3] == ("nothing else that the catalogue tells", "none")


def test_where_it_differs_from_ordinary_stars_stands_beside_it(tmp_path: Path) -> None:
    reach = {"teff": 207.4, "logg": 0.12, "fe_h": 0.2}
    seen = StrangestSpectra(Picture(tmp_path / "x.png", "x"), {"odd": "differs most at 15,270"}, reach)
    found = StrangestStars()
    found.add(pa.Table.from_pylist([star().values]))
    section = strangest_section(found, seen, threshold=None)
    assert section.tables[0].rows[0][1] == "differs most at 15,270"
    assert "within 207 K, 0.12 dex, 0.20 dex of Teff" in section.text[1]
    assert strangest_section(StrangestStars(), seen, threshold=None).tables == ()


@pytest.mark.parametrize("name", ["DUPLICATE", "LOW_SNR", "MANY_BAD_PIXELS", "STRANGE_SPECTRUM"])
def test_flags_without_words_of_their_own_are_told_otherwise(name: str) -> None:
    from apogee_batch.report.page_strangest import FLAG_WORDS
    from apogee_batch.schema import catalog_flags

    assert set(FLAG_WORDS) < set(catalog_flags())
    assert name in set(catalog_flags()) - set(FLAG_WORDS)
