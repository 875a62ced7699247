"""In a terminal, TAB completes commands and values once the completion is installed as the pages say."""

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
PATIENCE_S = 60.0  # of a busy machine; a TAB takes 0.1 s
ROWS, COLUMNS = 24, 100
SHELLS = {"bash": ["bash", "-i"], "zsh": ["zsh", "-i"], "fish": ["fish", "-i"]}
STARTS = {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".config/fish/config.fish"}
PS1 = "PS1='ready> '\n"
PROMPT = {"bash": PS1, "zsh": PS1, "fish": "function fish_prompt; echo 'ready> '; end\n"}
CODES = re.compile(r"\x1b(\[[0-9;?>]*[A-Za-z]|[=>]|\][^\x07]*\x07)")  # colours, and where the cursor goes
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BIN / "apogee-batch").is_file(), reason="apogee-batch is not installed"),
    pytest.mark.skipif(shutil.which("setsid") is None, reason="there is no setsid"),
]


class Terminal:
    """A shell in a terminal, and what it has shown."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._shown = descriptor, b""

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def wait_for(self, words: str) -> str:
        """Wait until the shell shows some words; forget what it has shown."""
        until = time.monotonic() + PATIENCE_S
        while words not in (text := self._text()):
            if time.monotonic() > until:
                raise AssertionError(f"{words!r} is not in {text!r}")
            if select.select([self._descriptor], [], [], 0.1)[0]:
                self._shown += os.read(self._descriptor, 65536)
        self._shown = b""
        return text

    def _text(self) -> str:
        return CODES.sub("", self._shown.decode(errors="replace"))


@contextmanager
def terminal(shell: str, home: Path) -> Iterator[Terminal]:
    """Start a shell as a user of that home would."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    path = f"{BIN}:{os.environ['PATH']}"
    process = subprocess.Popen(
        ["setsid", "--ctty", *SHELLS[shell]],  # without a terminal of its own fish does not start
        stdin=its,
        stdout=its,
        stderr=its,
        cwd=home,
        env={"HOME": str(home), "PATH": path, "TERM": "xterm", "LANG": "C.UTF-8"},
    )
    os.close(its)
    try:
        shown = Terminal(ours)
        shown.wait_for("ready> ")
        yield shown
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(ours)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A shell of this machine, whose user has installed the completion."""
    name = str(request.param)
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name}")
    start = tmp_path / STARTS[name]
    start.parent.mkdir(parents=True, exist_ok=True)
    start.write_text(PROMPT[name])
    with terminal(name, tmp_path) as first:
        first.type("apogee-batch --install-completion\n")
        first.wait_for(f"{name} completion installed in")
    if name == "zsh":
        start.write_text(start.read_text() + "source ~/.zfunc/_apogee-batch\n")
    return name


def test_tab_completes_commands_values_and_files(shell: str, tmp_path: Path) -> None:
    (tmp_path / "spectra.zarr").mkdir()
    with terminal(shell, tmp_path) as it:
        it.type("apogee-batch run-c\t")
        it.wait_for("run-catalog")
        it.type("spec\t")
        it.wait_for("tra.zarr")
        it.type(" --cluster sl\t")
        it.wait_for("slurm")


def test_the_page_names_the_line_of_zsh() -> None:
    page = (Path(__file__).parents[1] / "docs" / "terminal.md").read_text()
    assert "`source ~/.zfunc/_apogee-batch`" in page
