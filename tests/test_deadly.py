"""The inputs that end their worker are found, all of them and no others, at the price of few workers."""

from collections.abc import Sequence
from math import log2

from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.run.deadly import MAX_DEADLY, TRIES, find_deadly


class Rehearsal:
    """Stands for a worker: dies of some inputs, or of some other thing."""

    def __init__(self, deadly: set[int], *, n_accidents: int = 0, capacity: int = 10**9) -> None:
        self.deadly, self.n_accidents, self.capacity = deadly, n_accidents, capacity
        self.n_deaths = self.n_runs = 0

    def __call__(self, positions: Sequence[int]) -> bool:
        assert positions
        assert len(set(positions)) == len(positions)
        self.n_runs += 1
        is_dead = bool(self.deadly & set(positions)) or len(positions) > self.capacity
        if not is_dead and self.n_accidents:
            self.n_accidents -= 1
            is_dead = True
        self.n_deaths += is_dead
        return is_dead


@st.composite
def shards(draw: st.DrawFn, max_deadly: int = MAX_DEADLY) -> tuple[int, set[int]]:
    n_inputs = draw(st.integers(1, 300))
    return n_inputs, draw(st.sets(st.integers(0, n_inputs - 1), max_size=max_deadly))


@given(shards())
@settings(max_examples=300, deadline=None)
def test_exactly_the_deadly_inputs_are_found_in_few_deaths(shard: tuple[int, set[int]]) -> None:
    n_inputs, deadly = shard
    rehearsal = Rehearsal(deadly)
    assert find_deadly(n_inputs, rehearsal) == sorted(deadly)
    assert rehearsal.n_deaths <= len(deadly) * (log2(n_inputs) + 1 + TRIES)
    assert rehearsal.n_runs <= 2 + len(deadly) * (2 * log2(n_inputs) + 2 + TRIES)


@given(shards(), st.integers(1, TRIES - 1))
@settings(max_examples=100, deadline=None)
def test_workers_killed_from_outside_blame_no_input(shard: tuple[int, set[int]], n_accidents: int) -> None:
    n_inputs, deadly = shard
    assert find_deadly(n_inputs, Rehearsal(deadly, n_accidents=n_accidents)) == sorted(deadly)


@given(st.integers(2, 300))
@settings(max_examples=50, deadline=None)
def test_inputs_that_are_only_too_much_together_are_not_blamed(n_inputs: int) -> None:
    rehearsal = Rehearsal(set(), capacity=n_inputs // 2 + 1)
    assert find_deadly(n_inputs, rehearsal) == []
    assert rehearsal.n_runs <= 2 or n_inputs == 2


def test_the_search_ends_where_every_input_is_deadly() -> None:
    rehearsal = Rehearsal(set(range(300)))
    assert find_deadly(300, rehearsal) == list(range(MAX_DEADLY + 1))
    assert rehearsal.n_deaths < 50


def test_a_shard_without_inputs_has_nothing_to_blame() -> None:
    assert find_deadly(0, Rehearsal(set())) == []
