"""The commands before and after a job array: what they say, refuse, and start."""

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from apogee_batch.errors import (
    ClusterError,
    IncompleteRunError,
    LockedError,
    TooManyBadInputsError,
    UsageError,
)
from apogee_batch.files import read_json
from apogee_batch.run import array_plan, catalog_command, catalog_run, commands
from apogee_batch.run.array import run_shard
from apogee_batch.run.clusters import Crew, SerialExecutor, Workers
from apogee_batch.run.computers import for_training
from apogee_batch.run.config import ClusterSettings, RunConfig
from apogee_batch.run.ledger import ShardReport
from apogee_batch.run.lock import hold_lock
from apogee_batch.run.progress import SilentView


def make(
    store: Path, out: Path, config: RunConfig, model: Path | None, *, is_dry_run: bool = False, **options: Any
) -> list[str]:
    return commands.make_catalog(
        store, out, model=model, config=config, is_dry_run=is_dry_run, progress=SilentView(), **options
    )


def with_settings(config: RunConfig, section: str, **values: object) -> RunConfig:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


@pytest.fixture
def model(finished_run: Path) -> Path:
    return finished_run / "model"


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ClusterError("workers were started")

    monkeypatch.setattr(catalog_command, "open_workers", refuse)


@pytest.mark.usefixtures("no_workers")
def test_planning_says_the_commands_that_do_the_rest(
    labelled_store: Path, serial_config: RunConfig, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a run;$(x) 100%"
    lines = make(labelled_store, out, serial_config, model, is_plan_only=True)
    assert "3 of 3 shards to do" in lines[0]
    submission = shlex.split(lines[1])
    assert submission[:2] == ["sbatch", "--array=0-2%50"]
    assert submission[2] == f"--output={out}%/logs/array-%A_%a.log"  # Slurm makes one of two
    assert submission[3:] == ["jobs/array.sbatch", str(out), "--device", "cpu"]
    assert (out / "logs").is_dir()
    command = ["apogee-batch", "run-catalog", str(labelled_store), "--model", str(model), "--out", str(out)]
    assert shlex.split(lines[3]) == [*command, "--realizations", "3", "--device", "cpu", "--finalise"]
    assert not (out / "lock").exists()
    assert read_json(out / "plan.json")["shards"] == [0, 1, 2]


@pytest.mark.usefixtures("no_workers")
def test_the_last_command_repeats_what_the_plan_depends_on(
    labelled_store: Path, serial_config: RunConfig, model: Path, tmp_path: Path
) -> None:
    config = with_settings(serial_config, "inference", seed=4, err_cap="mean", max_bad_fraction=0.5)
    config = with_settings(config, "cluster", device="auto")
    lines = make(labelled_store, tmp_path / "run", config, model, is_plan_only=True)
    assert lines[1].endswith(str(tmp_path / "run"))
    told = "--realizations 3 --seed 4 --err-cap mean --max-bad-fraction 0.5 --finalise"
    assert lines[3].endswith(told)


@pytest.mark.usefixtures("no_workers")
def test_planning_again_asks_for_the_shards_that_are_left(
    labelled_store: Path, serial_config: RunConfig, model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    make(labelled_store, run, serial_config, model, is_plan_only=True)
    asked = []
    for index in (1, 0, 2):
        run_shard(run, index, device="cpu")
        asked.append(make(labelled_store, run, serial_config, model, is_plan_only=True))
    assert "--array=0,2%50" in asked[0][1]
    assert "--array=2%50" in asked[1][1]
    assert asked[2][0] == f"{run}: all 3 shards are done; publish them with:"
    assert asked[2][1].endswith("--finalise")


@pytest.mark.usefixtures("no_workers")
def test_finalising_too_early_says_what_is_missing_and_how_to_get_it(
    labelled_store: Path, serial_config: RunConfig, model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(IncompleteRunError, match="3 of 3 shards are missing: 0-2;") as caught:
        make(labelled_store, run, serial_config, model, is_finalise=True)
    assert caught.value.exit_code == 75
    command = (
        f"sbatch --array=0-2%50 --output={run}/logs/array-%A_%a.log jobs/array.sbatch {run} --device cpu"
    )
    assert f"do them with '{command}'" in str(caught.value)
    assert not (run / "catalog").exists()
    assert not (run / "lock").exists()


@pytest.mark.parametrize("option", ["is_plan_only", "is_finalise"])
def test_an_array_needs_a_model_that_was_trained_before(
    labelled_store: Path, serial_config: RunConfig, tmp_path: Path, option: str
) -> None:
    with pytest.raises(
        UsageError, match="need --model: train first, with 'apogee-batch train STORE --out MODEL'"
    ):
        make(labelled_store, tmp_path / "run", serial_config, None, **{option: True})
    assert not (tmp_path / "run").exists()


def test_before_and_after_are_not_at_once(
    labelled_store: Path, serial_config: RunConfig, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="give one of them"):
        make(labelled_store, tmp_path / "run", serial_config, model, is_plan_only=True, is_finalise=True)


@pytest.mark.parametrize("option", ["is_plan_only", "is_finalise"])
def test_neither_works_beside_a_driver(
    labelled_store: Path, serial_config: RunConfig, model: Path, tmp_path: Path, option: str
) -> None:
    run = tmp_path / "run"
    with hold_lock(run / "lock", run), pytest.raises(LockedError):
        make(labelled_store, run, serial_config, model, **{option: True})


@pytest.mark.usefixtures("no_workers")
def test_a_dry_run_plans_nothing(
    labelled_store: Path, serial_config: RunConfig, model: Path, tmp_path: Path
) -> None:
    lines = make(labelled_store, tmp_path / "run", serial_config, model, is_dry_run=True, is_plan_only=True)
    assert "would estimate" in lines[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_workers")
def test_finalising_refuses_too_many_bad_stars_as_a_run_does(
    labelled_store: Path,
    serial_config: RunConfig,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reports = {shard: ShardReport(shard, 16, 14, 2, (), 1.0, "h", {}) for shard in range(3)}
    ledger = SimpleNamespace(done=lambda: reports, problems=lambda _: [])
    monkeypatch.setattr(array_plan, "planned_ledger", lambda *_: ledger)
    monkeypatch.setattr(catalog_run, "_keep_killed", lambda *_: "they are listed")
    with pytest.raises(TooManyBadInputsError, match="2 of 48 stars cannot be used"):
        make(labelled_store, tmp_path / "run", serial_config, model, is_finalise=True)


class GivenBack(Crew):
    """Notes how many workers are asked for, and what is published by then."""

    def __init__(self, run: Path) -> None:
        self.run, self.asked = run, list[tuple[int | None, bool]]()

    def ask(self, n_workers: int | None) -> None:
        self.asked.append((n_workers, (self.run / "parts" / "part-00002.parquet").exists()))
        assert not (self.run / "manifest.json").exists()


def test_workers_are_given_back_before_the_catalogue_is_written(
    labelled_store: Path, serial_config: RunConfig, model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    crew = GivenBack(run)
    with hold_lock(run / "lock", run) as lock:
        plan = catalog_run.begin_run(labelled_store, run, model, serial_config, SilentView())
        catalog_run.run_catalog(
            labelled_store,
            run,
            plan,
            model=model,
            config=serial_config,
            workers=Workers(SerialExecutor(), 1, "this process", crew=crew),
            progress=SilentView(),
            lock=lock,
        )
    assert crew.asked[-1] == (0, True)
    assert [told for told in crew.asked if told[0] == 0] == [(0, True)]
    assert (run / "manifest.json").exists()


@pytest.mark.parametrize(
    ("kind", "workers", "wanted"),
    [("local", 5, 2), ("local", None, 2), ("slurm", None, 2), ("slurm", 1, 2), ("slurm", 5, 5)],
)
def test_a_training_alone_starts_only_its_own_local_workers_and_nowhere_less(
    serial_config: RunConfig, kind: str, workers: int | None, wanted: int | None
) -> None:
    config = with_settings(serial_config, "cluster", kind=kind, workers=workers)
    settings: ClusterSettings = for_training(config.cluster, 2)
    assert (settings.kind, settings.workers) == (kind, wanted)
