"""The processes of a job leave together, jobs one after the other: a gap in a job would look like a fault."""

import re
from dataclasses import replace
from pathlib import Path

import dask.config
import pytest
from fake_queue import FakeQueue
from worker_jobs import make_job

from apogee_batch.run.clusters import dask_crew
from apogee_batch.run.clusters.dask_crew import DaskCrew
from apogee_batch.run.clusters.dask_policy import SELDOM
from apogee_batch.run.clusters.jobs import job_script
from apogee_batch.run.clusters.queue_cluster import _Launcher, worker_job
from apogee_batch.run.config import ClusterSettings, Device
from apogee_batch.run.job_settings import JobSettings, Role


def test_processes_of_a_job_have_the_same_lifetime_and_jobs_have_different_ones(tmp_path: Path) -> None:
    job = replace(make_job(), lifetime_s=3000.0, lifetime_stagger_s=300.0)
    launcher = _Launcher(FakeQueue(), job, tmp_path)
    scripts = [launcher._script(f"w{i}") for i in range(40)]
    assert all("--lifetime-stagger 0s" in script for script in scripts)
    lifetimes = [int(found[1]) for script in scripts if (found := re.search(r"--lifetime (\d+)s", script))]
    assert len(lifetimes) == 40
    assert len(set(lifetimes)) > 10
    assert min(lifetimes) >= 2700
    assert max(lifetimes) <= 3300


def test_a_job_too_short_for_a_lifetime_has_none(tmp_path: Path) -> None:
    launcher = _Launcher(FakeQueue(), replace(make_job(), lifetime_s=None), tmp_path)
    assert "--lifetime" not in launcher._script("w1")


def test_places_are_those_workers_that_were_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [["a"], ["a", "b"], ["a"]]  # the last: one has left right after they were counted
    crew = DaskCrew(None)
    monkeypatch.setattr(crew, "addresses", lambda: seen.pop(0))
    monkeypatch.setattr(dask_crew, "POLL_S", 0.001)
    monkeypatch.setattr(dask_crew, "DaskExecutor", lambda _, *, worker: worker)
    assert crew.places(2) == ["a", "b"]


def test_a_worker_never_pauses_for_the_memory_that_a_training_has_left(tmp_path: Path) -> None:
    settings = ClusterSettings(kind="slurm", gpu=JobSettings(walltime="01:00:00", memory="1GB"))
    job = worker_job(settings, "gpu", scheduler="tls://h:1", logs=tmp_path, tls=None)
    script = job_script(job, "w1")
    for policy in ("TARGET", "SPILL", "PAUSE"):
        assert f"export DASK_DISTRIBUTED__WORKER__MEMORY__{policy}=False\n" in script
    collected = dask.config.collect_env({"DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "False"})
    assert collected["distributed"]["worker"]["memory"]["pause"] is False  # as the worker reads it


def test_a_worker_of_a_job_looks_after_itself_seldom(tmp_path: Path) -> None:
    settings = ClusterSettings(kind="slurm", cpu=JobSettings(walltime="01:00:00", memory="1GB"))
    script = job_script(worker_job(settings, "cpu", scheduler="tls://h:1", logs=tmp_path, tls=None), "w1")
    exported = dict(re.findall(r"export (DASK_\w+)='?([^'\n]+)'?\n", script))
    with dask.config.set(dask.config.collect_env(exported)):
        assert {key: dask.config.get(key) for key in SELDOM} == SELDOM


def test_workers_leave_before_their_walltime_ends(tmp_path: Path) -> None:
    for walltime in ("00:10:00", "01:00:00", "2-00:00:00"):
        settings = ClusterSettings(kind="slurm", gpu=JobSettings(walltime=walltime, memory="1GB"))
        job = worker_job(settings, "gpu", scheduler="tls://h:1", logs=tmp_path, tls=None)
        assert job.lifetime_s is not None
        assert job.lifetime_s + job.lifetime_stagger_s < settings.gpu.walltime_s - 150
    settings = ClusterSettings(kind="slurm", gpu=JobSettings(walltime="00:05:00", memory="1GB"))
    assert worker_job(settings, "gpu", scheduler="tls://h:1", logs=tmp_path, tls=None).lifetime_s is None


@pytest.mark.parametrize(
    ("role", "device", "gres", "threads"),
    [
        ("gpu", "auto", "gpu:2", 2),
        ("gpu", "cuda", None, 2),
        ("gpu", "auto", None, 1),  # nobody said that there is a GPU
        ("gpu", "cpu", "gpu:2", 1),
        ("cpu", "cuda", None, 1),
    ],
)
def test_a_process_with_a_gpu_does_two_tasks_at_a_time(
    role: Role, device: Device, gres: str | None, threads: int, tmp_path: Path
) -> None:
    job = JobSettings(walltime="01:00:00", memory="8GB", cores=8, processes=2, gres=gres)
    settings = ClusterSettings(kind="slurm", device=device, gpu=job, cpu=job)
    script = job_script(worker_job(settings, role, scheduler="tls://h:1", logs=tmp_path, tls=None), "w1")
    assert f"--nthreads {threads} --memory-limit 3.73GiB --nworkers 2 " in script
    assert "export OMP_NUM_THREADS=4\n" in script  # of the cores, whatever Dask is told
