"""From a store to a published catalogue: the same bytes wherever and however often it ran."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from apogee_batch.errors import IntegrityError, LockedError, UsageError
from apogee_batch.files import read_json, sha256_of_file
from apogee_batch.network.checkpoint import load_checkpoint
from apogee_batch.run import catalog_command, commands
from apogee_batch.run.config import RunConfig
from apogee_batch.run.infer import infer_shard
from apogee_batch.run.progress import SilentView
from apogee_batch.run.status import describe_status
from apogee_batch.schema import catalog_columns
from apogee_batch.store.tables import LABELS, read_stars, table_path
from apogee_batch.survey.simulate import SimulatedSurvey
from apogee_batch.survey.sources import find_apstar_files

CATALOG_FILES = ("catalog/catalog.parquet", "catalog/catalog.fits", "rejects.parquet")
REPORT_FILES = ("kiel.png", "labels.png", "results.json", "results.txt", "validation.json", "validation.txt")


def make(store: Path, out: Path, config: RunConfig, model: Path | None = None) -> list[str]:
    return commands.make_catalog(
        store, out, model=model, config=config, is_dry_run=False, progress=SilentView()
    )


def on_local(config: RunConfig, n_workers: int) -> RunConfig:
    cluster = config.cluster.model_copy(update={"kind": "local", "workers": n_workers})
    return config.model_copy(update={"cluster": cluster})


def bytes_of(run: Path) -> list[bytes]:
    return [(run / name).read_bytes() for name in CATALOG_FILES]


def test_every_star_is_in_the_catalogue_with_its_labels(finished_run: Path, labelled_store: Path) -> None:
    catalog = pd.read_parquet(finished_run / "catalog" / "catalog.parquet")
    assert list(catalog.columns) == [column.name for column in catalog_columns()]
    stars = read_stars(labelled_store)
    assert sorted(catalog["apstar_id"]) == sorted(stars["apstar_id"].to_pylist())  # in the order of the sky
    assert catalog[["teff", "e_teff", "logg", "fe_h"]].notna().all().all()
    assert (catalog["e_teff"] > 0).all()
    assert (catalog["n_realizations"] == 3).all()
    labels = pq.read_table(table_path(labelled_store, LABELS)).to_pandas().set_index("apstar_id")
    labelled = catalog[catalog["data_type"].notna()].set_index("apstar_id")
    assert set(labelled.index) == set(labels.index)
    np.testing.assert_allclose(labelled["teff_label"], labels.loc[labelled.index, "teff"], rtol=1e-6)
    assert catalog["teff_label"].isna().sum() == len(catalog) - len(labels) > 0


def test_fits_and_parquet_hold_the_same(finished_run: Path) -> None:
    catalog = pd.read_parquet(finished_run / "catalog" / "catalog.parquet")
    table = Table.read(finished_run / "catalog" / "catalog.fits")
    assert str(table["teff"].unit) == "K"
    np.testing.assert_array_equal(np.asarray(table["teff"], float), catalog["teff"].to_numpy(float))
    assert [str(x) for x in table["apstar_id"]] == catalog["apstar_id"].tolist()


def test_the_manifest_holds_the_hashes_of_what_was_published(finished_run: Path) -> None:
    manifest = read_json(finished_run / "manifest.json")
    assert {file["path"] for file in manifest["files"]} == {
        *CATALOG_FILES,
        *(f"report/{name}" for name in REPORT_FILES),
    }
    for file in manifest["files"]:
        assert sha256_of_file(finished_run / file["path"]) == file["sha256"]
    assert sorted(p.name for p in (finished_run / "catalog").iterdir()) == ["catalog.fits", "catalog.parquet"]
    for name in REPORT_FILES:
        assert (finished_run / "report" / name).stat().st_size > 500


@pytest.mark.long
@pytest.mark.parametrize("n_workers", [1, 2])
def test_the_catalogue_is_the_same_bytes_on_a_local_cluster(
    labelled_store: Path, finished_run: Path, serial_config: RunConfig, tmp_path: Path, n_workers: int
) -> None:
    make(labelled_store, tmp_path / "run", on_local(serial_config, n_workers))
    assert bytes_of(tmp_path / "run") == bytes_of(finished_run)


def test_a_run_that_was_stopped_ends_in_the_same_bytes(
    labelled_store: Path, finished_run: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "manifest.json").unlink()
    shutil.rmtree(run / "catalog")
    (run / "ledger" / "00001.json").unlink()
    damaged = run / "parts" / "part-00002.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    kept = (run / "ledger" / "00000.json").read_bytes()
    make(labelled_store, run, serial_config)
    assert (run / "ledger" / "00000.json").read_bytes() == kept
    assert bytes_of(run) == bytes_of(finished_run)


def test_a_given_model_needs_no_labels(
    survey: SimulatedSurvey, finished_run: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    store = tmp_path / "one.zarr"
    paths = find_apstar_files([str(survey.spectra)])
    commands.ingest(
        [str(path) for path in paths],
        store,
        allstar=survey.allstar,
        config=serial_config,
        is_dry_run=False,
        progress=SilentView(),
    )
    lines = make(store, tmp_path / "run", serial_config, model=finished_run / "model")
    assert "No star has a label: there is nothing to compare the predictions with." in lines
    catalog = pd.read_parquet(tmp_path / "run" / "catalog" / "catalog.parquet")
    assert catalog["teff"].notna().all()
    assert catalog["data_type"].isna().all()


def test_a_star_alone_in_a_store_has_the_numbers_that_it_has_among_others(
    survey: SimulatedSurvey, finished_run: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    path = find_apstar_files([str(survey.spectra)])[17]
    commands.ingest(
        [str(path)],
        tmp_path / "one.zarr",
        allstar=survey.allstar,
        config=serial_config,
        is_dry_run=False,
        progress=SilentView(),
    )
    make(tmp_path / "one.zarr", tmp_path / "run", serial_config, model=finished_run / "model")
    alone = pd.read_parquet(tmp_path / "run" / "catalog" / "catalog.parquet")
    among = pd.read_parquet(finished_run / "catalog" / "catalog.parquet").set_index("apstar_id")
    numbers = [f"{prefix}{name}" for name in ("teff", "logg", "fe_h") for prefix in ("", "e_")]
    numbers += ["teff_clean", "logg_clean", "fe_h_clean", "snr"]
    np.testing.assert_array_equal(alone[numbers], among.loc[alone["apstar_id"], numbers])


def test_another_seed_in_the_same_folder_is_refused(
    labelled_store: Path, finished_run: Path, serial_config: RunConfig
) -> None:
    other = serial_config.model_copy(
        update={"inference": serial_config.inference.model_copy(update={"seed": 5})}
    )
    with pytest.raises(UsageError, match="seed: 0 -> 5"):
        make(labelled_store, finished_run, other)


def test_labels_attached_during_a_run_are_not_its_labels(
    labelled_store: Path,
    finished_run: Path,
    survey: SimulatedSurvey,
    serial_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = tmp_path / "s.zarr"
    shutil.copytree(labelled_store, store)
    begin = catalog_command.begin_run

    def begin_and_attach(*arguments: object, **options: object) -> dict[str, object]:
        plan = begin(*arguments, **options)
        commands.attach(store, {"mstar": [survey.labels["mstar"]]}, column_map=[])
        return plan

    monkeypatch.setattr("apogee_batch.run.catalog_command.begin_run", begin_and_attach)
    model = finished_run / "model"
    make(store, tmp_path / "run", serial_config, model=model)
    catalog = pd.read_parquet(tmp_path / "run" / "catalog" / "catalog.parquet")
    assert set(catalog["data_type"].dropna()) == {"payne", "mstar", "yso"}
    monkeypatch.undo()
    with pytest.raises(UsageError, match="other labels are attached to the store"):
        make(store, tmp_path / "run", serial_config, model=model)


def test_a_run_cannot_lie_in_its_store(labelled_store: Path, serial_config: RunConfig) -> None:
    with pytest.raises(UsageError, match="lies inside the store"):
        make(labelled_store, labelled_store / "run", serial_config)


@pytest.mark.long
def test_seed_and_cap_change_the_numbers(
    labelled_store: Path, finished_run: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    before = pd.read_parquet(finished_run / "catalog" / "catalog.parquet")
    for key, value in (("seed", 5), ("err_cap", "mean")):
        inference = serial_config.inference.model_copy(update={key: value})
        config = serial_config.model_copy(update={"inference": inference})
        make(labelled_store, tmp_path / key, config, model=finished_run / "model")
        after = pd.read_parquet(tmp_path / key / "catalog" / "catalog.parquet")
        assert (after["teff"] != before["teff"]).all()
        np.testing.assert_array_equal(after["teff_clean"], before["teff_clean"])


def test_a_model_that_changed_during_a_run_is_noticed(
    labelled_store: Path, finished_run: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    settings = {"model_sha256": "0" * 64, "realizations": 2, "seed": 0, "err_cap": "median", "device": "cpu"}
    settings |= {"precision": "exact", "engine": "torch"}
    with pytest.raises(IntegrityError, match="the model changed"):
        infer_shard(str(labelled_store), str(tmp_path), str(finished_run / "model"), settings, 0)


def test_tables_of_a_run_that_were_changed_are_copied_again(
    labelled_store: Path, finished_run: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    stars = run / "inputs" / "stars.parquet"
    table = pq.read_table(stars)
    pq.write_table(table.slice(0, 47), stars)
    make(labelled_store, run, serial_config)
    assert bytes_of(run) == bytes_of(finished_run)
    assert stars.read_bytes() == (finished_run / "inputs" / "stars.parquet").read_bytes()


def test_a_folder_of_something_else_is_refused(
    labelled_store: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="holds something that is not of this program"):
        make(labelled_store, tmp_path, serial_config)


def test_without_labels_and_model_it_says_what_is_wanted(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    commands.ingest(
        [str(find_apstar_files([str(survey.spectra)])[0])],
        store,
        allstar=None,
        config=serial_config,
        is_dry_run=False,
        progress=SilentView(),
    )
    with pytest.raises(UsageError, match="has no labels to train on"):
        make(store, tmp_path / "run", serial_config)


def test_a_lost_part_stops_the_publication(
    labelled_store: Path,
    finished_run: Path,
    serial_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    before = (run / "manifest.json").read_bytes()
    (run / "parts" / "part-00001.parquet").unlink()
    monkeypatch.setattr("apogee_batch.run.catalog_run.run_shards", lambda *_, **__: None)
    with pytest.raises(IntegrityError, match=r"part-00001\.parquet"):
        make(labelled_store, run, serial_config)
    assert (run / "manifest.json").read_bytes() == before


def test_a_dry_run_says_what_is_done_and_writes_nothing(
    labelled_store: Path, finished_run: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    def dry(out: Path) -> str:
        return "\n".join(
            commands.make_catalog(
                labelled_store, out, model=None, config=serial_config, is_dry_run=True, progress=SilentView()
            )
        )

    fresh = dry(tmp_path / "new")
    assert "labels of 48 stars" in fresh
    assert "forward passes: 192" in fresh
    assert "nothing done yet" in fresh
    assert "labelled spectra" in fresh
    assert not (tmp_path / "new").exists()
    assert "3 of 3 shards done already" in dry(finished_run)


def test_status_reads_runs_models_and_stores(
    finished_run: Path, labelled_store: Path, tmp_path: Path
) -> None:
    run = "\n".join(describe_status(finished_run))
    assert "published: 48 stars, 0 rejects" in run
    assert "finished" in run
    assert "best dev loss" in "\n".join(describe_status(finished_run / "model"))
    store = "\n".join(describe_status(labelled_store))
    assert "ingest 0001: 48 files, done: 48 stars" in store
    assert "spectra labelled" in store
    with pytest.raises(UsageError, match="neither a run nor a store"):
        describe_status(tmp_path)


def test_the_log_of_a_run_is_json_lines(finished_run: Path) -> None:
    lines = (finished_run / "logs" / "driver.jsonl").read_text().splitlines()
    assert {json.loads(line)["message"] for line in lines} >= {"begin", "end"}


def test_training_alone_gives_the_model_that_a_run_trains(
    labelled_store: Path, finished_run: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    lines = commands.train(labelled_store, tmp_path / "model", config=serial_config, progress=SilentView())
    assert "dev loss" in lines[0]
    one, other = (read_json(folder / "model.json") for folder in (tmp_path / "model", finished_run / "model"))
    assert one["weights_sha256"] == other["weights_sha256"]


@pytest.mark.data
def test_one_star_at_two_releases_is_two_flagged_rows(
    shared_data: Path, finished_run: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    commands.ingest(
        [str(shared_data / "apstar")],
        tmp_path / "real.zarr",
        allstar=None,
        config=serial_config,
        is_dry_run=False,
        progress=SilentView(),
    )
    make(tmp_path / "real.zarr", tmp_path / "run", serial_config, model=finished_run / "model")
    catalog = pd.read_parquet(tmp_path / "run" / "catalog" / "catalog.parquet")
    assert len(catalog) == catalog["apstar_id"].nunique() == 13
    twice = catalog[catalog["apogee_id"] == "2M19390532+4027346"]
    assert len(twice) == 2
    assert ((catalog["flags"] & 64) != 0).sum() == 2
    assert ((twice["flags"] & 64) != 0).all()


def test_a_run_whose_lock_was_taken_away_stops_at_the_next_shard(
    labelled_store: Path, finished_run: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    class Thief(SilentView):
        def advance(self, n: int, note: str = "") -> None:
            (run / "lock").write_text('{"host": "elsewhere", "pid": 1}')

    with pytest.raises(LockedError, match="another process has taken this lock"):
        commands.make_catalog(
            labelled_store,
            run,
            model=finished_run / "model",
            config=serial_config,
            is_dry_run=False,
            progress=Thief(),
        )
    assert len(list((run / "ledger").iterdir())) == 1
    assert "elsewhere" in (run / "lock").read_text()


def test_training_does_not_read_a_shard_that_was_exchanged(
    labelled_store: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    shutil.copytree(labelled_store, store)
    first, second = (store / "flux" / "c" / str(shard) / "0" for shard in (0, 1))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"flux/c/0/0: has "):
        commands.train(store, tmp_path / "m", config=serial_config, progress=SilentView())


def test_labels_attached_before_the_training_begins_stop_the_run(
    labelled_store: Path,
    survey: SimulatedSurvey,
    serial_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = tmp_path / "s.zarr"
    shutil.copytree(labelled_store, store)
    begin = catalog_command.begin_run

    def begin_and_attach(*arguments: object, **options: object) -> dict[str, object]:
        plan = begin(*arguments, **options)
        commands.attach(store, {"payne": [survey.labels["payne"]]}, column_map=[])
        return plan

    monkeypatch.setattr("apogee_batch.run.catalog_command.begin_run", begin_and_attach)
    with pytest.raises(IntegrityError, match=r"changed after the run was begun \(other labels are attached"):
        make(store, tmp_path / "run", serial_config)


def test_a_plan_that_was_lost_before_the_first_shard_is_written_again(
    labelled_store: Path, finished_run: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    shutil.rmtree(run / "ledger")
    (run / "plan.json").unlink()
    make(labelled_store, run, serial_config)
    assert bytes_of(run) == bytes_of(finished_run)


def test_a_shard_of_which_every_star_is_left_out_is_an_empty_part(
    labelled_store: Path, finished_run: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    before = pq.read_table(run / "parts" / "part-00001.parquet")
    settings = {"realizations": 3, "seed": 0, "err_cap": "median", "device": "cpu"}
    settings |= {"precision": "exact", "engine": "torch"}
    settings["model_sha256"] = load_checkpoint(run / "model").sha256
    everyone = range(len(before))
    arguments = (str(labelled_store), str(run), str(run / "model"), settings, 1)
    assert infer_shard(*arguments, only=[0, 2]).files == ()
    assert pq.read_table(run / "parts" / "part-00001.parquet").equals(before)
    report = infer_shard(*arguments, excluded=list(everyone))
    assert (report.n_inputs, report.n_stars, report.n_rejected) == (16, 0, 16)
    assert report.extra["killed"] == before["apstar_id"].to_pylist()
    assert len(pq.read_table(run / "parts" / "part-00001.parquet")) == 0
