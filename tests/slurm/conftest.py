"""A Slurm of two nodes for the session, a survey small enough for it, and the command line."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import CommandLine
from daemons import HERE, Daemons, why_not
from rig import Slurm
from small_survey import N_STARS, SmallSurvey

from apogee_batch.survey.simulate import simulate_survey


@pytest.hookimpl(tryfirst=True)  # before pytest selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder: they need a Slurm."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Slurm for the session; it ends with this process, even if that is killed."""
    if reason := why_not():
        pytest.skip(reason)
    daemons = Daemons(tmp_path_factory.mktemp("rig"))
    read, write = os.pipe()
    command = [sys.executable, str(HERE / "daemons.py"), "leash", str(daemons.root)]
    leash = subprocess.Popen(command, stdin=read, start_new_session=True)
    os.close(read)
    try:
        daemons.up()
        yield Slurm(daemons)
    finally:
        daemons.down()
        os.close(write)
        leash.wait()


@pytest.fixture
def slurm(rig: Slurm) -> Iterator[Slurm]:
    """The rig with all nodes idle and no jobs; after the test its jobs are ended."""
    rig.mend()
    yield rig
    rig.mend()


@pytest.fixture(scope="session")
def small_survey(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: str) -> SmallSurvey:
    """A survey of 96 stars in six shards; store and undisturbed runs are made when they are asked for."""
    folder = tmp_path_factory.mktemp("small")
    return SmallSurvey(simulate_survey(folder / "survey", n_stars=N_STARS, seed=7), folder, tiny_recipe)


@pytest.fixture
def apogee(slurm: Slurm, tmp_path: Path) -> CommandLine:
    """Give the command line, in the environment of a user of the rig."""
    return CommandLine(slurm.environment(), tmp_path)
