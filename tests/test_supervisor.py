"""Jobs that are lost are replaced, jobs that are stuck are ended, and there is an end to asking."""

from pathlib import Path

import pytest
from fake_queue import FIRST_ID, Site

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.supervisor import AT_ONCE, COMPLETING_S, RESTART_S

A, B, C, D = (str(FIRST_ID + i) for i in range(4))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def busy(site: Site) -> Site:
    """Two jobs at work."""
    site.tick()
    for job_id in (A, B):
        site.start(job_id)
        site.give_task(job_id)
    site.tick()
    return site


def test_what_is_wanted_is_submitted_once(site: Site) -> None:
    site.run(600)
    assert list(site.queue.jobs) == [A, B]
    assert site.said == []


def test_a_pending_job_that_somebody_cancelled_is_replaced(site: Site) -> None:
    site.run(30)
    site.end(A, "CANCELLED", exit_code=0)
    site.run(10)
    assert site.queue.live() == [B, C]
    assert site.said == [f"WARNING: job {A}: CANCELLED, and had done nothing; another takes its place"]


def test_a_job_that_dies_in_its_prologue_is_replaced_by_one_under_a_new_name(site: Site) -> None:
    site.run(30)
    site.queue.put(A, "RUNNING", node="n2")
    site.tick()
    site.end(A, exit_code=127)
    site.run(10)
    assert site.queue.live() == [B, C]
    assert len({job.name for job in site.queue.jobs.values()}) == 3
    assert f"job {A}: FAILED with exit code 127 on n2, and had done nothing" in site.said[0]


def test_a_held_job_makes_way(site: Site) -> None:
    site.run(30)
    site.queue.put(A, "PENDING", reason="launch failed requeued held")
    site.run(10)
    assert site.queue.cancelled == [A]
    assert site.queue.live() == [B, C]


@pytest.mark.parametrize("is_listed", [True, False])
def test_the_job_of_a_crashed_node_is_replaced(busy: Site, is_listed: bool) -> None:
    busy.finish_task(A)
    busy.tick()
    if is_listed:  # the controller has not noticed
        busy.leave(A)
        busy.run(RESTART_S + 10)
        assert busy.queue.cancelled == [A]
    else:
        busy.end(A, "NODE_FAIL")
        busy.tick()
    assert busy.wanted() == [B, C]
    assert "after 1 task; another takes its place" in busy.said[0]


def test_a_job_whose_walltime_ends_after_work_is_no_failure(busy: Site) -> None:
    for n_jobs in range(2, 30):
        last = str(FIRST_ID + n_jobs - 1)
        busy.start(last)
        busy.finish_task(last)
        busy.tick()
        busy.end(last, "TIMEOUT")
        busy.tick()
    assert busy.endings.n_in_a_row == 0
    assert len(busy.queue.jobs) == 30


def test_a_worker_that_leaves_when_its_time_is_over_is_no_cause_for_a_warning(busy: Site) -> None:
    busy.finish_task(A)
    busy.tick()
    busy.end(A, "COMPLETED", exit_code=0)
    busy.tick()
    assert len(busy.said) == 1
    assert busy.said[0].startswith(f"job {A}: COMPLETED")


def test_a_job_that_worked_at_one_task_until_its_walltime_is_no_failure(busy: Site) -> None:
    busy.run(1000)
    busy.end(A, "TIMEOUT")
    busy.tick()
    assert busy.endings.n_in_a_row == 0
    assert busy.wanted() == [B, C]


def test_a_worker_that_its_nanny_starts_again_is_waited_for(busy: Site) -> None:
    busy.leave(A)
    busy.run(RESTART_S - 10)
    busy.start(A)
    busy.run(RESTART_S)
    assert busy.queue.cancelled == []


def test_where_the_queue_is_silent_nothing_is_done(busy: Site) -> None:
    busy.queue.is_deaf = True
    busy.leave(A)
    busy.end(B)
    busy.run(900)
    assert list(busy.queue.jobs) == [A, B]
    assert busy.queue.cancelled == []
    assert busy.wanted() == [A, B]


def test_a_job_without_slurmd_is_kept_as_long_as_its_worker_works(busy: Site) -> None:
    busy.queue.put(A, "NODE_FAIL")
    busy.run(900)
    assert busy.wanted() == [A, B]
    busy.leave(A)
    busy.tick()
    assert busy.wanted() == [B, C]


def test_a_job_of_which_no_worker_comes_is_given_the_time_to_start_and_no_more(site: Site) -> None:
    site.tick()
    site.queue.put(A, "RUNNING", node="n1")
    site.run(290)
    assert site.queue.cancelled == []
    site.run(20)
    assert site.queue.cancelled == [A]
    assert "runs for over 300 s and no workers of it came" in site.said[0]


def test_a_job_of_which_half_the_workers_come_is_replaced(tmp_path: Path) -> None:
    site = Site(tmp_path, n_processes=2)
    site.tick()
    site.start(A, n_workers=1)
    site.run(310)
    assert site.queue.cancelled == [A]
    assert "not all workers of it came" in site.said[0]


def test_a_job_that_lost_one_of_its_workers_is_given_more_time_than_one_that_lost_all(tmp_path: Path) -> None:
    site = Site(tmp_path, n_processes=2)
    site.tick()
    for job_id in (A, B):
        site.start(job_id)
    site.tick()
    del site.workers[site.names(A)[1]]
    site.leave(B)
    site.run(RESTART_S + 10)
    assert site.queue.cancelled == [B]
    site.run(60)
    assert site.queue.cancelled == [B, A]


def test_a_stuck_task_ends_its_job(busy: Site) -> None:
    busy.supervisor.longest_task_s = 100.0
    busy.run(990)
    assert busy.queue.cancelled == []
    busy.finish_task(B)
    busy.run(30)
    assert busy.queue.cancelled == [A]
    assert "a task of it lasts over 1000 s, 10 times as long as any before" in busy.said[0]
    assert [job.is_innocent for job in busy.roster.ended.values()] == [False], "its task is to blame"


def test_a_driver_that_stood_still_does_not_take_for_stuck_what_it_has_not_heard_of(busy: Site) -> None:
    busy.supervisor.longest_task_s = 20.0
    busy.tick()
    busy.tick(1200)  # the first look sees what was seen before
    assert busy.queue.cancelled == []
    busy.finish_task(A)
    busy.give_task(A)
    busy.tick()
    assert busy.queue.cancelled == [B]


def test_looks_that_always_take_long_judge_all_the_same(busy: Site) -> None:
    busy.supervisor.longest_task_s = 20.0
    for _ in range(12):
        busy.tick(100)
    assert busy.queue.cancelled == [A, B]


def test_without_a_finished_task_none_is_too_long(busy: Site) -> None:
    busy.run(50_000)
    assert busy.queue.cancelled == []


def test_jobs_that_wait_are_given_back_first_then_those_without_a_task(tmp_path: Path) -> None:
    site = Site(tmp_path, n_jobs=4)
    site.tick()
    for job_id in (A, B, C):
        site.start(job_id)
    site.give_task(A)
    site.give_task(C)
    site.tick()
    for n_jobs, cancelled in ((3, [D]), (2, [D, B]), (1, [D, B])):
        site.supervisor.n_jobs = n_jobs
        site.tick()
        assert site.queue.cancelled == cancelled
    site.finish_task(A)
    site.tick()
    assert site.queue.cancelled == [D, B, A]
    site.supervisor.n_jobs = 0
    site.tick()
    assert site.queue.live() == []
    assert site.said == []


def test_after_giving_back_as_many_can_be_asked_for_again(busy: Site) -> None:
    busy.supervisor.n_jobs = 0
    busy.tick()
    assert busy.queue.live() == []
    busy.supervisor.n_jobs = 2
    busy.run(10)
    assert busy.queue.live() == [C, D]
    assert busy.endings.n_in_a_row == 0


def lose_all_but_the_first(site: Site, seconds: float) -> None:
    """Let every job but the first die as it starts."""
    end = site.now + seconds
    while site.now < end:
        site.tick()
        for job_id in site.queue.live():
            if job_id != A:
                site.start(job_id, node="n2", n_workers=0)
                site.tick()
                site.end(job_id, exit_code=127)


def test_one_worker_where_two_are_needed_does_not_keep_a_run_from_its_end(site: Site) -> None:
    site.tick()
    site.start(A)
    site.supervisor.n_needed = 2
    with pytest.raises(ClusterError, match=r"5 jobs in a row \(on n2\) ended without having done anything"):
        lose_all_but_the_first(site, 86_400)


@pytest.mark.parametrize(("n_needed", "is_at_work"), [(1, False), (2, True)])
def test_a_run_goes_on_with_the_worker_that_it_has(site: Site, n_needed: int, is_at_work: bool) -> None:
    site.tick()
    site.start(A)
    if is_at_work:
        site.give_task(A)
    site.supervisor.n_needed = n_needed
    lose_all_but_the_first(site, 86_400)
    assert site.endings.is_hopeless()
    assert A in site.queue.live()


def test_jobs_that_keep_dying_end_the_run_with_the_last_lines_of_a_log(site: Site) -> None:
    (site.logs / f"job-{FIRST_ID + 4}.log").write_text("loading\n\npython: No such file\n")
    site.supervisor.n_jobs = 1
    with pytest.raises(ClusterError) as caught:
        let_all_die(site)
    assert len(site.queue.jobs) == 5
    assert site.now < 1200
    assert str(caught.value).startswith(
        f"5 jobs in a row (on n1) ended without having done anything, the last: job {FIRST_ID + 4}: "
        f"FAILED with exit code 127 on n1; {site.logs}/job-{FIRST_ID + 4}.log ends with: loading | python: "
        "No such file; see the log"
    )


def let_all_die(site: Site) -> None:
    for _ in range(200):
        site.tick()
        for job_id in site.queue.live():
            site.queue.put(job_id, "RUNNING", node="n1")
            site.tick()
            site.end(job_id, exit_code=127)


def test_jobs_that_keep_dying_do_not_end_a_run_in_which_others_work(busy: Site) -> None:
    for _ in range(2000):
        busy.tick()
        for job_id in busy.queue.live():
            if job_id != A:
                busy.end(job_id)
    assert 5 <= len(busy.queue.jobs) <= 5 + 6000 / 600 + 2
    busy.end(A, "TIMEOUT")
    with pytest.raises(ClusterError, match="in a row"):
        busy.run(30)


def test_a_job_that_is_starting_is_awaited_before_the_run_is_given_up(tmp_path: Path) -> None:
    site = Site(tmp_path, n_jobs=6)
    site.tick()
    last = site.queue.live()[-1]
    site.queue.put(last, "RUNNING", node="n2")
    site.tick()
    for job_id in site.queue.live()[:-1]:
        site.end(job_id)
    site.run(100)
    site.start(last)
    site.finish_task(last)
    site.run(700)
    assert len(site.queue.jobs) == 7


def test_work_of_a_job_that_was_asked_for_after_a_failure_forgives_it(busy: Site) -> None:
    busy.end(A)
    busy.run(10)
    assert busy.endings.n_in_a_row == 1
    busy.finish_task(B)
    busy.tick()
    assert busy.endings.n_in_a_row == 1
    busy.start(C)
    busy.finish_task(C)
    busy.tick()
    assert busy.endings.n_in_a_row == 0


def test_a_refusal_while_jobs_run_is_told_and_is_not_fatal(busy: Site) -> None:
    busy.supervisor.n_jobs = 40
    busy.queue.refusal = "QOSMaxSubmitJobPerUserLimit"
    busy.run(3600)
    assert busy.queue.n_asked < 2 + 20
    assert len(busy.said) == busy.queue.n_asked - 2
    busy.queue.refusal = ""
    busy.run(700)
    assert len(busy.queue.live()) == 40


def test_the_first_refusal_ends_the_run_at_once(site: Site) -> None:
    site.queue.refusal = "Invalid account"
    with pytest.raises(ClusterError, match=r"^sbatch: Invalid account$"):
        site.tick()
    assert site.queue.n_asked == 1


def test_later_refusals_end_it_when_no_job_is_left_and_they_last(busy: Site) -> None:
    busy.queue.refusal = "Socket timed out"
    for job_id in (A, B):
        busy.end(job_id, "TIMEOUT")
    busy.endings.n_in_a_row = 0
    with pytest.raises(ClusterError, match="Socket timed out"):
        busy.run(600)
    assert busy.queue.n_asked == 2 + 5
    assert busy.now > 1030


def test_a_cancellation_that_fails_is_told_and_tried_again(busy: Site) -> None:
    busy.queue.is_stubborn = True
    busy.supervisor.n_jobs = 0
    busy.run(100)
    assert len(busy.said) == 2
    assert all("scancel: no answer" in text for text in busy.said)
    busy.queue.is_stubborn = False
    busy.run(100)
    assert busy.queue.live() == []


def test_at_the_end_a_cancellation_that_fails_leaves_the_jobs_on_the_list(busy: Site) -> None:
    busy.queue.is_stubborn = True
    busy.supervisor.cancel_all()
    assert busy.wanted() == [A, B]
    assert busy.said[0].startswith("WARNING: jobs of this run are still in the queue: scancel: no answer")
    busy.queue.is_stubborn = False
    busy.supervisor.cancel_all()
    assert busy.queue.cancelled == [A, B]
    assert busy.roster.active == {}


def test_a_list_that_lags_behind_loses_no_job(site: Site) -> None:
    site.tick()
    site.queue.hidden = {A, B}
    site.run(60)
    assert list(site.queue.jobs) == [A, B]
    site.queue.hidden = set()
    site.start(A)
    site.run(60)
    assert site.wanted() == [A, B]


def test_a_node_that_cannot_get_rid_of_a_job_keeps_no_other_from_starting(busy: Site) -> None:
    busy.finish_task(A)
    busy.tick()
    busy.leave(A)
    busy.queue.put(A, "COMPLETING")
    busy.run(COMPLETING_S - 10)
    assert busy.wanted() == [A, B]
    busy.run(20)
    assert busy.wanted() == [B, C]
    assert busy.roster.ended[A].is_innocent


def test_a_job_that_was_put_back_into_the_queue_is_given_the_time_to_start_again(busy: Site) -> None:
    busy.leave(A)
    busy.queue.put(A, "PENDING", node="")
    busy.run(5000)
    busy.queue.put(A, "RUNNING", node="n2")
    busy.run(200)
    assert busy.wanted() == [A, B]
    busy.start(A)
    busy.run(500)
    assert busy.queue.cancelled == []


@pytest.mark.parametrize(("state", "is_innocent"), [("TIMEOUT", True), ("OUT_OF_MEMORY", False)])
def test_the_end_of_a_job_tells_whether_its_tasks_are_to_blame(
    busy: Site, state: str, is_innocent: bool
) -> None:
    busy.end(A, state)
    busy.tick()
    assert busy.roster.ended[A].is_innocent is is_innocent


def test_where_a_queue_cannot_be_listed_a_job_without_workers_is_replaced(tmp_path: Path) -> None:
    site = Site(tmp_path, can_list=False)
    site.tick()
    for job_id in (A, B):
        site.start(job_id)
    site.tick()
    site.leave(A)
    site.run(RESTART_S + 10)
    assert site.wanted() == [B, C]


def test_less_that_is_wanted_meanwhile_stops_submissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, n_jobs=50)
    submit = site.queue.submit

    def close_at_third(script: str, *, folder: Path) -> str:
        if site.queue.n_asked == 2:
            site.supervisor.n_jobs = 0
        return submit(script, folder=folder)

    monkeypatch.setattr(site.queue, "submit", close_at_third)
    site.tick()
    assert site.queue.n_asked == 3


def test_many_jobs_are_submitted_and_asked_after_some_at_a_time(tmp_path: Path) -> None:
    site = Site(tmp_path, n_jobs=50)
    site.tick()
    assert len(site.queue.jobs) == AT_ONCE
    site.run(30)
    assert len(site.queue.jobs) == 50
    for job_id in list(site.queue.jobs):
        site.end(job_id, "PREEMPTED")
    site.tick()
    assert len(site.roster.ended) == AT_ONCE
    site.run(30)
    assert len(site.roster.ended) == 50
    assert len(site.wanted()) == 50
