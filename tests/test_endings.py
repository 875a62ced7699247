"""Jobs that end with nothing done are counted, told with the end of their log, and asked for more slowly."""

from pathlib import Path

import pytest

from apogee_batch.run.clusters.endings import LONGEST_PAUSE_S, RETRY_S, SERVED_S, Endings, last_lines
from apogee_batch.run.clusters.roster import Job

LOG = Path("/nowhere/job-7.log")


def new_job(**known: object) -> Job:
    return Job("7", "apogee-w1", "w1", 0.0, **known)  # type: ignore[arg-type]


def pause_after(endings: Endings, now: float) -> float:
    """Return how long no job is asked for."""
    seconds = 0.0
    while endings.must_wait(now + seconds):
        seconds += 1
    return seconds


def test_pauses_grow_to_a_minute_and_to_ten_when_it_is_hopeless() -> None:
    endings, pauses = Endings(9), list[float]()
    for i in range(9):
        endings.note_end(new_job(), LOG, 1000.0 * i)
        pauses.append(pause_after(endings, 1000.0 * i))
    assert pauses == [2, 4, 8, 16, 32, *3 * [LONGEST_PAUSE_S], RETRY_S]
    assert endings.is_hopeless()


def test_thousands_of_failures_do_no_harm() -> None:
    endings = Endings(100_000)
    for _ in range(5000):
        endings.note_end(new_job(), LOG, 0.0)
    assert pause_after(endings, 0.0) == LONGEST_PAUSE_S


def test_jobs_that_are_preempted_at_once_are_no_sign_of_a_fault() -> None:
    endings = Endings(2)
    for _ in range(5):
        text = endings.note_end(new_job(end="PREEMPTED on n1", node="n1"), LOG, 0.0)
    assert text == "job 7: PREEMPTED on n1, and had done nothing yet"
    assert not endings.is_hopeless()
    assert not endings.must_wait(0.0)


def test_a_later_event_does_not_shorten_a_pause() -> None:
    endings = Endings(1)
    endings.note_end(new_job(), LOG, 0.0)
    endings.note_refusal(1.0)
    assert pause_after(endings, 0.0) == RETRY_S


def test_refusals_pause_longer_each_time_until_one_job_is_taken() -> None:
    endings = Endings(5)
    assert [endings.note_refusal(0.0) for _ in range(5)] == [False] * 4 + [True]
    assert pause_after(endings, 0.0) == 32
    assert endings.is_careful()
    endings.note_submission(0.0)
    assert not endings.is_careful()
    assert endings.note_refusal(0.0) is False


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (new_job(n_done=3, end="TIMEOUT"), "job 7: TIMEOUT, after 3 tasks"),
        (new_job(connected=10.0, missed=10.0 + SERVED_S, end="TIMEOUT"), "job 7: TIMEOUT, after 300 s"),
        (
            new_job(connected=500.0 - SERVED_S, node="n1"),
            "job 7 on n1: is not in the queue any more, after 300 s",
        ),
    ],
)
def test_a_job_that_worked_is_no_failure(job: Job, text: str) -> None:
    endings = Endings(1)
    assert endings.note_end(job, LOG, 500.0) == text
    assert not endings.is_hopeless()


def test_a_job_that_was_connected_for_a_moment_is_a_failure() -> None:
    endings = Endings(1)
    endings.note_end(new_job(connected=10.0, missed=20.0), LOG, 5000.0)
    assert endings.is_hopeless()


def test_only_work_of_a_job_from_after_the_failures_gives_new_heart() -> None:
    endings = Endings(1)
    endings.note_end(new_job(node="n1"), LOG, 100.0)
    endings.note_work(new_job())
    assert endings.is_hopeless()
    endings.note_work(Job("8", "", "w2", 101.0))
    assert not endings.is_hopeless()


def test_the_last_word_names_nodes_log_and_what_the_log_says_by_then(tmp_path: Path) -> None:
    endings, log = Endings(2), tmp_path / "job-7.log"
    for node in ("n2", "n1", "n2"):
        endings.note_end(new_job(node=node, end="FAILED"), log, 0.0)
    assert "says nothing" in endings.tell()
    log.write_text("\n".join(f"line {i}" for i in range(20)) + "\n\n")  # a slow file system shows it late
    assert endings.tell() == (
        "3 jobs in a row (on n2, n1) ended without having done anything, the last: job 7 on n2: FAILED; "
        f"{log} ends with: {' | '.join(f'line {i}' for i in range(12, 20))}; see the log, try 'apogee-batch "
        "cluster test', and give the same command again"
    )


def test_of_a_long_log_the_end_is_read_and_nothing_that_moves_a_terminal(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 10_000_000 + b"\n\xff\x1b[2J red\nlast\n")
    told = last_lines(log)
    assert told.endswith("\ufffd [2J red | last")
    assert len(told) < 20_000
    assert last_lines(tmp_path / "none") == ""
