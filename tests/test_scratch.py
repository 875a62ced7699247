"""Dask's scratch, from which modules are imported, is in a folder that no other user can write to."""

import os
import subprocess
import sys
from pathlib import Path

import dask
import pytest

from apogee_batch.run.clusters.scratch import own_folder, private_scratch, shell_line


def on_a_node(base: Path) -> Path:
    """Return where the workers of a job would put their scratch."""
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(base)}
    script = f'{shell_line()}; printf %s "$scratch"'
    return Path(
        subprocess.run(
            ["sh", "-c", script], env=environment, check=True, capture_output=True, text=True
        ).stdout
    )


@pytest.mark.parametrize("choose", [own_folder, on_a_node])
def test_the_folder_is_this_users_alone_and_the_same_each_time(choose, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = choose(tmp_path)
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert choose(tmp_path) == folder


@pytest.mark.parametrize("choose", [own_folder, on_a_node])
def test_a_folder_that_somebody_else_made_first_is_not_used(choose, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    trap = choose(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    trap.rename(elsewhere)
    trap.symlink_to(elsewhere)
    assert choose(tmp_path) not in (trap, elsewhere)
    trap.unlink()
    if os.geteuid() == 0:
        trap.mkdir()
        os.chown(trap, 12345, 12345)
        assert choose(tmp_path) != trap


def test_what_dask_starts_imports_nothing_from_a_shared_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apogee_batch.run.clusters.local import local_dask

    with dask.config.set({"temporary-directory": str(tmp_path)}):
        shared = str(tmp_path / "dask-scratch-space")
        with local_dask(1, None) as workers:
            there = workers.executor.submit(lambda: sys.path).result()
            assert not [path for path in (*sys.path, *there) if path.startswith(shared)]
            own = str(own_folder(tmp_path))
            assert [path for path in there if path.startswith(own)]
    with private_scratch():
        assert dask.config.get("temporary-directory").endswith(f"apogee-batch-{os.getuid()}")
