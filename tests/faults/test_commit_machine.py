"""Whatever is planned, run, killed, damaged and resumed, in any order: the ledger tells the truth."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from scenes import catalog_hashes

from apogee_batch import files
from apogee_batch.errors import ApogeeBatchError, UsageError
from apogee_batch.files import read_json, remove_leftovers, write_bytes, write_json
from apogee_batch.run import commands
from apogee_batch.run.clusters import SerialExecutor, Workers
from apogee_batch.run.config import ORDINARY, Going, RunConfig
from apogee_batch.run.ledger import Ledger, ShardReport, relative_digest
from apogee_batch.run.plan import run_id, set_aside, settle_plan
from apogee_batch.run.progress import SilentView
from apogee_batch.run.stages import run_shards
from apogee_batch.run.verify import verify_run, verify_store
from apogee_batch.survey.simulate import SimulatedSurvey
from apogee_batch.survey.sources import find_apstar_files

pytestmark = pytest.mark.fault

N_SHARDS = 3
QUICK = settings(max_examples=200, stateful_step_count=8, deadline=None)
THOROUGH = settings(
    max_examples=10, stateful_step_count=4, deadline=None, suppress_health_check=list(HealthCheck)
)
DAMAGES = st.sampled_from(["cut", "flip", "zero", "delete"])
PLACES = st.integers(0, 10**6)  # of the file that is damaged, and of the byte in it
FORCED = Going(force_new_plan=True)


class Crash(BaseException):
    """The end of a process, as far as one process can play it."""


@contextmanager
def crash_at(step: int | None) -> Any:
    """End the block at the n-th step of its commits as SIGKILL would: nothing is cleaned up after it."""
    n_steps = 0

    def count(name: str, path: Path) -> None:
        nonlocal n_steps
        n_steps += 1
        if n_steps == step:
            patch.setattr(Path, "unlink", lambda *_, **__: None)
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "on_commit_step", count)
        with suppress(Crash):
            yield


@pytest.fixture(scope="module", autouse=True)
def _only_what_counts() -> Iterator[None]:
    """Leave out what takes most of the time: nobody cuts the power here, or looks at the pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        for name in ("kiel_diagram", "label_comparison"):
            patch.setattr(
                f"apogee_batch.report.figures.{name}", lambda _, path: write_bytes(path, b"picture")
            )
        yield


def damage(path: Path, how: str, place: int) -> None:
    content = path.read_bytes()
    at = place % max(len(content), 1)
    if how == "delete":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[:at])
    else:
        new = bytes([content[at] ^ 0x40]) if how == "flip" else b"\0"
        path.write_bytes(content[:at] + new + content[at + 1 :])


def content_of_shard(seed: int, shard: int) -> bytes:
    return f"seed {seed}, shard {shard}\n".encode()


class ProtocolMachine(RuleBasedStateMachine):
    """The protocol with shards that are one line of text each."""

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp())
        self.folder = self.top / "run"
        self.seed = 0
        self.is_damaged = False
        self.n_done: list[int] = []

    def teardown(self) -> None:
        try:
            self.resume(None)
            assert self.catalogue() == b"".join(content_of_shard(self.seed, i) for i in range(N_SHARDS))
        finally:
            shutil.rmtree(self.top)

    @property
    def plan(self) -> dict[str, Any]:
        return {"kind": "test", "seed": self.seed, "shards": list(range(N_SHARDS))}

    def ledger(self) -> Ledger:
        return Ledger(self.folder / "ledger", self.folder, run_id(self.plan))

    def catalogue(self) -> bytes:
        return (self.folder / "catalog" / "catalog").read_bytes()

    def write_shard(
        self, shard: int, *, excluded: Sequence[int] = (), only: Sequence[int] | None = None
    ) -> ShardReport:
        self.n_done.append(shard)
        path = self.folder / "parts" / str(shard)
        content = content_of_shard(self.seed, shard)
        written = write_bytes(path, content, staging=self.folder / "staging")
        digests = (relative_digest(written, self.folder),)
        return ShardReport(shard, 1, 1, 0, digests, 0.0, "here", {})

    def go(self, *, is_forced: bool = False) -> None:
        """Do what the stages do."""
        if is_forced:
            set_aside(self.folder, self.plan)
        settle_plan(self.folder, self.plan)
        for name in ("", "staging", "ledger", "parts", "catalog"):
            remove_leftovers(self.folder / name)
        ledger, before = self.ledger(), self.ledger().done()
        todo = {shard: 1 for shard in range(N_SHARDS) if shard not in before}
        self.n_done = []
        run_shards(Workers(SerialExecutor(), 1, "here"), self.write_shard, todo, ledger, SilentView())
        done = ledger.done()
        assert list(done) == list(range(N_SHARDS))
        assert self.n_done == list(todo), "only what is missing is done again"
        parts = [(self.folder / "parts" / str(shard)).read_bytes() for shard in done]
        digest = write_bytes(
            self.folder / "catalog" / "catalog", b"".join(parts), staging=self.folder / "staging"
        )
        write_json(self.folder / "manifest.json", {"sha256": digest.sha256})
        self.is_damaged = False

    @rule(step=st.none() | st.integers(1, 80))
    def resume(self, step: int | None) -> None:
        with crash_at(step):
            self.go()

    @rule(step=st.none() | st.integers(1, 80), seed=st.integers(0, 2))
    def begin_another(self, step: int | None, seed: int) -> None:
        before, self.seed = self.plan, seed
        if self.plan == before or not (self.folder / "plan.json").is_file() or self.is_damaged:
            self.seed = before["seed"]
            return
        with pytest.raises(UsageError, match="seed"):
            self.go()
        with crash_at(step):
            self.go(is_forced=True)
        plan = self.folder / "plan.json"
        if plan.is_file() and read_json(plan)["seed"] == before["seed"]:  # it did not come to that
            self.seed = before["seed"]

    @precondition(lambda self: not self.is_damaged)
    @rule(how=DAMAGES, which=PLACES, place=PLACES)
    def spoil(self, how: str, which: int, place: int) -> None:
        found = sorted(p for p in self.folder.rglob("*") if p.is_file() and "old-" not in str(p))
        if found and any((self.folder / "ledger").glob("*.json")):
            damage(found[which % len(found)], how, place)
            self.is_damaged = True

    @invariant()
    def what_is_committed_is_planned_and_as_it_was_written(self) -> None:
        for shard, report in self.ledger().done().items():
            assert shard in range(N_SHARDS)
            (file,) = report.files
            content = (self.folder / file.path).read_bytes()
            assert content == content_of_shard(self.seed, shard)
            assert sha256(content).hexdigest() == file.sha256


def test_the_protocol_keeps_its_promises_in_any_order() -> None:
    run_machine(ProtocolMachine, settings=QUICK)


class SurveyMachine(RuleBasedStateMachine):
    """The commands themselves: a survey in two parts, its store, and a run.

    Parameters
    ----------
    paths : list of sequence of Path
        The files of the first ingest; those of the first and the second.
    model : Path
        A trained model.
    config : RunConfig
        Settings for this process alone.
    expected : list of dict
        Hashes of the undisturbed catalogues of both.
    """

    def __init__(
        self,
        paths: Sequence[Sequence[Path]],
        model: Path,
        config: RunConfig,
        expected: Sequence[Mapping[str, str]],
    ) -> None:
        super().__init__()
        self.paths, self.model, self.config, self.expected = paths, model, config, expected
        self.top = Path(tempfile.mkdtemp())
        self.store, self.run = self.top / "s.zarr", self.top / "run"
        self.part = 0
        self.is_ingested = False
        self.is_damaged = False

    def teardown(self) -> None:
        try:
            self.ingest()
            self.make(FORCED)
            assert catalog_hashes(self.run) == self.expected[self.part]
            assert (verify_store(self.store), verify_run(self.run)) == ([], [])
        finally:
            shutil.rmtree(self.top)

    def ingest(self) -> None:
        options: dict[str, Any] = {"allstar": None, "config": self.config, "progress": SilentView()}
        sources = [str(path) for path in self.paths[self.part]]
        commands.ingest(sources, self.store, **options, is_dry_run=False)
        self.is_ingested = True

    def make(self, going: Going = ORDINARY) -> None:
        options: dict[str, Any] = {"config": self.config, "progress": SilentView(), "is_dry_run": False}
        commands.make_catalog(self.store, self.run, model=self.model, **options, going=going)
        self.is_damaged = False

    @initialize(step=st.none() | st.integers(1, 100))
    def begin(self, step: int | None) -> None:
        with crash_at(step):
            self.ingest()

    @rule(step=st.none() | st.integers(1, 100))
    def resume_the_ingest(self, step: int | None) -> None:
        with crash_at(step):
            self.ingest()

    @precondition(lambda self: self.is_ingested and self.part == 0)
    @rule(step=st.none() | st.integers(1, 100))
    def append(self, step: int | None) -> None:
        self.part, self.is_ingested = 1, False
        with crash_at(step):
            self.ingest()

    @rule(step=st.none() | st.integers(1, 100), going=st.sampled_from([ORDINARY, FORCED]))
    def resume_the_run(self, step: int | None, going: Going) -> None:
        with crash_at(step):
            refusal = None
            try:
                self.make(going)
            except ApogeeBatchError as error:
                refusal = error
            if refusal is not None:
                assert refusal.exit_code in (2, 5)
                assert self.is_damaged or not self.is_ingested or "another plan" in str(refusal)

    @precondition(lambda self: not self.is_damaged and self.is_ingested)
    @rule(how=DAMAGES, which=PLACES, place=PLACES, of_run=st.booleans())
    def spoil(self, how: str, which: int, place: int, of_run: bool) -> None:
        top = self.run if of_run else self.store
        left_out = ("old-", "/logs/", "settings.json", "/report/")
        found = sorted(
            path
            for path in top.rglob("*")
            if path.is_file() and not any(name in str(path) for name in left_out)
        )
        if found:
            damage(found[which % len(found)], how, place)
            self.is_damaged = True


@pytest.fixture(scope="module")
def build_machine(
    survey: SimulatedSurvey,
    finished_run: Path,
    serial_config: RunConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], SurveyMachine]:
    inference = serial_config.inference.model_copy(update={"realizations": 2})
    config = serial_config.model_copy(update={"inference": inference})
    found = find_apstar_files([str(survey.spectra)])
    paths, model, expected = [found[:18], found[:24]], finished_run / "model", []
    undisturbed = SurveyMachine(paths, model, config, [])
    for undisturbed.part in (0, 1):
        undisturbed.ingest()
        undisturbed.make(FORCED)
        expected.append(catalog_hashes(undisturbed.run))
    shutil.rmtree(undisturbed.top)
    return lambda: SurveyMachine(paths, model, config, expected)


def test_the_commands_keep_their_promises_in_any_order(build_machine: Callable[[], SurveyMachine]) -> None:
    run_machine(build_machine, settings=THOROUGH)
