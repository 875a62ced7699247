"""Isochrones in the Kiel diagram: which lines of which tables, their names, and that they are seen."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from young_isochrones import write_bhac15, write_parsec

from apogee_batch.errors import UsageError
from apogee_batch.report.figures import kiel_diagram
from apogee_batch.report.isochrone_lines import IsochroneLine, draw_isochrones, name_isochrones
from apogee_batch.run.kiel_lines import read_kiel_lines

TEN_AGES = (1.0, 2.0, 5.0, 9.0, 12.0, 40.0, 100.0, 300.0, 1100.0, 12_000.0)


def test_all_ages_of_a_few_are_drawn_by_rising_age(tmp_path: Path) -> None:
    paths = [write_parsec(tmp_path / "a.dat", (1000.0, 4.0)), write_bhac15(tmp_path / "b.txt", (15.0,))]
    lines = read_kiel_lines(paths)
    assert [line.name for line in lines] == ["4 Myr", "15 Myr", "1 Gyr"]
    assert lines[0].teff[0] == pytest.approx(10 ** (3.62 - 0.2 - 0.01 * np.log10(4)), rel=1e-3)


def test_of_many_ages_those_next_to_decades_are_drawn(tmp_path: Path) -> None:
    path = write_bhac15(tmp_path / "b.txt", TEN_AGES)
    assert [line.name for line in read_kiel_lines([path])] == [
        "1 Myr",
        "9 Myr",
        "100 Myr",
        "1.1 Gyr",
        "12 Gyr",
    ]


def test_ages_that_are_asked_for_are_drawn_or_refused(tmp_path: Path) -> None:
    path = write_bhac15(tmp_path / "b.txt", TEN_AGES)
    assert [line.name for line in read_kiel_lines([path], [40.0, 2.0])] == ["2 Myr", "40 Myr"]
    with pytest.raises(UsageError, match=r"--age 3: no table has it; .* in Myr: 1, 2, 5, 9, 12, 40"):
        read_kiel_lines([path], [3.0])
    with pytest.raises(UsageError, match="is no age"):
        read_kiel_lines([path], [-1.0])
    with pytest.raises(UsageError, match="--isochrones FILE"):
        read_kiel_lines([], [3.0])


def test_tables_of_one_age_are_told_apart(tmp_path: Path) -> None:
    paths = [
        write_parsec(tmp_path / "parsec_of_a_long_name.dat", (4.0,)),
        write_bhac15(tmp_path / "b.txt", (4.0,)),
    ]
    assert {line.name for line in read_kiel_lines(paths)} == {"4 Myr (b)", "4 Myr (parsec_of_a_lon…)"}


def test_metallicities_are_told_where_one_is_not_the_suns(tmp_path: Path) -> None:
    paths = [write_parsec(tmp_path / f"{z}.dat", (4.0, 15.0), fe_h=z) for z in (0.3, 0.0, -0.5)]
    lines = read_kiel_lines(paths, [4.0])
    assert [line.name for line in lines] == [
        "4 Myr, [M/H] = -0.5", "4 Myr, [M/H] = 0", "4 Myr, [M/H] = +0.3",
    ]  # fmt: skip
    assert [line.name for line in read_kiel_lines(paths[1:2])] == ["4 Myr", "15 Myr"]


def test_a_line_breaks_off_where_stars_jump(tmp_path: Path) -> None:
    path = write_parsec(tmp_path / "a.dat", (1000.0,), labels=[1, 1, 2, 3, 3, 4, 8, 9])
    (line,) = read_kiel_lines([path])
    assert np.isnan(line.teff).tolist() == np.isnan(line.logg).tolist() == [False] * 5 + [True, False]


def lines_of(n_lines: int) -> list[IsochroneLine]:
    teff = np.linspace(3000, 6000, 5)
    return [IsochroneLine(f"line {i}", teff, teff / 1000 - i / 10) for i in range(n_lines)]


def test_lines_differ_in_colour_brightness_and_dashes_and_move_no_limit() -> None:
    axes = Figure().add_subplot()
    axes.plot([5000, 4000], [1, 2])
    limits = axes.get_xlim(), axes.get_ylim()
    drawn = draw_isochrones(axes, lines_of(6))
    assert (axes.get_xlim(), axes.get_ylim()) == limits
    brightness = [np.dot((0.2126, 0.7152, 0.0722), to_rgb(line.get_color())) for line in drawn]
    assert (np.diff(brightness) > 0.02).all()
    assert brightness[-1] < 0.65  # seen on white
    dashes = [line._dash_pattern for line in drawn]
    assert all(one != other for one, other in pairwise(dashes))


def test_names_of_any_length_stay_inside_the_picture() -> None:
    figure = Figure(figsize=(8.4, 4.1), layout="constrained")
    lines = [IsochroneLine("1 Gyr (a long name here…)", one.teff, one.logg) for one in lines_of(6)]
    name_isochrones(figure, draw_isochrones(figure.add_subplot(), lines))
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_lines_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="line: "):
        IsochroneLine("line", np.zeros(3), np.zeros(2))


@pytest.mark.data
def test_the_published_tables_are_drawn(shared_data: Path, tmp_path: Path) -> None:
    folder: Any = shared_data / "isochrones"
    young = read_kiel_lines([folder / "BHAC15_iso.2mass.txt"])
    assert [line.name for line in young] == ["1 Myr", "10 Myr", "100 Myr", "1 Gyr", "10 Gyr"]
    old = read_kiel_lines(sorted(folder.glob("parsec_cmd34_*.dat")))
    assert [line.name for line in old] == ["4 Myr", "15 Myr", "1 Gyr"]
    sun = np.nanargmin(abs(old[2].teff - 5772) + 1e4 * (old[2].logg < 4))
    assert old[2].logg[sun] == pytest.approx(4.5, abs=0.1)
    from test_figures import make_catalog

    kiel_diagram(make_catalog(30), tmp_path / "kiel.png", isochrones=[*young, *old])
    assert (tmp_path / "kiel.png").stat().st_size > 10_000
