"""Worker jobs for tests, and what a shell makes of their scripts."""

import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from apogee_batch.run.clusters.jobs import WorkerJob
from apogee_batch.run.config import ClusterKind
from apogee_batch.run.job_settings import JobSettings

PREFIXES = {"slurm": "#SBATCH", "pbs": "#PBS", "sge": "#$", "lsf": "#BSUB"}


def make_job(kind: ClusterKind = "slurm", **changes: Any) -> WorkerJob:
    """Return a job of which some settings or fields are changed."""
    said = {"walltime": "1-02:03:04", "memory": "4GB", "cores": 4, "processes": 2, "python": "/py"}
    fields = {key: changes.pop(key) for key in list(changes) if key in WorkerJob.__dataclass_fields__}
    job = WorkerJob(
        settings=JobSettings.model_validate({**said, **changes}),
        kind=kind,
        name="apogee-gpu-1",
        scheduler="tls://10.0.0.1:8786",
        logs=Path("/run/logs"),
        tls={"ca_file": "/keys/ca", "cert": "/keys/cert", "key": "/keys/key"},
        interface=None,
        lifetime_s=3000.5,
        lifetime_stagger_s=60.0,
        death_timeout_s=59.5,
        extra_environment={"DASK_X__Y": "value"},
    )
    return replace(job, **fields)


def words_of(script: str) -> list[str]:
    """Return the words of all lines that a shell would run."""
    return [word for line in script.splitlines() if not line.startswith("#") for word in shlex.split(line)]


def run_fake(script: str, tmp_path: Path, shell: str = "bash") -> list[str]:
    """Run a script; return what its Python, made by `fake_python`, was called with."""
    home = str(tmp_path / "home")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "SCRATCH": f"{tmp_path}/scr atch",
        "PBS_JOBID": "7.x",
    }
    subprocess.run([shell, "-c", script], cwd=tmp_path, env=environment, check=True, timeout=20)
    return (tmp_path / "called").read_bytes().decode().split("\0")[:-1]


def fake_python(tmp_path: Path, name: str = "python") -> Path:
    """Make a program that writes down its arguments and two variables."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    called = shlex.quote(str(tmp_path / "called"))
    words = '"$@" "$DASK_X__Y" "$OMP_NUM_THREADS"'
    path.write_text(f"#!/bin/bash\nprintf '%s\\0' {words} >{called}\n")
    path.chmod(0o700)
    return path
