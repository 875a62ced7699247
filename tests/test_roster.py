"""The list of jobs survives its driver, also one that was killed as it wrote."""

import json
import logging
from pathlib import Path

import pytest

from apogee_batch.run.clusters.roster import JOBS_FILE, Job, Roster, is_of_job, unfinished_jobs


def new_job(number: int) -> Job:
    return Job(str(number), f"apogee-w{number}", f"w{number}", 0.0)


def test_a_later_driver_knows_the_jobs_that_were_not_seen_to_end(tmp_path: Path) -> None:
    roster = Roster(tmp_path)
    for number in (1, 2, 3):
        roster.add(new_job(number))
    roster.drop(roster.active["2"], "FAILED")
    assert unfinished_jobs(tmp_path) == {"1": "apogee-w1", "3": "apogee-w3"}
    assert [*roster.active, *roster.ended] == ["1", "3", "2"]
    events = [json.loads(line) for line in (tmp_path / JOBS_FILE).read_text().splitlines()]
    assert events[-1]["end"] == "FAILED"
    assert events[-1]["time"] > 1.6e9


def test_without_earlier_drivers_nothing_is_left(tmp_path: Path) -> None:
    assert unfinished_jobs(tmp_path / "none") == {}


@pytest.mark.parametrize("n_lost", [1, 20])
def test_a_torn_line_takes_no_other_with_it(tmp_path: Path, n_lost: int) -> None:
    roster = Roster(tmp_path)
    roster.add(new_job(1))
    roster.add(new_job(2))
    path = tmp_path / JOBS_FILE
    path.write_bytes(path.read_bytes()[:-n_lost])
    later = Roster(tmp_path)
    later.add(new_job(3))
    later.add(new_job(4))
    left = unfinished_jobs(tmp_path)
    assert {"1", "3", "4"} <= left.keys()


def test_a_list_that_cannot_be_written_is_no_reason_to_lose_a_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    roster = Roster(tmp_path)
    (tmp_path / JOBS_FILE).mkdir()
    with caplog.at_level(logging.WARNING):
        roster.add(new_job(1))
        roster.drop(roster.active["1"], "FAILED")
    assert roster.ended["1"].end == "FAILED"
    assert len(caplog.messages) == 2


@pytest.mark.parametrize(
    ("worker", "is_its"),
    [("w1", True), ("w1-0", True), ("w1-12", True), ("w11", False), ("w11-1", False), ("w", False)],
)
def test_a_worker_belongs_to_the_job_whose_name_it_has(tmp_path: Path, worker: str, is_its: bool) -> None:
    roster = Roster(tmp_path)
    roster.add(new_job(1))
    assert is_of_job(worker, roster.active["1"]) is is_its
    assert (roster.job_of(worker) is not None) is is_its


def test_a_worker_of_a_job_that_has_ended_is_still_known(tmp_path: Path) -> None:
    roster = Roster(tmp_path)
    job = new_job(1)
    roster.add(job)
    roster.drop(job, "TIMEOUT")
    assert roster.job_of("w1-3") is job
    assert roster.log_of(job) == tmp_path / "job-1.log"
