"""Slurm, through sbatch, squeue, scancel and scontrol."""

import os
import re
import shlex
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.programs import Answer, keep_script, run_program
from apogee_batch.run.clusters.queues import JobState
from apogee_batch.run.clusters.slurm_words import (
    JobEnd,
    clean_environment,
    is_of_gone_jobs,
    is_passing,
    read_job_end,
    remedy_of_refusal,
    remedy_of_waiting,
)

SEPARATOR = "\x1f"  # occurs in no name, reason or node list
FIELDS = SEPARATOR.join(("%i", "%T", "%N", "%r", "%S", "%Q", "%j"))
N_FIELDS = FIELDS.count(SEPARATOR) + 1
TAKE_THE_NEXT_WORD = frozenset({"-A", "-J", "-e", "-n", "-o", "-p", "-t"})  # of our own directives
CANCEL_AT_ONCE = 500  # job ids in one command
FIRST_PAUSE_S = 1.0  # before a refusal that may pass is tried again; each pause is twice as long as the last


class SlurmQueue:
    """Slurm, through its commands.

    Parameters
    ----------
    timeout_s : float
        How long a command may take, and how long a refusal that may pass is tried again.
    pause_s : float, optional
        Before the first of these tries.
    """

    can_list = True

    def __init__(self, *, timeout_s: float, pause_s: float = FIRST_PAUSE_S) -> None:
        self.trouble = ""
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._cluster: dict[str, str] = {}  # where several are served: the one that took the jobs

    def submit(self, script: str, *, folder: Path) -> str:
        """See `Queue`. A job that was taken although its submission failed is found by its name."""
        job_id = self._submit(script)
        keep_script(folder, job_id, script)
        return job_id

    def _submit(self, script: str) -> str:
        options = directives(script)
        name = name_of(options)
        pause_s, deadline = self._pause_s, time.monotonic() + self._timeout_s
        answer = self._sbatch(["--parsable", *options], script)
        while True:
            if job_id := self._id_in(answer):
                return job_id
            if not (answer.is_good or answer.code is None or is_passing(answer.told())):
                break
            found = self._jobs_of_name(name)
            if found:
                return found[0]
            if answer.is_good or time.monotonic() + pause_s > deadline:
                break
            time.sleep(pause_s)
            pause_s *= 2
            if found is not None:  # else it may have been taken, which must be known before it is sent again
                answer = self._sbatch(["--parsable", *options], script)
        raise self._refused("sbatch", answer)

    def _sbatch(self, options: Sequence[str], script: str) -> Answer:
        """Call sbatch; what is exported to the job is the environment as it is, but for Slurm's own."""
        environment = clean_environment(os.environ) | self._cluster
        arguments = ["sbatch", *options]
        return run_program(arguments, environment=environment, timeout_s=self._timeout_s, stdin=script)

    def _id_in(self, answer: Answer) -> str:
        """Return the job id that sbatch printed, "" if none; sites let it print more than that."""
        if not answer.is_good:
            return ""
        for line in reversed(answer.out.splitlines()):
            if found := re.fullmatch(r"(\d+)(?:;(\S+))?", line.strip()):
                if found.group(2):
                    self._cluster = {"SLURM_CLUSTERS": found.group(2)}
                return found.group(1)
        return ""

    def _jobs_of_name(self, name: str) -> Sequence[str] | None:
        """Return the jobs of a name, also those that ended a moment ago; None if that cannot be told."""
        found = self._squeue("--states=all")
        if found is None or not name:
            return None if name else []
        return sorted((job.job_id for job in found.values() if job.name == name), key=int, reverse=True)

    def _refused(self, program: str, answer: Answer) -> ClusterError:
        if answer.code is None:
            return ClusterError(
                f"{program}: does not answer within {self._timeout_s:g} s; "
                "is the Slurm controller up (scontrol ping)?"
            )
        if answer.is_good:
            return ClusterError(f"{program}: gave no job id but said: {answer.told()}; is it Slurm's own?")
        remedy = remedy_of_refusal(answer.told())
        return ClusterError(f"{program}: {answer.told()}{'; ' * bool(remedy)}{remedy}")

    def cancel(self, job_ids: Collection[str]) -> None:
        """See `Queue`."""
        wanted = sorted(filter(str.isdecimal, job_ids), key=int)
        for start in range(0, len(wanted), CANCEL_AT_ONCE):
            some = wanted[start : start + CANCEL_AT_ONCE]
            answer = self._ask(["scancel", *some])
            if not (answer.is_good or is_of_gone_jobs(answer.err)):
                error = self._refused("scancel", answer)
                raise ClusterError(f"{error}; by hand: scancel {' '.join(wanted[start:])}")

    def _ask(self, arguments: Sequence[str]) -> Answer:
        """Call a command that only asks or cancels, and call it again while a refusal may pass."""
        environment = clean_environment(os.environ) | self._cluster | {"LC_ALL": "C"}
        pause_s, deadline = self._pause_s, time.monotonic() + self._timeout_s
        while True:
            left_s = max(deadline - time.monotonic(), self._pause_s)
            answer = run_program(arguments, environment=environment, timeout_s=left_s)
            is_over = answer.code is None or time.monotonic() + pause_s > deadline
            if answer.is_good or is_over or not is_passing(answer.told()):
                return answer
            time.sleep(pause_s)
            pause_s *= 2

    def list(self, job_ids: Collection[str]) -> dict[str, JobState] | None:
        """See `Queue`."""
        found = self._squeue()
        return None if found is None else {job: found[job] for job in job_ids if job in found}

    def _squeue(self, *options: str) -> dict[str, JobState] | None:
        """Return all jobs of this user; None, and the trouble, if they cannot be told."""
        # The header says that squeue did its work: no jobs and no answer look the same without it.
        arguments = ["squeue", f"--user={os.getuid()}", f"--format={FIELDS}", *options]
        environment = clean_environment(os.environ) | self._cluster | {"LC_ALL": "C"}
        try:
            answer = run_program(arguments, environment=environment, timeout_s=self._timeout_s)
        except ClusterError as error:
            self.trouble = str(error)
            return None
        if not answer.is_good:
            self.trouble = str(self._refused("squeue", answer))
            return None
        rows = [line.split(SEPARATOR) for line in answer.out.split("\n")]
        if not any(row[0].strip() == "JOBID" and len(row) == N_FIELDS for row in rows):
            self.trouble = f"squeue: its answer cannot be read: {answer.told()}"
            return None
        self.trouble = ""
        jobs = [_job(row) for row in rows if len(row) == N_FIELDS and row[0].strip().isdecimal()]
        return {job.job_id: job for job in jobs}

    def test(self, script: str) -> str:
        """See `Queue`."""
        answer = self._sbatch(["--test-only", *directives(script)], script)
        if not answer.is_good:
            raise self._refused("sbatch --test-only", answer)
        return answer.told()

    def ended(self, job_id: str) -> JobEnd:
        """See `Queue`. Slurm forgets a job some minutes after its end."""
        if not job_id.isdecimal():
            return JobEnd()
        try:
            answer = self._ask(["scontrol", "--oneliner", "show", "job", job_id])
        except ClusterError as error:
            self.trouble = str(error)
            return JobEnd()
        return read_job_end(answer.out) if answer.is_good else JobEnd()

    def explain(self, job_ids: Collection[str]) -> Sequence[str]:
        """See `Queue`."""
        found = self.list(job_ids)
        if found is None:
            return [self.trouble]
        groups: dict[tuple[str, str], list[JobState]] = defaultdict(list)
        for job in found.values():
            groups[job.state, job.reason if job.state == "PENDING" else ""].append(job)
        return [_describe(state, reason, jobs) for (state, reason), jobs in sorted(groups.items())]


def _job(row: Sequence[str]) -> JobState:
    """Make a state of a row of squeue, whose words for nothing are "", "N/A", "(null)" and "None"."""
    job_id, state, node, reason, start, priority, name = (
        "" if cell.strip() in ("N/A", "(null)", "None") else cell.strip() for cell in row
    )
    return JobState(job_id, state, node, reason, start, priority, name)


def _describe(state: str, reason: str, jobs: Sequence[JobState]) -> str:
    """Say in one line what jobs of one state do."""
    who = f"job {jobs[0].job_id}" if len(jobs) == 1 else f"{len(jobs)} jobs"
    nodes = ", ".join(sorted({job.node for job in jobs if job.node}))
    if state != "PENDING":
        return f"{who} {'is' if len(jobs) == 1 else 'are'} {state}{' on ' * bool(nodes)}{nodes}"
    details = []
    if starts := sorted(job.start_estimate for job in jobs if job.start_estimate):
        details.append(f"start estimated {starts[0]}")
    if priorities := sorted({int(job.priority) for job in jobs if job.priority.isdecimal()}):
        details.append(f"priority {'-'.join(map(str, dict.fromkeys((priorities[0], priorities[-1]))))}")
    remedy = remedy_of_waiting(reason)
    text = f"{who} wait{'s' if len(jobs) == 1 else ''}: {reason or 'no reason given'}"
    return text + f" ({', '.join(details)})" * bool(details) + f"; {remedy}" * bool(remedy)


def directives(script: str) -> Sequence[str]:
    """Return the options in the head of a Slurm script.

    They are given to sbatch as arguments, too: only so are they stronger than SBATCH_* variables. A line
    that holds more than options stays in the script, where Slurm refuses it: as an argument, `--exclusive x`
    would submit the file x, and --wrap its own words.
    """
    options: list[str] = []
    for line in script.splitlines():
        if line.startswith("#SBATCH "):
            with suppress(ValueError):  # quotes that Slurm alone can read: it finds them in the script
                words = shlex.split(line.removeprefix("#SBATCH "), comments=True)
                options += words if _are_options(words) else []
        elif line.strip() and not line.startswith("#"):
            break
    return options


def _are_options(words: Sequence[str]) -> bool:
    """Tell whether words are options and their values, and no file or command to run."""
    is_value = False
    for word in words:
        if not is_value and (not re.match(r"-\w|--\w", word) or word.startswith("--wr")):
            return False
        is_value = not is_value and word in TAKE_THE_NEXT_WORD
    return not is_value


def name_of(options: Sequence[str]) -> str:
    """Return the job's name in options of sbatch; "" where there is none."""
    name = ""
    for option, following in pairwise([*options, ""]):
        if option in ("-J", "--job-name"):
            name = following
        elif found := re.fullmatch(r"(?:--job-name=|-J)(.+)", option):
            name = found.group(1)
    return name
