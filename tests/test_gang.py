"""The driver of a training by several ranks, and what watches a rank, with ranks that only pretend."""

import pickle
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psutil
import pytest
from dying_workers import killed_worker

from apogee_batch.errors import IncompleteRunError, IntegrityError, UsageError
from apogee_batch.network.metrics import METRICS_FILE
from apogee_batch.run.clusters import Crew, SerialExecutor, Workers
from apogee_batch.run.config import ClusterSettings
from apogee_batch.run.gang import driver, task
from apogee_batch.run.gang.spec import GangSpec
from apogee_batch.run.gang.task import RankLostError, run_rank
from apogee_batch.run.progress import SilentView

N_RANKS = 3
PLAN = {"recipe": {}, "seed": 1, "threads": 1, "workers": N_RANKS}
Rank = Callable[[GangSpec, int], None]


class Listener(SilentView):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


class Place(Executor):
    """A worker that left when its task was on its way, which waits for it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return Future()


class ThreadCrew(Crew):
    """Threads, and how many were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int | None] = []
        self.is_taking = False
        self.left: list[Place] = []
        self.n_leaving = 0

    def is_taken_away(self, error: BaseException) -> bool:
        return self.is_taking

    def ask(self, n_workers: int | None) -> None:
        self.asked.append(n_workers)

    def places(self, n_places: int) -> Sequence[Executor]:
        left, self.n_leaving = [Place() for _ in range(self.n_leaving)], 0
        self.left += left
        return [*left, *(ThreadPoolExecutor(1) for _ in range(n_places - len(left)))]

    def is_there(self, place: Executor) -> bool:
        return place not in self.left


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Train with ranks that do what they are told to; gives what the user was told."""
    out = tmp_path / "model"

    def run(
        rank: Rank,
        *,
        follow: Callable[[Future[Any]], None] = lambda future: void(wait([future])),
        is_taking: bool = False,
        n_leaving: int = 0,
    ) -> list[str]:
        monkeypatch.setattr(driver, "run_rank", lambda path, number: rank(GangSpec.read(Path(path)), number))
        monkeypatch.setattr(driver, "END_S", 5.0 if n_leaving == 0 else 0.3)
        monkeypatch.setattr(driver, "LOOK_S", 0.05)
        view, crew = Listener(), ThreadCrew()
        crew.is_taking, crew.n_leaving = is_taking, n_leaving
        workers = Workers(SerialExecutor(), 1, "", None, crew)
        try:
            driver.train_together(tmp_path, out, PLAN, ClusterSettings(), workers, view, follow=follow)
        finally:
            assert set(crew.asked) == {N_RANKS}
            assert not (out / "gang").exists()
        return view.said

    return run


def void(_: object) -> None:
    pass


def wait_for_end(spec: GangSpec) -> None:
    """Be a rank that waits for a lost one until it is told to end."""
    end = time.monotonic() + 5
    while not spec.is_given_up():
        assert time.monotonic() < end
        time.sleep(0.01)


def add_epoch(spec: GangSpec) -> None:
    with (Path(spec.model) / METRICS_FILE).open("a") as file:
        file.write('{"epoch":1}\n')


def lost(rank: int, cause: Any = "killed") -> RankLostError:
    return RankLostError(rank, "node07 (job 12)", cause, f"was {cause}")


def test_an_undisturbed_training_says_nothing(play: Callable[..., list[str]]) -> None:
    seen: list[tuple[str, int]] = []

    def rank(spec: GangSpec, number: int) -> None:
        seen.append((spec.attempt, number))
        assert Path(spec.key).stat().st_mode & 0o077 == 0

    assert play(rank) == []
    assert sorted(number for _, number in seen) == [0, 1, 2]
    assert len({attempt for attempt, _ in seen}) == 1


def test_the_loss_of_a_rank_ends_the_others_and_all_begin_again(play: Callable[..., list[str]]) -> None:
    attempts: list[str] = []

    def rank(spec: GangSpec, number: int) -> None:
        if spec.attempt not in attempts:
            attempts.append(spec.attempt)
        if len(attempts) > 1:
            return
        if number == 1:
            add_epoch(spec)
            raise lost(1)
        wait_for_end(spec)
        raise lost(number, "given up")

    (line,) = play(rank)
    assert line == "WARNING: the training: rank 1 on node07 (job 12) was killed; all ranks go on from epoch 1"
    assert len(attempts) == 2


def test_the_most_telling_loss_is_told(play: Callable[..., list[str]]) -> None:
    attempts: list[str] = []

    def rank(spec: GangSpec, number: int) -> None:
        attempts.append(spec.attempt)
        if len(set(attempts)) == 1:
            raise lost(number, ("alone", "given up", "frozen")[number])

    (line,) = play(rank)
    assert "rank 2 on node07 (job 12) was frozen" in line


def test_a_dead_worker_is_a_lost_rank(play: Callable[..., list[str]]) -> None:
    attempts: list[str] = []

    def rank(spec: GangSpec, number: int) -> None:
        attempts.append(spec.attempt)
        if len(set(attempts)) == 1:
            raise killed_worker() if number == 0 else lost(number, "alone")

    (line,) = play(rank)
    assert "its worker on node07 died" in line


@pytest.mark.parametrize("n_leaving", [1, N_RANKS])
def test_ranks_do_not_wait_for_workers_that_left_before_they_began(
    play: Callable[..., list[str]], n_leaving: int
) -> None:
    attempts: set[str] = set()

    def rank(spec: GangSpec, number: int) -> None:
        attempts.add(spec.attempt)
        if n_leaving < N_RANKS and len(attempts) == 1:
            wait_for_end(spec)
            raise lost(number, "given up")

    (line,) = play(rank, n_leaving=n_leaving)
    assert "rank 0 on a worker that has left was lost with it; all ranks go on" in line


def test_workers_whose_time_is_over_are_not_counted(play: Callable[..., list[str]]) -> None:
    attempts: list[str] = []

    def rank(spec: GangSpec, number: int) -> None:
        if spec.attempt not in attempts:
            attempts.append(spec.attempt)
        if len(attempts) <= 4:
            raise lost(number, "left" if number == 1 else "alone")

    assert len(play(rank)) == 4


def test_workers_that_a_queue_takes_away_are_not_counted(play: Callable[..., list[str]]) -> None:
    attempts: list[str] = []

    def rank(spec: GangSpec, number: int) -> None:
        if spec.attempt not in attempts:
            attempts.append(spec.attempt)
        if len(attempts) <= 4:
            raise killed_worker() if number == 1 else lost(number, "alone")

    assert len(play(rank, is_taking=True)) == 4


@pytest.mark.parametrize(("cause", "expected"), [("killed", IncompleteRunError), ("failed", RankLostError)])
def test_attempts_that_finish_no_epoch_are_counted(
    play: Callable[..., list[str]], cause: str, expected: type[Exception]
) -> None:
    attempts: list[str] = []

    def rank(spec: GangSpec, number: int) -> None:
        if spec.attempt not in attempts:
            attempts.append(spec.attempt)
            if len(attempts) == 2:
                add_epoch(spec)
        raise lost(number, cause)

    with pytest.raises(expected, match="node07"):
        play(rank)
    assert len(attempts) == 4  # the second one got somewhere: from there on three


def test_what_a_user_can_mend_is_raised_at_once(play: Callable[..., list[str]]) -> None:
    attempts: set[str] = set()

    def rank(spec: GangSpec, number: int) -> None:
        attempts.add(spec.attempt)
        if number == 2:
            raise UsageError("another table")
        raise lost(number, "alone")

    with pytest.raises(UsageError, match="another table"):
        play(rank)
    assert len(attempts) == 1


def test_ranks_end_with_a_driver_that_is_told_to(play: Callable[..., list[str]]) -> None:
    ended: list[int] = []

    def rank(spec: GangSpec, number: int) -> None:
        wait_for_end(spec)
        ended.append(number)

    def be_interrupted(future: Future[Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(rank, follow=be_interrupted)
    assert sorted(ended) == [0, 1, 2]


def test_what_a_killed_driver_left_is_removed(play: Callable[..., list[str]], tmp_path: Path) -> None:
    old = tmp_path / "model" / "gang" / "a1"
    old.mkdir(parents=True)
    (old / "spec.json").write_text("{}")
    assert play(lambda *_: void(old.exists() and pytest.fail("is there"))) == []


def test_a_lost_rank_can_be_told_by_a_worker() -> None:
    error = pickle.loads(pickle.dumps(lost(3, "frozen")))
    assert (str(error), error.rank, error.cause) == ("rank 3 on node07 (job 12) was frozen", 3, "frozen")


# --- the watch on a rank


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., GangSpec]:
    """Run a rank that is a line of Python."""

    def run(
        code: str, *, stall_s: float = 30.0, given_up_after_s: float | None = None, n_times: int = 1
    ) -> GangSpec:
        monkeypatch.setattr(task, "rank_command", lambda *_: [sys.executable, "-S", "-c", code])
        monkeypatch.setattr(task, "LOOK_S", 0.0)
        monkeypatch.setenv("SLURM_JOB_ID", "77")
        spec = GangSpec("ab" * 16, "s", str(tmp_path), {}, 1, 1, "cpu", 2, stall_s, "c", "c", "k")
        path = spec.write()
        if given_up_after_s is not None:
            threading.Timer(given_up_after_s, spec.give_up).start()
        for _ in range(n_times):
            run_rank(str(path), 1)
        return spec

    return run


TELL = "import json,os,sys,time; tell=lambda **said: print(json.dumps(said), flush=True);"


def test_a_rank_that_ends_well_is_done(watch: Callable[..., GangSpec]) -> None:
    watch(TELL + "tell(doing='step')")


def test_a_killed_rank_is_told_with_its_job_signal_and_last_lines(watch: Callable[..., GangSpec]) -> None:
    code = "import os; os.write(2, b'first\\n\\nlast words\\n'); os.kill(os.getpid(), 9)"
    with pytest.raises(
        RankLostError, match=r"\(job 77\) was ended by SIGKILL; its last lines: first \| last"
    ) as found:
        watch(code)
    assert found.value.cause == "killed"


def test_of_a_rank_that_says_much_only_the_beginning_of_a_line_is_told(
    watch: Callable[..., GangSpec],
) -> None:
    code = "import os; os.write(2, b'x' * 100_000); os.kill(os.getpid(), 9)"
    with pytest.raises(RankLostError, match=r"its last lines: x{300}$"):
        watch(code)


def test_a_frozen_rank_is_killed(watch: Callable[..., GangSpec]) -> None:
    began = time.monotonic()
    with pytest.raises(RankLostError, match="has said nothing for") as found:
        watch(TELL + "tell(doing='step'); time.sleep(60)", stall_s=0.5)
    assert found.value.cause == "frozen"
    assert time.monotonic() - began < 20


def test_a_rank_of_a_given_up_attempt_is_killed_with_its_children(
    watch: Callable[..., GangSpec], tmp_path: Path
) -> None:
    code = (
        "import os,time; os.fork();"
        f"open('{tmp_path}/%d' % os.getpid(), 'w').write(str(os.getpid())); time.sleep(60)"
    )
    with pytest.raises(RankLostError) as found:
        watch(code, given_up_after_s=2.0)
    assert found.value.cause == "given up"
    pids = [int(path.read_text()) for path in tmp_path.iterdir() if path.name.isdigit()]
    assert len(pids) == 2
    assert not [pid for pid in pids if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("told", "expected", "text"),
    [
        ("error='UsageError', text='no labels'", UsageError, "^no labels$"),
        ("error='IntegrityError', text='damaged'", IntegrityError, "^damaged$"),
        ("error='OSError', text='x', errno=28, filename='/d/f'", OSError, r"No space left.*'/d/f'"),
        ("error='PeerLostError', text='rank 0 is gone'", RankLostError, "lost the others: rank 0 is gone"),
        ("error='ZeroDivisionError', text='by zero'", RankLostError, "failed: ZeroDivisionError: by zero"),
        ("error='SystemExit', text='x', errno=None", RankLostError, "failed: SystemExit"),
    ],
)
def test_what_ended_a_rank_is_raised_again(
    watch: Callable[..., GangSpec], told: str, expected: type[Exception], text: str
) -> None:
    with pytest.raises(expected, match=text):
        watch(TELL + f"tell({told}); sys.exit(1)")


def test_a_rank_is_not_started_twice_nor_after_its_attempt(
    watch: Callable[..., GangSpec], tmp_path: Path
) -> None:
    with pytest.raises(RankLostError, match="was started a second time"):
        watch("pass", n_times=2)
    with pytest.raises(RankLostError, match="came after the attempt had ended"):
        run_rank(str(tmp_path / "gone" / "spec.json"), 1)
