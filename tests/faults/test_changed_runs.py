"""A run or a training goes on with what it was begun with, or is begun anew beside what is there."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from crashes import content_of, crash_after, other_version

from apogee_batch.errors import UsageError
from apogee_batch.run import commands
from apogee_batch.run.config import ORDINARY, Going, RunConfig
from apogee_batch.run.progress import SilentView
from apogee_batch.survey.simulate import SimulatedSurvey
from apogee_batch.survey.sources import find_apstar_files

pytestmark = pytest.mark.fault

FORCED = Going(force_new_plan=True)


@dataclass(frozen=True)
class Bench:
    """A store with labels, a model, and the run that is made of both."""

    store: Path
    model: Path
    run: Path
    config: RunConfig

    def make(self, going: Going = ORDINARY, **inference: Any) -> list[str]:
        config = self.config
        if inference:
            config = config.model_copy(update={"inference": config.inference.model_copy(update=inference)})
        options: dict[str, Any] = {"config": config, "progress": SilentView(), "is_dry_run": False}
        return commands.make_catalog(self.store, self.run, model=self.model, **options, going=going)

    def stop(self) -> None:
        crash_after("ledger/*.json", self.make)


@pytest.fixture
def bench(labelled_store: Path, finished_run: Path, serial_config: RunConfig, tmp_path: Path) -> Bench:
    shutil.copytree(labelled_store, tmp_path / "s.zarr")
    return Bench(tmp_path / "s.zarr", finished_run / "model", tmp_path / "run", serial_config)


@pytest.fixture(scope="module")
def other_model(
    labelled_store: Path, serial_config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("other") / "model"
    training = serial_config.training.model_copy(update={"seed": 1})
    config = serial_config.model_copy(update={"training": training})
    commands.train(labelled_store, folder, config=config, progress=SilentView())
    return folder


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"realizations": 4}, "realizations: 3 -> 4"),
        ({"err_cap": "mean"}, "err_cap: median -> mean"),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(bench: Bench, changed: dict[str, Any], said: str) -> None:
    bench.stop()
    with pytest.raises(UsageError, match=f"begun with another plan .*{said}.*--force-new-plan"):
        bench.make(**changed)


def test_a_run_does_not_go_on_with_another_model(bench: Bench, other_model: Path) -> None:
    bench.stop()
    with pytest.raises(UsageError, match=r"another plan \(another model is given\);"):
        replace(bench, model=other_model).make()


def test_a_run_does_not_go_on_with_labels_attached_anew(bench: Bench, survey: SimulatedSurvey) -> None:
    bench.stop()
    commands.attach(bench.store, {"payne": [survey.labels["payne"]]}, column_map=[])
    with pytest.raises(UsageError, match=r"labels (are|were) attached to the store"):
        bench.make()


def test_a_run_does_not_go_on_with_a_store_that_has_grown(
    bench: Bench, survey: SimulatedSurvey, tmp_path: Path
) -> None:
    bench.stop()
    paths = [tmp_path / f"apStar-r9-2M0000000{i}+0000000.fits" for i in range(2)]
    for path, source in zip(paths, find_apstar_files([str(survey.spectra)]), strict=False):
        shutil.copy(source, path)
    commands.ingest(
        [str(path) for path in paths],
        bench.store,
        allstar=None,
        config=bench.config,
        is_dry_run=False,
        progress=SilentView(),
    )
    with pytest.raises(UsageError, match="the store holds other spectra"):
        bench.make()


def test_a_run_does_not_go_on_with_another_version(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.stop()
    other_version(monkeypatch)
    with pytest.raises(UsageError, match=r"version of apogee-batch: .* -> 9\.9"):
        bench.make()


@pytest.mark.parametrize("is_finished", [False, True], ids=["stopped", "finished"])
def test_a_forced_run_keeps_the_old_one_and_ends_as_a_new_one(bench: Bench, is_finished: bool) -> None:
    (bench.make if is_finished else bench.stop)()
    before = content_of(bench.run)
    bench.make(FORCED, seed=1)
    (aside,) = bench.run.glob("old-*")
    assert content_of(aside) == before
    fresh = replace(bench, run=bench.run.with_name("fresh"))
    fresh.make(seed=1)
    for name in ("catalog/catalog.parquet", "catalog/catalog.fits", "rejects.parquet", "manifest.json"):
        assert (bench.run / name).read_bytes() == (fresh.run / name).read_bytes()


def test_a_forced_run_with_the_same_plan_goes_on(bench: Bench, finished_run: Path) -> None:
    bench.stop()
    entry = next(bench.run.glob("ledger/*.json"))
    before = entry.read_bytes()
    bench.make(FORCED)
    assert entry.read_bytes() == before
    assert not list(bench.run.glob("old-*"))


@pytest.mark.parametrize("is_finished", [False, True], ids=["stopped", "finished"])
def test_a_forced_training_keeps_the_old_one_and_ends_as_a_new_one(bench: Bench, is_finished: bool) -> None:
    folder = bench.run

    def train(seed: int, out: Path = folder, going: Going = ORDINARY) -> list[str]:
        training = bench.config.training.model_copy(update={"seed": seed})
        config = bench.config.model_copy(update={"training": training})
        return commands.train(bench.store, out, config=config, progress=SilentView(), going=going)

    if is_finished:
        train(0)
    else:
        crash_after("state.json", lambda: train(0))
    before = content_of(folder)
    with pytest.raises(UsageError, match="seed: 0 -> 1"):
        train(1)
    train(1, going=FORCED)
    (aside,) = folder.glob("old-*")
    assert {name: content for name, content in content_of(aside).items() if "logs/" not in name} == {
        name: content for name, content in before.items() if "logs/" not in name
    }
    train(1, out=folder.with_name("fresh"))
    assert (folder / "model.safetensors").read_bytes() == (
        folder.with_name("fresh") / "model.safetensors"
    ).read_bytes()
