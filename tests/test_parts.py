"""Parts: however the rows were shared out, the catalogue is the same; what is wrong is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_rows import label_rows, star_table

from apogee_batch.catalog.export import write_fits, write_parquet
from apogee_batch.catalog.merge import merge_parts
from apogee_batch.catalog.parts import Judgement, build_part, write_part
from apogee_batch.errors import IntegrityError
from apogee_batch.schema import LABEL_NAMES, arrow_schema, catalog_columns, catalog_flags

N_STARS = 12
STARS = star_table(
    N_STARS,
    row=np.arange(N_STARS) * 3,
    apogee_id=[f"2M{i // 2}" for i in range(N_STARS)],
    location_id=[None if i % 5 == 0 else i for i in range(N_STARS)],
    telescope=[None if i % 4 == 0 else "apo25m" for i in range(N_STARS)],
    j=[np.nan if i % 3 == 0 else 11.5 for i in range(N_STARS)],
)
LABELS = label_rows(STARS, [1, 5, 6, 11])


def estimates(n_stars: int) -> dict[str, Any]:
    """Return the estimates of some stars; the third has none."""
    mean = np.linspace([3.0, 4000.0, -1.0], [4.5, 6000.0, 0.0], n_stars)
    mean[2:3] = np.nan
    return {"mean": mean, "std": np.full((n_stars, 3), 0.05), "clean": mean + 0.01, "n_realizations": 100}


def part_of(rows: slice) -> pa.Table:
    """Return the catalogue rows of some stars of the store."""
    values = {k: v[rows] if isinstance(v, np.ndarray) else v for k, v in estimates(N_STARS).items()}
    return build_part(STARS.take(np.arange(N_STARS)[rows]), **values, labels=LABELS, label_range=None)


def write_parts(folder: Path, cuts: list[int]) -> list[Path]:
    """Write the store as parts that end at `cuts`."""
    paths = []
    for k, (start, stop) in enumerate(zip([0, *cuts], [*cuts, N_STARS], strict=True)):
        paths.append(folder / f"part-{k}.parquet")
        write_part(paths[-1], part_of(slice(start, stop)))
    return paths


def read_parts(paths: list[Path]) -> pa.Table:
    """Return the whole catalogue of some parts."""
    return pa.concat_tables(merge_parts(paths).pieces())


def test_a_part_has_the_columns_of_the_catalogue_and_real_nulls() -> None:
    part = part_of(slice(None))
    assert part.schema.equals(arrow_schema(catalog_columns()), check_metadata=False)
    for field in part.schema:
        assert field.metadata[b"description"]
        if pa.types.is_floating(field.type):
            assert not np.isnan(part[field.name].drop_null().to_numpy()).any()
    row = part.to_pylist()[2]
    for name in LABEL_NAMES:
        assert row[name] is row[f"e_{name}"] is row[f"{name}_clean"] is None
    assert row["flags"] & (1 << catalog_flags()["NO_PREDICTION"].bit)
    assert part["j"].null_count == 4
    assert part["telescope"].null_count == 3
    assert part["data_set"].to_pylist()[:3] == [None, "train", None]
    assert part["teff_label"].null_count == N_STARS - 4
    assert part["logg_label"].to_pylist()[5] == 4.5
    assert part["n_realizations"].to_pylist() == [100] * N_STARS


def test_predictions_stay_with_their_star_whatever_the_order_of_the_rows() -> None:
    order = np.random.default_rng(1).permutation(N_STARS)
    values = {k: v[order] if isinstance(v, np.ndarray) else v for k, v in estimates(N_STARS).items()}
    shuffled = build_part(STARS.take(order), **values, labels=LABELS, label_range=None)
    assert shuffled.equals(part_of(slice(None)))


def test_the_columns_of_a_calibration_are_null_without_a_prediction_or_a_calibration() -> None:
    total, score = np.full((N_STARS, 3), 0.5), np.arange(N_STARS, dtype=np.float32)
    total[4, 0], score[5] = np.nan, np.nan
    judgement = Judgement(total=total, strangeness=score, is_strange=score > 7)
    values = estimates(N_STARS)
    part = build_part(STARS, **values, labels=LABELS, label_range=None, judgement=judgement)
    assert [i for i, value in enumerate(part["e_logg_total"].to_pylist()) if value is None] == [2, 4]
    assert [i for i, value in enumerate(part["e_teff_total"].to_pylist()) if value is None] == [2]
    assert [i for i, value in enumerate(part["strangeness"].to_pylist()) if value is None] == [2, 5]
    bit = 1 << catalog_flags()["STRANGE_SPECTRUM"].bit
    assert [i for i, flags in enumerate(part["flags"].to_pylist()) if flags & bit] == [8, 9, 10, 11]
    bare = build_part(STARS, **values, labels=LABELS, label_range=None)
    for name in ("e_logg_total", "e_teff_total", "e_fe_h_total", "strangeness"):
        assert bare[name].null_count == N_STARS


def test_one_realization_gives_labels_without_scatter() -> None:
    values = estimates(N_STARS) | {"std": np.full((N_STARS, 3), np.nan), "n_realizations": 1}
    part = build_part(STARS, **values, labels=LABELS, label_range=None)
    assert part["e_teff"].null_count == N_STARS
    assert part["teff"].null_count == 1


def test_what_float32_cannot_hold_is_no_prediction() -> None:
    values = estimates(N_STARS)
    values["mean"][:] = 1e300
    part = build_part(STARS, **values, labels=LABELS, label_range=None)
    assert part["teff"].null_count == N_STARS
    assert set(part["flags"].to_pylist()) == {1 << catalog_flags()["NO_PREDICTION"].bit}


def test_a_store_without_labels_and_a_shard_without_stars_make_parts() -> None:
    part = build_part(STARS, **estimates(N_STARS), labels=LABELS.slice(0, 0), label_range=None)
    assert part["data_type"].null_count == N_STARS
    empty = {k: v[:0] if isinstance(v, np.ndarray) else v for k, v in estimates(3).items()}
    assert build_part(STARS.slice(0, 0), **empty, labels=LABELS, label_range=None).num_rows == 0


def test_labels_of_another_store_are_refused() -> None:
    others = LABELS.set_column(1, LABELS.schema.field(1), pa.array(["someone.else"] * 4))
    with pytest.raises(IntegrityError, match="labels belong to another store"):
        build_part(STARS, **estimates(N_STARS), labels=others, label_range=None)


def test_estimates_of_other_stars_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        build_part(STARS, **estimates(N_STARS - 1), labels=LABELS, label_range=None)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Return the catalogue files of the store made as one part."""
    folder = tmp_path_factory.mktemp("whole")
    return publish(folder, write_parts(folder, []))


def publish(folder: Path, paths: list[Path]) -> tuple[bytes, bytes]:
    catalog = merge_parts(paths)
    write_parquet(catalog, folder / "c.parquet", metadata={"run_id": "x"})
    write_fits(catalog, folder / "c.fits", metadata={"run_id": "x"})
    return (folder / "c.parquet").read_bytes(), (folder / "c.fits").read_bytes()


@given(st.lists(st.integers(0, N_STARS), max_size=6).map(sorted), st.randoms(use_true_random=False))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_partition_merged_in_any_order_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    published: tuple[bytes, bytes],
    cuts: list[int],
    random: Any,
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    paths = write_parts(folder, cuts)
    random.shuffle(paths)
    assert publish(folder, paths) == published


def test_a_part_can_be_written_twice_and_is_the_same(tmp_path: Path) -> None:
    path = write_parts(tmp_path, [])[0]
    before = path.read_bytes()
    write_part(path, part_of(slice(None)), staging=tmp_path / "staging")
    assert path.read_bytes() == before
    assert list((tmp_path / "staging").iterdir()) == []


def test_all_missing_parts_are_named_before_any_is_read(tmp_path: Path) -> None:
    paths = write_parts(tmp_path, [4, 8])
    paths[0].write_bytes(b"never read")
    paths[1].unlink()
    paths[2].unlink()
    with pytest.raises(IntegrityError, match=r"2 of 3 parts are missing.*part-1.*part-2"):
        read_parts(paths)
    with pytest.raises(IntegrityError, match="missing"):
        read_parts([])


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    path = write_parts(tmp_path, [])[0]
    good = path.read_bytes()
    for content in (good[:100], good[:-5], b""):
        path.write_bytes(content)
        with pytest.raises(IntegrityError, match=r"part-0.parquet: damaged"):
            read_parts([path])


def test_a_flipped_bit_never_changes_a_value(tmp_path: Path) -> None:
    path = write_parts(tmp_path, [])[0]
    good = path.read_bytes()
    undamaged = read_parts([path])
    n_caught = 0
    offsets = range(4, 3000, 23)  # the pages; a flip in the statistics of one does no harm
    for offset in offsets:
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 1]) + good[offset + 1 :])
        try:
            assert read_parts([path]).equals(undamaged)
        except IntegrityError:
            n_caught += 1
    assert n_caught > len(offsets) / 2


def test_other_tables_are_no_parts(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(IntegrityError, match="no part of a catalogue"):
        read_parts([path])
    table = part_of(slice(None))
    newer = {**table.schema.metadata, b"apogee_batch.catalog_version": b"999"}
    write_part(path, table.replace_schema_metadata(newer))
    with pytest.raises(IntegrityError, match="no part of a catalogue of version 2"):
        read_parts([path])


def test_rows_that_are_twice_are_refused(tmp_path: Path) -> None:
    paths = write_parts(tmp_path, [4])
    write_part(tmp_path / "again.parquet", part_of(slice(3, 6)))
    with pytest.raises(IntegrityError, match="store row 9 is in two parts"):
        read_parts([*paths, tmp_path / "again.parquet"])
    write_part(paths[0], part_of(slice(0, 1)))
    twin = STARS.slice(4, 1).append_column("x", pa.array([0])).drop_columns("x")
    twin = twin.set_column(1, twin.schema.field(1), STARS["apstar_id"].slice(0, 1))
    values = {k: v[:1] if isinstance(v, np.ndarray) else v for k, v in estimates(N_STARS).items()}
    write_part(paths[1], build_part(twin, **values, labels=LABELS.slice(0, 0), label_range=None))
    with pytest.raises(IntegrityError, match=r"1 stars are twice.*apogee\.apo25m"):
        read_parts(paths)
