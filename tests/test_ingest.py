"""Every file is a row or a reject; nothing is lost, moved or counted twice."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from unpacked import unpack_ingest

from apogee_batch.errors import IntegrityError, TooManyBadInputsError, UsageError
from apogee_batch.files import read_json
from apogee_batch.run import commands
from apogee_batch.run.archive import read_file
from apogee_batch.run.config import RunConfig, load_config
from apogee_batch.run.ingest_plan import IngestInput, plan_ingest
from apogee_batch.run.ingest_tables import reject_table
from apogee_batch.run.progress import SilentView
from apogee_batch.store.spectra import open_store, read_spectra
from apogee_batch.store.tables import read_stars, read_table, table_path
from apogee_batch.survey.apstar import RejectedSpectrum, read_apstar
from apogee_batch.survey.simulate import SimulatedSurvey
from apogee_batch.survey.sources import find_apstar_files


def ingest(sources: list[Path], store: Path, config: RunConfig, allstar: Path | None = None) -> list[str]:
    texts = [str(source) for source in sources]
    return commands.ingest(
        texts, store, allstar=allstar, config=config, is_dry_run=False, progress=SilentView()
    )


def visits_config(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"ingest": config.ingest.model_copy(update={"row": "visits"})})


def test_every_file_becomes_the_row_that_the_star_table_says(
    labelled_store: Path, survey: SimulatedSurvey
) -> None:
    stars = read_stars(labelled_store)
    assert len(stars) == 48
    paths = {path.name: path for path in find_apstar_files([str(survey.spectra)])}
    batch = read_spectra(open_store(labelled_store), stars["row"].to_numpy())
    for i, name in enumerate(stars["file"].to_pylist()):
        spectra = read_apstar(paths[name])
        assert isinstance(spectra, list)
        np.testing.assert_array_equal(batch.flux[i], spectra[0].flux)
        np.testing.assert_array_equal(batch.err[i], spectra[0].err)


def test_headers_stand_in_for_the_summary(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path, labelled_store: Path
) -> None:
    ingest([survey.spectra], tmp_path / "s.zarr", serial_config)
    ours, told = read_stars(tmp_path / "s.zarr"), read_stars(labelled_store)
    assert sorted(ours["apogee_id"].to_pylist()) == sorted(told["apogee_id"].to_pylist())
    assert len(set(ours["apstar_id"].to_pylist())) == 48


def test_a_bad_file_costs_its_row_and_is_listed(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "stars"
    shutil.copytree(survey.spectra, folder)
    paths = find_apstar_files([str(folder)])
    paths[3].write_bytes(paths[3].read_bytes()[:20_000])
    paths[20].write_bytes(b"")
    paths[30].write_bytes(b"hello, this is no FITS file" * 300)
    with pytest.raises(TooManyBadInputsError, match=r"[23] of 48 files.*--max-bad-fraction 0\.0[57] goes on"):
        ingest([folder], tmp_path / "s.zarr", serial_config)
    lines = ingest([folder], tmp_path / "s.zarr", accept_bad(serial_config))
    assert "1 EMPTY, 1 NOT_FITS, 1 TRUNCATED" in " ".join(lines)
    rejects = read_table(table_path(tmp_path / "s.zarr", "rejects")).to_pylist()
    assert {reject["path"] for reject in rejects} == {str(paths[i]) for i in (3, 20, 30)}
    assert len(read_stars(tmp_path / "s.zarr")) == 45


def accept_bad(config: RunConfig, fraction: float = 1.0) -> RunConfig:
    return config.model_copy(
        update={"ingest": config.ingest.model_copy(update={"max_bad_fraction": fraction})}
    )


def test_one_bad_file_never_stops_an_ingest_unless_none_is_accepted(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for path in find_apstar_files([str(survey.spectra)])[:3]:
        shutil.copy(path, tmp_path / "in")
    (tmp_path / "in" / "apStar-r8-2M00000000+0000000.fits").write_bytes(b"")
    with pytest.raises(TooManyBadInputsError, match=r"1 of 4 files.*1 EMPTY; the first is .*2M00000000"):
        ingest([tmp_path / "in"], tmp_path / "s.zarr", accept_bad(serial_config, 0.0))
    assert "3 spectra; 4 files read" in ingest([tmp_path / "in"], tmp_path / "s.zarr", serial_config)[0]


def test_two_files_of_one_name_give_one_row_and_a_reject(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    first = find_apstar_files([str(survey.spectra)])[0]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(first, tmp_path / name / first.name)
    lines = ingest([tmp_path / "a", tmp_path / "b"], tmp_path / "s.zarr", serial_config)
    assert "1 DUPLICATE_FILE" in " ".join(lines)
    rejects = read_table(table_path(tmp_path / "s.zarr", "rejects")).to_pylist()
    assert rejects[0]["path"] == str(tmp_path / "b" / first.name)
    assert rejects[0]["text"] == f"has the content of {tmp_path / 'a' / first.name}"


def test_another_file_of_a_star_is_no_copy(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    first = find_apstar_files([str(survey.spectra)])[0]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(first, tmp_path / name / first.name)
    other = tmp_path / "b" / first.name
    content = other.read_bytes()
    assert b"conforms to FITS" in content
    other.write_bytes(content.replace(b"conforms to FITS", b"CONFORMS TO FITS", 1))
    ingest([tmp_path / "a", tmp_path / "b"], tmp_path / "s.zarr", serial_config)
    rejects = read_table(table_path(tmp_path / "s.zarr", "rejects")).to_pylist()
    assert [reject["reason"] for reject in rejects] == ["DUPLICATE_STAR"]
    assert rejects[0]["text"].startswith(f"{tmp_path / 'a' / first.name} is apogee.")


def test_a_second_ingest_appends_and_moves_nothing(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    paths, store = find_apstar_files([str(survey.spectra)]), tmp_path / "s.zarr"
    ingest(paths[:20], store, serial_config)
    before = read_stars(store).to_pylist()
    shard = (store / "flux" / "c" / "1" / "0").read_bytes()
    ingest(paths, store, serial_config)
    after = read_stars(store)
    assert after.to_pylist()[:20] == before
    assert after["row"].to_pylist() == [*range(20), *range(32, 60)]
    assert (store / "flux" / "c" / "1" / "0").read_bytes() == shard
    assert len(read_spectra(open_store(store), after["row"].to_numpy()).flux) == 48
    assert ingest(paths, store, serial_config) == [f"nothing to do: {store} holds all 48 files already"]


def test_visits_become_spectra_of_their_own(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    ingest([survey.spectra], tmp_path / "s.zarr", visits_config(serial_config), allstar=survey.allstar)
    stars = read_stars(tmp_path / "s.zarr")
    combined = {path.name: read_apstar(path) for path in find_apstar_files([str(survey.spectra)])}
    n_visits = sum(spectra[0].star.n_visits for spectra in combined.values() if isinstance(spectra, list))
    assert len(stars) == n_visits > 48
    assert min(stars["visit"].to_pylist()) == 1
    assert all(
        key.endswith(f".visit{n:02d}")
        for key, n in zip(stars["apstar_id"].to_pylist(), stars["visit"].to_pylist(), strict=True)
    )


def test_an_ingest_that_was_stopped_goes_on_and_gives_the_same_store(
    labelled_store: Path, survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    shutil.copytree(labelled_store, store)
    folder = store / "ingest" / "0001"
    unpack_ingest(folder)
    for path in (folder / "summary.json", folder / "ledger" / "00001.json", store / "flux" / "c" / "2" / "0"):
        path.unlink()
    kept = read_file(folder / "ledger" / "00000.json")
    ingest([survey.spectra], store, serial_config, allstar=survey.allstar)
    assert read_file(folder / "ledger" / "00000.json") == kept
    for path in sorted(labelled_store.rglob("c/*/0")):
        assert (store / path.relative_to(labelled_store)).read_bytes() == path.read_bytes()
    assert read_stars(store).equals(read_stars(labelled_store))


def test_going_on_with_other_files_is_refused(
    labelled_store: Path, survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    shutil.copytree(labelled_store, store)
    (store / "ingest" / "0001" / "summary.json").unlink()
    with pytest.raises(UsageError, match="files: 48 -> 10"):
        ingest(find_apstar_files([str(survey.spectra)])[:10], store, serial_config)


def test_a_summary_names_what_is_missing_and_extra(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "stars"
    shutil.copytree(survey.spectra, folder)
    paths = find_apstar_files([str(folder)])
    paths[0].unlink()
    paths[1].rename(paths[1].with_name(paths[1].name.replace("2M", "2M9", 1)))
    lines = ingest([folder], tmp_path / "s.zarr", serial_config, allstar=survey.allstar)
    assert "rows: 46 found, 2 missing, 0 repeated; files: 1 extra, 0 duplicate" in lines[-1]
    summary = read_json(tmp_path / "s.zarr" / "ingest" / "0001" / "summary.json")
    assert summary["survey"]["missing"] == 2
    details = pq.read_table(tmp_path / "s.zarr" / "ingest" / "0001" / "allstar_match.parquet")
    assert details["kind"].to_pylist().count("missing") == 2


def test_no_usable_file_is_an_error_that_shows_the_first(serial_config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "apStar-r8-2M00000000+0000000.fits").write_bytes(b"")
    with pytest.raises(TooManyBadInputsError, match="none of the 1 files could be used") as caught:
        ingest([tmp_path], tmp_path / "s.zarr", serial_config)
    assert caught.value.exit_code == 3
    assert "1 EMPTY" in str(caught.value)
    with pytest.raises(UsageError, match="holds no star"):
        commands.make_catalog(
            tmp_path / "s.zarr",
            tmp_path / "run",
            model=None,
            config=serial_config,
            is_dry_run=False,
            progress=SilentView(),
        )


def test_a_ledger_without_a_shard_is_noticed(
    labelled_store: Path,
    survey: SimulatedSurvey,
    serial_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("apogee_batch.run.ingest.run_shards", lambda *_, **__: None)
    with pytest.raises(IntegrityError, match="shards 0, 1, 2 of ingest 0001 are not in the ledger"):
        ingest([survey.spectra], tmp_path / "s.zarr", serial_config)


def test_the_plan_keeps_what_the_summary_says_of_a_star(survey: SimulatedSurvey, tmp_path: Path) -> None:
    path = find_apstar_files([str(survey.spectra)])[0]
    spectra = read_apstar(path)
    assert isinstance(spectra, list)
    star = spectra[0].star
    plan = plan_ingest(tmp_path / "s.zarr", [IngestInput(path, star)], rows="combined", shard_stars=16)
    assert plan is not None
    known = json.loads(plan.inputs["known"][0].as_py())
    assert known["apstar_id"] == star.apstar_id
    assert all(value == value for value in known.values())


def test_a_lost_part_of_an_earlier_ingest_is_made_again(
    labelled_store: Path, survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    shutil.copytree(labelled_store, store)
    unpack_ingest(store / "ingest" / "0001")
    (store / "ingest" / "0001" / "parts" / "stars-00001.parquet").unlink()
    flux = store / "flux" / "c" / "2" / "0"
    flux.write_bytes(flux.read_bytes()[:-1] + b"?")
    ingest([survey.spectra], store, serial_config, allstar=survey.allstar)
    assert read_stars(store).equals(read_stars(labelled_store))
    assert flux.read_bytes() == (labelled_store / "flux" / "c" / "2" / "0").read_bytes()
    before, after = (read_json(s / "ingest" / "0001" / "summary.json") for s in (labelled_store, store))
    assert after == before
    assert after["survey"]["found"] == 48


def test_an_append_never_drops_stars_whose_part_is_gone(
    labelled_store: Path,
    survey: SimulatedSurvey,
    serial_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, extra = tmp_path / "s.zarr", tmp_path / "apStar-r9-2M00000000+0000000.fits"
    shutil.copytree(labelled_store, store)
    shutil.copy(find_apstar_files([str(survey.spectra)])[0], extra)
    unpack_ingest(store / "ingest" / "0001")
    (store / "ingest" / "0001" / "parts" / "stars-00001.parquet").unlink()
    monkeypatch.setattr("apogee_batch.run.ingest_command.damaged_ingests", lambda _, **__: [])
    with pytest.raises(IntegrityError, match="shards 1 of ingest 0001"):
        ingest([extra], store, serial_config)
    assert read_stars(store).equals(read_stars(labelled_store))


def test_counts_that_do_not_add_up_are_noticed(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget_a_reject(rejects: list[RejectedSpectrum]) -> pa.Table:
        return reject_table(rejects[1:])

    (tmp_path / "apStar-r8-2M00000000+0000000.fits").write_bytes(b"")
    monkeypatch.setattr("apogee_batch.run.ingest_task.reject_table", forget_a_reject)
    paths = find_apstar_files([str(survey.spectra)])[:3]
    with pytest.raises(IntegrityError, match=r"\(3, 3, 0\) in its parts, but should be \(4, 3, 1\)"):
        ingest([*paths, tmp_path / "apStar-r8-2M00000000+0000000.fits"], tmp_path / "s.zarr", serial_config)


def test_a_file_that_was_mended_is_read_again(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    good = find_apstar_files([str(survey.spectra)])[0]
    store, path = tmp_path / "s.zarr", tmp_path / "in" / good.name
    path.parent.mkdir()
    path.write_bytes(good.read_bytes()[:9000])
    with pytest.raises(TooManyBadInputsError):
        ingest([path], store, serial_config)
    assert "nothing to do" in ingest([path], store, serial_config)[0]
    shutil.copy(good, path)
    ingest([path], store, serial_config)
    assert len(read_stars(store)) == 1
    assert len(read_table(table_path(store, "rejects"))) == 0


def test_a_store_holds_combined_spectra_or_visits(
    labelled_store: Path, survey: SimulatedSurvey, serial_config: RunConfig
) -> None:
    with pytest.raises(UsageError, match="its rows are combined spectra"):
        ingest([survey.spectra], labelled_store, visits_config(serial_config))


def test_a_link_keeps_its_own_name(survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path) -> None:
    good = find_apstar_files([str(survey.spectra)])[0]
    blob, link = tmp_path / "abc1", tmp_path / "in" / good.name
    shutil.copy(good, blob)
    link.parent.mkdir()
    link.symlink_to(blob)
    ingest([link.parent], tmp_path / "s.zarr", serial_config)
    assert read_stars(tmp_path / "s.zarr")["file"].to_pylist() == [good.name]


def test_nothing_works_on_a_store_with_an_unfinished_ingest(
    labelled_store: Path, survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    shutil.copytree(labelled_store, store)
    (store / "ingest" / "0001" / "summary.json").unlink()
    view = SilentView()
    for call in (
        lambda: commands.attach(store, {"payne": [survey.labels["payne"]]}, column_map=[]),
        lambda: commands.train(store, tmp_path / "m", config=serial_config, progress=view),
        lambda: commands.make_catalog(
            store, tmp_path / "r", model=None, config=serial_config, is_dry_run=True, progress=view
        ),
    ):
        with pytest.raises(UsageError, match="ingest 0001 has not finished"):
            call()


def test_an_ingest_by_dask_workers_gives_the_same_store(
    labelled_store: Path,
    survey: SimulatedSurvey,
    serial_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    cluster = serial_config.cluster.model_copy(update={"kind": "local", "workers": 2})
    config = serial_config.model_copy(update={"cluster": cluster})
    ingest([survey.spectra], Path("s.zarr"), config, allstar=survey.allstar)
    for path in sorted(labelled_store.rglob("c/*/0")):
        assert (tmp_path / "s.zarr" / path.relative_to(labelled_store)).read_bytes() == path.read_bytes()
    assert read_stars(tmp_path / "s.zarr").equals(read_stars(labelled_store))


def test_shard_sizes_that_do_not_fit_are_told(
    labelled_store: Path, survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    config = load_config(None, {"ingest": {"shard_stars": 32}, "cluster": {"kind": "serial"}})
    extra = tmp_path / "apStar-r8-2M00000000+0000000.fits"
    shutil.copy(find_apstar_files([str(survey.spectra)])[0], extra)
    with pytest.raises(UsageError, match="its shards hold 16 stars"):
        ingest([extra], labelled_store, config)


def test_a_name_that_no_table_can_hold_is_told(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    path = os.fsencode(tmp_path) + b"/apStar-r8-\xff.fits"
    shutil.copy(find_apstar_files([str(survey.spectra)])[0], os.fsdecode(path))
    with pytest.raises(UsageError, match="not UTF-8"):
        ingest([tmp_path], tmp_path / "s.zarr", serial_config)


def test_a_dry_run_writes_nothing(survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path) -> None:
    lines = commands.ingest(
        [str(survey.spectra)],
        tmp_path / "s.zarr",
        allstar=survey.allstar,
        config=serial_config,
        is_dry_run=True,
        progress=SilentView(),
    )
    assert "would ingest 48 files" in lines[0]
    assert any("shards: 3 of 16 stars, 0 done" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.data
def test_real_files_reproduce_their_snr_cards(
    shared_data: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    ingest([shared_data / "apstar"], tmp_path / "s.zarr", serial_config)
    stars = read_stars(tmp_path / "s.zarr")
    assert len(stars) == 13
    np.testing.assert_allclose(stars["snr"].to_numpy(), stars["snr_header"].to_numpy(), rtol=1e-3)
    assert len(set(stars["apstar_id"].to_pylist())) == 13


@pytest.mark.data
def test_other_products_are_rejected_for_reasons_of_their_own(
    shared_data: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    with pytest.raises(TooManyBadInputsError, match=r"none of the 2 files .* 2 NOT_APSTAR"):
        ingest([shared_data / "not-apstar"], tmp_path / "s.zarr", accept_bad(serial_config))
    rejects = read_table(table_path(tmp_path / "s.zarr", "rejects")).to_pylist()
    assert len(rejects) == len({reject["text"] for reject in rejects}) == 2


def test_a_copy_under_another_identity_is_still_a_copy(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    store, copies = tmp_path / "s.zarr", tmp_path / "copies"
    ingest([survey.spectra], store, serial_config, allstar=survey.allstar)
    before = read_stars(store)
    copies.mkdir()
    for path in find_apstar_files([str(survey.spectra)])[:3]:
        shutil.copy(path, copies / path.name.replace("apStar-r8", "apStar-r7"))
    ingest([copies], store, serial_config)
    assert read_stars(store).equals(before)
    rejects = read_table(table_path(store, "rejects")).to_pylist()
    assert [reject["reason"] for reject in rejects] == ["DUPLICATE_FILE"] * 3
    assert {Path(reject["path"]).parent for reject in rejects} == {copies}


def test_the_copies_of_a_file_of_visits_are_told_by_each_visit(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    first = find_apstar_files([str(survey.spectra)])[0]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(first, tmp_path / name / first.name)
    ingest([tmp_path / "a"], tmp_path / "one.zarr", visits_config(serial_config))
    ingest([tmp_path / "a", tmp_path / "b"], tmp_path / "s.zarr", visits_config(serial_config))
    kept = read_stars(tmp_path / "s.zarr")
    assert kept.equals(read_stars(tmp_path / "one.zarr"))
    rejects = read_table(table_path(tmp_path / "s.zarr", "rejects")).to_pylist()
    assert [reject["reason"] for reject in rejects] == ["DUPLICATE_FILE"] * len(kept)


def test_a_damaged_shard_is_mended_by_an_ingest_of_other_files(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    paths, store, whole = find_apstar_files([str(survey.spectra)]), tmp_path / "s.zarr", tmp_path / "w.zarr"
    ingest(paths[:20], store, serial_config)
    ingest(paths[:20], whole, serial_config)
    ingest(paths[20:], whole, serial_config)
    unpack_ingest(store / "ingest" / "0001")
    part = store / "ingest" / "0001" / "parts" / "contents-00001.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    ingest(paths[20:], store, serial_config)
    assert read_stars(store).equals(read_stars(whole))
    assert "nothing to do" in ingest(paths, store, serial_config)[0]


def test_a_lost_summary_of_an_earlier_ingest_is_written_again(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path
) -> None:
    paths, store = find_apstar_files([str(survey.spectra)]), tmp_path / "s.zarr"
    ingest(paths[:10], store, serial_config)
    ingest(paths[10:20], store, serial_config)
    before = read_stars(store)
    (store / "ingest" / "0001" / "summary.json").unlink()
    ingest(paths[:10], store, serial_config)
    assert (store / "ingest" / "0001" / "summary.json").is_file()
    assert read_stars(store).equals(before)
