"""The published catalogue is in the order of the sky, whatever its parts, and whatever memory it had."""

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy_healpix import HEALPix
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rows import label_rows, star_table

from apogee_batch.catalog import sky_order
from apogee_batch.catalog.export import write_fits, write_parquet
from apogee_batch.catalog.merge import merge_parts, sky_positions
from apogee_batch.catalog.parts import build_part, write_part
from apogee_batch.catalog.rows import CatalogRows, rows_of
from apogee_batch.catalog.sky_order import NOWHERE, ORDER_WORDS, healpix_index, in_sky_order
from apogee_batch.errors import IntegrityError

N_STARS = 60
RANDOM = np.random.default_rng(5)
RA = RANDOM.uniform(0, 360, N_STARS)
DEC = np.degrees(np.arcsin(RANDOM.uniform(-1, 1, N_STARS)))
RA[[7, 20]], DEC[[30]] = np.nan, np.nan  # no position
RA[50:53], DEC[50:53] = RA[3], DEC[3]  # the same place
STARS = star_table(N_STARS, ra=pa.array(RA, from_pandas=True), dec=pa.array(DEC, from_pandas=True))


def index_of(ra: float, dec: float) -> int:
    return int(healpix_index(np.array([ra], float), np.array([dec], float))[0])


def test_the_index_is_that_of_healpix() -> None:
    is_known = np.isfinite(RA + DEC)
    grid = HEALPix(nside=2**29, order="nested", frame="icrs")
    expected = grid.skycoord_to_healpix(SkyCoord(RA[is_known], DEC[is_known], unit="deg"))
    np.testing.assert_array_equal(healpix_index(RA, DEC)[is_known], expected)
    assert f"order {np.log2(grid.nside):.0f}, {grid.order}" in ORDER_WORDS


def test_the_index_of_the_corners_of_the_first_pixels_is_known() -> None:
    # twelve base pixels of 4**29 each; these are the centres of 0, 4 and 8
    centres = [(45, np.degrees(np.arcsin(2 / 3))), (0, 0), (45, -np.degrees(np.arcsin(2 / 3)))]
    assert [index_of(*centre) >> 58 for centre in centres] == [0, 4, 8]


@given(st.floats(0, 360), st.floats(-90, 90), st.integers(-2, 2))
@settings(deadline=None, max_examples=100)
def test_a_right_ascension_may_be_negative_or_beyond_the_circle(ra: float, dec: float, turns: int) -> None:
    there, here = index_of(ra + 360 * turns, dec), index_of(ra, dec)
    grid = HEALPix(nside=2**29, order="nested", frame="icrs")
    assert grid.healpix_to_skycoord(there).separation(grid.healpix_to_skycoord(here)) < 2 * u.mas


def test_the_ends_of_the_circle_are_one_place() -> None:
    assert index_of(0, 10) == index_of(360, 10) == index_of(-0.0, 10) == index_of(-360, 10)
    assert index_of(-1, 10) == index_of(359, 10)
    assert index_of(361, 10) == index_of(1, 10)


@pytest.mark.parametrize("dec", [-90.0, 90.0])
def test_the_poles_are_places(dec: float) -> None:
    found = healpix_index(np.array([0.0, 100.0, 200.0, 300.0]), np.full(4, dec))
    assert (found >= 0).all()
    assert (found < 12 * 4**29).all()


@pytest.mark.parametrize(
    ("ra", "dec"), [(np.nan, 0), (0, np.nan), (np.inf, 0), (0, -np.inf), (0, 90.001), (10, -91), (0, 1e300)]
)
def test_what_is_no_place_comes_last(ra: float, dec: float) -> None:
    assert index_of(ra, dec) == NOWHERE > 12 * 4**29


def test_no_stars_have_no_index() -> None:
    assert healpix_index(np.empty(0), np.empty(0)).shape == (0,)


def expected_order() -> list[str]:
    """Return the names as they must be, by the plainest way there is."""
    keyed = sorted(zip(healpix_index(RA, DEC).tolist(), range(N_STARS), strict=True))
    names = STARS["apstar_id"].to_pylist()
    return [names[row] for _, row in keyed]


def write_parts(folder: Path, cuts: Sequence[int]) -> list[Path]:
    """Write the stars as parts between the given rows."""
    paths = []
    folder.mkdir()
    for start, stop in zip([0, *cuts], [*cuts, N_STARS], strict=True):
        stars, n = STARS.slice(start, stop - start), stop - start
        teff = np.repeat(4000.0 + np.arange(start, stop)[:, np.newaxis], 3, axis=1)
        part = build_part(
            stars,
            mean=teff,
            std=np.full((n, 3), 0.1),
            clean=teff,
            n_realizations=9,
            labels=label_rows(STARS, [1, 5]),
            label_range=None,
        )
        paths.append(folder / f"{start}-{stop}.parquet")
        write_part(paths[-1], part)
    return paths


@pytest.fixture
def small_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a few rows in order at once, as if there were many."""
    monkeypatch.setattr(sky_order, "LOAD_ROWS", 10)
    monkeypatch.setattr(sky_order, "BUCKET_ROWS", 7)


def names_in_order(paths: Sequence[Path], staging: Path) -> list[str]:
    with in_sky_order(merge_parts(paths), sky_positions(paths), staging=staging) as rows:
        tables = [pa.concat_tables(rows.pieces()) for _ in range(2)]
    assert tables[0].equals(tables[1])  # rows are read once for each file that is written
    of_star = dict(zip(STARS["apstar_id"].to_pylist(), range(N_STARS), strict=True))
    names: list[str] = tables[0]["apstar_id"].to_pylist()
    assert tables[0]["teff"].to_pylist() == [4000.0 + of_star[name] for name in names]  # rows stay together
    return names


CUTS = [[], [30], [4, 4, 33, 59], list(range(1, N_STARS))]


@pytest.mark.parametrize("cuts", CUTS, ids=len)
def test_few_rows_are_put_in_order(cuts: list[int], tmp_path: Path) -> None:
    paths = write_parts(tmp_path / "parts", cuts)
    assert names_in_order(paths[::-1], tmp_path / "staging") == expected_order()
    assert not (tmp_path / "staging").exists()


@pytest.mark.usefixtures("small_loads")
@pytest.mark.parametrize("cuts", CUTS, ids=len)
def test_many_rows_are_put_in_order_by_way_of_a_file(cuts: list[int], tmp_path: Path) -> None:
    paths = write_parts(tmp_path / "parts", cuts)
    assert names_in_order(paths[::-1], tmp_path / "staging") == expected_order()
    assert list((tmp_path / "staging").iterdir()) == []


def test_rows_without_a_position_are_last_and_equal_ones_by_store_row() -> None:
    names, expected = STARS["apstar_id"].to_pylist(), expected_order()
    assert expected[-3:] == [names[i] for i in (7, 20, 30)]
    assert [expected.index(names[i]) - expected.index(names[3]) for i in (50, 51, 52)] == [1, 2, 3]


@pytest.mark.parametrize("write", [write_parquet, write_fits])
def test_bytes_depend_neither_on_the_parts_nor_on_the_way(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sky_order, "ROW_GROUP_ROWS", 8)  # so that there are many groups
    written = []
    for i, cuts in enumerate([[], [], [11, 12], list(range(1, N_STARS))]):
        if i == 1:
            monkeypatch.setattr(sky_order, "LOAD_ROWS", 10)
        monkeypatch.setattr(sky_order, "BUCKET_ROWS", 7 * i + 1)
        paths = write_parts(tmp_path / f"parts{i}", cuts)
        with in_sky_order(merge_parts(paths), sky_positions(paths), staging=tmp_path) as rows:
            written.append(write(rows, tmp_path / f"{i}", metadata={}).sha256)
    assert len(set(written)) == 1


@pytest.mark.usefixtures("small_loads")
def test_no_more_rows_are_held_than_are_put_in_order_at_once(tmp_path: Path) -> None:
    paths = write_parts(tmp_path / "parts", [5, 10, 30])
    with in_sky_order(merge_parts(paths), sky_positions(paths), staging=tmp_path) as rows:
        assert [len(table) for table in rows.read()] == [7] * 8 + [4]


def test_no_rows_are_a_catalogue(tmp_path: Path) -> None:
    with in_sky_order(rows_of(empty_catalogue()), [], staging=tmp_path) as rows:
        assert [len(piece) for piece in rows.pieces()] == [0]


def empty_catalogue() -> pa.Table:
    return pa.concat_tables(rows_of_stars().read()).slice(0, 0)


def rows_of_stars() -> CatalogRows:
    zeros = np.zeros((N_STARS, 3))
    part = build_part(
        STARS,
        mean=zeros,
        std=zeros,
        clean=zeros,
        n_realizations=9,
        labels=label_rows(STARS, [1]),
        label_range=None,
    )
    return rows_of(part)


def test_parts_that_change_meanwhile_are_told(tmp_path: Path) -> None:
    rows = rows_of_stars()
    positions = [STARS.select(["ra", "dec"]).slice(1)]
    with (
        pytest.raises(IntegrityError, match="changed while they were read"),
        in_sky_order(rows, positions, staging=tmp_path),
    ):
        pass


@pytest.mark.usefixtures("small_loads")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), IntegrityError("a damaged part")])
def test_what_ends_the_reading_leaves_no_file(error: BaseException, tmp_path: Path) -> None:
    whole = rows_of_stars()

    def read() -> Iterator[pa.Table]:
        for table in whole.read():
            yield table.slice(0, 25)
        raise error

    positions = [STARS.select(["ra", "dec"])]
    with (
        pytest.raises(type(error)),
        in_sky_order(replace(whole, read=read), positions, staging=tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_loads")
def test_a_full_disk_is_told_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sky_order, "_hand_out", fail)
    with (
        pytest.raises(OSError, match=re.escape(str(tmp_path))) as caught,
        in_sky_order(rows_of_stars(), [STARS.select(["ra", "dec"])], staging=tmp_path),
    ):
        pass
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from apogee_batch.catalog import sky_order
from apogee_batch.catalog.merge import merge_parts, sky_positions
sky_order.LOAD_ROWS = 10
parts, staging = sorted(Path(sys.argv[1]).iterdir()), Path(sys.argv[2])
with sky_order.in_sky_order(merge_parts(parts), sky_positions(parts), staging=staging) as rows:
    next(iter(rows.pieces()))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.fault
def test_a_process_that_is_killed_leaves_no_file(tmp_path: Path) -> None:
    write_parts(tmp_path / "parts", [20, 40])
    program = [sys.executable, "-c", KILLED, str(tmp_path / "parts"), str(tmp_path / "staging")]
    assert subprocess.run(program, check=False).returncode == -signal.SIGKILL
    assert list((tmp_path / "staging").iterdir()) == []
