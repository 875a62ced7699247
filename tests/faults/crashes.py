"""Commands that end in the middle of a commit, and other ways to disturb them in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from apogee_batch import files


class Crash(BaseException):
    """What no code of the program expects."""


def crash_after(
    pattern: str, call: Callable[[], object], happens: Callable[[], object] | None = None
) -> None:
    """Let `call` commit a file whose path matches the pattern, and then nothing more, or something happen."""
    is_over = False

    def step(name: str, path: Path) -> None:
        nonlocal is_over
        if name == "committed" and path.match(pattern) and not is_over:
            is_over = True
            if happens is None:
                raise Crash
            happens()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "on_commit_step", step)
        if happens is None:
            with pytest.raises(Crash):
                call()
        else:
            call()
    assert is_over, f"nothing like {pattern} was committed"


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def other_version(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("apogee_batch.run.plan.version", lambda name: "9.9" if name == "apogee-batch" else "1.0")
