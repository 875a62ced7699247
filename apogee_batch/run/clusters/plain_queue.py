"""Queue systems of which a run knows how to hand in and take back jobs, and nothing more."""

import os
import uuid
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.programs import Answer, keep_script, run_program
from apogee_batch.run.clusters.queues import JobState
from apogee_batch.run.clusters.slurm_words import JobEnd
from apogee_batch.run.config import ClusterKind

FROM_STDIN = ("lsf",)  # bsub reads its options in a script only there


class PlainQueue:
    """PBS, SGE, LSF or HTCondor. Not run on a real queue: its commands are tried with stand-ins only.

    It cannot tell which jobs are there, so lost workers are noticed when they leave the scheduler and not
    before, and jobs that never start are not noticed at all.

    Parameters
    ----------
    kind : str
        Which.
    timeout_s : float
        How long a command may take.
    """

    can_list = False

    def __init__(self, kind: ClusterKind, *, timeout_s: float) -> None:
        self.trouble = f"{kind}: only Slurm can be asked after jobs"
        self._kind = kind
        self._timeout_s = timeout_s

    def submit(self, script: str, *, folder: Path) -> str:
        """See `Queue`."""
        from apogee_batch.run.clusters.jobs import job_id_of, submit_command

        command = submit_command(self._kind)
        path = keep_script(folder, uuid.uuid4().hex, script)
        if self._kind in FROM_STDIN:
            answer = self._run(command, script)
        elif path is None:
            raise ClusterError(f"{folder}: the job script cannot be written there")
        else:
            answer = self._run([*command, str(path)])
        job_id = job_id_of(self._kind, answer.out)
        if path is not None:
            with suppress(OSError):
                path.replace(folder / f"job-{job_id}.sh")
        return job_id

    def cancel(self, job_ids: Collection[str]) -> None:
        """See `Queue`."""
        from apogee_batch.run.clusters.jobs import cancel_command

        if job_ids:
            self._run([*cancel_command(self._kind), *sorted(job_ids)], is_cancel=True)

    def list(self, job_ids: Collection[str]) -> dict[str, JobState] | None:  # noqa: ARG002  see `Queue`
        """Return None: it cannot be told."""
        return None

    def test(self, script: str) -> str:  # noqa: ARG002  see `Queue`
        """Return "": there is no way to ask without submitting."""
        return ""

    def ended(self, job_id: str) -> JobEnd:  # noqa: ARG002  see `Queue`
        """Return that nothing is known."""
        return JobEnd()

    def explain(self, job_ids: Collection[str]) -> Sequence[str]:
        """Say that nothing is known, and of which jobs."""
        return [f"{self.trouble}; ask it yourself after {', '.join(sorted(job_ids))}"] if job_ids else []

    def _run(self, arguments: Sequence[str], stdin: str = "", *, is_cancel: bool = False) -> Answer:
        answer = run_program(arguments, environment=os.environ, timeout_s=self._timeout_s, stdin=stdin)
        if answer.code is None:
            raise ClusterError(f"{arguments[0]}: does not answer within {self._timeout_s:g} s")
        if not answer.is_good and not is_cancel:  # jobs that are gone are refused, and that is well
            raise ClusterError(f"{arguments[0]}: {answer.told()}")
        return answer
