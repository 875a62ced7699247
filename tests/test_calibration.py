"""A calibration is the one that was written, belongs to its model, and is told of in the card."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apogee_batch.errors import IntegrityError
from apogee_batch.files import canonical_json, read_sealed_json, sha256_of_text, write_sealed_json
from apogee_batch.network.calibration import (
    CALIBRATION_FILE,
    CALIBRATION_TENSORS,
    Calibration,
    load_calibration,
    save_calibration,
)
from apogee_batch.network.card import render_model_card
from apogee_batch.network.checkpoint import UNCALIBRATED, load_checkpoint
from apogee_batch.network.error_model import ErrorModel, LabelErrors
from apogee_batch.network.hull import fit_hull
from apogee_batch.network.strangeness import Metric, Strangeness

MODEL = "ab" * 32
ERRORS = LabelErrors((0.1, 0.2, 0.3, 0.4), 2.5, 0.05, 2.3, 4.0, ("floor by place", "scale", "SNR"), {})
METRIC = Metric(
    *(np.arange(6, dtype=np.float32).reshape(shape) for shape in ((6,), (6, 1))), np.ones(2, np.float32)
)
HULL = fit_hull(np.random.default_rng(1).normal([3, 4700, -0.2], [1, 700, 0.3], (300, 3)))
CALIBRATION = Calibration(
    model_sha256=MODEL,
    settings={"realizations": 100, "err_cap": "median", "labels_sha256": "cd" * 32},
    n_stars={"payne": 90, "yso": 10},
    error_model=ErrorModel((ERRORS, ERRORS, replace(ERRORS, degrees_of_freedom=np.inf)), 100, {"giant": 100}),
    strangeness=Strangeness(METRIC, (20.0, 100.0), (2.0, 3.0), 500, 100),
    hull=HULL,
    notes=("something is missing",),
)
BARE = Calibration(MODEL, {}, {}, notes=("too few",))


def loaded(folder: Path) -> Calibration:
    found = load_calibration(folder, MODEL)
    assert found is not None
    return found[0]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    sha256 = save_calibration(tmp_path, CALIBRATION)
    found = load_calibration(tmp_path, MODEL)
    assert found is not None
    assert found[1] == sha256
    assert found[0].to_json() == CALIBRATION.to_json()
    assert found[0].error_model == CALIBRATION.error_model
    for name, array in CALIBRATION.tensors().items():
        np.testing.assert_array_equal(found[0].tensors()[name], array)
    assert {"strangeness.center", "hull.occupied"} <= set(CALIBRATION.tensors())


def test_the_same_calibration_has_the_same_bytes_and_another_one_another_name(tmp_path: Path) -> None:
    names = [save_calibration(tmp_path / folder, CALIBRATION) for folder in "ab"]
    assert names[0] == names[1]
    for name in (CALIBRATION_FILE, CALIBRATION_TENSORS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert save_calibration(tmp_path / "c", replace(CALIBRATION, notes=())) != names[0]
    assert save_calibration(tmp_path / "c", replace(CALIBRATION, hull=None)) != names[0]


def test_what_computed_it_is_told_and_does_not_change_its_name(tmp_path: Path) -> None:
    before = save_calibration(tmp_path, CALIBRATION)
    older = (tmp_path / CALIBRATION_FILE).read_bytes()
    assert b"computed_on" not in older
    assert loaded(tmp_path).computed_on == ""
    named = replace(CALIBRATION, computed_on="cpu, kernel exact")
    assert save_calibration(tmp_path, named) == before
    found = load_calibration(tmp_path, MODEL)
    assert found is not None
    assert (found[0].computed_on, found[1]) == ("cpu, kernel exact", before)
    assert found[0].to_json() == named.to_json()


def test_a_file_that_does_not_tell_what_computed_it_keeps_its_name(tmp_path: Path) -> None:
    save_calibration(tmp_path, CALIBRATION)
    found = load_calibration(tmp_path, MODEL)
    assert found is not None
    assert found[1] == sha256_of_text(canonical_json(read_sealed_json(tmp_path / CALIBRATION_FILE)))


def test_one_that_says_nothing_is_kept_with_its_reasons(tmp_path: Path) -> None:
    save_calibration(tmp_path, CALIBRATION)
    save_calibration(tmp_path, BARE)
    found = loaded(tmp_path)
    assert (found.error_model, found.strangeness, found.hull, found.notes) == (None, None, None, ("too few",))


def test_no_file_is_no_calibration_whatever_was_begun(tmp_path: Path) -> None:
    assert load_calibration(tmp_path, MODEL) is None
    save_calibration(tmp_path, CALIBRATION)
    (tmp_path / CALIBRATION_FILE).unlink()  # as where it was killed before its last file
    assert load_calibration(tmp_path, MODEL) is None


@pytest.mark.parametrize("name", [CALIBRATION_FILE, CALIBRATION_TENSORS])
@pytest.mark.parametrize("cut", [10, -2])
def test_a_damaged_file_is_named_with_what_mends_it(tmp_path: Path, name: str, cut: int) -> None:
    save_calibration(tmp_path, CALIBRATION)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:cut])
    with pytest.raises(IntegrityError, match=f"{name}: is .*damaged.*model calibrate MODEL STORE"):
        load_calibration(tmp_path, MODEL)


def test_that_of_another_model_or_format_is_refused(tmp_path: Path) -> None:
    save_calibration(tmp_path, CALIBRATION)
    with pytest.raises(IntegrityError, match="belongs to another model"):
        load_calibration(tmp_path, "0" * 64)
    path = tmp_path / CALIBRATION_FILE
    write_sealed_json(path, read_sealed_json(path) | {"format_version": 2})
    with pytest.raises(IntegrityError, match="of format 2, this program reads 1"):
        load_calibration(tmp_path, MODEL)


def test_a_checkpoint_comes_with_its_calibration_and_is_named_after_both(
    finished_run: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(finished_run / "model", tmp_path / "model"))
    before = load_checkpoint(model)
    weights = (model / "model.safetensors").read_bytes(), (model / "model.json").read_bytes()
    save_calibration(model, replace(CALIBRATION, model_sha256=before.sha256))
    after = load_checkpoint(model)
    assert after.sha256 == before.sha256
    assert after.identity != before.identity
    assert after.calibration is not None
    assert after.calibration.error_model == CALIBRATION.error_model
    assert weights == ((model / "model.safetensors").read_bytes(), (model / "model.json").read_bytes())
    bare = load_checkpoint(model, with_calibration=False)
    assert (bare.calibration, str(bare.identity)) == (None, f"{before.sha256} {UNCALIBRATED}")
    (model / CALIBRATION_FILE).write_text("{}")
    with pytest.raises(IntegrityError, match=CALIBRATION_FILE):
        load_checkpoint(model)
    load_checkpoint(model, with_calibration=False)


def test_the_card_tells_of_the_calibration(finished_run: Path) -> None:
    header = load_checkpoint(finished_run / "model").header
    card = render_model_card(header, MODEL, (CALIBRATION, "f00d"))
    for words in ("f00d", "90 payne, 10 yso", "something is missing", "cd" * 32, "| teff | K | 0.1 | 0.2 |"):
        assert words in card
    assert "computed on" not in card
    named = replace(CALIBRATION, computed_on="cpu, kernel fast")
    assert "- computed on: cpu, kernel fast" in render_model_card(header, MODEL, (named, "f00d"))
    assert "## Calibration" not in render_model_card(header, MODEL)
    assert "floor: giant" not in render_model_card(header, MODEL, (BARE, "f00d"))
