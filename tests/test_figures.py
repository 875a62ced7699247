"""Pictures: that they are drawn for any catalogue, whole, and the same each time."""

from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pytest
from matplotlib.image import imread

from apogee_batch.report.canvas import (
    FEWEST_DENSE,
    TYPE_COLOURS,
    density_colours,
    find_limits,
    metallicity_colours,
)
from apogee_batch.report.figures import kiel_diagram, label_comparison
from apogee_batch.schema import DATA_SETS, DATA_TYPES, LABEL_NAMES


def make_catalog(n_stars: int, *, n_unlabelled: int = 0, seed: int = 0) -> pa.Table:
    """A catalogue with every type and set, a few missing predictions, and the last stars unlabelled."""
    rng = np.random.default_rng(seed)
    truth = rng.normal((2.9, 4700.0, -0.2), (1.2, 700.0, 0.3), (n_stars, 3))
    is_unlabelled = np.arange(n_stars) >= n_stars - n_unlabelled
    columns: dict[str, pa.Array] = {}
    for i, name in enumerate(LABEL_NAMES):
        predicted = truth[:, i] + rng.normal(0, (0.1, 60.0, 0.04)[i], n_stars)
        columns[name] = pa.array(predicted.astype("f4"), mask=np.arange(n_stars) % 50 == 49)
        columns[f"{name}_label"] = pa.array(truth[:, i].astype("f4"), mask=is_unlabelled)
    for name, words in (("data_type", DATA_TYPES), ("data_set", DATA_SETS)):
        chosen = np.asarray(words, dtype=object)[rng.integers(0, 3, n_stars)]
        columns[name] = pa.array(chosen, pa.string(), mask=is_unlabelled)
    return pa.table(columns)


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("n_stars", [0, 1, 10, FEWEST_DENSE + 1000])
def test_both_pictures_are_drawn_for_any_number_of_stars(tmp_path: Path, n_stars: int) -> None:
    catalog = make_catalog(n_stars)
    kiel_diagram(catalog, tmp_path / "kiel.png", title="Some stars")
    label_comparison(catalog, tmp_path / "labels.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kiel.png", "labels.png"]
    for path in tmp_path.iterdir():
        assert is_png(path)
        height, width, _ = imread(path).shape
        assert 1200 <= width <= 2000
        assert 600 <= height <= 1600


def test_a_catalogue_without_labels_is_drawn(tmp_path: Path) -> None:
    catalog = make_catalog(30, n_unlabelled=30)
    kiel_diagram(catalog, tmp_path / "kiel.png")
    label_comparison(catalog, tmp_path / "labels.png")
    assert is_png(tmp_path / "kiel.png")
    assert is_png(tmp_path / "labels.png")


@pytest.mark.long
def test_the_same_catalogue_gives_the_same_bytes(tmp_path: Path) -> None:
    catalog = make_catalog(60)
    for name in ("first.png", "second.png"):
        kiel_diagram(catalog, tmp_path / name)
        with mpl.rc_context({"font.size": 30, "savefig.dpi": 10, "axes.facecolor": "red"}):
            label_comparison(catalog, tmp_path / f"labels-{name}")
        # the settings of a user's matplotlib do not count
        label_comparison(catalog, tmp_path / f"plain-{name}")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert (tmp_path / "labels-first.png").read_bytes() == (tmp_path / "plain-second.png").read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("n_stars", [60, FEWEST_DENSE + 100])
def test_pieces_of_any_length_give_the_same_bytes(tmp_path: Path, n_stars: int) -> None:
    catalog = make_catalog(n_stars)
    cuts = [0, 1, 1, 40, n_stars - 7, n_stars]
    for name, draw in (("kiel", kiel_diagram), ("labels", label_comparison)):
        draw(catalog, tmp_path / f"{name}-whole.png")
        pieces = (catalog.slice(start, stop - start) for start, stop in pairwise(cuts))
        draw(pieces, tmp_path / f"{name}-pieces.png")
        whole, from_pieces = (tmp_path / f"{name}-{how}.png" for how in ("whole", "pieces"))
        assert from_pieces.read_bytes() == whole.read_bytes()


def test_no_date_and_no_version_is_in_the_file(tmp_path: Path) -> None:
    kiel_diagram(make_catalog(10), tmp_path / "kiel.png")
    content = (tmp_path / "kiel.png").read_bytes()
    assert b"tEXt" not in content
    assert b"iTXt" not in content
    assert b"tIME" not in content


def test_hot_stars_are_left_and_giants_above(tmp_path: Path) -> None:
    giant, dwarf = (1.0, 4000.0, 0.0), (4.5, 6000.0, 0.0)
    rows = np.array([giant] * 200 + [dwarf])
    columns = {name: pa.array(rows[:, i]) for i, name in enumerate(LABEL_NAMES)}
    nothing = {f"{name}_label": pa.nulls(len(rows), pa.float32()) for name in LABEL_NAMES}
    words = {name: pa.nulls(len(rows), pa.string()) for name in ("data_type", "data_set")}
    kiel_diagram(pa.table(columns | nothing | words), tmp_path / "kiel.png")
    picture = imread(tmp_path / "kiel.png")[:, :, :3]
    height, width, _ = picture.shape
    panel = picture[int(0.06 * height) : int(0.88 * height), int(0.05 * width) : int(0.465 * width)]
    is_coloured = panel.max(axis=2) - panel.min(axis=2) > 0.2
    y, x = np.nonzero(is_coloured)
    assert y[x > panel.shape[1] / 2].max() < panel.shape[0] / 2  # the cool giant: right, above
    assert y[x < panel.shape[1] / 2].min() > panel.shape[0] / 2  # the hot dwarf: left, below


def test_a_wild_prediction_does_not_squeeze_the_others(tmp_path: Path) -> None:
    catalog = make_catalog(40)
    wild = {name: pa.array([*catalog[name].to_pylist()[:-1], 1e9], pa.float64()) for name in LABEL_NAMES}
    for name, column in wild.items():
        catalog = catalog.set_column(catalog.column_names.index(name), name, column)
    kiel_diagram(catalog, tmp_path / "kiel.png")
    label_comparison(catalog, tmp_path / "labels.png")
    assert is_png(tmp_path / "kiel.png")
    assert is_png(tmp_path / "labels.png")


def test_a_picture_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "kiel.png"
    path.write_bytes(b"old")
    with pytest.raises(KeyError):
        kiel_diagram(make_catalog(10).drop_columns(["data_type"]), path)
    assert [p.name for p in tmp_path.iterdir()] == ["kiel.png"]
    assert path.read_bytes() == b"old"


def test_limits_hold_the_values_inside_the_frame() -> None:
    low, high = find_limits(np.array([3000.0, 5000.0, 1e9, np.nan]), within=(2000.0, 8000.0))
    assert 2000 < low < 3000
    assert 5000 < high < 8000
    assert find_limits(np.array([]), within=(0.0, 1.0)) == (0.0, 1.0)
    low, high = find_limits(np.array([4.0, 4.0]), within=(0.0, 5.0))
    assert low < 4 < high


def test_the_colours_grow_steadily_brighter() -> None:
    red, green, blue, _ = metallicity_colours()(np.linspace(0, 1, 50)).T
    brightness = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    assert np.all(np.diff(brightness) > 0)
    assert brightness[-1] < 0.85  # still seen on white


@pytest.mark.parametrize("data_type", TYPE_COLOURS)
def test_colours_of_density_grow_steadily_darker(data_type: str) -> None:
    red, green, blue, _ = density_colours(data_type)(np.linspace(0, 1, 50)).T
    brightness = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    assert np.all(np.diff(brightness) < 0)
    assert brightness[0] < 0.95  # one star is seen on white


def test_the_pictures_leave_pyplot_alone(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    kiel_diagram(make_catalog(10), tmp_path / "kiel.png")
    assert dict(mpl.rcParams) == before


def test_each_type_has_its_number_bias_and_scatter_on_common_axes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[mpl.figure.Figure] = []
    monkeypatch.setattr(mpl.figure.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    catalog = make_catalog(900)
    label_comparison(catalog, tmp_path / "labels.png")
    panels = np.array(drawn[0].axes).reshape(4, 3)
    table = catalog.to_pandas().query("data_set == 'test' and teff == teff")
    for column, (name, shown) in enumerate((("teff", ".0f"), ("logg", ".3f"), ("fe_h", ".3f"))):
        assert len({panel.get_ylim() for panel in panels[1:, column]}) == 1
        assert len({panel.get_xlim() for panel in panels[:, column]}) == 1
        for panel, data_type in zip(panels[1:, column], DATA_TYPES, strict=True):
            chosen = table[table["data_type"] == data_type]
            difference = chosen[name].astype(float) - chosen[f"{name}_label"].astype(float)
            bias = difference.median()
            scatter = 1.4826 * (difference - bias).abs().median()
            title = panel.get_title(loc="left")
            assert title.startswith(f"n {len(chosen)}   bias {bias:+{shown}} ")
            assert title.endswith(f"scatter {scatter:{shown}}")


def test_a_type_without_test_stars_has_an_empty_panel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[mpl.figure.Figure] = []
    monkeypatch.setattr(mpl.figure.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    catalog = make_catalog(90)
    only_payne = catalog.filter(np.array(catalog["data_type"].to_pylist()) == "payne")
    label_comparison(only_payne, tmp_path / "labels.png")
    assert [axes.get_title(loc="left")[:4] for axes in drawn[0].axes[6:]] == ["n 0"] * 6
