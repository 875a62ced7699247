"""The schemas are complete and agree with one another."""

import astropy.units as u
import pyarrow as pa
import pytest

from apogee_batch import schema
from apogee_batch.schema import Column

ALL_COLUMNS = schema.catalog_columns() + schema.star_columns() + schema.reject_columns()


@pytest.mark.parametrize("column", ALL_COLUMNS, ids=lambda c: c.name)
def test_every_column_has_a_type_a_unit_that_astropy_knows_and_words(column: Column) -> None:
    assert pa.type_for_alias(column.dtype) is not None
    assert column.description.endswith(")") or column.description[-1].isalnum()
    assert column.ucd
    if column.unit:
        u.Unit(column.unit)


def test_units_and_words_are_in_the_arrow_fields() -> None:
    field = schema.arrow_schema(schema.catalog_columns()).field("teff")
    assert field.metadata[b"unit"] == b"K"
    assert field.metadata[b"ucd"] == b"phys.temperature.effective"
    assert b"unit" not in schema.arrow_schema(schema.catalog_columns()).field("flags").metadata


def test_flags_have_bits_of_their_own() -> None:
    flags = schema.catalog_flags()
    assert len({flag.bit for flag in flags.values()}) == len(flags)
    wanted = {"LOW_SNR", "TEFF_EDGE", "OUTSIDE_TRAINING", "MANY_BAD_PIXELS", "STARFLAG_BAD", "HIGH_SCATTER"}
    assert wanted | {"DUPLICATE"} <= set(flags)
    assert flags["LOW_SNR"].threshold == 20
    assert flags["HIGH_SCATTER"].threshold_by_label["teff"] == 200


def test_columns_that_catalogue_and_star_table_share_have_one_type() -> None:
    stars = {column.name: column for column in schema.star_columns()}
    for column in schema.catalog_columns():
        if column.name in stars:
            assert (column.dtype, column.unit) == (stars[column.name].dtype, stars[column.name].unit)
