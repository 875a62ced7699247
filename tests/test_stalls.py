"""A stage in which nothing ends says so, and does not say it all the time."""

from apogee_batch.run.stalls import FIRST_S, StallWatch


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def look_for(watch: StallWatch, clock: Clock, seconds: float, *, n_workers: int = 2) -> None:
    end = clock.now + seconds
    while clock.now < end:
        clock.now += 1.0
        watch.look({7, 3}, n_workers)


def test_a_stage_that_hangs_says_which_shards_are_at_work() -> None:
    said, clock = list[str](), Clock()
    watch = StallWatch(said.append, clock)
    look_for(watch, clock, FIRST_S - 1)
    assert said == []
    look_for(watch, clock, 10)
    assert len(said) == 1
    assert "shards 3, 7:" in said[0]


def test_it_speaks_less_and_less_often_and_begins_anew_when_a_shard_ends() -> None:
    said, clock = list[str](), Clock()
    watch = StallWatch(said.append, clock)
    look_for(watch, clock, 8 * FIRST_S)
    assert len(said) == 4
    watch.note_end()
    look_for(watch, clock, FIRST_S + 10)
    assert len(said) == 5


def test_without_workers_it_is_silent_since_others_say_why() -> None:
    said, clock = list[str](), Clock()
    watch = StallWatch(said.append, clock)
    look_for(watch, clock, 2 * FIRST_S, n_workers=0)
    assert said == []
