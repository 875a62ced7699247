"""A dry run promises no less memory than a worker will take."""

from pathlib import Path

import pytest

from apogee_batch.run import commands
from apogee_batch.run.config import RunConfig
from apogee_batch.run.dry_run import inference_gib, ingest_gib
from apogee_batch.run.progress import SilentView
from apogee_batch.survey.simulate import SimulatedSurvey


@pytest.mark.parametrize(("shard_stars", "measured"), [(1024, 0.37), (4096, 0.84)])
def test_the_memory_of_ingest_is_an_upper_bound(shard_stars: int, measured: float) -> None:
    assert measured + 0.3 < ingest_gib(shard_stars) < measured + 0.6


def test_the_memory_of_ingest_grows_with_the_shard_as_was_measured() -> None:
    assert ingest_gib(4096) - ingest_gib(1024) > 0.84 - 0.37


@pytest.mark.parametrize(
    ("shard_stars", "n_realizations", "measured"),
    [(1024, 100, 0.64), (4096, 100, 0.91), (1024, 2000, 0.89)],
)
def test_the_memory_of_inference_is_an_upper_bound(
    shard_stars: int, n_realizations: int, measured: float
) -> None:
    assert measured + 0.3 < inference_gib(shard_stars, n_realizations) < measured + 0.85


def test_the_memory_of_inference_grows_with_shard_and_realizations_as_was_measured() -> None:
    assert inference_gib(4096, 100) - inference_gib(1024, 100) > 0.91 - 0.64
    assert inference_gib(1024, 2000) - inference_gib(1024, 100) > 0.89 - 0.64


def test_a_dry_run_tells_the_bound(
    survey: SimulatedSurvey, labelled_store: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    many = serial_config.inference.model_copy(update={"realizations": 20_000})
    config = serial_config.model_copy(update={"inference": many})
    lines = commands.make_catalog(
        labelled_store, tmp_path / "r", model=None, config=config, is_dry_run=True, progress=SilentView()
    )
    assert f"memory per worker on a CPU: at most about {inference_gib(16, 20_000):.1f} GiB" in lines
    lines = commands.ingest(
        [str(survey.spectra)],
        tmp_path / "s.zarr",
        allstar=None,
        config=serial_config,
        is_dry_run=True,
        progress=SilentView(),
    )
    assert f"memory per worker: at most about {ingest_gib(16):.1f} GiB" in lines
