"""Fixtures that several test modules share."""

import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from apogee_batch.run import commands
from apogee_batch.run.config import RunConfig, load_config
from apogee_batch.run.progress import SilentView
from apogee_batch.survey.simulate import SimulatedSurvey, simulate_survey

# The gate tries the same examples each time, so that it judges the change; everybody else tries new ones.
settings.register_profile("gate", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("gate")

# A shell ignores Ctrl-C for what it starts with '&', and so would each process that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

gc.freeze = lambda: None  # the command line's last act in a process of its own; here others come after it

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real survey files beside the checkout; tests that need them are marked `data`."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no real survey files beside the checkout")
    return SHARED_DATA


TINY_RECIPE = """
name = "tiny"
input = "contrast"
initialisation = "kaiming"
optimiser = "adam"
learning_rate = 0.001
adaptation_learning_rate = 0.0001
max_gradient_norm = 1.0
batch_size = 16
max_epochs = 2
adaptation_max_epochs = 1
adaptation_max_rounds = 1
plateau_epochs = 1000
"""


@pytest.fixture(scope="session")
def survey(tmp_path_factory: pytest.TempPathFactory) -> SimulatedSurvey:
    """A simulated survey of 48 stars: apStar files, allStar, label tables."""
    return simulate_survey(tmp_path_factory.mktemp("survey") / "s", n_stars=48, seed=3)


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe of three short epochs: enough to go through every phase."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY_RECIPE)
    return str(path)


@pytest.fixture(scope="session")
def serial_config(tiny_recipe: str) -> RunConfig:
    """Settings for this process alone: three realizations, one thread, shards of 16 stars."""
    sections = {
        "ingest": {"shard_stars": 16},
        "training": {"recipe": tiny_recipe, "threads": 1},
        "inference": {"realizations": 3},
        "cluster": {"kind": "serial", "device": "cpu"},
    }
    return load_config(None, sections)


@pytest.fixture(scope="session")
def labelled_store(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The survey as a store with labels; tests that change it take a copy."""
    store = tmp_path_factory.mktemp("store") / "s.zarr"
    commands.ingest(
        [str(survey.spectra)],
        store,
        allstar=survey.allstar,
        config=serial_config,
        is_dry_run=False,
        progress=SilentView(),
    )
    commands.attach(store, {name: [path] for name, path in survey.labels.items()}, column_map=[])
    return store


@pytest.fixture(scope="session")
def finished_run(
    labelled_store: Path, serial_config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run that trained its own model; tests that change it take a copy."""
    out = tmp_path_factory.mktemp("run") / "run"
    commands.make_catalog(
        labelled_store, out, model=None, config=serial_config, is_dry_run=False, progress=SilentView()
    )
    return out
