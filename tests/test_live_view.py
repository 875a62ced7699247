"""What a user sees on a terminal: drawn by a clock of the test, at several widths."""

import io
import re

import pytest
from rich.console import Console

from apogee_batch.run.live_view import LiveView
from apogee_batch.run.pace import Pace, clock_text
from apogee_batch.run.progress import Facts, PlainView, progress_view, show_facts


class Clock:
    """Time that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=24, legacy_windows=False)


def drawn(view: LiveView, width: int = 80, encoding: str = "utf-8") -> list[str]:
    """Return the lines of a view as they are on the screen."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, height=24, color_system=None)
    with console.capture() as told:
        console.print(view)
    return told.get().splitlines()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def view(clock: Clock) -> LiveView:
    """A run that was resumed at 400 of 1,000 stars and has done 300 in a minute."""
    view = LiveView(terminal(), clock=clock)
    view.show(Facts(stages=("train", "calibrate", "infer", "publish")))
    view.start("train", None, "epochs")
    view.advance(12, "dev loss 0.1")
    clock.now_s += 65
    view.finish()
    view.start("infer", 1000, "stars", done=400)
    view.show(Facts(rejects=3, workers=7, wanted=8))
    clock.now_s += 60
    view.advance(300)
    return view


def test_stages_are_done_at_work_or_to_come(view: LiveView) -> None:
    lines = drawn(view)
    view.close()
    assert lines[0].split() == ["✓", "train", "12", "epochs", "1:05"]
    assert re.fullmatch(r" ● infer +━+─+ +70 %  700/1,000 stars  1:00", lines[1])
    assert lines[2].strip() == "5 stars/s · 1:00 left · 3 rejected · 7 of 8 workers"
    assert [line.strip() for line in lines[3:]] == ["○ publish"], "calibrate had nothing to do"


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(view: LiveView, width: int) -> None:
    lines = drawn(view, width)
    view.close()
    assert len(lines) == 4
    assert all(len(line) <= width for line in lines)
    assert "infer" in lines[1]


def test_a_terminal_without_unicode_gets_ascii(view: LiveView) -> None:
    lines = drawn(view, encoding="ascii")
    view.close()
    assert "\n".join(lines).isascii()
    assert "#" in lines[1]


def test_the_time_left_runs_down_between_shards_and_grows_when_one_is_late(
    view: LiveView, clock: Clock
) -> None:
    clock.now_s += 20
    assert "0:40 left" in drawn(view)[2]
    clock.now_s += 600
    late = drawn(view)[2]
    view.close()
    assert "0.484 stars/s" in late
    assert "0:00 left" in late


def test_lines_scroll_above_and_the_cursor_comes_back(clock: Clock) -> None:
    console = terminal()
    assert isinstance(console.file, io.StringIO)

    def work() -> None:
        with progress_view(console) as view:
            view.start("infer", 10, "stars")
            view.say("WARNING: [not markup] a shard is done again")
            raise RuntimeError("at work")

    with pytest.raises(RuntimeError):
        work()
    told = console.file.getvalue()
    assert "WARNING: [not markup] a shard is done again" in told
    assert told.count("\x1b[?25l") == told.count("\x1b[?25h") == 1
    assert told.rindex("\x1b[?25h") > told.rindex("infer")
    assert "✗ infer" in told


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_draw_gets_lines(term: str) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": term})
    with progress_view(console) as view:
        assert isinstance(view, PlainView)


def test_a_terminal_without_colours_gets_none() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm", "NO_COLOR": "1"})
    with progress_view(console) as view:
        view.start("infer", 10, "stars")
        view.say("WARNING: a")
        view.finish()
    assert isinstance(console.file, io.StringIO)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", console.file.getvalue())


def test_views_that_show_no_facts_are_given_none() -> None:
    console = Console(file=io.StringIO())
    view = PlainView(console)
    show_facts(view, Facts(rejects=1))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ""


def test_what_was_done_before_is_not_counted_as_speed() -> None:
    pace = Pace(1000, 900, 0.0)
    assert pace.rate(50.0) is None
    assert pace.left_s(50.0) is None
    pace.note(910, 10.0)
    assert pace.rate(10.0) == pytest.approx(1.0)
    assert pace.left_s(10.0) == pytest.approx(90.0)


def test_the_speed_is_that_of_the_last_minutes() -> None:
    pace = Pace(10_000, 0, 0.0)
    for i in range(1, 101):
        pace.note(i, 10.0 * i)  # slow at first
    for i in range(1, 201):
        pace.note(100 + 10 * i, 1000.0 + i)
    assert pace.rate(1200.0) == pytest.approx(10.0, rel=0.02)
    burst = Pace(100, 0, 0.0)
    for worker in range(8):  # all workers end their first shard at once
        burst.note(worker + 1, 400.0 + 0.01 * worker)
    assert burst.rate(400.1) == pytest.approx(8 / 400, rel=0.01)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (-5, "0:00")]
)
def test_times_are_written_as_clocks_do(seconds: float, told: str) -> None:
    assert clock_text(seconds) == told
