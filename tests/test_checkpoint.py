import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_sets import make_training_set, tiny_recipe

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import read_sealed_json, write_sealed_json
from apogee_batch.network import training_folder
from apogee_batch.network.card import CARD_FILE, render_model_card
from apogee_batch.network.checkpoint import (
    HEADER_FILE,
    MODEL_FILE,
    STATE_FILE,
    Checkpoint,
    load_checkpoint,
    load_state,
    remove_state,
    save_checkpoint,
    save_state,
)
from apogee_batch.network.header import CheckpointHeader
from apogee_batch.network.metrics import METRICS_FILE, append_metrics, keep_metrics, read_metrics
from apogee_batch.network.model import SpectrumNet, initialise_kaiming
from apogee_batch.network.official import import_official
from apogee_batch.network.recipe import load_recipe
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform
from apogee_batch.network.state import EpochMetrics, Progress, TrainingState
from apogee_batch.network.training_folder import train_in_folder
from apogee_batch.network.training_set import TrainingSet
from apogee_batch.survey.pixels import N_PIXELS

HEADER = CheckpointHeader(
    origin="trained",
    transform=InputTransform(),
    scaler=OFFICIAL_SCALER,
    recipe=load_recipe("robust").to_json(),
    label_range={"logg": (0.5, 5.1), "teff": (2900.0, 6900.0), "fe_h": (-0.9, 0.4)},
    training_set_hash="ab" * 32,
    n_train={"payne": 10, "yso": 2},
    dev_loss=0.02,
    dev_loss_by_type={"payne": 0.01, "yso": 0.07},
    seed=5,
    device="cpu",
)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    model = SpectrumNet()
    initialise_kaiming(model, torch.Generator().manual_seed(1))
    return model.state_dict()


@pytest.fixture
def folder(weights: dict[str, Tensor], tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "model", weights, HEADER)
    return tmp_path / "model"


def test_a_checkpoint_comes_back_whole(folder: Path, weights: dict[str, Tensor]) -> None:
    checkpoint = load_checkpoint(folder)
    assert checkpoint.header == HEADER
    assert (checkpoint.scaler, checkpoint.transform) == (HEADER.scaler, HEADER.transform)
    loaded = checkpoint.model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())
    assert not any(p.requires_grad for p in checkpoint.model.parameters())
    assert sorted(path.name for path in folder.iterdir()) == [HEADER_FILE, MODEL_FILE]


def test_the_identity_of_a_model_is_that_of_its_weights_and_its_header(
    folder: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    sha256 = load_checkpoint(folder).sha256
    assert save_checkpoint(tmp_path / "same", weights, HEADER) == sha256
    raw = CheckpointHeader(**(HEADER.__dict__ | {"transform": InputTransform("raw")}))
    assert save_checkpoint(tmp_path / "other", weights, raw) != sha256


def test_a_flipped_bit_in_the_weights_is_found(folder: Path) -> None:
    damaged = bytearray((folder / MODEL_FILE).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (folder / MODEL_FILE).write_bytes(damaged)
    with pytest.raises(IntegrityError, match="missing or damaged"):
        load_checkpoint(folder)


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model here"):
        load_checkpoint(tmp_path)
    (folder / MODEL_FILE).unlink()
    with pytest.raises(IntegrityError, match=MODEL_FILE):
        load_checkpoint(folder)


def test_a_changed_or_damaged_header_is_refused(folder: Path) -> None:
    path = folder / HEADER_FILE
    saved = json.loads(path.read_text())
    header = saved["header"]
    without_scaler = {name: value for name, value in header.items() if name != "scaler"}
    changed = saved | {"header": header | {"seed": 6}}
    for text, message in (
        (json.dumps(changed), "changed after it was written"),
        (path.read_text()[:-20], "damaged"),
        ("{}", "damaged"),
        (json.dumps(saved | {"header": header | {"format_version": 99}}), "format 99"),
        (json.dumps(saved | {"header": header | {"label_order": ["teff"]}}), "labels"),
        (json.dumps(saved | {"header": without_scaler}), "scaler"),
    ):
        path.write_text(text)
        with pytest.raises(IntegrityError, match=message):
            load_checkpoint(folder)


# --- the authors' weights


def test_the_official_state_dict_is_imported_with_its_input_and_scaler(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(weights, tmp_path / "official.pt")
    checkpoint = import_official(tmp_path / "official.pt", tmp_path / "model")
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.transform.kind == "raw"
    assert checkpoint.scaler == OFFICIAL_SCALER
    assert checkpoint.header.label_range is None
    flux = torch.rand(2, N_PIXELS)
    reference = SpectrumNet()
    reference.load_state_dict(weights)
    torch.testing.assert_close(checkpoint.model(flux), reference(flux).detach())


class _Payload:
    """Would run code if a loader unpickled it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.mkdir, (Path("/nonexistent/owned"),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {k: v for k, v in w.items() if k != "conv3.bias"}, r"missing conv3\.bias"),
        (lambda w: w | {"fc4.bias": torch.zeros(3)}, r"unexpected fc4\.bias"),
        (lambda w: w | {"fc3.bias": torch.zeros(4)}, r"fc3\.bias has shape \(4,\), not \(3,\)"),
        (lambda w: w | {"fc3.bias": torch.full((3,), torch.nan)}, r"fc3\.bias holds NaN"),
        (lambda _: {}, r"missing conv1\.weight, .* and 24 more"),
        (lambda _: [1, 2], "no state dict"),
        (lambda _: {"epoch": 3}, "no state dict"),
        (lambda w: w | {"evil": _Payload()}, "not a torch file of weights only"),
    ],
)
def test_a_file_that_is_not_the_official_one_is_refused(
    weights: dict[str, Tensor], tmp_path: Path, change: object, message: str
) -> None:
    assert callable(change)
    torch.save(change(weights), tmp_path / "official.pt")
    with pytest.raises(UsageError, match=message) as caught:
        import_official(tmp_path / "official.pt", tmp_path / "model")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_a_file_that_is_no_torch_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        import_official(tmp_path / "absent.pt", tmp_path)
    for i, content in enumerate((b"", b"not a torch file", b"PK\x03\x04 nor a zip")):
        path = tmp_path / f"{i}.pt"
        path.write_bytes(content)
        with pytest.raises(UsageError, match="not a torch file"):
            import_official(path, tmp_path / "model")


# --- the state of a training


def _state(epoch: int) -> TrainingState:
    tensors = {"weights.fc3.bias": torch.full((3,), float(epoch)), "best.fc3.bias": torch.ones(3)}
    return TrainingState(Progress(seed=1, epoch=epoch, best_by_type={"payne": 0.3}), "key", tensors)


def test_the_last_state_comes_back_and_older_ones_are_gone(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    for epoch in (1, 2):
        save_state(tmp_path, _state(epoch))
    state = load_state(tmp_path)
    assert state is not None
    assert (state.progress, state.training_key) == (_state(2).progress, "key")
    assert torch.equal(state.part("weights")["fc3.bias"], torch.full((3,), 2.0))
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    remove_state(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_while_a_state_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path, _state(1))

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("apogee_batch.network.checkpoint.write_sealed_json", killed)
        with pytest.raises(KeyboardInterrupt):
            save_state(tmp_path, _state(2))
    state = load_state(tmp_path)
    assert state is not None
    assert state.progress.epoch == 1
    save_state(tmp_path, _state(2))
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_a_damaged_state_is_refused_with_the_remedy(tmp_path: Path) -> None:
    save_state(tmp_path, _state(1))
    text = (tmp_path / STATE_FILE).read_text()
    (tmp_path / STATE_FILE).write_text(text[:-10])
    with pytest.raises(IntegrityError, match="train from the start"):
        load_state(tmp_path)
    (tmp_path / STATE_FILE).write_text(text)
    saved = read_sealed_json(tmp_path / STATE_FILE)
    write_sealed_json(tmp_path / STATE_FILE, saved | {"format_version": 7})
    with pytest.raises(IntegrityError, match="format 7"):
        load_state(tmp_path)
    (tmp_path / STATE_FILE).write_text(text)
    next(tmp_path.glob("*.safetensors")).write_bytes(b"")
    with pytest.raises(IntegrityError, match="missing or damaged"):
        load_state(tmp_path)


# --- a training in its folder


@pytest.fixture(scope="module")
def training_set() -> TrainingSet:
    return make_training_set()


class _KilledError(Exception):
    """Stands for a kill."""


def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(
    training_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(max_epochs=2, adaptation_max_epochs=1, adaptation_max_rounds=1)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    header = train_in_folder(whole, training_set, recipe, seed=1, n_threads=1)

    def die(metrics: EpochMetrics) -> None:
        raise _KilledError

    with pytest.raises(_KilledError):
        train_in_folder(killed, training_set, recipe, seed=1, n_threads=1, on_epoch=die)
    with monkeypatch.context() as patch:  # and once after the line of metrics, before the state
        patch.setattr(training_folder, "save_state", lambda *args: die(args[0]))
        with pytest.raises(_KilledError):
            train_in_folder(killed, training_set, recipe, seed=1, n_threads=1)
    assert [line["epoch"] for line in read_metrics(killed / METRICS_FILE)] == [1, 2]
    train_in_folder(killed, training_set, recipe, seed=1, n_threads=1)
    for name in (MODEL_FILE, HEADER_FILE, CARD_FILE):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert [line["epoch"] for line in read_metrics(killed / METRICS_FILE)] == [1, 2, 3]
    assert sorted(p.name for p in killed.iterdir()) == sorted(
        [CARD_FILE, METRICS_FILE, HEADER_FILE, MODEL_FILE]
    )

    assert train_in_folder(whole, training_set, recipe, seed=1) == header  # has ended: nothing is done
    with pytest.raises(UsageError, match="another recipe, seed or training set"):
        train_in_folder(whole, training_set, recipe, seed=2)


def test_metrics_survive_torn_lines_and_numbers_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    assert read_metrics(path) == []
    metrics = EpochMetrics(
        epoch=1,
        round_epoch=1,
        max_epochs=9,
        phase="main",
        round=0,
        n_spectra=10,
        n_steps=2,
        learning_rate=0.1,
        train_loss=float("nan"),
        dev_loss=0.5,
        dev_loss_by_type={"payne": float("inf")},
        is_best=True,
        n_stale=0,
        patience=5,
    )
    append_metrics(path, metrics, seconds=1.5)
    with path.open("a") as file:
        file.write('{"epoch": 2, "dev')
    (line,) = read_metrics(path)
    assert (line["train_loss"], line["dev_loss"], line["dev_loss_by_type"]) == (None, 0.5, {"payne": None})
    keep_metrics(path, last_epoch=0)
    assert path.read_text() == ""


# --- the card


def test_the_card_of_a_trained_model_states_its_facts() -> None:
    header = CheckpointHeader(**(HEADER.__dict__ | {"warnings": ("the network has learned nothing",)}))
    card = render_model_card(header, "f00d")
    for words in (
        "f00d",
        "recipe `robust`",
        "10 payne, 2 yso",
        "0.0200",
        "2900",
        "learned nothing",
        "ab" * 32,
    ):
        assert words in card
    assert "batch_size = " in card


def test_the_card_of_imported_weights_says_whose_they_are() -> None:
    header = CheckpointHeader(origin="official", transform=InputTransform("raw"), scaler=OFFICIAL_SCALER)
    card = render_model_card(header, "f00d")
    assert "the authors published" in card
    assert "## Training\n" not in card
    assert "not known" in card
    assert "| teff | K | 4716.92 | 733.01 |" in card


def test_a_state_that_was_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    save_state(tmp_path, _state(1))
    folder = tmp_path
    text = (folder / STATE_FILE).read_text()
    for old, new in (('"epoch": 1', '"epoch": 2'), ("best_loss", "best_lost")):
        assert old in text
        (folder / STATE_FILE).write_text(text.replace(old, new, 1))
        with pytest.raises(IntegrityError, match="is damaged"):
            load_state(folder)
