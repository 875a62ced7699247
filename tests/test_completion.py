"""Shells complete commands, options and their values."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
VARIABLE = "_APOGEE_BATCH_COMPLETE"
PROGRAM = BIN / "apogee-batch"
pytestmark = pytest.mark.skipif(not PROGRAM.is_file(), reason="apogee-batch is not installed as a program")


def run(arguments: list[str], **more: str) -> str:
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"} | more
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)
    return done.stdout


def complete(line: str) -> list[str]:
    """Return what is offered for the last word, as bash asks for it."""
    n_words = len(line.split(" ")) - 1
    asked = {VARIABLE: "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(n_words)}
    return run([str(PROGRAM)], **asked).split()


@pytest.mark.parametrize(
    ("shell", "begins"),
    [("bash", "complete -o default"), ("zsh", "#compdef"), ("fish", "complete --command apogee-batch")],
)
def test_there_is_a_script_for_each_shell(shell: str, begins: str) -> None:
    assert begins in run([str(PROGRAM)], **{VARIABLE: f"source_{shell}"})


def test_bash_completes_by_the_script(tmp_path: Path) -> None:
    script = tmp_path / "completion.sh"
    script.write_text(run([str(PROGRAM)], **{VARIABLE: "source_bash"}))
    code = (
        f"source {script}; COMP_WORDS=(apogee-batch run-catalog s.zarr --cluster s); COMP_CWORD=4; "
        '_apogee_batch_completion apogee-batch; echo "${COMPREPLY[@]}"'
    )
    assert run(["bash", "--norc", "-c", code]).split() == ["serial", "slurm", "sge"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("apogee-batch run-c", {"run-catalog"}),
        ("apogee-batch model ", {"import", "calibrate"}),
        ("apogee-batch run-catalog --eng", {"--engine"}),
        ("apogee-batch train s.zarr --recipe ", {"robust", "paper"}),
        ("apogee-batch status --wat", {"--watch"}),
    ],
)
def test_commands_options_and_values_are_offered(line: str, offered: set[str]) -> None:
    assert set(complete(line)) == offered
