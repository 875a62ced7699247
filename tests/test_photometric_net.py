"""The photometric network: what it computes, how it learns, how it is kept."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from young_isochrones import write_parsec

from apogee_batch.errors import ApogeeBatchError, IntegrityError, UsageError
from apogee_batch.labels.isochrones import Isochrones, read_isochrones
from apogee_batch.labels.photometric_checkpoint import (
    HEADER_FILE,
    WEIGHTS_FILE,
    TrainedNet,
    load_net,
    save_net,
)
from apogee_batch.labels.photometric_net import PhotometricNet, TrainingSettings, train_net
from apogee_batch.labels.synthetic_stars import (
    OUTPUTS,
    StarInputs,
    SyntheticSettings,
    SyntheticStars,
    draw_synthetic_stars,
)
from apogee_batch.labels.yso_training import measure_net, photometric_residual, train_photometric_net

SETTINGS = SyntheticSettings(uses_radius_luminosity=True)
QUICK = TrainingSettings(epochs=6, batch_size=50)


@pytest.fixture(scope="module")
def isochrones(tmp_path_factory: pytest.TempPathFactory) -> Isochrones:
    path = tmp_path_factory.mktemp("parsec") / "parsec.dat"
    return read_isochrones([write_parsec(path, (1.0, 3.0, 10.0, 30.0, 100.0))])


@pytest.fixture(scope="module")
def trained(isochrones: Isochrones) -> TrainedNet:
    return train_photometric_net(
        isochrones, SETTINGS, files={"parsec.dat": "0" * 64}, n_stars=1000, seed=5, training=QUICK
    )


def _stars(isochrones: Isochrones, purpose: str, n_stars: int = 300) -> SyntheticStars:
    return draw_synthetic_stars(isochrones, SETTINGS, n_stars=n_stars, seed=5, purpose=purpose)


def _new_net() -> PhotometricNet:
    return PhotometricNet(SETTINGS.inputs, SETTINGS.bands, SETTINGS.required_band)


def test_it_has_the_layers_of_the_paper() -> None:
    layers = [type(module).__name__ for module in _new_net().modules()]
    assert [layers.count(name) for name in ("Conv1d", "MaxPool1d", "Linear")] == [3, 3, 2]


def test_a_distance_and_the_magnitudes_it_explains_make_no_difference(isochrones: Isochrones) -> None:
    net, inputs = _new_net(), _stars(isochrones, "test", 5).inputs
    moved = inputs.values.copy()
    moved[:, :6] += 2.5
    moved[:, -1] += 0.5
    first, second = net.planes(torch.from_numpy(inputs.values)), net.planes(torch.from_numpy(moved))
    torch.testing.assert_close(first[..., :-1], second[..., :-1])


def test_what_is_not_given_is_not_seen(trained: TrainedNet, isochrones: Isochrones) -> None:
    inputs = _stars(isochrones, "test", 50).inputs
    assert not inputs.is_given.all()
    changed = StarInputs(np.where(inputs.is_given, inputs.values, 3.0), inputs.is_given)
    np.testing.assert_array_equal(trained.net.predict(inputs), trained.net.predict(changed))


def test_the_same_seed_trains_the_same_network(isochrones: Isochrones) -> None:
    torch.set_num_threads(1)
    stars = _stars(isochrones, "train")
    torch.manual_seed(1)  # what others draw from the global state changes nothing
    nets = [_new_net(), _new_net(), _new_net()]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        train_net(net, stars, stars, TrainingSettings(epochs=1, batch_size=100), seed=seed)
        torch.rand(3)
    first, again, other = (net.predict(stars.inputs) for net in nets)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_it_learns(trained: TrainedNet, isochrones: Isochrones) -> None:
    spread = _stars(isochrones, "test").outputs.std(axis=0)
    for name, share in (("a_v", 0.5), ("log_teff", 0.95)):  # the easiest: some epochs suffice
        assert trained.held_out["all"][name]["rms"] < share * spread[OUTPUTS.index(name)]


def test_the_number_of_cores_changes_nothing(isochrones: Isochrones) -> None:
    found = []
    before = torch.get_num_threads()
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        quick = TrainingSettings(epochs=1, batch_size=50)
        made = train_photometric_net(isochrones, SETTINGS, files={}, n_stars=100, seed=5, training=quick)
        assert torch.get_num_threads() == n_threads  # as it was before
        found.append(made.net.state_dict())
    torch.set_num_threads(before)
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=0, atol=0)


def test_the_best_epoch_is_kept(isochrones: Isochrones) -> None:
    torch.set_num_threads(1)
    net, train, dev = _new_net(), _stars(isochrones, "train"), _stars(isochrones, "dev")
    losses: list[float] = []
    wild = TrainingSettings(epochs=5, batch_size=100, learning_rate=0.03)
    best = train_net(net, train, dev, wild, seed=1, on_epoch=lambda _, loss: losses.append(loss))
    assert best == min(losses)
    scaled = (net.predict(dev.inputs) - dev.outputs) / net.output_std.numpy()
    assert len(losses) == 5
    assert nn.functional.smooth_l1_loss(
        torch.from_numpy(scaled), torch.zeros(scaled.shape, dtype=torch.float64), beta=0.02
    ).item() == pytest.approx(best, rel=1e-4)


def test_a_loss_that_is_never_a_number_is_told(isochrones: Isochrones) -> None:
    train, dev = _stars(isochrones, "train", 50), _stars(isochrones, "dev", 50)
    lost = replace(dev, outputs=np.full_like(dev.outputs, np.nan))
    with pytest.raises(ApogeeBatchError, match="diverged: its loss was never a number"):
        train_net(_new_net(), train, lost, TrainingSettings(epochs=2, batch_size=50), seed=1)


def test_held_out_precision_is_that_of_stars_it_never_saw(
    trained: TrainedNet, isochrones: Isochrones
) -> None:
    test = _stars(isochrones, "test", 100)
    assert trained.held_out == measure_net(trained, test)
    residual = trained.net.predict(test.inputs) - test.outputs
    rms = np.sqrt((residual**2).mean(axis=0))
    for k, name in enumerate(OUTPUTS):
        assert trained.held_out["all"][name]["rms"] == pytest.approx(rms[k])
    bright = test.inputs.is_given[:, :6].all(axis=1)
    assert trained.held_out["every_band"]["n_stars"] == bright.sum()
    assert trained.held_out["every_band"]["logg"]["rms"] == pytest.approx(
        np.sqrt((residual[bright, 2] ** 2).mean())
    )


def test_the_photometry_of_a_model_has_no_residual(trained: TrainedNet, isochrones: Isochrones) -> None:
    stars = _stars(isochrones, "test", 100)
    ranges = np.array([trained.training["ranges"][name] for name in OUTPUTS])
    inside = np.all((stars.outputs >= ranges[:, 0]) & (stars.outputs <= ranges[:, 1]), axis=1)
    assert np.all(photometric_residual(trained, stars.inputs, stars.outputs)[inside] < 1e-5)
    brighter = StarInputs(stars.inputs.values - 0.3 * (np.arange(9) < 6), stars.inputs.is_given)
    np.testing.assert_allclose(photometric_residual(trained, brighter, stars.outputs)[inside], 0.3, atol=1e-5)


def test_it_is_the_same_after_it_was_kept(
    trained: TrainedNet, isochrones: Isochrones, tmp_path: Path
) -> None:
    inputs = _stars(isochrones, "test", 20).inputs
    sha256 = save_net(tmp_path / "a", trained)
    loaded = load_net(tmp_path / "a")
    np.testing.assert_array_equal(loaded.net.predict(inputs), trained.net.predict(inputs))
    assert loaded.settings == trained.settings
    assert (loaded.held_out, loaded.training, loaded.files) == (
        trained.held_out,
        trained.training,
        trained.files,
    )
    mass, log_age = np.array([0.5, 2.0]), np.array([6.2, 7.9])
    ours, theirs = isochrones.at(mass, log_age), loaded.isochrones.at(mass, log_age)
    np.testing.assert_array_equal(ours.magnitude["bp"], theirs.magnitude["bp"])
    assert save_net(tmp_path / "b", loaded) == sha256
    for name in (WEIGHTS_FILE, HEADER_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_damaged_network_is_refused(trained: TrainedNet, tmp_path: Path) -> None:
    save_net(tmp_path, trained)
    weights, header = tmp_path / WEIGHTS_FILE, tmp_path / HEADER_FILE
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="not what was written"):
        load_net(tmp_path)
    weights.write_bytes(whole)
    changed = json.loads(header.read_text())
    changed["held_out"]["all"]["logg"]["rms"] = 0.0
    header.write_text(json.dumps(changed))
    with pytest.raises(IntegrityError, match="checksum"):
        load_net(tmp_path)
    header.unlink()
    with pytest.raises(UsageError, match="no photometric network here"):
        load_net(tmp_path)
