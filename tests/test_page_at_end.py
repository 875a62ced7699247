"""The page at the end of a run: made once of what is published, and never a reason to fail."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from apogee_batch.files import sha256_of_file, write_text
from apogee_batch.run import report
from apogee_batch.run.page_at_end import PAGE_FILE, is_page_of, make_page_at_end
from apogee_batch.run.progress import SilentView
from apogee_batch.run.verify import verify


class Listener(SilentView):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dot in place of each picture: these tests are not of pictures."""

    def savefig(_: Figure, file: Any, *, format: str, **__: Any) -> None:  # noqa: A002  its name in matplotlib
        Image.new("RGB", (1, 1)).save(file, format)

    monkeypatch.setattr(Figure, "savefig", savefig)
    monkeypatch.setattr(Figure, "draw_without_rendering", lambda _: None)


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    return copy


def make(run: Path, **others: Any) -> tuple[list[str], list[str]]:
    """Make the page; return the closing lines and what was said."""
    view = Listener()
    return make_page_at_end(run, progress=view, **({"model": None, "store": None} | others)), view.said


def test_a_run_ends_with_its_page_and_stays_as_it_was(run: Path, labelled_store: Path) -> None:
    before = {path: sha256_of_file(path) for path in run.rglob("*") if path.is_file()}
    lines, said = make(run, store=labelled_store)
    assert lines == [f"page:      {run / PAGE_FILE}"]
    assert said == []
    assert is_page_of(run / PAGE_FILE, sha256_of_file(run / "manifest.json"))
    assert before == {path: sha256_of_file(path) for path in before}
    assert verify(run).damages == []


def test_a_page_of_this_manifest_is_not_made_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(run)
    monkeypatch.setattr(report, "write_report", lambda *_, **__: pytest.fail("it was made again"))
    assert make(run)[0] == [f"page:      {run / PAGE_FILE}"]


@pytest.mark.parametrize("how", ["of another manifest", "cut short", "gone"])
def test_another_page_or_half_a_page_is_made_anew(run: Path, how: str) -> None:
    make(run)
    page = run / PAGE_FILE
    html, manifest = page.read_text(encoding="utf-8"), sha256_of_file(run / "manifest.json")
    changed = {"of another manifest": html.replace(manifest, "0" * 64), "cut short": html[:-1000]}
    if how in changed:
        write_text(page, changed[how])
    else:
        page.unlink()
    assert not is_page_of(page, manifest)
    make(run)
    assert page.read_text(encoding="utf-8") == html


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("odd"), MemoryError()]
)
def test_a_page_that_cannot_be_made_is_a_warning(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(report, "write_report", fail)
    lines, said = make(run)
    assert lines == []
    assert len(said) == 1
    assert said[0].startswith("WARNING: the page of the run could not be made: ")
    assert said[0].endswith("'apogee-batch report' makes it")
    assert "\n" not in said[0]
    assert any(record.levelname == "WARNING" for record in caplog.records)


def test_a_damaged_file_costs_only_the_page(run: Path) -> None:
    (run / "rejects.parquet").write_bytes(b"PAR1")
    lines, said = make(run)
    assert lines == []
    assert "rejects.parquet: cannot be read" in said[0]


def test_nobody_who_listens_is_no_reason_to_fail(run: Path) -> None:
    class Gone(SilentView):
        def say(self, text: str) -> None:
            raise BrokenPipeError(text)

    (run / "manifest.json").unlink()
    assert make_page_at_end(run, model=None, store=None, progress=Gone()) == []


def test_what_ends_the_process_passes_through(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "write_report", stop)
    with pytest.raises(KeyboardInterrupt):
        make(run)


def test_matplotlib_is_not_loaded_before_there_is_a_page_to_make() -> None:
    code = "import sys, apogee_batch.run.page_at_end; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
