"""A bad file costs its own row, wherever it lies; too many of them stop an ingest that can go on."""

import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from malformed import CUTS, KINDS, good_file

from apogee_batch.errors import RejectReason, TooManyBadInputsError
from apogee_batch.files import read_json, write_json
from apogee_batch.run import commands
from apogee_batch.run.archive import list_files, read_file
from apogee_batch.run.config import ORDINARY, Going, RunConfig
from apogee_batch.run.ingest_inputs import IngestInput
from apogee_batch.run.ingest_plan import IngestPlan, begin_ingest, plan_ingest, read_ingest
from apogee_batch.run.progress import SilentView
from apogee_batch.store.spectra import open_store, read_spectra
from apogee_batch.store.tables import read_stars, read_table, table_path
from apogee_batch.survey.simulate import SimulatedSurvey
from apogee_batch.survey.sources import find_apstar_files

N_MANY = 100_000
N_LINKS = 10_000  # of one file; some file systems allow no more than 65,000


def ingest(
    sources: Sequence[Path],
    store: Path,
    config: RunConfig,
    *,
    fraction: float | None = None,
    going: Going = ORDINARY,
) -> None:
    if fraction is not None:
        settings = config.ingest.model_copy(update={"max_bad_fraction": fraction})
        config = config.model_copy(update={"ingest": settings})
    texts, view = [str(source) for source in sources], SilentView()
    commands.ingest(texts, store, allstar=None, config=config, is_dry_run=False, progress=view, going=going)


def rejects_of(path: Path) -> dict[str, str]:
    return {row["path"]: row["reason"] for row in read_table(path).to_pylist()}


def all_but_rows(store: Path) -> tuple[list[dict[str, Any]], Any, Any]:
    """Return the stars of a store and their spectra, but not where they lie."""
    stars = read_stars(store)
    batch = read_spectra(open_store(store), stars["row"].to_numpy())
    return stars.drop_columns(["row"]).to_pylist(), batch.flux, batch.err


def write_malformed(folder: Path, like: Sequence[Path]) -> dict[str, RejectReason]:
    """Write a file of each kind of damage beside good ones, before, among and behind them."""
    expected = {}
    for i, kind in enumerate((*KINDS, *CUTS)):
        near = like[i * len(like) // (len(KINDS) + len(CUTS))]
        path = folder / near.parent.name / f"{near.stem}{i:02d}.fits"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kind.change(good_file(3)))
        expected[str(path)] = kind.reason
    for name, make in {
        "a-pipe": os.mkfifo,
        "a-link": lambda path: path.symlink_to("nowhere"),
        "a-loop": lambda path: path.symlink_to(path.name),
    }.items():
        path = folder / f"apStar-r8-{name}.fits"
        make(path)
        expected[str(path)] = RejectReason.UNREADABLE
    return expected


@pytest.mark.fault
def test_each_malformed_file_among_good_ones_costs_its_own_row(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    good = find_apstar_files([str(survey.spectra)])
    expected = write_malformed(tmp_path / "bad", good)
    ingest(good, tmp_path / "good.zarr", serial_config)
    mixed, store = tmp_path / "mixed", tmp_path / "s.zarr"
    shutil.copytree(survey.spectra, mixed)
    for path in expected:
        target = mixed / "apo25m" / Path(path).relative_to(tmp_path / "bad")
        target.parent.mkdir(parents=True, exist_ok=True)
        Path(path).rename(target)
    moved = {
        path.replace(str(tmp_path / "bad"), str(mixed / "apo25m")): code for path, code in expected.items()
    }
    ingest([mixed], store, serial_config, fraction=1.0)
    assert rejects_of(table_path(store, "rejects")) == moved
    ours, theirs = all_but_rows(store), all_but_rows(tmp_path / "good.zarr")
    assert ours[0] == theirs[0]
    np.testing.assert_array_equal(ours[1].view(np.int32), theirs[1].view(np.int32))
    np.testing.assert_array_equal(ours[2].view(np.int32), theirs[2].view(np.int32))
    summary = read_json(store / "ingest" / "0001" / "summary.json")
    assert summary["inputs"] == len(good) + len(expected)
    assert summary["stars_in_store"] + summary["rejects_in_store"] == summary["inputs"]
    assert summary["rejects_by_reason"] == dict(sorted(Counter(expected.values()).items()))


@pytest.fixture
def spoilt(survey: SimulatedSurvey, tmp_path: Path) -> list[Path]:
    """Files of 48 stars in three shards, of which the 1st, the 20th and the 21st are of no use."""
    shutil.copytree(survey.spectra, tmp_path / "stars")
    paths = find_apstar_files([str(tmp_path / "stars")])
    for i in (0, 19, 20):
        paths[i].write_bytes(b"")
    return paths


def test_one_bad_file_among_few_stops_nothing(
    spoilt: list[Path], serial_config: RunConfig, tmp_path: Path
) -> None:
    ingest(spoilt[:10], tmp_path / "s.zarr", serial_config)
    assert len(read_stars(tmp_path / "s.zarr")) == 9


def test_too_many_bad_files_stop_an_ingest_that_goes_on_if_more_are_allowed(
    spoilt: list[Path], serial_config: RunConfig, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    with pytest.raises(TooManyBadInputsError, match="3 of 48 files cannot be used, more than") as caught:
        ingest(spoilt, store, serial_config)
    assert caught.value.exit_code == 3
    listed = store / "ingest" / "0001" / "rejects_so_far.parquet"
    assert str(listed) in str(caught.value)
    assert rejects_of(listed) == {str(spoilt[i]): "EMPTY" for i in (0, 19, 20)}
    assert "3 EMPTY" in str(caught.value)
    assert "the same command with --max-bad-fraction 0.07 goes on" in str(caught.value)
    entries = {path: read_file(path) for path in list_files(store / "ingest" / "0001" / "ledger")}
    assert {path.name for path in entries} == {"00000.json", "00001.json"}, "it stops when it is too much"
    with pytest.raises(TooManyBadInputsError, match="3 of 48 files"):
        ingest(spoilt, store, serial_config, fraction=0.05)
    ingest(spoilt, store, serial_config, fraction=0.07)
    assert {path: read_file(path) for path in entries} == entries, "what was done is not done again"
    assert len(read_stars(store)) == 45
    assert len(rejects_of(table_path(store, "rejects"))) == 3


def test_bad_files_that_are_mended_are_read_by_a_new_plan(
    spoilt: list[Path], survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    with pytest.raises(TooManyBadInputsError, match="or mend them, and give it with --force-new-plan"):
        ingest(spoilt, tmp_path / "s.zarr", serial_config)
    for path in spoilt:
        shutil.copy(survey.spectra / path.relative_to(tmp_path / "stars"), path)
    ingest(spoilt, tmp_path / "s.zarr", serial_config, going=Going(force_new_plan=True))
    assert len(read_stars(tmp_path / "s.zarr")) == 48


def test_a_finished_ingest_leaves_no_list_of_an_earlier_stop(
    spoilt: list[Path], serial_config: RunConfig, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    with pytest.raises(TooManyBadInputsError):
        ingest(spoilt, store, serial_config)
    ingest(spoilt, store, serial_config, fraction=1.0)
    assert not list(store.rglob("rejects_so_far.parquet")), "it would be taken for all of them"


def test_a_fraction_of_zero_stops_at_the_first(
    spoilt: list[Path], serial_config: RunConfig, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    with pytest.raises(TooManyBadInputsError, match=r"1 of 48 files cannot be used, more than .* 0 allows"):
        ingest(spoilt, store, serial_config, fraction=0.0)
    ingest(spoilt[1:19], tmp_path / "t.zarr", serial_config, fraction=0.0)
    assert len(read_stars(tmp_path / "t.zarr")) == 18


def test_duplicates_are_not_bad_files(spoilt: list[Path], serial_config: RunConfig, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    for path in spoilt[1:11]:
        shutil.copy(path, copies)
    ingest([*spoilt[1:11], copies], tmp_path / "s.zarr", serial_config, fraction=0.0)
    assert set(rejects_of(table_path(tmp_path / "s.zarr", "rejects")).values()) == {"DUPLICATE_FILE"}
    assert len(read_stars(tmp_path / "s.zarr")) == 10


@pytest.mark.fault
def test_a_hundred_thousand_files_are_planned(tmp_path: Path, record_property: Any) -> None:
    folder, store = tmp_path / "stars", tmp_path / "s.zarr"
    folder.mkdir()
    content = good_file(1)
    for i in range(N_MANY):
        if i % N_LINKS == 0:
            source = tmp_path / f"star{i}"
            source.write_bytes(content)
        os.link(source, folder / f"apStar-r8-2M{i:08d}+0000000.fits")

    def plan() -> IngestPlan:
        started = time.monotonic()
        inputs = [IngestInput(path, None) for path in find_apstar_files([str(folder)])]
        planned = plan_ingest(store, inputs, rows="combined", shard_stars=None)
        assert planned is not None
        begin_ingest(planned)
        record_property("seconds", round(time.monotonic() - started, 1))
        return planned

    first = plan()
    assert first.values["n_inputs"] == N_MANY
    assert sum(first.sizes.values()) == N_MANY
    assert set(first.inputs["size"].to_pylist()) == {len(content)}
    assert plan().values == first.values
    assert read_ingest(first.folder).inputs.equals(first.inputs)
    write_json(first.folder / "summary.json", {})
    assert plan_ingest(store, [], rows="combined", shard_stars=None) is None
