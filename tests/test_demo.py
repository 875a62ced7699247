"""The demo goes the whole way, and a second call goes on with what the first left."""

import sys
from pathlib import Path
from typing import Any

import pytest

from apogee_batch import cli
from apogee_batch.errors import UsageError
from apogee_batch.files import read_json
from apogee_batch.run.config import RunConfig
from apogee_batch.run.demo import run_demo
from apogee_batch.run.progress import SilentView


def demo(folder: Path, config: RunConfig) -> list[str]:
    return run_demo(folder, n_stars=40, seed=3, config=config, progress=SilentView())


def test_the_demo_makes_a_catalogue_and_can_be_repeated(tmp_path: Path, serial_config: RunConfig) -> None:
    (tmp_path / ".spectra.zarr.0f.partial").mkdir()  # half a store, left by a kill
    told = "\n".join(demo(tmp_path, serial_config))
    assert "catalog.parquet (40 stars" in told
    assert "simulated" in (tmp_path / "run" / "report" / "report.html").read_text(encoding="utf-8")
    assert "time:" in told
    manifest = read_json(tmp_path / "run" / "manifest.json")
    assert manifest["stars"] == 40
    demo(tmp_path, serial_config)
    assert read_json(tmp_path / "run" / "manifest.json") == manifest


def test_a_folder_of_something_else_is_refused(tmp_path: Path, serial_config: RunConfig) -> None:
    (tmp_path / "thesis.partial").write_text("x")
    with pytest.raises(UsageError, match="not a demo"):
        demo(tmp_path, serial_config)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.partial"]


@pytest.mark.parametrize(
    ("flags", "seeds"),
    [
        ([], (1, 0, 0)),
        (["--config", "c.toml"], (1, 8, 9)),
        (["--config", "c.toml", "--seed", "5"], (5, 5, 5)),
    ],
)
def test_a_seed_on_the_command_line_wins_over_the_settings(
    flags: list[str], seeds: tuple[int, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text("[training]\nseed = 8\n[inference]\nseed = 9\n")
    asked: list[tuple[int, int, int]] = []

    def note(_folder: Path, *, seed: int, config: RunConfig, **_: Any) -> list[str]:
        asked.append((seed, config.training.seed, config.inference.seed))
        return []

    monkeypatch.setattr("apogee_batch.run.demo.run_demo", note)
    monkeypatch.setattr(sys, "argv", ["apogee-batch", "demo", *flags])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    assert asked == [seeds]
