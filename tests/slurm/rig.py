"""A Slurm of two nodes as tests use it: its jobs, and every misfortune that a night on a cluster holds.

Times measured on a machine of two cores: start 0.4 s, a job starts in 0.1-2 s, `scancel` ends one within
3 s, a crashed node is noticed after 15-30 s, a job whose time is over ends after at most 32 s (Slurm looks
every 30 s).
"""

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT, SIGSTOP, SIGTERM

from daemons import Daemons, RigError
from pids import Listener, Pid, listeners, wait_for
from slurm_conf import FAIL_PROLOG, NODES, PARTITION

COMMAND_S = 30.0
NOTICED_S = 60.0  # of a busy machine
GONE = frozenset({"CANCELLED", "COMPLETED", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"})


@dataclass(frozen=True)
class Job:
    """A line of squeue.

    Attributes
    ----------
    job_id, name : str
    state : str
        As in `PENDING`, `RUNNING`, `COMPLETING`.
    node : str
        Where it runs; empty while it waits.
    reason : str
        Why it waits.
    """

    job_id: str
    name: str
    state: str
    node: str
    reason: str


class Slurm:
    """The rig; `nodes` are the names of its nodes.

    A test may leave behind what it likes: `mend` puts everything right before the next one.
    """

    nodes = NODES

    def __init__(self, daemons: Daemons) -> None:
        self.daemons = daemons

    @property
    def conf(self) -> Path:
        """The file for SLURM_CONF."""
        return self.daemons.conf

    def environment(self) -> dict[str, str]:
        """Return this process's environment for clients of this Slurm and of no other."""
        return self.daemons.environment()

    def call(self, *command: str, given: str | None = None) -> str:
        """Run a command of Slurm and return what it says; a failure is a RigError."""
        told = subprocess.run(
            command,
            check=False,
            env=self.environment(),
            input=given,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )
        if told.returncode:
            raise RigError(f"{shlex.join(command)}: {told.stdout}{told.stderr}")
        return told.stdout

    # Jobs

    def submit(self, script: str, *options: str, log: Path | None = None) -> str:
        """Submit shell lines as a job and return its id."""
        text = f"#!/bin/bash\n{script}\n"
        where = str(log or self.daemons.root / "log" / "job-%j.out")
        return self.call("sbatch", "--parsable", "-t", "10", "-o", where, *options, given=text).strip()

    def squeue(self, *options: str) -> str:
        """Return what squeue prints, for people."""
        return self.call("squeue", "-l", *options)

    def jobs(self, prefix: str = "") -> list[Job]:
        """Return the jobs in the queue whose name begins so, oldest first; ended ones are not in it."""
        told = self.call("squeue", "-h", "-a", "-S", "i", "-o", "%i|%j|%T|%N|%r")
        found = [Job(*line.split("|")) for line in told.splitlines()]
        return [job for job in found if job.name.startswith(prefix)]

    def running(self, prefix: str = "") -> list[Job]:
        """Return those of them that run."""
        return [job for job in self.jobs(prefix) if job.state == "RUNNING"]

    def pending(self, prefix: str = "") -> list[Job]:
        """Return those of them that wait."""
        return [job for job in self.jobs(prefix) if job.state == "PENDING"]

    def show(self, job_id: str) -> dict[str, str]:
        """Return what `scontrol show job` tells of a job, ended ones included."""
        words = self.call("scontrol", "show", "job", "-o", job_id).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, job_id: str) -> str:
        """Return the state of a job, ended ones included."""
        return self.show(job_id)["JobState"]

    def wait_state(self, job_id: str, *states: str, timeout_s: float = NOTICED_S) -> str:
        """Wait until a job is in one of these states, by default in an end state; return which."""
        wanted = frozenset(states) or GONE
        if not wait_for(lambda: self.state(job_id) in wanted, timeout_s, 0.1):
            raise RigError(f"job {job_id} is not {'/'.join(sorted(wanted))}: {self.show(job_id)}")
        return self.state(job_id)

    def wait_jobs(self, n_jobs: int, prefix: str = "", *, timeout_s: float = NOTICED_S) -> list[Job]:
        """Wait until so many jobs, or more, run and have begun on their nodes; return those."""
        begun: list[Job] = []

        def enough() -> bool:
            # Slurm calls a job running before its node has started anything of it. A task of an array, 7_5,
            # has another number there.
            running = self.running(prefix)
            begun[:] = [job for job in running if "_" in job.job_id or self.processes(job.job_id)]
            return len(begun) >= n_jobs

        if not wait_for(enough, timeout_s, 0.1):
            raise RigError(f"not {n_jobs} jobs are running\n{self.squeue()}")
        return begun

    def wait_empty(self, prefix: str = "", *, timeout_s: float = NOTICED_S) -> None:
        """Wait until no job is in the queue."""
        if not wait_for(lambda: not self.jobs(prefix), timeout_s, 0.1):
            raise RigError(f"jobs are left\n{self.squeue()}")

    def cancel(self, *job_ids: str) -> None:
        """Cancel jobs, as their user can."""
        self.call("scancel", *job_ids)

    def end_time(self, job_id: str) -> None:
        """Let the walltime of a running job be over now; Slurm notices within 30 s and ends it (TIMEOUT).

        The least walltime is a minute, which would be noticed only after another half.
        """
        self.call("scontrol", "update", f"jobid={job_id}", "endtime=now")

    def processes(self, job_id: str) -> list[Pid]:
        """Return the processes of a running job: what its slurmstepd started."""
        found: list[Pid] = []
        for node in self.nodes:
            init = self.daemons.init(node)
            for step in init.descendants() if init else []:
                if any(f"[{job_id}." in word for word in step.command[:1]):
                    found += step.descendants()
        return found

    def listeners(self, prefix: str = "") -> list[Listener]:
        """Return where the processes of the running jobs listen."""
        jobs = self.running(prefix)
        return [each for job in jobs for each in listeners(self.processes(job.job_id))]

    # Nodes and their misfortunes

    def kill_slurmd(self, node: str) -> None:
        """Kill slurmd by SIGKILL; the jobs on its node live on."""
        self.daemons.kill_daemon(node)

    def stop_slurmd(self, node: str) -> None:
        """Let slurmd end in order; the jobs on its node live on."""
        self.daemons.kill_daemon(node, SIGTERM)

    def crash(self, node: str) -> None:
        """End everything on a node at once; its jobs are NODE_FAIL when Slurm notices, after 15-30 s."""
        self.daemons.crash(node)

    def start(self, node: str) -> None:
        """Start a node that crashed, or the slurmd of one that lives."""
        self.daemons.start_host(node)

    def node_states(self) -> dict[str, str]:
        """Return the state of each node in Slurm's words, as `IDLE+DRAIN`."""
        lines = self.call("scontrol", "show", "nodes", "-o").splitlines()
        told = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return {node["NodeName"]: node["State"] for node in told}

    def drain(self, node: str) -> None:
        """Give a node no new jobs."""
        self.call("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")

    def undrain(self, node: str) -> None:
        """Give it jobs again, also after a Prolog that failed."""
        self.call("scontrol", "update", f"nodename={node}", "state=resume")

    def fail_prolog(self, *nodes: str) -> None:
        """Let the Prolog of these nodes fail from now on, and that of no others.

        Slurm then drains the node. A job that may not be requeued is CANCELLED before its script began;
        another one is held (`launch_failed_requeued_held`).
        """
        (self.daemons.root / "run" / FAIL_PROLOG).write_text("\n".join(nodes) + "\n")

    # The queue and its misfortunes

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Let new jobs be pending meanwhile (reason PartitionDown)."""
        self._partition("down")
        try:
            yield
        finally:
            self._partition("up")

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Let sbatch refuse meanwhile: required partition not available (exit 1)."""
        self._partition("drain")
        try:
            yield
        finally:
            self._partition("up")

    @contextmanager
    def frozen_controller(self) -> Iterator[None]:
        """Let the controller answer nobody: sbatch, squeue and the others hang, for 5 s at least."""
        controller = self.daemons.daemon("ctl")
        assert controller is not None
        controller.send(SIGSTOP)
        try:
            yield
        finally:
            controller.send(SIGCONT)

    @contextmanager
    def without_controller(self) -> Iterator[None]:
        """Let there be no controller meanwhile; it forgets nothing."""
        self.daemons.kill_daemon("ctl", SIGTERM)
        try:
            yield
        finally:
            self.daemons.up()

    def mend(self) -> None:
        """End all jobs and put all nodes right."""
        self.fail_prolog()
        self.daemons.start_host("ctl")
        self._partition("up")
        self.call("scancel", "--user=root")
        for node in self.nodes:
            self.start(node)
        for node, state in self.node_states().items():
            if "DRAIN" in state or "DOWN" in state:
                with suppress(RigError):  # it came back by itself meanwhile
                    self.undrain(node)
        for job in self.jobs():
            for pid in self.processes(job.job_id):
                pid.send(SIGCONT)  # a frozen one cannot end before
        self.wait_empty()
        self.daemons.up()

    def _partition(self, state: str) -> None:
        self.call("scontrol", "update", f"partitionname={PARTITION}", f"state={state}")
