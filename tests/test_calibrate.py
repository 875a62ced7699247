"""The calibration stage: dev stars only, the same bytes each time, and columns that follow from it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apogee_batch import files
from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.labels.attach import LABELS_SCHEMA
from apogee_batch.network import calibration as calibration_file
from apogee_batch.network import error_fit, hull, strangeness
from apogee_batch.network.calibration import CALIBRATION_FILE, CALIBRATION_TENSORS
from apogee_batch.network.card import write_model_card
from apogee_batch.network.checkpoint import load_checkpoint
from apogee_batch.run import calibrate_task, commands
from apogee_batch.run.calibrate import calibration_settings, is_calibrated, notes_on
from apogee_batch.run.calibrate_task import calibrate_network, choose_stars, read_labelled, weights_of
from apogee_batch.run.config import RunConfig
from apogee_batch.run.progress import SilentView
from apogee_batch.run.store_tables import ATTACHED, note_tables
from apogee_batch.run.verify import verify
from apogee_batch.schema import LABEL_NAMES, catalog_flags
from apogee_batch.store.tables import LABELS, UNMATCHED, table_path

FILES = (CALIBRATION_FILE, CALIBRATION_TENSORS)
FEW = 15
CONSTANTS = (
    (calibrate_task, "MIN_STARS"),
    (error_fit, "MIN_STARS"),
    (strangeness, "LEAST_TRAINING_STARS"),
    (strangeness, "LEAST_DEV_STARS"),
    (hull, "LEAST_LABELS"),
)


class Listener(SilentView):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stages: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        self.stages.append(stage)


@pytest.fixture
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrate with a dozen stars: what comes out is of no use, but all of it is there."""
    for module, name in CONSTANTS:
        monkeypatch.setattr(module, name, FEW)


def relabel(store: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Attach other labels: rows of the table, changed one by one."""
    path = table_path(store, LABELS)
    rows = [change(row) for row in pq.read_table(path).to_pylist()]
    digests = [files.write_table(path, pa.Table.from_pylist(rows, schema=LABELS_SCHEMA))]
    unmatched = table_path(store, UNMATCHED)
    digests.append(files.write_table(unmatched, pq.read_table(unmatched)))
    note_tables(store, ATTACHED, digests)


def in_thirds(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"data_set": ("train", "dev", "test")[row["row"] % 3]}


@pytest.fixture
def store(labelled_store: Path, tmp_path: Path) -> Path:
    """A store of which a third is the dev set."""
    copy = Path(shutil.copytree(labelled_store, tmp_path / "s.zarr"))
    relabel(copy, in_thirds)
    return copy


@pytest.fixture
def model(finished_run: Path, tmp_path: Path) -> Path:
    """A model without a calibration."""
    copy = Path(shutil.copytree(finished_run / "model", tmp_path / "model"))
    for name in FILES:
        (copy / name).unlink()
    return copy


def calibrate(
    store: Path, model: Path, config: RunConfig, wanted: dict[str, Any] | None = None
) -> tuple[dict[str, Any], bytes]:
    """Do what the worker does; return what it leaves, but for what it was made from."""
    sha256 = load_checkpoint(model, with_calibration=False).sha256
    wanted = wanted or calibration_settings(store, config.inference)
    settings = {"calibration": wanted, "model_sha256": sha256, "device": "cpu", "engine": "torch"}
    calibrate_network(str(store), str(model), settings)
    told = files.read_sealed_json(model / CALIBRATION_FILE)
    return told | {"settings": None}, (model / CALIBRATION_TENSORS).read_bytes()


@pytest.mark.usefixtures("few_are_enough")
def test_stars_of_the_test_set_do_not_matter(store: Path, model: Path, serial_config: RunConfig) -> None:
    def shift(data_set: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda row: row | {"teff": row["teff"] + 900.0 * (row["data_set"] == data_set)}

    before = calibrate(store, model, serial_config)
    assert calibrate(store, model, serial_config) == before
    relabel(store, shift("test"))
    assert calibrate(store, model, serial_config) == before
    relabel(store, shift("dev"))
    assert calibrate(store, model, serial_config) != before


@pytest.mark.usefixtures("few_are_enough")
def test_labels_that_were_attached_meanwhile_are_not_taken_for_those_planned(
    store: Path, model: Path, serial_config: RunConfig
) -> None:
    wanted = calibration_settings(store, serial_config.inference)
    relabel(store, lambda row: row | {"teff": row["teff"] + 1})
    with pytest.raises(IntegrityError, match=r"labels.parquet: changed since the calibration was begun"):
        calibrate(store, model, serial_config, wanted)
    assert not (model / CALIBRATION_FILE).exists()


def test_a_store_with_few_dev_stars_does_not_replace_a_calibration(
    labelled_store: Path, model: Path, serial_config: RunConfig
) -> None:
    with pytest.raises(UsageError, match="dev stars, and 50 are needed to calibrate"):
        commands.calibrate(model, labelled_store, config=serial_config, progress=SilentView())
    assert not (model / CALIBRATION_FILE).exists()


@pytest.mark.usefixtures("few_are_enough")
def test_a_calibrated_model_fills_the_columns_and_says_so(
    store: Path, model: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    view = Listener()
    lines = commands.calibrate(model, store, config=serial_config, progress=view)
    found = load_checkpoint(model)
    assert view.stages == ["calibrate"]
    assert (found.calibration_sha256 or "")[:16] in lines[0]
    assert found.calibration is not None
    assert None not in (found.calibration.error_model, found.calibration.strangeness, found.calibration.hull)
    card = (model / "MODEL_CARD.md").read_text()
    assert (found.calibration_sha256 or "") in card
    assert found.calibration.computed_on.endswith(f" {serial_config.inference.precision}")
    assert f"- computed on: {found.calibration.computed_on}" in card
    assert verify(model).damages == []
    out = tmp_path / "run"
    commands.make_catalog(
        store, out, model=model, config=serial_config, is_dry_run=False, progress=SilentView()
    )
    catalog = pq.read_table(out / "catalog" / "catalog.parquet").to_pandas()
    sigma, predicted = (
        catalog[[prefix + name for name in LABEL_NAMES]].to_numpy(float) for prefix in ("e_", "")
    )
    assert found.calibration.error_model is not None
    expected = found.calibration.error_model.total(sigma, catalog["snr"].to_numpy(float), predicted)
    totals = catalog[[f"e_{name}_total" for name in LABEL_NAMES]].to_numpy(float)
    np.testing.assert_allclose(totals, expected, rtol=1e-5)
    bits = {name: (catalog["flags"] & (1 << flag.bit)) != 0 for name, flag in catalog_flags().items()}
    np.testing.assert_array_equal(bits["STRANGE_SPECTRUM"], catalog["strangeness"] > 1)
    assert found.calibration.hull is not None
    np.testing.assert_array_equal(bits["OUTSIDE_TRAINING"], ~found.calibration.hull.contains(predicted))


@pytest.mark.usefixtures("few_are_enough")
def test_a_calibration_is_done_once_and_anew_for_other_settings_or_if_damaged(
    store: Path, model: Path, serial_config: RunConfig
) -> None:
    commands.calibrate(model, store, config=serial_config, progress=SilentView())
    before = {name: (model / name).read_bytes() for name in FILES}
    view = Listener()
    commands.calibrate(model, store, config=serial_config, progress=view)
    assert view.lines == [f"calibrate: {model} is calibrated already"]
    (model / CALIBRATION_TENSORS).write_bytes(b"x")
    commands.calibrate(model, store, config=serial_config, progress=view)
    assert {name: (model / name).read_bytes() for name in FILES} == before
    inference = serial_config.inference.model_copy(update={"realizations": 4})
    other = serial_config.model_copy(update={"inference": inference})
    commands.calibrate(model, store, config=other, progress=view)
    assert (model / CALIBRATION_FILE).read_bytes() != before[CALIBRATION_FILE]


@pytest.mark.long
@pytest.mark.usefixtures("few_are_enough")
def test_a_calibration_killed_at_any_step_is_done_again_to_the_same_bytes(
    store: Path, model: Path, serial_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    commands.calibrate(model, store, config=serial_config, progress=SilentView())
    before = _files_of(model)
    for step in ("staged", "renamed"):
        for name in (*FILES, "MODEL_CARD.md"):

            def crash(now: str, path: Path, step: str = step, name: str = name) -> None:
                if (now, path.name) == (step, name):
                    raise KilledError

            found = load_checkpoint(model)
            write_model_card(model, found.header, found.sha256)
            (model / CALIBRATION_FILE).unlink()
            monkeypatch.setattr(files, "on_commit_step", crash)
            with pytest.raises(KilledError):
                commands.calibrate(model, store, config=serial_config, progress=SilentView())
            monkeypatch.undo()
            assert verify(model).damages == []
            for module, constant in CONSTANTS:
                monkeypatch.setattr(module, constant, FEW)
            commands.calibrate(model, store, config=serial_config, progress=SilentView())
            assert _files_of(model) == before


def test_a_run_with_few_dev_stars_says_why_its_columns_are_empty(
    finished_run: Path, serial_config: RunConfig
) -> None:
    catalog = pq.read_table(finished_run / "catalog" / "catalog.parquet")
    assert catalog["e_teff_total"].null_count == catalog["strangeness"].null_count == len(catalog)
    calibration = load_checkpoint(finished_run / "model").calibration
    assert calibration is not None
    (note,) = notes_on(calibration, serial_config.inference)
    assert "dev stars are too few" in note


def test_a_model_without_a_calibration_is_told_with_the_command_that_makes_one(
    labelled_store: Path, model: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    view = Listener()
    commands.make_catalog(
        labelled_store, tmp_path / "run", model=model, config=serial_config, is_dry_run=False, progress=view
    )
    assert sum("apogee-batch model calibrate MODEL STORE" in line for line in view.lines) == 1
    catalog = pq.read_table(tmp_path / "run" / "catalog" / "catalog.parquet")
    assert catalog["e_teff_total"].null_count == len(catalog)


def test_a_calibration_that_changed_during_a_run_is_noticed(
    labelled_store: Path, model: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    make = {"model": model, "config": serial_config, "is_dry_run": False, "progress": SilentView()}
    commands.make_catalog(labelled_store, out, **make)
    sha256 = load_checkpoint(model).sha256
    calibration_file.save_calibration(model, calibration_file.Calibration(sha256, {}, {}))
    with pytest.raises(UsageError, match="the model was calibrated since"):
        commands.make_catalog(labelled_store, out, **make)


def test_the_model_of_a_run_and_a_store_without_labels_are_refused(
    finished_run: Path, labelled_store: Path, model: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    options = {"config": serial_config, "progress": SilentView()}
    with pytest.raises(UsageError, match="is the model of a run"):
        commands.calibrate(finished_run / "model", labelled_store, **options)
    bare = Path(shutil.copytree(labelled_store, tmp_path / "bare.zarr"))
    for path in (table_path(bare, LABELS), table_path(bare, UNMATCHED), bare / "tables" / "attached.json"):
        path.unlink()
    with pytest.raises(UsageError, match="has no labels"):
        commands.calibrate(model, bare, **options)


def test_a_damaged_calibration_counts_as_none(model: Path) -> None:
    sha256 = load_checkpoint(model).sha256
    calibration_file.save_calibration(model, calibration_file.Calibration(sha256, {"a": 1}, {}))
    assert is_calibrated(model, sha256, {"a": 1})
    assert not is_calibrated(model, sha256, {"a": 2})
    (model / CALIBRATION_FILE).write_bytes(b"{")
    assert not is_calibrated(model, sha256, {"a": 1})
    with pytest.raises(IntegrityError):
        load_checkpoint(model)


def test_a_calibration_with_another_cap_on_errors_is_warned_of(
    model: Path, store: Path, serial_config: RunConfig, few_are_enough: None
) -> None:
    commands.calibrate(model, store, config=serial_config, progress=SilentView())
    inference = serial_config.inference.model_copy(update={"err_cap": "mean"})
    assert any("--err-cap median" in note for note in notes_on(load_checkpoint(model).calibration, inference))


def labels_of(kinds: list[tuple[str, str]]) -> pa.Table:
    names = [f"star{i}" for i in range(len(kinds))]
    return pa.table(
        {"apstar_id": names, "data_type": [k for k, _ in kinds], "data_set": [s for _, s in kinds]}
    )


def test_few_of_the_rare_types_and_payne_stars_for_the_rest_are_chosen_by_name() -> None:
    kinds = [("payne", "dev")] * 100 + [("mstar", "dev")] * 40 + [("yso", "dev")] * 5 + [("yso", "test")] * 50
    labels = labels_of(kinds)
    chosen = choose_stars(labels, "dev", 40)
    types = [kinds[place][0] for place in chosen]
    assert (types.count("mstar"), types.count("yso"), types.count("payne")) == (10, 5, 25)
    assert {kinds[place][1] for place in chosen} == {"dev"}
    order = np.random.default_rng(0).permutation(len(kinds))
    shuffled = choose_stars(labels.take(order), "dev", 40)
    assert sorted(order[shuffled]) == sorted(chosen)
    weights = weights_of(labels, chosen, "dev")
    for kind, weight in (("mstar", 4.0), ("yso", 1.0), ("payne", 4.0)):
        assert {w for w, t in zip(weights, types, strict=True) if t == kind} == {weight}
    assert len(choose_stars(labels, "dev", 1000)) == 145


def test_labels_come_with_the_snr_of_their_own_star(labelled_store: Path) -> None:
    labels = read_labelled(labelled_store)
    stars = pq.read_table(table_path(labelled_store, "stars"))
    snr = dict(zip(stars["apstar_id"].to_pylist(), stars["snr"].to_pylist(), strict=True))
    assert labels["snr"].to_pylist() == [snr[name] for name in labels["apstar_id"].to_pylist()]
    assert labels["row"].to_pylist() == sorted(labels["row"].to_pylist())


def _files_of(model: Path) -> dict[str, bytes]:
    """Return the files of a model, without the one that holds times."""
    files = (path for path in model.iterdir() if path.is_file() and path.name != "stages.jsonl")
    return {path.name: path.read_bytes() for path in files}
