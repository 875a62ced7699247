"""A model notes which stars taught it, and a run warns where they are simulated and its own are not."""

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from apogee_batch.errors import IntegrityError
from apogee_batch.files import write_table
from apogee_batch.network.card import CARD_FILE, write_model_card
from apogee_batch.network.model_files import read_model
from apogee_batch.network.training_stars import (
    TRAINING_STARS_FILE,
    TrainingStars,
    read_training_stars,
    write_training_stars,
)
from apogee_batch.run import training_stars as noting
from apogee_batch.run.report import write_report
from apogee_batch.run.training_stars import NOT_ALIKE, note_training_stars, notes_on_stars
from apogee_batch.run.verify import verify
from apogee_batch.store.tables import LABELS, STARS, read_labels, read_stars, table_path

KNOWN = TrainingStars(3, {"r8": 2, "not known": 1}, {}, 2, 1, are_simulated=False, snr=(1.0, 2.0, 3.0))


@pytest.fixture
def tables(labelled_store: Path, tmp_path: Path) -> Path:
    """The tables of a store, without its spectra, for a test to change."""
    shutil.copytree(labelled_store / "tables", tmp_path / "s.zarr" / "tables")
    return tmp_path / "s.zarr"


def change(store: Path, **columns: list[object]) -> None:
    """Put other columns into the table of stars."""
    stars = read_stars(store)
    for name, values in columns.items():
        i = stars.schema.get_field_index(name)
        stars = stars.set_column(i, stars.schema.field(name), pa.array(values, stars.schema.field(name).type))
    write_table(table_path(store, STARS), stars)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    assert read_training_stars(tmp_path) is None
    for stars in (KNOWN, replace(KNOWN, are_simulated=True, snr=None, h=(9.0, 11.5, 13.0))):
        write_training_stars(tmp_path, stars)
        assert read_training_stars(tmp_path) == stars


def test_a_damaged_note_is_named(tmp_path: Path) -> None:
    write_training_stars(tmp_path, KNOWN)
    path = tmp_path / TRAINING_STARS_FILE
    path.write_text(path.read_text().replace("false", "true"))
    with pytest.raises(IntegrityError, match=f"{TRAINING_STARS_FILE}: is damaged"):
        read_training_stars(tmp_path)


def test_the_training_split_alone_is_counted(tables: Path) -> None:
    labels = read_labels(tables)
    assert labels is not None
    in_train = [row["row"] for row in labels.to_pylist() if row["data_set"] == "train"]
    n_stars = len(read_stars(tables))
    snr = [100.0 if row in in_train else 5.0 for row in range(n_stars)]
    snr[in_train[0]] = 10.0
    change(tables, snr=snr, release=["r8"] * n_stars, telescope=[None] * n_stars, h=[None] * n_stars)
    found = noting.training_stars(tables)
    assert found.n_stars == len(in_train)
    assert found.releases == {"r8": len(in_train)}
    assert found.telescopes == {"not known": len(in_train)}
    assert found.n_low_snr == 1
    assert found.snr is not None
    assert found.snr[1:] == (100.0, 100.0)
    assert found.h is None
    assert found.are_simulated


def test_one_training_star_of_another_field_makes_the_set_a_real_one(tables: Path) -> None:
    stars, labels = read_stars(tables), read_labels(tables)
    assert labels is not None
    by_set = dict(zip(labels["data_set"].to_pylist(), labels["row"].to_pylist(), strict=True))
    for data_set, are_simulated in (("test", True), ("train", False)):
        fields = stars["field"].to_pylist()
        fields[by_set[data_set]] = "M67"
        change(tables, field=fields)
        assert noting.training_stars(tables).are_simulated == are_simulated


def test_a_store_without_labels_teaches_nothing(tables: Path) -> None:
    table_path(tables, LABELS).unlink()
    found = noting.training_stars(tables)
    assert (found.n_stars, found.n_fields, found.snr, found.are_simulated) == (0, 0, None, False)


def test_it_is_news_once(tables: Path, tmp_path: Path) -> None:
    assert note_training_stars(tables, tmp_path)
    assert not note_training_stars(tables, tmp_path)
    (tmp_path / TRAINING_STARS_FILE).write_text("{")
    assert note_training_stars(tables, tmp_path)


def test_a_training_leaves_the_note_and_a_card_that_tells_of_it(finished_run: Path) -> None:
    taught = read_training_stars(finished_run / "model")
    assert taught is not None
    assert taught.are_simulated
    assert taught.n_stars == sum(read_model(finished_run / "model").header.n_train.values())
    card = (finished_run / "model" / CARD_FILE).read_text()
    assert "Trained on simulated spectra" in card
    assert "by telescope: apo25m" in card


def test_a_model_of_before_has_no_note_and_is_whole(finished_run: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(finished_run / "model", tmp_path / "model"))
    (model / TRAINING_STARS_FILE).unlink()
    assert [damage.path.name for damage in verify(model).damages] == [
        TRAINING_STARS_FILE
    ]  # its card tells of it
    saved = read_model(model)
    write_model_card(model, saved.header, saved.sha256, saved.calibrated)
    assert verify(model).damages == []
    shutil.copy(finished_run / "model" / TRAINING_STARS_FILE, model)  # noted later, the card not yet anew
    assert verify(model).damages == []
    assert read_model(model).identity == read_model(finished_run / "model").identity


def test_a_run_on_other_stars_is_warned_of_a_model_of_simulated_ones(
    finished_run: Path, tables: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = finished_run / "model"
    assert notes_on_stars(model, tables) == []  # simulated as well
    change(tables, field=["M67"] * len(read_stars(tables)))
    assert notes_on_stars(model, tables) == [f"WARNING: {model}: {NOT_ALIKE}"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_model_of_other_stars_or_of_unknown_ones_is_no_reason_to_warn(tables: Path, tmp_path: Path) -> None:
    change(tables, field=["M67"] * len(read_stars(tables)))
    assert notes_on_stars(tmp_path, tables) == []
    write_training_stars(tmp_path, KNOWN)
    assert notes_on_stars(tmp_path, tables) == []


def test_the_page_of_a_simulated_run_has_no_box_for_real_stars(finished_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    html = write_report(run).path.read_text(encoding="utf-8")
    assert "These spectra are simulated" in html
    assert "these stars are not simulated" not in html
