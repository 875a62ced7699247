import threading

import numpy as np
import pytest
import torch
from training_sets import make_training_set, tiny_recipe

from apogee_batch.network import inputs
from apogee_batch.network.draws import derive_generator
from apogee_batch.network.inputs import DeviceSpectra, HostSpectra, TrainingInputs, place_spectra
from apogee_batch.network.scaling import LabelScaler
from apogee_batch.network.training import train
from apogee_batch.network.training_set import ROWS_AT_ONCE, TrainingSet
from apogee_batch.survey.pixels import N_PIXELS


@pytest.fixture(scope="module")
def training_set() -> TrainingSet:
    return make_training_set()


@pytest.fixture
def batches(training_set: TrainingSet) -> list[np.ndarray]:
    rows = np.random.default_rng(4).permutation(training_set.rows("train"))
    return np.array_split(np.concatenate([rows, rows]), 11)


class ElsewhereSpectra(HostSpectra):
    """As for a GPU, but for the GPU."""

    def __init__(self, flux: np.ndarray, device: str) -> None:
        super().__init__(flux, "meta")


@pytest.fixture
def as_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make the host's memory pinned, and copies to the device none; return the sizes of what was pinned."""
    pinned: list[int] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: (pinned.append(len(t)), t)[1])
    real = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda t, *a, **k: t if a == (torch.device("meta"),) else real(t, *a, **k)
    )
    return pinned


def n_threads() -> int:
    return sum(thread.name.startswith(inputs.THREAD_NAME) for thread in threading.enumerate())


def test_spectra_are_the_same_wherever_they_lie(
    training_set: TrainingSet, batches: list[np.ndarray], as_for_a_gpu: list[int]
) -> None:
    used = np.flatnonzero(training_set.data_set != "test")
    for spectra in (
        HostSpectra(training_set.flux, "cpu"),
        ElsewhereSpectra(training_set.flux, "cpu"),
        DeviceSpectra(training_set.flux, used, "cpu"),
    ):
        for rows, flux in zip(batches, spectra.each(batches), strict=True):
            np.testing.assert_array_equal(flux.numpy(), training_set.flux[rows])
            flux.add_(1)  # a batch is a copy
    assert as_for_a_gpu == [len(rows) for rows in batches]
    assert n_threads() == 0


def test_more_spectra_than_are_copied_at_once_reach_the_device() -> None:
    flux = np.arange(ROWS_AT_ONCE + 7, dtype=np.float32)[:, None].repeat(4, axis=1)
    rows = np.arange(1, len(flux))
    [taken] = DeviceSpectra(flux, rows, "cpu").each([rows[::-1]])
    np.testing.assert_array_equal(taken.numpy(), flux[:0:-1])


def test_spectra_lie_on_the_device_if_all_that_are_used_fit(
    training_set: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_used = int((training_set.data_set != "test").sum())
    assert n_used < len(training_set.flux)
    assert isinstance(place_spectra(training_set, "cpu"), HostSpectra)
    for room, kind in ((4 * N_PIXELS * n_used, DeviceSpectra), (4 * N_PIXELS * n_used - 1, HostSpectra)):
        monkeypatch.setattr(inputs, "measure_room", lambda _, room=room: room)
        assert isinstance(place_spectra(training_set, "cpu"), kind)


def test_the_room_is_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10 * 2**30, 80 * 2**30))
    assert inputs.measure_room("cuda") == 7 * 2**30
    assert inputs.measure_room("cpu") == 0


@pytest.mark.parametrize("where", ["device", "pinned"])
def test_a_training_gives_the_same_weights_wherever_its_spectra_lie(
    training_set: TrainingSet, where: str, as_for_a_gpu: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(max_epochs=1, adaptation_max_rounds=1, adaptation_max_epochs=1)
    plain = train(training_set, recipe, seed=1, n_threads=1)
    if where == "device":
        monkeypatch.setattr(inputs, "measure_room", lambda _: 2**40)
        monkeypatch.delattr(inputs, "HostSpectra")
    else:
        monkeypatch.setattr(inputs, "HostSpectra", ElsewhereSpectra)
    other = train(training_set, recipe, seed=1, n_threads=1)
    assert all(torch.equal(other.weights[name], tensor) for name, tensor in plain.weights.items())
    assert bool(as_for_a_gpu) == (where == "pinned")
    assert n_threads() == 0


def test_no_thread_outlives_a_training_that_fails(
    training_set: TrainingSet, as_for_a_gpu: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class EnoughError(Exception):
        pass

    def stop(_done: int, _of: int) -> None:
        assert n_threads() == 1
        raise EnoughError

    monkeypatch.setattr(inputs, "HostSpectra", ElsewhereSpectra)
    with pytest.raises(EnoughError) as caught:
        train(training_set, tiny_recipe(max_epochs=1), seed=1, n_threads=1, on_step=stop)
    assert caught.tb is not None  # which still holds the frames of the training
    assert n_threads() == 0


def test_noise_is_of_the_generator_and_only_where_it_is_asked_for(
    training_set: TrainingSet, batches: list[np.ndarray]
) -> None:
    recipe = tiny_recipe(noise=0.1)
    scaler = LabelScaler.from_labels(training_set.labels)
    prepared = TrainingInputs(training_set, recipe, scaler, device="cpu")
    clean, _ = next(prepared.each(batches))
    flux = torch.from_numpy(training_set.flux[batches[0]])
    assert torch.equal(clean, recipe.transform.apply(flux, recipe.transform.scale(flux)))
    one, same, other = (next(prepared.each(batches, noise=derive_generator(1, p)))[0] for p in "aab")
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, clean)
