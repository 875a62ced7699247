"""No setting becomes a command, whatever is in it."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from worker_jobs import PREFIXES, fake_python, make_job, run_fake, words_of

from apogee_batch.errors import UsageError
from apogee_batch.run.clusters.jobs import job_script
from apogee_batch.run.config import ClusterKind

HOSTILE = ["$(touch canary)", "`touch canary`", "; touch canary;", "\ntouch canary\n", "'", '"', "\\", "%"]
HOSTILE += ["%s", "%(x)s", "$HOME", "${X}", "~", " ", "&", "|", ">canary", "#", "\0", "\r", "!", "*", "é"]
HOSTILE += ["$(DOLLAR)", "-", "a", "/", "{}"]
hostile_texts = st.one_of(
    st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=5).map("".join), st.text(max_size=12)
)
TEXT_KEYS = ["python", "local_directory", "partition", "account", "constraint", "gres", "nodelist"]
LIST_KEYS = ["directives", "skip_directives", "worker_args"]
FIELDS = ["worker", "name", "scheduler", "interface", "tls", "environment", "logs"]
IN_A_COMMAND = ["python", "local_directory", "worker_args", "worker", "interface", "tls", "environment"]
STAND_IN = "/stand/in"


def script_with(key: str, text: str, kind: ClusterKind) -> str:
    if key == "worker":
        return job_script(make_job(kind), text)
    fields: dict[str, Any] = {
        "tls": {"ca_file": "/ca", "cert": text, "key": "/key"},
        "environment": {"DASK_X__Y": text},
        "logs": Path("/base") / text,
    }
    if key in FIELDS:
        name = "extra_environment" if key == "environment" else key
        return job_script(make_job(kind, **{name: fields.get(key, text)}), "w")
    return job_script(make_job(kind, **{key: [text] if key in LIST_KEYS else text}), "w")


@pytest.mark.parametrize("key", [*TEXT_KEYS, *LIST_KEYS, *FIELDS])
@settings(max_examples=8, deadline=None)
@given(text=hostile_texts, kind=st.sampled_from(list(PREFIXES)))
def test_no_value_becomes_a_command(key: str, text: str, kind: ClusterKind) -> None:
    try:
        script = script_with(key, text, kind)
    except (UsageError, ValidationError):
        return
    subprocess.run(["bash", "-n"], input=script.encode(), check=True, capture_output=True)
    comments = [line for line in script.splitlines() if line.startswith("#")]
    assert all(line.startswith((PREFIXES[kind], "#!/bin/bash")) for line in comments)
    if key in IN_A_COMMAND:
        if not text.startswith(("$", "~")):  # which a path may begin with on purpose
            stand_in = words_of(script_with(key, STAND_IN, kind))
            assert words_of(script) == [word.replace(STAND_IN, text) for word in stand_in]
    elif key != "scheduler" and not (key == "logs" and kind == "pbs"):
        assert words_of(script) == words_of(job_script(make_job(kind), "w"))
    if key == "logs" and kind == "slurm":
        line = next(line for line in comments if line.startswith("#SBATCH -o "))
        pattern = shlex.split(line.removeprefix("#SBATCH "))[1]
        assert pattern.replace("%%", "%") == f"{Path('/base') / text}/job-%j.log"
        assert re.findall(r"%[^%]", pattern.replace("%%", "")) == ["%j"]


def test_a_shell_runs_the_worker_and_nothing_else(tmp_path: Path) -> None:
    evil = """a'b"c $(touch canary) `touch canary` %s %(x)s ;touch canary; $HOME \\ é & | > canary #"""
    python = fake_python(tmp_path, f"bin {evil}/python")
    job = make_job(
        python=str(python),
        local_directory=f"{tmp_path}/x{evil}",
        worker_args=["--resources", evil],
        directives=[f"--comment={evil}"],
        skip_directives=[evil],
        prologue=["touch prologue"],
        tls={"ca_file": evil, "cert": evil, "key": evil},
        extra_environment={"DASK_X__Y": evil},
        logs=Path(f"/base/{evil}".replace("\\", "")),
    )
    called = run_fake(job_script(job, evil), tmp_path)
    assert not (tmp_path / "canary").exists()
    assert (tmp_path / "prologue").exists()
    assert called[called.index("--name") + 1] == evil
    assert called[called.index("--local-directory") + 1] == f"{tmp_path}/x{evil}/apogee-batch-{os.getuid()}"
    assert called[called.index("--tls-key") + 1] == evil
    assert called[called.index("--resources") + 1] == evil
    assert called[-2:] == [evil, "2"]


def test_a_variable_of_the_environment_needs_a_name() -> None:
    with pytest.raises(UsageError, match="environment variable"):
        job_script(make_job(extra_environment={"A;touch canary;B": "1"}), "w")


def test_a_folder_that_a_queue_cannot_write_to_is_told() -> None:
    """Slurm 22.05 wrote to each of such folders, but for those with a backslash."""
    with pytest.raises(UsageError, match="backslash"):
        job_script(make_job(logs=Path("/a\\b")), "w")
    with pytest.raises(UsageError, match="PBS cannot name this folder"):
        job_script(make_job("pbs", logs=Path("/a b")), "w")
    assert '#SBATCH -o "/a b\\"c%%j/job-%j.log"\n' in job_script(make_job(logs=Path('/a b"c%j')), "w")
