"""The comparison of engines runs, and compares what should be the same."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "bench" / "bench_engines.py"


@pytest.mark.slow
def test_every_engine_agrees_with_the_published_loop_and_all_rounds_are_shown() -> None:
    command = [sys.executable, str(BENCH), "--rounds", "2", "--seconds", "0.1"]
    command += ["--only", "torch", "openvino", "published tuned"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"published tuned .*: agrees", done.stdout)
    assert re.search(r"torch +clean .*: agrees", done.stdout)
    assert "DIFFERS" not in done.stdout
    assert "all 2 rounds" in done.stdout
