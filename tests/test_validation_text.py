"""A validation as text and as Markdown."""

from typing import Any

import numpy as np
import pytest
from labelled_catalogs import make_catalog, validate_catalog

from apogee_batch.report.validation import Validation
from apogee_batch.report.validation_text import DEFAULT_WIDTH, snr_markdown, validation_text


def make_validation(n_stars: int = 300, **columns: Any) -> Validation:
    return validate_catalog(make_catalog(n_stars, **columns))


@pytest.mark.parametrize("width", [80, DEFAULT_WIDTH])
def test_the_text_fits_the_terminal(width: int) -> None:
    lines = validation_text(make_validation(), width).splitlines()
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)


def test_all_tables_are_told_in_their_order() -> None:
    text = validation_text(make_validation())
    titles = (
        "Validation of run 0123456789abcdef: 300 stars, 300 labelled",
        "Table 2.",
        "Table 3.",
        "Residuals (prediction - label)",
        "Test set by SNR",
        "Test set by label Teff (K)",
        "Pulls of the test set",
        "Coverage of the test set by SNR, sigma of the realizations",
        "Coverage of the test set by SNR, calibrated sigma",
    )
    places = [text.index(title) for title in titles]
    assert places == sorted(places)


def test_the_numbers_of_a_row_are_those_of_its_bin() -> None:
    residuals = [3.0, -1.0, 4.0, -1.0]
    found = make_validation(
        4,
        data_type=["mstar"] * 4,
        snr=[15.0, 15.0, 30.0, 30.0],
        teff_label=[3200.0] * 4,
        teff=[3200.0 + residual for residual in residuals],
    )
    rows = [line.split() for line in validation_text(found).split("Test set by SNR")[1].splitlines()]
    row = next(row for row in rows if row[:1] == ["20-50"])
    assert row[5:8] == ["2.9", "+1.5", "3.7"]  # sqrt(17 / 2), the middle of 4 and -1, 1.4826 x 2.5
    assert "No star of the test set: Payne, YSO." in validation_text(found)


def test_a_bin_without_stars_says_so() -> None:
    text = validation_text(make_validation(30, snr=[300.0] * 30)).split("Test set by SNR")[1]
    row = next(line.split() for line in text.splitlines() if line.startswith("Full"))
    assert row == ["Full", "<10", "0", *["-"] * 9]


def test_stars_without_an_snr_have_a_row_only_where_there_are_any() -> None:
    assert "unknown" not in validation_text(make_validation(30))
    assert "unknown" in validation_text(make_validation(30, snr=[None] * 30))


def residual_text(**columns: Any) -> str:
    """Return the text from the residuals on, in which all three sets stand side by side."""
    return validation_text(make_validation(9, **columns), 200).split("Residuals")[1]


def test_a_bias_has_a_sign_unless_it_is_shown_as_zero() -> None:
    label = np.full(9, 4000.0)
    text = residual_text(teff_label=label, teff=label - 0.01)
    row = next(line.split() for line in text.splitlines() if "Teff (K)" in line)
    assert row[-4] == "0.0"
    text = residual_text(teff_label=label, teff=label - 2)
    row = next(line.split() for line in text.splitlines() if "Teff (K)" in line)
    assert row[-4] == "-2.0"


def test_the_text_has_the_slope_beside_the_bias() -> None:
    label = np.linspace(3000, 5000, 9)
    told = residual_text(teff_label=label, teff=label + 0.5 * (3500 - label))
    row = next(line.split() for line in told.splitlines() if "Teff (K)" in line)
    assert row[-4:-2] == ["-250.0", "-0.50"]
    assert "bias  slope  scatter  out %" in told


def test_calibrated_sigmas_that_do_not_exist_are_named() -> None:
    none: dict[str, Any] = {f"e_{name}_total": [None] * 30 for name in ("logg", "teff", "fe_h")}
    text = validation_text(make_validation(30, **none))
    assert "No star has a calibrated sigma: e_logg_total, e_teff_total, e_fe_h_total hold none." in text
    assert "Coverage of the test set by SNR, calibrated" not in text


def test_a_catalogue_without_labels_says_so_plainly() -> None:
    text = validation_text(make_validation(5, data_type=[None] * 5))
    assert "No star of this catalogue has a label and a data set" in text
    assert "Table 2" not in text


def test_the_markdown_is_one_table_of_types_and_snr() -> None:
    lines = snr_markdown(make_validation(9, data_type=["payne"] * 9, snr=[30.0] * 9)).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(row) for row in cells} == {12}
    assert cells[0][:4] == ["type", "SNR", "stars", "Teff (K) rms"]
    assert set(cells[1]) == {"---", "---:"}
    assert ["Payne", "20-50", "9"] in [row[:3] for row in cells]
    assert ["YSO", "all", "0", *["-"] * 9] in cells
    whole, part = (next(row for row in cells if row[:2] == ["Payne", name]) for name in ("all", "20-50"))
    assert whole[2:] == part[2:]
