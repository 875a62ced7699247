"""What `select` is told: a setting of no use is refused with the remedy, before anything is read."""

import math
from pathlib import Path

import numpy as np
import pytest

from apogee_batch.catalog.selection import YSO_VERTICES, Polygon
from apogee_batch.errors import UsageError
from apogee_batch.run.selection_columns import LoggBins
from apogee_batch.run.selection_settings import (
    SelectionSettings,
    bits_of,
    read_mesh,
    read_polygon,
    writer_of,
)

EXAMPLE = Path(__file__).parents[1] / "docs" / "yso-polygon.toml"


def test_the_example_file_is_the_polygon_of_the_paper() -> None:
    assert read_polygon(EXAMPLE)[0] == read_polygon(None)[0] == Polygon(YSO_VERTICES)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("vertices = [[1, 2], [3, 4]]", "2 vertices"),
        ("vertices = [[0, 0], [1, 1], [1, 0], [0, 1]]", "cross or touch"),
        ("vertices = [[0, 0], [1, 1], [nan, 0]]", "not a number"),
        ("vertices = 3", "it needs a line like"),
        ("corners = []", "corners; it needs a line like"),
        ("", "nothing; it needs a line like"),
        ("vertices = [", "is no TOML"),
        (None, "cannot be read"),
    ],
)
def test_a_file_without_a_polygon_is_refused(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "polygon.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=f"polygon.toml.*{told}"):
        read_polygon(path)


def test_a_file_of_other_bytes_than_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "polygon.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is no TOML"):
        read_polygon(path)


@pytest.mark.parametrize("text", ["", "4,3", "3,3", "3,x", "nan", "3;4"])
def test_edges_that_do_not_rise_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="log g bins"):
        LoggBins.parse(text)


def test_an_edge_belongs_to_the_bin_above_it_also_in_float32() -> None:
    logg = np.array([3.6999, 3.7, 4.1, 4.0999], np.float32).astype(np.float64)
    assert LoggBins.parse("3.7, 4.1").number_of(logg).tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize(
    "name", ["catalog/ysos.parquet", "parts/ysos.parquet", "ysos.parquet", "selections/../model/y.fits"]
)
def test_nothing_is_put_among_the_run_s_own_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="own files"):
        writer_of(tmp_path / "run" / name, tmp_path / "run")


@pytest.mark.parametrize("name", ["run/selections/old/ysos.FITS", "run2/ysos.csv", "ysos.parquet"])
def test_selections_and_other_folders_are_free(tmp_path: Path, name: str) -> None:
    assert callable(writer_of(tmp_path / name, tmp_path / "run"))


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"use \.parquet, \.fits"):
        writer_of(tmp_path / "ysos.txt", tmp_path / "run")


def test_flags_are_known_by_name() -> None:
    assert bits_of(("LOW_SNR", "STRANGE_SPECTRUM", "LOW_SNR")) == 1 + 512
    with pytest.raises(UsageError, match="unknown flag 'LOW'; the flags are LOW_SNR, "):
        bits_of(("LOW",))


@pytest.mark.parametrize("max_age_myr", [math.nan, math.inf, 0, -1])
def test_an_age_that_is_none_is_refused(max_age_myr: float) -> None:
    with pytest.raises(UsageError, match="--max-age"):
        read_mesh(SelectionSettings(isochrones=(EXAMPLE,), max_age_myr=max_age_myr))


def test_isochrones_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.dat: does not exist"):
        read_mesh(SelectionSettings(isochrones=(tmp_path / "nowhere.dat",)))


def test_without_isochrones_there_are_no_ages() -> None:
    assert read_mesh(SelectionSettings()) == (None, [])
