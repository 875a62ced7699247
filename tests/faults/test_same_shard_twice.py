"""One shard done by several processes at once, many times: its readers never see a missing or half file."""

import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from crashing import Call, start
from scenes import Scene
from unpacked import unpack_ingest

from apogee_batch.catalog.merge import merge_parts
from apogee_batch.files import read_json
from apogee_batch.network.checkpoint import load_checkpoint
from apogee_batch.run.infer import infer_shard, part_path
from apogee_batch.run.ingest_plan import read_ingest
from apogee_batch.run.ingest_tables import ingest_ledger
from apogee_batch.run.ingest_task import ingest_shard
from apogee_batch.run.ledger import Ledger, ShardReport, find_damage
from apogee_batch.store.spectra import open_store, read_spectra

pytestmark = [pytest.mark.fault, pytest.mark.usefixtures("one_thread")]

N_PROCESSES = 4
N_TIMES = 6
SHARD = 1


def do_at_once(calls: Sequence[Call], read: Callable[[], object]) -> int:
    """Let processes begin at the same moment, and read until all have ended well; return how often."""
    ready, go = os.pipe()
    for_child = [partial(_when_told, ready, go, call) for call in calls]
    running = {start(call) for call in for_child}
    os.close(ready)
    os.close(go)  # the last one that could write: all children read an end of file, and begin
    n_reads = 0
    while running:
        read()
        n_reads += 1
        for pid in sorted(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                assert os.waitstatus_to_exitcode(status) == 0
    return n_reads


def _when_told(ready: int, go: int, call: Call) -> None:
    os.close(go)
    os.read(ready, 1)
    call()


def repeat(task: Callable[[int], ShardReport], expected: ShardReport) -> None:
    """Do a shard many times; each time it must be what the ledger says."""
    for _ in range(N_TIMES):
        report = task(SHARD)
        assert report.files == expected.files
        assert (report.n_inputs, report.n_stars) == (expected.n_inputs, expected.n_stars)


def check_files(report: ShardReport, base: Path) -> None:
    for file in report.files:
        assert find_damage(file, base) is None


@pytest.fixture
def store(scene: Scene, tmp_path: Path) -> Path:
    """A copy of the store, to be written to."""
    return Path(shutil.copytree(scene.store, tmp_path / "s.zarr"))


def test_an_ingested_shard_is_whole_all_the_time(scene: Scene, store: Path) -> None:
    plan = read_ingest(store / "ingest" / "0001")
    report = ingest_ledger(store, plan).entry(SHARD)
    assert report is not None
    info = open_store(store)
    rows = np.arange(*info.shard_rows(SHARD))[:3]
    expected = read_spectra(info, rows)

    def read() -> None:
        check_files(report, store)
        found = read_spectra(info, rows)
        np.testing.assert_array_equal(found.flux, expected.flux)
        np.testing.assert_array_equal(found.err, expected.err)

    task = partial(ingest_shard, str(store), "0001", "combined", hash_name="blake3")
    n_reads = do_at_once([partial(repeat, task, report)] * N_PROCESSES, read)
    assert n_reads > N_TIMES
    check_files(report, store)
    assert not list((store / "ingest" / "staging").iterdir())


def read_part(run: Path) -> pa.Table:
    return pa.concat_tables(merge_parts([part_path(run, SHARD)]).pieces())


def test_a_part_of_the_catalogue_is_whole_all_the_time(scene: Scene, tmp_path: Path) -> None:
    run = Path(shutil.copytree(scene.run, tmp_path / "run"))
    key = read_json(run / "ledger" / f"{SHARD:05d}.json")["key"]
    report = Ledger(run / "ledger", run, key).entry(SHARD)
    assert report is not None
    expected = read_part(run)
    settings = {
        "model_sha256": load_checkpoint(scene.model).sha256,
        "realizations": scene.config.inference.realizations,
        "seed": scene.config.inference.seed,
        "err_cap": scene.config.inference.err_cap,
        "precision": "exact",
        "device": "cpu",
        "engine": "auto",
    }

    def read() -> None:
        check_files(report, run)
        assert read_part(run).equals(expected)

    task = partial(infer_shard, str(scene.store), str(run), str(scene.model), settings)
    n_reads = do_at_once([partial(repeat, task, report)] * N_PROCESSES, read)
    assert n_reads > N_TIMES
    check_files(report, run)
    assert not list((run / "staging").iterdir())


def test_a_shard_that_is_not_there_yet_appears_whole(scene: Scene, store: Path) -> None:
    plan = read_ingest(store / "ingest" / "0001")
    report = ingest_ledger(store, plan).entry(SHARD)
    assert report is not None
    unpack_ingest(plan.folder)
    seen = set()

    def read() -> None:
        for file in report.files:
            path = store / file.path
            if path.exists():
                seen.add(file.path)
                assert sha256(path.read_bytes()).hexdigest() == file.sha256
            else:
                assert file.path not in seen, "it was there before"

    for file in report.files:
        (store / file.path).unlink()
    task = partial(ingest_shard, str(store), "0001", "combined", hash_name="blake3")
    do_at_once([partial(task, SHARD)] * N_PROCESSES, read)
    check_files(report, store)
