"""What goes wrong in a job of a queue says in which one, and where to read on."""

import socket

import pytest

from apogee_batch.errors import IntegrityError, describe_place
from apogee_batch.run.clusters.dask_crew import JOB_VARIABLES, LOGS_VARIABLE, tell_place


def fail() -> None:
    raise IntegrityError("damaged")


def test_an_error_in_a_job_names_node_job_and_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv(LOGS_VARIABLE, "/run/logs")
    with pytest.raises(IntegrityError) as caught:
        tell_place(fail)
    assert describe_place(caught.value) == f" (on {socket.gethostname()}, job 7, log /run/logs/job-7.log)"


def test_an_error_outside_jobs_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in JOB_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(IntegrityError) as caught:
        tell_place(fail)
    assert describe_place(caught.value) == ""
