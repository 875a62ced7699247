"""Who wants a field of the sky reads a small part of the published Parquet file."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from apogee_batch.catalog.export import write_parquet
from apogee_batch.catalog.rows import ROW_GROUP_ROWS, CatalogRows, Summary
from apogee_batch.catalog.sky_order import NOWHERE, cut_into_fields, healpix_index, in_sky_order
from apogee_batch.schema import BoolArray, arrow_schema, catalog_columns

N_STARS = 200_000
RANDOM = np.random.default_rng(11)
RA = RANDOM.uniform(0, 360, N_STARS)
DEC = np.degrees(np.arcsin(RANDOM.uniform(-1, 1, N_STARS)))
BOXES = {  # ra and dec, degrees
    "in one pixel": ((120.0, 122.0), (30.0, 32.0)),
    "on the equator, where pixels meet": ((89.0, 91.0), (-1.0, 1.0)),
    "in the south": ((300.0, 303.0), (-62.0, -60.0)),
}


def synthetic_catalogue() -> pa.Table:
    """Return stars all over the sky; other columns are of no matter."""
    columns = {}
    for column in catalog_columns():
        if column.dtype == "string":
            columns[column.name] = pa.array(np.char.mod("2M%06d", np.arange(N_STARS)))
        else:
            columns[column.name] = pa.array(np.arange(N_STARS) % 97).cast(column.dtype)
    has_place = pa.array(np.arange(N_STARS) % 1000 != 0)
    columns |= {"ra": pc.if_else(has_place, RA, None), "dec": pc.if_else(has_place, DEC, None)}
    return pa.table(columns, schema=arrow_schema(catalog_columns()))


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sky")
    table, summary = synthetic_catalogue(), Summary()
    summary.add(table)
    rows = CatalogRows(lambda: [table], summary)
    with in_sky_order(rows, [table.select(["ra", "dec"])], staging=folder) as ordered:
        write_parquet(ordered, folder / "catalog.parquet", metadata={})
    return folder / "catalog.parquet"


def in_box(box: str) -> BoolArray:
    (ra_from, ra_to), (dec_from, dec_to) = BOXES[box]
    inside: BoolArray = (ra_from < RA) & (ra_to > RA) & (dec_from < DEC) & (dec_to > DEC)
    return inside & (np.arange(N_STARS) % 1000 != 0)


def filter_of(box: str) -> pc.Expression:
    (ra_from, ra_to), (dec_from, dec_to) = BOXES[box]
    ra, dec = pc.field("ra"), pc.field("dec")
    return (ra > ra_from) & (ra < ra_to) & (dec > dec_from) & (dec < dec_to)


def groups_read(catalogue: Path, box: str) -> list[int]:
    """Return the row groups that the statistics do not rule out, as pyarrow sees it."""
    (fragment,) = ds.dataset(catalogue).get_fragments()
    return [group.id for part in fragment.split_by_row_group(filter_of(box)) for group in part.row_groups]


@pytest.mark.parametrize("box", BOXES)
def test_statistics_rule_out_most_of_the_file(box: str, catalogue: Path) -> None:
    metadata = pq.read_metadata(catalogue)
    n_rows = sum(metadata.row_group(i).num_rows for i in groups_read(catalogue, box))
    assert n_rows < 0.15 * N_STARS  # in the order of a store it would be all of them
    assert in_box(box).sum() > 10


@pytest.mark.parametrize("box", BOXES)
def test_readers_do_not_look_at_what_is_ruled_out(box: str, catalogue: Path, tmp_path: Path) -> None:
    """Destroy all other row groups: the box is found nevertheless."""
    content, metadata = bytearray(catalogue.read_bytes()), pq.read_metadata(catalogue)
    for i in set(range(metadata.num_row_groups)) - set(groups_read(catalogue, box)):
        for j in range(metadata.num_columns):
            chunk = metadata.row_group(i).column(j)
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            content[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(content)
    expected = sorted(np.char.mod("2M%06d", np.flatnonzero(in_box(box))).tolist())
    found = pq.read_table(damaged, filters=filter_of(box), columns=["apogee_id"])
    assert sorted(found["apogee_id"].to_pylist()) == expected
    (ra_from, ra_to), (dec_from, dec_to) = BOXES[box]
    with duckdb.connect() as connection:
        rows = connection.execute(
            "select apogee_id from read_parquet(?) where ra > ? and ra < ? and dec > ? and dec < ?",
            [str(damaged), ra_from, ra_to, dec_from, dec_to],
        ).fetchall()
    assert sorted(name for (name,) in rows) == expected


def test_every_column_of_every_group_has_statistics(catalogue: Path) -> None:
    metadata = pq.read_metadata(catalogue)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    assert all(group.num_rows <= ROW_GROUP_ROWS for group in groups)
    assert sum(group.num_rows for group in groups) == N_STARS
    for group in groups:
        for j in range(metadata.num_columns):
            chunk = group.column(j)
            assert chunk.compression == "ZSTD"
            assert chunk.statistics.has_null_count
            is_position = chunk.path_in_schema in ("ra", "dec")
            assert chunk.statistics.has_min_max or (is_position and group is groups[-1])
        assert not group.sorting_columns  # there is no column that the rows are sorted by
    assert groups[-1].num_rows == groups[-1].column(5).statistics.null_count == N_STARS / 1000


def test_a_group_lies_in_one_pixel_and_is_not_too_long() -> None:
    index = np.sort(healpix_index(RA, DEC))
    index[-500:] = NOWHERE
    lengths = cut_into_fields(index)
    assert sum(lengths) == N_STARS
    assert max(lengths) <= ROW_GROUP_ROWS
    assert N_STARS / len(lengths) > ROW_GROUP_ROWS / 4
    ends = np.cumsum(lengths)
    pixels = index >> 2 * 28  # 200,000 stars: of order 1
    assert (pixels[ends - 1] == pixels[ends - np.array(lengths)]).all()


@pytest.mark.parametrize("n_stars", [0, 1, 48, ROW_GROUP_ROWS])
def test_few_rows_are_one_group(n_stars: int) -> None:
    index = np.sort(healpix_index(RA[:n_stars], DEC[:n_stars]))
    assert cut_into_fields(index) == ((n_stars,) if n_stars else ())


def test_stars_at_one_place_are_cut_evenly() -> None:
    assert cut_into_fields(np.full(3 * ROW_GROUP_ROWS + 1, 7)) == (6144, 6144, 6144, 6145)
