"""A survey of some hundred stars, and what becomes of it when nothing goes wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from scenes import Scene

from apogee_batch.files import write_bytes
from apogee_batch.report import figures
from apogee_batch.run.config import RunConfig, load_config
from apogee_batch.survey.simulate import SimulatedSurvey, simulate_survey

N_STARS = 240
SHARD_STARS = 64
TORN, EMPTIED = 70, 200  # places of the two bad files: fewer than one in a hundred, so a run goes on


@pytest.fixture(scope="session")
def fault_survey(tmp_path_factory: pytest.TempPathFactory) -> SimulatedSurvey:
    """A survey of 240 stars, two of whose files are of no use."""
    survey = simulate_survey(tmp_path_factory.mktemp("fault-survey") / "s", n_stars=N_STARS, seed=5)
    files = sorted(survey.spectra.rglob("apStar-*.fits*"))
    files[TORN].write_bytes(files[TORN].read_bytes()[:50_000])
    files[EMPTIED].write_bytes(b"")
    return survey


@pytest.fixture(scope="session")
def fault_config(tiny_recipe: str) -> RunConfig:
    """Settings for this process alone: shards of 64 stars, two realizations, one thread."""
    sections = {
        "ingest": {"shard_stars": SHARD_STARS},
        "training": {"recipe": tiny_recipe, "threads": 1},
        "inference": {"realizations": 2},
        "cluster": {"kind": "serial", "device": "cpu"},
    }
    return load_config(None, sections)


@pytest.fixture(scope="session")
def scene(
    fault_survey: SimulatedSurvey,
    fault_config: RunConfig,
    finished_run: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Scene:
    """The survey of 240 stars, its store with labels, and its undisturbed run."""
    folder = tmp_path_factory.mktemp("fault-scene")
    found = Scene(fault_survey, fault_config, folder / "s.zarr", folder / "run", finished_run / "model")
    found.ingest(found.store)
    found.attach(found.store)
    found.make_catalog(found.run)
    return found


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread: a forked child has no more than the one that forked."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small(
    survey: SimulatedSurvey,
    serial_config: RunConfig,
    finished_run: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Scene:
    """A scene of 48 stars in three shards, for commands that are given a hundred times; not made yet."""
    folder = tmp_path_factory.mktemp("small")
    inference = serial_config.inference.model_copy(update={"realizations": 2})
    config = serial_config.model_copy(update={"inference": inference})
    return Scene(survey, config, folder / "s.zarr", folder / "run", finished_run / "model")


@pytest.fixture(scope="module")
def simple_pictures() -> Iterator[None]:
    """Pictures that take no time: drawing them takes most of that of a small run."""

    def draw(catalog: Any, path: Path) -> None:
        n_stars = len(catalog) if hasattr(catalog, "num_rows") else sum(map(len, catalog))
        write_bytes(path, f"a picture of {n_stars} stars".encode())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "kiel_diagram", draw)
        patch.setattr(figures, "label_comparison", draw)
        yield
