"""The page tells beside the predictions how far they are pulled to the middle of the labels."""

from pathlib import Path

import numpy as np
from labelled_catalogs import make_catalog, validate_catalog

from apogee_batch.report.page_figures import Picture
from apogee_batch.report.page_sections_labels import labels_section

PICTURE = Picture(Path("labels.png"), "labels")


def test_the_table_has_bias_and_slope_of_each_type_and_label_of_the_test_set() -> None:
    label = np.linspace(3000, 5000, 9)
    columns = {"teff_label": label, "teff": label + 0.5 * (3500 - label), "data_type": ["yso"] * 9}
    found = validate_catalog(make_catalog(9, data_set=["test"] * 9, **columns))
    (table,) = labels_section(PICTURE, found).tables
    assert [row[:3] for row in table.rows if row[1] == "Teff (K)"] == [
        ("Full", "Teff (K)", "9"),
        ("YSO", "Teff (K)", "9"),
    ]  # no row of a type without stars
    row = dict(
        zip(table.header, next(row for row in table.rows if row[:2] == ("YSO", "Teff (K)")), strict=True)
    )
    assert (row["bias"], row["slope"]) == ("-250.0", "-0.50")
    assert row["spread of the labels"] == "645.5"  # 2000 / 8 x sqrt(60 / 9)


def test_without_a_picture_there_is_no_table() -> None:
    found = validate_catalog(make_catalog(5, data_type=[None] * 5))
    section = labels_section(None, found)
    assert section.tables == ()
    assert "No star of this catalogue has a label" in section.missing[0]
