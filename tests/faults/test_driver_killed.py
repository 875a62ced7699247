"""The driver killed by SIGKILL at every step of every commit: the same command goes on to the same bytes."""

import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from crashing import KILLED, Point, Telling, check_committed, choose, crash, record, telling, telling_names
from scenes import Scene, hash_all

from apogee_batch.files import read_json
from apogee_batch.run.archive import is_there
from apogee_batch.run.ingest_plan import read_ingest

pytestmark = pytest.mark.fault

SHARD_FILES = r"(flux|err|mask)/c/N/N"
INGEST_PARTS = {
    "plan": r"ingest/N/(plan.json|inputs.parquet)",
    "spectra": SHARD_FILES,
    "parts": r"ingest/N/parts/(stars|rejects|contents)-N.parquet",
    "ledger and tables": r"tables/\w+.\w+|ingest/N/(ledger/N.json|allstar_match.parquet|summary.json)",
    "archives": r"ingest/N/(ledger|parts).tar",
}
RUN_PARTS = {
    "plan": r"plan.json|settings.json|inputs/\w+.parquet",
    "inference": r"parts/part-N.parquet|ledger/N.json",
    "catalogue": r"catalog/catalog.\w+|rejects.parquet|manifest.json",
    "report": r"report/\w+.\w+",
}


def take(points: Sequence[Point], parts: dict[str, str], part: str) -> list[Point]:
    """Return the moments of a part of a command; each moment must be in one part."""
    for point in points:
        assert sum(bool(re.fullmatch(kinds, point.kind)) for kinds in parts.values()) == 1, point
    found = [point for point in points if re.fullmatch(parts[part], point.kind)]
    assert found
    return choose(found)


@pytest.fixture(scope="module")
def ingest_points(small: Scene) -> list[Point]:
    """The moments of an undisturbed ingest, which leaves the store of the small scene."""
    return record(partial(small.ingest, small.store), small.store)


@pytest.fixture(scope="module")
def undisturbed_store(small: Scene, ingest_points: list[Point]) -> dict[str, str]:
    return hash_all(small.store)


@pytest.fixture(scope="module")
def run_points(small: Scene, undisturbed_store: dict[str, str], simple_pictures: None) -> list[Point]:
    """The moments of an undisturbed run, which leaves the run of the small scene."""
    small.attach(small.store)
    return record(partial(small.make_catalog, small.run), small.run)


def check_ingest(small: Scene, store: Path, expected: dict[str, str], how: Telling, point: Point) -> None:
    """Kill an ingest at a point, look at what it left, and go on."""
    ingest = partial(small.ingest, store)
    assert crash(ingest, store.parent if how is telling_names else store, point, how) == KILLED, point
    folder = store / "ingest" / "0001"
    committed = {}
    if is_there(folder / "ledger"):
        committed = check_committed(folder / "ledger", store, read_ingest(folder).shards)
    ingest()
    assert hash_all(store) == expected, point
    after = check_committed(folder / "ledger", store, read_ingest(folder).shards)
    assert committed.items() <= after.items(), f"{point}: what was committed is done again"
    assert [path.name for path in store.parent.iterdir()] == [store.name], point
    shutil.rmtree(store.parent)


@pytest.mark.parametrize("part", INGEST_PARTS)
def test_an_ingest_killed_at_any_step_of_any_commit_goes_on_to_the_same_store(
    small: Scene,
    ingest_points: list[Point],
    undisturbed_store: dict[str, str],
    tmp_path: Path,
    part: str,
) -> None:
    for point in take(ingest_points, INGEST_PARTS, part):
        check_ingest(small, tmp_path / str(point.number) / "s.zarr", undisturbed_store, telling, point)


def test_an_ingest_killed_where_it_makes_or_moves_a_name_goes_on_to_the_same_store(
    small: Scene, undisturbed_store: dict[str, str], tmp_path: Path
) -> None:
    first = tmp_path / "first" / "s.zarr"
    points = record(partial(small.ingest, first), first.parent, telling_names)
    for point in choose(points):
        check_ingest(small, tmp_path / str(point.number) / "s.zarr", undisturbed_store, telling_names, point)


def check_run(small: Scene, run: Path, expected: dict[str, str], how: Telling, point: Point) -> None:
    """Kill a run at a point, look at what it left, and go on."""
    make_catalog = partial(small.make_catalog, run)
    assert crash(make_catalog, run, point, how) == KILLED, point
    committed = {}
    if (run / "plan.json").exists():
        committed = check_committed(run / "ledger", run, read_json(run / "plan.json")["shards"])
    if (run / "manifest.json").exists():
        assert {k: v for k, v in hash_all(run).items() if k in expected} == expected, point
    make_catalog()
    assert hash_all(run) == expected, point
    after = check_committed(run / "ledger", run, read_json(run / "plan.json")["shards"])
    assert committed.items() <= after.items(), f"{point}: what was committed is done again"
    shutil.rmtree(run)


@pytest.mark.parametrize("part", RUN_PARTS)
def test_a_run_killed_at_any_step_of_any_commit_goes_on_to_the_same_catalogue(
    small: Scene, run_points: list[Point], tmp_path: Path, part: str
) -> None:
    expected = hash_all(small.run)
    for point in take(run_points, RUN_PARTS, part):
        check_run(small, tmp_path / f"run{point.number}", expected, telling, point)


def test_a_run_killed_where_it_makes_or_moves_a_name_goes_on_to_the_same_catalogue(
    small: Scene, run_points: list[Point], tmp_path: Path
) -> None:
    expected = hash_all(small.run)
    points = record(partial(small.make_catalog, tmp_path / "first"), tmp_path / "first", telling_names)
    for point in choose(points):
        check_run(small, tmp_path / f"run{point.number}", expected, telling_names, point)
