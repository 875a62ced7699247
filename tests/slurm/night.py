"""A run of the command line on the Slurm of the tests, of which a test disturbs the jobs."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGSTOP
from typing import Any

from commandline import CommandLine, Ended, Program
from rig import Job, Slurm
from small_survey import SmallSurvey

from apogee_batch.files import read_json

LONG = 100  # realizations: two workers need some seconds for the six shards
BLAME = ("searching its inputs", "WORKER_KILLED")
JOB_NAMES = "apogee-"
WAIT_S = 150.0  # of a busy machine


@dataclass
class Night:
    """Runs of `small_survey` with its model.

    Attributes
    ----------
    apogee : CommandLine
    slurm : Slurm
    survey : SmallSurvey
    folder : Path
        Where the run and its settings are.
    realizations : int
        Of each star.
    """

    apogee: CommandLine
    slurm: Slurm
    survey: SmallSurvey
    folder: Path
    realizations: int = LONG

    @property
    def run(self) -> Path:
        """Folder of the run."""
        return self.folder / "run"

    @property
    def logs(self) -> Path:
        """Folder of its logs."""
        return self.run / "logs"

    @contextmanager
    def program(self, **settings: Any) -> Iterator[Program]:
        """Start the run; `settings` are those of `SmallSurvey.settings`."""
        config = self.folder / "c.toml"
        self.survey.write_config(config, realizations=self.realizations, **settings)
        self.survey.reference(self.realizations, is_model_given=True)  # made before time counts
        words = self.survey.run_words(self.run, model=self.survey.model)
        with self.apogee.program(*words, "--config", config) as program:
            yield program

    def n_done(self) -> int:
        """Return how many shards are committed."""
        return len(list((self.run / "ledger").glob("[0-9]*.json")))

    def hosts(self) -> set[str]:
        """Return where shards were done."""
        return {read_json(path)["host"] for path in (self.run / "ledger").glob("[0-9]*.json")}

    def wait_work(self, program: Program) -> list[Job]:
        """Wait until the first shard is done, and others are being worked on; return the running jobs."""
        program.wait_until(self.n_done, "a shard is done", WAIT_S)
        assert self.n_done() < 5, program.story("too late to disturb it")
        return self.slurm.running(JOB_NAMES)

    def freeze(self, job: Job, only: str = "") -> None:
        """Stop the processes of a job, or those with a word in their command: what is in hand stays there."""
        victims = [pid for pid in self.slurm.processes(job.job_id) if only in " ".join(pid.command)]
        assert [pid for pid in victims if pid.send(SIGSTOP)], job

    def finish(self, program: Program, *, may_try_again: bool = False) -> Ended:
        """See that it ends with the bytes of an undisturbed run, blames no shard and leaves nothing.

        Parameters
        ----------
        program : Program
            The run.
        may_try_again : bool
            Whether a shard may get blame for a death, which alone has no consequence.
        """
        ended = program.succeed(WAIT_S)
        self.survey.assert_same_catalog(self.run, self.realizations, is_model_given=True)
        blame = BLAME if may_try_again else (*BLAME, "it is tried again")
        blamed = [word for word in blame if word in ended.said]
        assert not blamed, program.story(f"it blames a shard: {blamed}")
        assert_nothing_is_left(self.slurm, self.run, self.logs)
        return ended


def told_of(said: str, job_id: str) -> str:
    """Return what was said of the end of a job; see that it was said once."""
    lines = [line for line in said.splitlines() if re.match(rf"WARNING: job {job_id}\b", line)]
    assert len(lines) == 1, said
    return lines[0]


def submitted(logs: Path) -> list[str]:
    """Return all jobs of a stage, as the list of jobs tells them; see that it tells their ends."""
    lines = [json.loads(line) for line in (logs / "jobs.jsonl").read_text().splitlines()]
    began = [line["job"] for line in lines if line["event"] == "submitted"]
    assert sorted(began) == sorted(line["job"] for line in lines if line["event"] == "ended")
    return began


def assert_nothing_is_left(slurm: Slurm, folder: Path, logs: Path) -> None:
    """See that the jobs and keys of a stage are gone, and that there is a script of each job."""
    slurm.wait_empty(JOB_NAMES, timeout_s=10)
    assert not (logs.parent / "keys").exists()
    assert not list(folder.rglob("*.pem"))
    for job in submitted(logs):
        assert "distributed.cli.dask_worker" in (logs / f"job-{job}.sh").read_text()
