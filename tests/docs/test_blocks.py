"""The code blocks of the documents run, page by page and from top to bottom, on a small survey."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from document_blocks import SHELL, Block, blocks_of, name_of, pages, start_of
from document_kit import Kit, block_environment
from shortened import replace_paths

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
MAX_BLOCK_S = 900  # of a machine that is busy with other things; seconds are usual
TOLD = 3000  # characters of what a failed block printed


class Page:
    """The scratch folder of a page, and the interpreter of its Python and SQL."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.environment = block_environment(programs)
        self._interpreter: subprocess.Popen[str] | None = None

    def run(self, block: Block) -> str | None:
        """Run a block; return what went wrong."""
        text = replace_paths(block.text)
        name = block.said("file")
        if name is not None:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)
        elif block.language in SHELL:
            return self._run_shell(text, block.exit_code)
        elif block.language in ("python", "sql"):
            return self._run_in_interpreter(block, text)
        return None

    def _run_shell(self, text: str, exit_code: int) -> str | None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            check=False,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=MAX_BLOCK_S,
        )
        if done.returncode == exit_code:
            return None
        return f"left with {done.returncode}, not {exit_code}\n{(done.stdout + done.stderr)[-TOLD:]}"

    def _run_in_interpreter(self, block: Block, text: str) -> str | None:
        if self._interpreter is None:
            self._interpreter = self._start_interpreter()
        assert self._interpreter.stdin is not None
        assert self._interpreter.stdout is not None
        asked = {"language": block.language, "text": text, "page": block.page.name, "line": block.line}
        self._interpreter.stdin.write(json.dumps(asked) + "\n")
        self._interpreter.stdin.flush()
        answer = self._interpreter.stdout.readline()
        return json.loads(answer)["problem"] if answer else "the interpreter died"

    def _start_interpreter(self) -> subprocess.Popen[str]:
        program = str(Path(__file__).with_name("page_interpreter.py"))
        return subprocess.Popen(
            [sys.executable, program],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what blocks print
            text=True,
        )

    def close(self) -> None:
        """End the interpreter."""
        if self._interpreter is not None:
            self._interpreter.communicate(timeout=60)


@contextmanager
def opened(page: Page) -> Iterator[Page]:
    try:
        yield page
    finally:
        page.close()


def is_run(block: Block) -> bool:
    """Tell whether a block is run here."""
    return block.said("not run") is None and all(importlib.util.find_spec(name) for name in block.modules)


@pytest.mark.parametrize("document", pages(), ids=name_of)
def test_every_block_of_the_page_runs(
    document: Path, document_kit: Kit, warm_command: Path, tmp_path: Path
) -> None:
    blocks = [block for block in blocks_of(document) if is_run(block) or block.said("file")]
    if not blocks:
        pytest.skip("nothing to run")
    document_kit.lay_out(start_of(document), tmp_path)
    with opened(Page(tmp_path, warm_command)) as page:
        for block in blocks:
            problem = page.run(block)
            assert problem is None, f"{block.place}\n{block.text}\n{problem}"


@pytest.mark.parametrize(
    ("language", "text", "told"),
    [
        ("sh", "apogee-batch status nowhere\ntrue\n", "left with 2"),
        ("python", "print(unknown)\n", "NameError"),
        ("sql", "select teff from 'run1/nothing.parquet';\n", "nothing.parquet"),
    ],
)
def test_a_block_that_is_wrong_is_told_with_its_reason(
    language: str, text: str, told: str, document_kit: Kit, warm_command: Path, tmp_path: Path
) -> None:
    document_kit.lay_out("nothing", tmp_path)
    with opened(Page(tmp_path, warm_command)) as page:
        problem = page.run(Block(Path("page.md"), 1, language, text))
    assert problem is not None
    assert told in problem
