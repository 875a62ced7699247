"""Tables 2 and 3 and their text."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.report.labelled import LabelledStars, gather_labelled
from apogee_batch.report.tables import ALL_TYPES, PAPER_MSE, PAPER_RMS, ROW_TITLES, Results, results
from apogee_batch.report.text import Block, lay_out
from apogee_batch.schema import DATA_SETS, DATA_TYPES, LABEL_NAMES

LABEL_STD = (1.16, 733.0, 0.3)
ZERO = (0.0, 0.0, 0.0)
LABEL = (2.5, 4800.0, -0.1)

Row = tuple[str | None, str | None, tuple[float | None, ...], tuple[float | None, ...]]


def add(residual: float | None, label: float | None) -> float | None:
    return None if residual is None or label is None else residual + label


def make_stars(rows: list[Row]) -> LabelledStars:
    """Gather stars from (data_type, data_set, label, residual)."""
    columns: dict[str, pa.Array] = {
        "data_type": pa.array([row[0] for row in rows], pa.string()),
        "data_set": pa.array([row[1] for row in rows], pa.string()),
    }
    for i, name in enumerate(LABEL_NAMES):
        labels = [row[2][i] for row in rows]
        predictions = [add(row[3][i], LABEL[i] if row[2][i] is None else row[2][i]) for row in rows]
        columns[name] = pa.array(predictions, pa.float64())
        columns[f"{name}_label"] = pa.array(labels, pa.float64())
    return gather_labelled([pa.table(columns)])


def test_a_network_without_error_has_no_rms() -> None:
    rows: list[Row] = [(t, s, LABEL, ZERO) for t in DATA_TYPES for s in DATA_SETS]
    measured = results(make_stars(rows), label_std=LABEL_STD)
    assert all(group.mse == 0.0 for group in measured.agreements)
    assert all(set(group.rms.values()) == {0.0} for group in measured.agreements)


def test_the_normalised_mse_is_the_mean_over_three_labels() -> None:
    rows: list[Row] = [("yso", "test", LABEL, (1.16, 0.0, 0.0)), ("yso", "test", LABEL, (0.0, -733.0, 0.6))]
    group = results(make_stars(rows), label_std=LABEL_STD).get("yso", "test")
    assert group.mse == pytest.approx((1 + 0 + 0 + 0 + 1 + 4) / 6)
    assert group.rms == pytest.approx(
        {"logg": 1.16 / math.sqrt(2), "teff": 733 / math.sqrt(2), "fe_h": 0.6 / math.sqrt(2)}
    )


def test_guessing_the_mean_label_has_an_rms_equal_to_the_label_spread() -> None:
    labels = np.random.default_rng(1).normal(LABEL, LABEL_STD, (50, 3))
    rows: list[Row] = [("payne", "test", tuple(row), tuple(labels.mean(axis=0) - row)) for row in labels]
    group = results(make_stars(rows), label_std=LABEL_STD).get("payne", "test")
    assert group.rms == pytest.approx(group.label_spread)


def test_full_is_all_types_together() -> None:
    rows: list[Row] = [(data_type, "dev", LABEL, (0.1, 10.0, 0.01)) for data_type in DATA_TYPES]
    rows += [(None, "dev", LABEL, ZERO), ("payne", None, LABEL, ZERO)]
    measured = results(make_stars(rows), label_std=LABEL_STD)
    assert measured.get(ALL_TYPES, "dev").n_stars == len(DATA_TYPES)
    assert measured.get(ALL_TYPES, "test").n_stars == 0


@pytest.mark.parametrize(
    "row",
    [
        ("mstar", "test", (2.5, None, -0.1), ZERO),
        ("mstar", "test", (2.5, math.nan, -0.1), ZERO),
        ("mstar", "test", LABEL, (None, 0.0, 0.0)),
        ("mstar", "test", LABEL, (math.inf, 0.0, 0.0)),
    ],
)
def test_a_star_that_lacks_a_number_is_counted_and_left_out(row: Row) -> None:
    rows: list[Row] = [row, ("mstar", "test", LABEL, (0.2, 0.0, 0.0))]
    measured = results(make_stars(rows), label_std=LABEL_STD)
    group = measured.get("mstar", "test")
    assert (group.n_stars, group.n_left_out) == (1, 1)
    assert group.rms["logg"] == pytest.approx(0.2)
    assert "left out for want of a label or a prediction: 1." in measured.to_text()


def test_an_empty_catalogue_has_tables_without_numbers() -> None:
    measured = results(make_stars([]), label_std=LABEL_STD)
    assert all(group.mse is None and not group.rms for group in measured.agreements)
    assert "Full        0     -  0.044 " in measured.to_text()
    assert json.loads(json.dumps(measured.to_json(), allow_nan=False)) == measured.to_json()


def test_columns_without_any_value_are_read() -> None:
    columns = {name: pa.nulls(2) for name in ("data_type", "data_set")}
    columns |= {name: pa.nulls(2, pa.float32()) for name in LABEL_NAMES}
    columns |= {f"{name}_label": pa.nulls(2) for name in LABEL_NAMES}
    assert (
        results(gather_labelled([pa.table(columns)]), label_std=LABEL_STD).get(ALL_TYPES, "test").n_stars == 0
    )


def test_the_papers_numbers_stand_beside_ours() -> None:
    measured = results(make_stars([("yso", "test", LABEL, ZERO)]), label_std=LABEL_STD)
    entry = next(
        group
        for group in measured.to_json()["groups"]
        if (group["data_type"], group["data_set"]) == ("yso", "test")
    )
    assert entry["paper"] == {"mse": 0.217, "rms": {"logg": 0.4, "teff": 490.99, "fe_h": 0.0879}}
    assert measured.get("payne", "test").paper_mse is None
    assert "491.0" in measured.to_text()


def test_the_papers_tables_have_a_number_for_every_data_set() -> None:
    for data_type in set(ROW_TITLES) - {"payne"}:
        assert len(PAPER_MSE[data_type]) == len(PAPER_RMS[data_type]) == len(DATA_SETS)


def test_neither_order_nor_pieces_of_the_stars_change_a_digit() -> None:
    rng = np.random.default_rng(5)
    rows: list[Row] = [
        (DATA_TYPES[i % 3], "test", tuple(rng.normal(LABEL, LABEL_STD)), tuple(rng.normal(0, LABEL_STD)))
        for i in range(200)
    ]
    told = results(make_stars(rows), label_std=LABEL_STD)
    assert results(make_stars([rows[i] for i in rng.permutation(200)]), label_std=LABEL_STD) == told


@pytest.mark.parametrize("label_std", [(1.0, 2.0), (1.0, 0.0, 1.0), (1.0, math.nan, 1.0)])
def test_a_label_std_that_cannot_divide_is_refused(label_std: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="positive numbers"):
        results(make_stars([]), label_std=label_std)


def make_large() -> Results:
    """Tables with numbers as wide as those of all of DR14."""
    large = results(make_stars([("payne", "train", LABEL, (0.1, 99.9, 0.1))]), label_std=LABEL_STD)
    return Results(
        large.label_std,
        tuple(
            type(group)(
                group.data_type,
                group.data_set,
                222_707,
                0,
                0.1234,
                dict.fromkeys(LABEL_NAMES, 0.1),
                dict.fromkeys(LABEL_NAMES, 1.1),
            )
            for group in large.agreements
        ),
    )


def test_the_text_of_a_whole_survey_fits_80_columns() -> None:
    lines = make_large().to_text().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert all(line == line.rstrip() for line in lines)


@given(width=st.integers(1, 200))
@settings(max_examples=25, deadline=None)
def test_no_width_loses_a_number(width: int) -> None:
    words = make_large().to_text(width).split()
    assert words.count("222,707") == words.count("0.1234") == len(ROW_TITLES) * len(DATA_SETS)
    assert words.count("491.0") == 1


def test_blocks_that_do_not_fit_stand_below_one_another() -> None:
    blocks = [Block(title, ("here", "paper"), (("1", "22"), ("333", ""))) for title in ("train", "test")]
    assert lay_out(["a", "bb"], blocks, 80) == (
        "        train          test\n"
        "     here  paper   here  paper\n"
        "a       1     22      1     22\n"
        "bb    333           333"
    )
    assert lay_out(["a", "bb"], blocks, 20).count("train") == 1
    assert len(lay_out(["a", "bb"], blocks, 20).splitlines()) == 4 + 1 + 4


def test_a_block_with_a_ragged_row_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        Block("train", ("here", "paper"), (("1",),))
