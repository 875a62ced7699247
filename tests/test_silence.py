"""While there is no worker it is said why, soon at first and less often later."""

from itertools import pairwise

import pytest
from fake_queue import FakeQueue

from apogee_batch.run.clusters.silence import LONGEST_SILENCE_S, Silence


@pytest.fixture
def said() -> list[str]:
    return []


def times_of(silence: Silence, said: list[str], *, until: int, n_workers: int = 0) -> list[int]:
    times = list[int]()
    for now in range(0, until, 10):
        n_before = len(said)
        silence.tick(n_workers, ["1", "2"], float(now))
        times += [now] * (len(said) - n_before)
    return times


def test_a_silence_is_broken_less_and_less_often_but_for_ever(said: list[str]) -> None:
    times = times_of(Silence(FakeQueue(), said.append, 60.0), said, until=50_000)
    assert times[:4] == [60, 180, 540, 1620]
    gaps = [b - a for a, b in pairwise(times)]
    assert max(gaps) <= LONGEST_SILENCE_S
    assert gaps[-1] >= LONGEST_SILENCE_S - 10
    assert said[0] == "no worker for 60 s: 2 jobs wait: Priority"


def test_with_a_worker_nothing_is_said_and_the_next_silence_begins_anew(said: list[str]) -> None:
    silence = Silence(FakeQueue(), said.append, 60.0)
    for now, n_workers in ((0, 0), (59, 0), (60, 1), (61, 0), (120, 0)):
        silence.tick(n_workers, ["1"], float(now))
    assert said == []
    silence.tick(0, ["1"], 121.0)
    assert said == ["no worker for 60 s: 1 jobs wait: Priority"]


def test_too_few_workers_are_a_silence_too(said: list[str]) -> None:
    silence = Silence(FakeQueue(), said.append, 60.0)
    for now in (0, 60):
        silence.tick(1, ["1", "2"], float(now), n_needed=2)
    assert said == ["1 of 2 workers for 60 s: 2 jobs wait: Priority"]
    silence.tick(2, ["1", "2"], 61.0, n_needed=2)
    silence.tick(0, [], 200.0, n_needed=0)
    assert len(said) == 1


def test_a_queue_that_does_not_answer_is_what_is_said(said: list[str]) -> None:
    queue = FakeQueue(is_deaf=True, trouble="squeue: no answer")
    times_of(Silence(queue, said.append, 60.0), said, until=70)
    assert said == ["no worker for 60 s: squeue: no answer"]


def test_without_jobs_there_is_something_to_say_too(said: list[str]) -> None:
    silence = Silence(FakeQueue(), said.append, 1.0)
    silence.tick(0, [], 0.0)
    silence.tick(0, [], 2.0)
    assert said == ["no worker for 2 s: the next job is asked for after a pause"]
