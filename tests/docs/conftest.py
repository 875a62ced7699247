"""What the blocks of the documents find: a small survey, what the commands make of it, and the commands."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from document_blocks import ROOT, STARTS
from document_kit import Kit, block_environment, lay_out_files, lay_out_nothing
from warm_commands import write_command

from apogee_batch.run import commands
from apogee_batch.run.config import RunConfig
from apogee_batch.run.progress import SilentView
from apogee_batch.survey.simulate import SimulatedSurvey

sys.path.insert(0, str(ROOT / "docs"))  # whose scripts know the commands


@pytest.fixture(scope="session")
def document_kit(
    survey: SimulatedSurvey,
    labelled_store: Path,
    finished_run: Path,
    serial_config: RunConfig,
    tiny_recipe: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Kit:
    """The parts, made once by the commands themselves."""
    folder = tmp_path_factory.mktemp("kit")
    nothing, files, store, model, runs = (folder / name for name in STARTS)
    demo = {"survey": survey.folder, "spectra.zarr": labelled_store, "run": finished_run}
    lay_out_nothing(nothing, recipe=Path(tiny_recipe), demo=demo)
    lay_out_files(files, survey)
    for name in ("dr14.zarr", "spectra.zarr"):
        shutil.copytree(labelled_store, store / name)
    model.mkdir()
    commands.train(store / "dr14.zarr", model / "model1", config=serial_config, progress=SilentView())
    shutil.copytree(finished_run, runs / "run1")
    commands.make_catalog(
        store / "dr14.zarr",
        runs / "run2",
        model=model / "model1",
        config=serial_config,
        is_dry_run=False,
        progress=SilentView(),
    )
    return Kit(folder)


@pytest.fixture(scope="session")
def warm_command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an `apogee-batch` that answers quickly, for the beginning of PATH."""
    folder = tmp_path_factory.mktemp("bin")
    address = tmp_path_factory.getbasetemp() / "warm"  # the name of a socket has to be short
    write_command(folder / "apogee-batch", address)
    served = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("warm_commands.py")), str(address)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=block_environment(folder),
    )
    assert served.stdin is not None
    assert served.stdout is not None
    assert served.stdout.readline() == b"ready\n"
    yield folder
    served.stdin.close()
    served.wait(timeout=60)
    served.stdout.close()
