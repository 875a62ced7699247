"""A run with nothing left to do starts no worker; a command with little to do starts few."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from apogee_batch.errors import TooManyBadInputsError
from apogee_batch.files import sha256_of_file
from apogee_batch.network.checkpoint import load_checkpoint
from apogee_batch.run import commands
from apogee_batch.run.catalog_run import begin_run
from apogee_batch.run.clusters import Workers, no_more_than_needed, open_workers
from apogee_batch.run.config import ClusterSettings, RunConfig
from apogee_batch.run.finished import count_left, publish_if_done
from apogee_batch.run.lock import hold_lock
from apogee_batch.run.model_of_run import inference_ledger
from apogee_batch.run.progress import SilentView
from apogee_batch.survey.simulate import SimulatedSurvey
from apogee_batch.survey.sources import find_apstar_files


@pytest.fixture(scope="module")
def given(
    labelled_store: Path,
    finished_run: Path,
    serial_config: RunConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """Return a run that was given its model, and the model."""
    out, model = tmp_path_factory.mktemp("given") / "run", finished_run / "model"
    view = SilentView()
    commands.make_catalog(
        labelled_store, out, model=model, config=serial_config, is_dry_run=False, progress=view
    )
    return out, model


def test_only_what_is_lost_is_left_and_is_never_published_without(
    labelled_store: Path, given: tuple[Path, Path], serial_config: RunConfig
) -> None:
    run, model = given
    part = run / "parts" / "part-00001.parquet"
    content, catalog = part.read_bytes(), sha256_of_file(run / "catalog" / "catalog.fits")
    with hold_lock(run / "lock", run) as lock:
        plan = begin_run(labelled_store, run, model, serial_config, SilentView())
        assert count_left(run, plan) == 0
        done = publish_if_done(run, plan, model, serial_config, SilentView(), lock)
        assert done is not None
        assert (done.n_stars, done.n_rejects) == (48, 0)
        part.write_bytes(content[:-1] + b"?")
        assert count_left(run, plan) == 1
        assert publish_if_done(run, plan, model, serial_config, SilentView(), lock) is None
        part.write_bytes(content)
        (run / "catalog" / "catalog.fits").unlink()
        assert publish_if_done(run, plan, model, serial_config, SilentView(), lock) == done
    assert sha256_of_file(run / "catalog" / "catalog.fits") == catalog


def test_too_many_stars_left_out_stop_a_finished_run_too(
    labelled_store: Path, given: tuple[Path, Path], serial_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, model = given

    def refuse(*_: object) -> None:
        raise TooManyBadInputsError("too many")

    monkeypatch.setattr("apogee_batch.run.finished.count_bad", refuse)
    with hold_lock(run / "lock", run) as lock:
        plan = begin_run(labelled_store, run, model, serial_config, SilentView())
        assert inference_ledger(run, plan, load_checkpoint(model).identity).done()
        with pytest.raises(TooManyBadInputsError):
            publish_if_done(run, plan, model, serial_config, SilentView(), lock)


def test_a_local_worker_without_a_shard_is_not_started() -> None:
    local = ClusterSettings(kind="local", workers=4, device="cpu")
    assert [no_more_than_needed(local, n_left).workers for n_left in (1, 3, 9)] == [1, 3, 4]
    assert no_more_than_needed(ClusterSettings(kind="local", device="cpu"), 1).workers == 1
    serial = ClusterSettings(kind="serial")
    assert no_more_than_needed(serial, 1) is serial


def test_workers_of_an_ingest_are_as_many_as_shards_to_write_or_to_check(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def open_serial(cluster: ClusterSettings, **others: Any) -> AbstractContextManager[Workers]:
        asked.append(cluster.workers)
        return open_workers(serial_config.cluster, **others)

    monkeypatch.setattr("apogee_batch.run.ingest_command.open_workers", open_serial)
    local = ClusterSettings(kind="local", workers=8, device="cpu")
    config = serial_config.model_copy(update={"cluster": local})
    files = find_apstar_files([str(survey.spectra)])
    for paths in (files[:40], files[:40], files[:3], files, files[40:]):
        commands.ingest(
            [*map(str, paths)],
            tmp_path / "s.zarr",
            allstar=None,
            config=config,
            is_dry_run=False,
            progress=SilentView(),
        )
    # 3 to write; 3 to check; 1 of them; 3 to check and 1 to write; that one to check
    assert asked == [3, 3, 1, 3, 1]
