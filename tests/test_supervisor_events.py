"""Whatever happens to jobs and their queue, none is lost, doubled or asked for without end."""

import pytest
from fake_queue import Site
from hypothesis import given
from hypothesis import strategies as st

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.endings import RETRY_S

EVENTS = st.sampled_from(
    ["start", "work", "end", "time out", "cancel", "freeze", "deaf", "refuse", "stubborn", "hide", "wait"]
)
ENDS = {"end": "FAILED", "time out": "TIMEOUT", "cancel": "CANCELLED"}
FAILURES = ["end", "end", "cancel", "time out", "hold", "deaf", "hide", "wait"]


@given(
    events=st.lists(st.tuples(EVENTS, st.integers(0, 9), st.floats(0, 400)), max_size=40),
    asks=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    n_processes=st.integers(1, 2),
)
def test_whatever_happens_no_job_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[tuple[str, int, float]],
    asks: list[int],
    n_processes: int,
) -> None:
    site = Site(tmp_path_factory.mktemp("run"), n_jobs=asks[0], n_processes=n_processes, max_lost=3)
    queue, error = site.queue, None
    try:
        for step, (event, which, seconds) in enumerate(events):
            site.supervisor.n_jobs = asks[step % len(asks)] if which == 9 else site.supervisor.n_jobs
            happen(site, event, which)
            n_before = len(queue.jobs)
            site.tick(seconds)
            n_wanted = len(site.wanted())
            assert len(queue.jobs) == n_before or n_wanted <= site.supervisor.n_jobs
            assert {*site.roster.active, *site.roster.ended} == set(queue.jobs)
            assert not set(site.roster.active) & set(site.roster.ended)
            ours = {job_id for job_id, job in site.roster.ended.items() if not job.is_cancelled}
            assert not ours & set(queue.live()), "a job that lives is given up"
    except ClusterError as caught:
        error = caught
    assert error is None or not site.workers or not site.roster.active


@given(
    events=st.lists(st.tuples(st.sampled_from(FAILURES), st.integers(0, 9), st.floats(0, 100)), max_size=80),
    n_jobs=st.integers(1, 6),
    is_some_work_done=st.booleans(),
)
def test_however_jobs_fail_there_is_an_end_to_asking_for_more(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[tuple[str, int, float]],
    n_jobs: int,
    is_some_work_done: bool,
) -> None:
    site = Site(tmp_path_factory.mktemp("run"), n_jobs=n_jobs + is_some_work_done, max_lost=3)
    began, error, good = site.now, None, ""
    site.tick()
    if is_some_work_done:
        good = site.queue.live()[0]
        site.start(good)
    try:
        for event, which, seconds in events:
            happen(site, event, which, spared=good)
            site.tick(seconds)
    except ClusterError as caught:
        error = caught
    assert not (is_some_work_done and error)
    assert len(site.queue.jobs) <= n_jobs + is_some_work_done + 3 + (site.now - began) / RETRY_S


def happen(site: Site, event: str, which: int, *, spared: str = "") -> None:
    """Let something happen to one of the jobs, or to the queue."""
    queue = site.queue
    live = [job_id for job_id in queue.live() if job_id != spared]
    if event == "deaf":
        queue.is_deaf = not queue.is_deaf
    elif event == "stubborn":
        queue.is_stubborn = not queue.is_stubborn
    elif event == "refuse":
        queue.refusal = "" if queue.refusal else "no"
    elif event == "hide":
        queue.hidden = set() if queue.hidden else set(live)
    elif live:
        happen_to_job(site, event, live[which % len(live)])


def happen_to_job(site: Site, event: str, job_id: str) -> None:
    if event == "start":
        site.start(job_id)
    elif event == "work" and all(name in site.workers for name in site.names(job_id)):
        site.finish_task(job_id)
    elif event == "freeze":
        site.leave(job_id)
    elif event == "hold":
        site.queue.put(job_id, "PENDING", reason="JobHeldAdmin")
    elif event in ENDS:
        site.end(job_id, ENDS[event])
