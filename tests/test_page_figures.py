"""The pictures of the page of a run: what they count, what they leave out, and that they are drawn at all."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from labelled_catalogs import make_catalog, validate_catalog

from apogee_batch.report import page_figures_sky
from apogee_batch.report.density import Cloud
from apogee_batch.report.flag_counts import FlagCounts
from apogee_batch.report.labelled import CALIBRATED, REALIZATIONS
from apogee_batch.report.page_figures_pulls import draw_pulls
from apogee_batch.report.page_figures_sigma import SIGMA_PICTURE_COLUMNS, SigmaStars, draw_sigmas
from apogee_batch.report.page_figures_sky import SkyStars, draw_sky
from apogee_batch.report.page_figures_spectra import NamedSpectrum, draw_spectra
from apogee_batch.report.page_figures_timing import Span, draw_timing, find_lanes, without_pauses
from apogee_batch.report.page_figures_training import draw_losses
from apogee_batch.report.page_sections import TWO_AT_ONCE, timing_section
from apogee_batch.report.page_strangest import StrangestStars


def sky_of(ra: list[float | None], dec: list[float | None]) -> SkyStars:
    stars = SkyStars()
    stars.add(pa.table({"ra": pa.array(ra, pa.float64()), "dec": pa.array(dec, pa.float64())}))
    return stars


def test_the_galactic_centre_and_pole_are_where_they_belong() -> None:
    found = sky_of([266.405, 192.859, None, 10.0], [-28.936, 27.128, 5.0, None])
    longitude, sine, _ = found.cloud.points()
    assert longitude[0] == pytest.approx(0, abs=0.01)
    assert sine == pytest.approx([0, 1], abs=1e-4)
    assert found.n_without == 2


def test_longitude_grows_to_the_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.scatter", lambda _, x, y, **__: drawn.append((float(x[0]), float(y[0])))
    )
    picture = draw_sky(sky_of([318.004], [48.330]), tmp_path / "s.png")  # l = 90, b = 0
    assert drawn == [pytest.approx((-np.pi / 2, 0), abs=1e-3)]
    assert picture is not None
    assert "1 stars" in picture.alt


def test_many_stars_of_the_sky_are_counted_in_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_figures_sky, "Cloud", lambda *a, **k: Cloud(*a, **k, most_points=100))
    rng = np.random.default_rng(1)
    stars = sky_of(list(rng.uniform(0, 360, 500)), list(rng.uniform(-90, 90, 500)))
    assert stars.cloud.is_dense
    assert draw_sky(stars, tmp_path / "s.png") is not None
    assert (tmp_path / "s.pdf").read_bytes().startswith(b"%PDF")


def test_without_coordinates_there_is_no_sky(tmp_path: Path) -> None:
    assert draw_sky(sky_of([None], [None]), tmp_path / "s.png") is None
    assert list(tmp_path.iterdir()) == []


def sigmas_of(table: pa.Table) -> SigmaStars:
    stars = SigmaStars()
    stars.add(table.select([name for name in SIGMA_PICTURE_COLUMNS if name in table.column_names]))
    return stars


def test_the_median_sigma_of_each_snr_is_right_to_a_percent() -> None:
    n = 5001
    sigma = 30 * 10 ** np.linspace(-0.5, 0.5, n)
    stars = sigmas_of(make_catalog(n, snr=np.full(n, 100.0), e_teff=sigma))
    snr, median = stars.medians(REALIZATIONS, "teff")
    assert len(snr) == 1
    assert snr[0] == pytest.approx(2, abs=0.07)
    assert 10 ** median[0] == pytest.approx(30, rel=0.01)


def test_stars_without_sigma_or_snr_are_left_out(tmp_path: Path) -> None:
    none = [None] * 9
    table = make_catalog(9, e_teff_total=none, e_logg_total=none, e_fe_h_total=none)
    assert sigmas_of(table).has(REALIZATIONS)
    assert not sigmas_of(table).has(CALIBRATED)
    assert draw_sigmas(sigmas_of(table), tmp_path / "a.png") is not None
    assert draw_sigmas(sigmas_of(make_catalog(9, snr=none)), tmp_path / "b.png") is None
    assert not (tmp_path / "b.png").exists()
    old = make_catalog(9).drop_columns(["e_teff_total", "e_logg_total", "e_fe_h_total"])
    assert not sigmas_of(old).has(CALIBRATED)


def test_sigmas_do_not_depend_on_the_pieces() -> None:
    table = make_catalog(60).select(list(SIGMA_PICTURE_COLUMNS))
    one, many = SigmaStars(), SigmaStars()
    one.add(table)
    for start in range(0, 60, 7):
        many.add(table.slice(start, 7))
    for kind in (REALIZATIONS, CALIBRATED):
        for name in ("teff", "logg", "fe_h"):
            np.testing.assert_array_equal(one.medians(kind, name), many.medians(kind, name))
            of_one, of_many = (stars.clouds[kind, name].points() for stars in (one, many))
            np.testing.assert_array_equal(of_one, of_many)


def test_a_marker_at_one_is_whole_in_the_picture_of_pulls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[Any] = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_ylim", lambda _, *ends, **__: limits.append(ends))
    draw_pulls(validate_catalog(make_catalog(60)), tmp_path / "p.png")
    assert limits.count((0, 1.05)) == 3


def test_of_a_few_stars_there_is_no_line_of_medians(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[Any] = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.legend", lambda _, __, names, **___: named.append(list(names))
    )
    for n_stars in (4, 400):
        draw_sigmas(sigmas_of(make_catalog(n_stars)), tmp_path / "s.png")
    assert "median here" not in named[0]
    assert "median here" in named[1]


def test_the_picture_of_pulls_tells_their_coverage(tmp_path: Path) -> None:
    found = validate_catalog(make_catalog(3000))
    picture = draw_pulls(found, tmp_path / "p.png")
    assert picture is not None
    within = found.get("full", "test").measures["teff"].pulls[CALIBRATED].within_1
    assert f"calibrated total: teff {within:.3f}" in picture.alt


def test_without_a_test_star_there_are_no_pulls(tmp_path: Path) -> None:
    assert draw_pulls(validate_catalog(make_catalog(9, data_set=["train"] * 9)), tmp_path / "p.png") is None
    assert draw_pulls(validate_catalog(make_catalog(1)), tmp_path / "p.png") is not None


def epoch(number: int, phase: str = "main", round_: int = 0, **others: Any) -> dict[str, Any]:
    return {
        "epoch": number,
        "phase": phase,
        "round": round_,
        "train_loss": 1 / number,
        "dev_loss": 1.1 / number,
        "dev_loss_by_type": {"payne": 1 / number, "mstar": None},
        "is_best": number < 4,
    } | others


def test_rounds_of_adaptation_are_counted(tmp_path: Path) -> None:
    epochs = [epoch(1), epoch(2), epoch(3, "adaptation", 1), epoch(4, "adaptation", 2, dev_loss=None)]
    picture = draw_losses(epochs, tmp_path / "l.png")
    assert picture is not None
    assert picture.alt.endswith("over 4 epochs; 2 rounds of adaptation are marked.")
    assert draw_losses([], tmp_path / "none.png") is None
    assert draw_losses([epoch(1)], tmp_path / "one.png") is not None


def span(begin_s: float, seconds: float = 10.0, host: str = "node1", n_stars: int = 50) -> Span:
    return Span(host, "cpu", begin_s, seconds, n_stars)


def test_a_time_below_a_minute_is_told_in_seconds(tmp_path: Path) -> None:
    for seconds, told in ((12.0, "over 12.0 seconds"), (90.0, "over 1.5 minutes")):
        picture = draw_timing([span(0, seconds)], tmp_path / "t.png")
        assert picture is not None
        assert told in picture.alt


def test_as_many_lanes_as_shards_were_under_way_at_once() -> None:
    lanes = find_lanes([span(0), span(0.4), span(10), span(10.2), span(3, host="node2"), span(20.1)])
    assert [(lane.host, lane.number, len(lane.spans)) for lane in lanes] == [
        ("node1", 1, 3), ("node1", 2, 2), ("node2", 1, 1),
    ]  # fmt: skip
    assert lanes[0].n_stars == 150
    assert lanes[0].rate == pytest.approx(5.0, rel=0.01)


def test_workers_that_the_ledger_names_have_their_own_lanes(tmp_path: Path) -> None:
    spans = [replace(span(10 * i), worker=f"node1:{41 + i % 2}") for i in range(4)]
    lanes = find_lanes([*spans, span(0), span(40), replace(span(0, host="b"), worker="b:7")])
    assert [(lane.name, lane.worker, len(lane.spans)) for lane in lanes] == [
        ("b:7", "b:7", 1), ("node1 1", "", 2), ("node1:41", "node1:41", 2), ("node1:42", "node1:42", 2),
    ]  # fmt: skip
    assert len(find_lanes([replace(one, worker="") for one in spans])) == 1  # as an old ledger would tell
    picture = draw_timing([replace(span(0), worker="x" * 60 + ":1")], tmp_path / "t.png")
    assert picture is not None


def test_two_shards_at_once_of_a_worker_count_once_and_do_not_cover_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = [replace(span(1e9 + 5 * i, n_stars=1000), worker="node1:41") for i in range(10)]
    (lane,) = find_lanes([*spans, replace(span(1e9 + 2, 0.0), worker="node1:41")])
    assert (lane.seconds, lane.n_stars) == (55.0, 10_050)
    assert lane.rate == pytest.approx(10_000 / 55)
    assert [len(track) for track in find_lanes(spans)[0].tracks] == [5, 5]
    section = timing_section(spans, None)
    assert TWO_AT_ONCE in section.text
    assert TWO_AT_ONCE not in timing_section(spans[::2], None).text
    assert section.tables[0].rows[0][-3:] == ("0.9", "181.8", "10.0")
    drawn: list[Any] = []
    monkeypatch.setattr("matplotlib.axes.Axes.add_collection", lambda _, bars, **__: drawn.append(bars))
    draw_timing([*spans, *(replace(one, worker="node1:42") for one in spans)], tmp_path / "t.png")
    boxes = [path.get_extents() for path in drawn[0].get_paths()]
    assert len(boxes) == 20
    for one, other in combinations(boxes, 2):
        low, high = max(one.x0, other.x0), min(one.x1, other.x1)
        top, bottom = max(one.y0, other.y0), min(one.y1, other.y1)
        assert high - low <= 1e-9 or bottom - top <= 1e-9


def test_a_night_in_which_nothing_was_done_is_cut_out() -> None:
    found, n_pauses = without_pauses([span(1000), span(50_000), span(1012)])
    assert [s.begin_s for s in found] == [0, 12, 22]
    assert n_pauses == 1
    assert without_pauses([]) == ([], 0)


def test_hosts_of_any_name_are_drawn(tmp_path: Path) -> None:
    picture = draw_timing([span(0, host="$\\frac{$"), span(0, host="<b>")], tmp_path / "t.png")
    assert picture is not None
    assert "2 workers estimated its 2 shards" in picture.alt
    assert draw_timing([span(0, seconds=0.0)], tmp_path / "none.png") is None


def test_spectra_of_any_name_and_content_are_drawn(tmp_path: Path) -> None:
    wavelength = np.linspace(15_100, 17_000, 200)
    spectra = [
        NamedSpectrum("$\\frac{$ <b>", np.ones(200, np.float32), np.ones(200, np.float32)),
        NamedSpectrum("x", np.zeros(200, np.float32), np.full(200, 1e10, np.float32)),
    ]
    assert draw_spectra(wavelength, spectra, tmp_path / "s.png") is not None
    assert draw_spectra(wavelength, [], tmp_path / "none.png") is None


def test_pixels_beside_the_gaps_do_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flux, err = np.ones(200, np.float32), np.ones(200, np.float32)
    flux[:3], err[:3] = (0, 50, 0.5), (1e10, 1000, 2)
    drawn: list[Any] = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda *a, **_: drawn.append(a[2]))
    draw_spectra(np.linspace(15_100, 17_000, 200), [NamedSpectrum("x", flux, err)], tmp_path / "s.png")
    np.testing.assert_array_equal(drawn[0][:4], [np.nan, np.nan, 0.5, 1])


def strange_piece(strangeness: list[float | None], first: int = 0) -> pa.Table:
    n = len(strangeness)
    numbers = {name: np.zeros(n) for name in ("snr", "teff", "logg", "fe_h", "e_teff", "e_logg", "e_fe_h")}
    return pa.table(
        {
            "apstar_id": [f"s{first + i}" for i in range(n)],
            "apogee_id": ["a"] * n,
            "strangeness": pa.array(strangeness, pa.float32()),
            "n_bad_pixels": pa.array([7] * n, pa.int32()),
            "flags": pa.array([512 + 1] * n, pa.int32()),
            **numbers,
        }
    )


def test_the_strangest_stars_are_found_in_any_pieces() -> None:
    found = StrangestStars(2)
    found.add(strange_piece([0.5, None, 0.6, float("nan"), 2.0]))
    found.add(strange_piece([0.1, 1.0, 2.0], first=5))
    assert [star.values["apstar_id"] for star in found.stars()] == ["s4", "s7"]
    assert found.n_known == 6
    assert found.stars()[0].flag_names == ("LOW_SNR", "STRANGE_SPECTRUM")
    empty = StrangestStars()
    empty.add(strange_piece([1.0]).drop_columns(["strangeness"]))
    assert (empty.n_known, empty.stars()) == (0, [])


def test_flags_are_counted_bit_by_bit() -> None:
    counts = FlagCounts()
    for flags in ([0, 1, 5], [512]):
        numbers = pa.array([4000.0, None, float("nan")][: len(flags)])
        counts.add(pa.table({"flags": pa.array(flags, pa.int32()), "teff": numbers}))
    told = {flag.name: n for flag, n in counts.by_flag()}
    assert (counts.n_clean, counts.n_predicted) == (1, 2)
    assert (told["LOW_SNR"], told["OUTSIDE_TRAINING"], told["STRANGE_SPECTRUM"]) == (2, 1, 1)
    assert sum(told.values()) == 4
