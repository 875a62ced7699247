"""Commands that look at no spectrum and draw nothing do not wait for what does."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from apogee_batch.run import commands
from apogee_batch.run.config import RunConfig
from apogee_batch.run.progress import SilentView

SLOW = ("torch", "matplotlib", "distributed", "dask", "openvino", "scipy", "astropy.table")
SLOWER_THAN_A_LOOK = (*SLOW, "zarr", "astropy", "pydantic")
LIGHT_MODULES = (
    "array_plan",
    "catalog_command",
    "cluster_show",
    "clusters.local",
    "dry_run",
    "finished",
    "ingest_command",
    "ingest_seen",
    "ingest_task",
    "onlooker",
    "status",
    "status_of_store",
    "verify",
    "watch",
    "worker_tasks",
)
WITHOUT_TORCH = ("attach_command", "describe", "export", "fetch_list", "publish", "select", "validate")
CALL = "import sys; sys.argv = ['x', *{words!r}]\nfrom apogee_batch import cli\ntry:\n cli.main()\n" + (
    "except SystemExit as end:\n code = end.code\n"
)


def imported_after(code: str, names: Sequence[str]) -> list[str]:
    """Return which modules a new process has imported after some code."""
    told = f"import json, sys\nprint(json.dumps([n for n in {list(names)!r} if n in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{told}"], capture_output=True, text=True, check=True
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def imported_by(words: Sequence[str], names: Sequence[str]) -> list[str]:
    return imported_after(CALL.format(words=list(words)) + "assert code == 0, code", names)


def test_neither_a_driver_nor_a_worker_that_reads_files_needs_what_computes_or_draws() -> None:
    code = "\n".join(f"import apogee_batch.run.{name}" for name in LIGHT_MODULES)
    assert imported_after(code, SLOW) == []


def test_tables_of_a_finished_run_are_read_and_written_without_the_network() -> None:
    code = "\n".join(f"import apogee_batch.run.{name}" for name in WITHOUT_TORCH)
    assert imported_after(code, ("torch", "matplotlib", "distributed", "openvino")) == []


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["status", "--watch"]])
def test_a_look_at_a_run_needs_its_files_and_little_else(words: list[str], finished_run: Path) -> None:
    assert imported_by([*words, str(finished_run)], SLOWER_THAN_A_LOOK) == []


def test_verify_of_a_run_and_its_model_needs_no_network(finished_run: Path) -> None:
    assert imported_by(["verify", str(finished_run)], SLOW) == []


def test_a_run_that_is_finished_is_found_so_without_what_made_it(
    labelled_store: Path, finished_run: Path, serial_config: RunConfig, tmp_path: Path
) -> None:
    out, model = tmp_path / "run", finished_run / "model"
    commands.make_catalog(
        labelled_store, out, model=model, config=serial_config, is_dry_run=False, progress=SilentView()
    )
    words = ["run-catalog", str(labelled_store), "--model", str(model), "--out", str(out), "--no-report"]
    assert imported_by([*words, "--realizations", "3"], SLOW) == []
