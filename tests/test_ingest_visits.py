"""Visits: what a file promises of them does not stop the others, and many of them do not fill the memory."""

from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from strategies import compress_images, make_values, simple_file, to_bytes

from apogee_batch.errors import UsageError
from apogee_batch.run import commands, in_flight, ingest_task
from apogee_batch.run.config import RunConfig
from apogee_batch.run.ingest_inputs import (
    IN_FLIGHT_BYTES,
    IN_FLIGHT_PIXEL_BYTES,
    IngestInput,
    lay_out,
    most_at_once,
)
from apogee_batch.run.progress import SilentView
from apogee_batch.store.tables import REJECTS, read_stars, read_table, table_path
from apogee_batch.survey.apstar import count_spectra
from apogee_batch.survey.pixels import N_PIXELS

TILES = to_bytes([fits.PrimaryHDU(), *compress_images(list(make_values(3)[:3]))])
ROWS_CARD = b"ZNAXIS2 =                    3"
MANY_ROWS_CARD = b"ZNAXIS2 =                 5000"


@pytest.fixture
def visits_config(serial_config: RunConfig) -> RunConfig:
    settings = {"row": "visits", "shard_stars": 16, "max_bad_fraction": 0.5}
    return serial_config.model_copy(update={"ingest": serial_config.ingest.model_copy(update=settings)})


def test_a_compressed_file_that_promises_more_visits_than_a_shard_has_rows_costs_itself_only(
    visits_config: RunConfig, tmp_path: Path
) -> None:
    files = [tmp_path / f"apStar-r8-2M0000000{i}+0000000.fits" for i in range(3)]
    other = simple_file(4, cards={"OBJID": "2M00000002+0000000"})
    for path, content in zip(files, (simple_file(5), TILES, other), strict=True):
        path.write_bytes(content.replace(ROWS_CARD, MANY_ROWS_CARD))
    assert count_spectra(files[1], rows="visits") == 4998
    store = tmp_path / "s.zarr"
    commands.ingest(
        [str(path) for path in files],
        store,
        allstar=None,
        config=visits_config,
        is_dry_run=False,
        progress=SilentView(),
    )
    (reject,) = read_table(table_path(store, REJECTS)).to_pylist()
    assert (reject["path"], reject["reason"]) == (str(files[1]), "UNREADABLE")
    assert read_stars(store)["row"].to_pylist() == [0, 1, 2, 4, 5]


def test_a_file_that_has_more_visits_than_a_shard_has_rows_is_told(tmp_path: Path) -> None:
    path = tmp_path / "apStar-r8-2M00000000+0000000.fits"
    path.write_bytes(simple_file(20))
    with pytest.raises(UsageError, match="18 visits do not fit a shard of 16; raise --shard-stars"):
        lay_out([IngestInput(path, None)], [18], 16, 0)


@pytest.mark.parametrize(("n_rows", "most"), [(1, 16), (16, 16), (60, 5), (400, 1), (4096, 1)])
def test_files_with_many_visits_are_read_a_few_at_a_time(n_rows: int, most: int) -> None:
    assert most_at_once([{"n_rows": 1}, {"n_rows": n_rows}, {"n_rows": 2}]) == most
    held = most * n_rows * N_PIXELS * IN_FLIGHT_PIXEL_BYTES
    assert held <= IN_FLIGHT_BYTES or most == 1


def test_a_shard_of_files_with_many_visits_is_read_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "apStar-r8-2M00000000+0000000.fits", []
    path.write_bytes(simple_file(5))
    record: dict[str, Any] = {"path": str(path), "size": path.stat().st_size, "row": 0, "known": None}

    def read_in_order(read: Any, items: Any, *, most_at_once: int) -> Any:
        asked.append(most_at_once)
        return in_flight.read_in_order(read, items, most_at_once=most_at_once)

    monkeypatch.setattr(ingest_task, "read_in_order", read_in_order)
    assert len(ingest_task.read_files([record | {"n_rows": 400}], "visits").stars) == 3
    assert asked == [1]
