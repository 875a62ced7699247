"""The command line: parse, call one function, print.

What a command needs is imported when it runs, so that `--help` answers at once.
"""

import gc
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from apogee_batch import __version__
from apogee_batch.cli_cluster import cluster_show, cluster_test, run_shard
from apogee_batch.cli_doctor import doctor
from apogee_batch.cli_export import describe, export
from apogee_batch.cli_fetch import fetch_list
from apogee_batch.cli_mdwarfs import mdwarfs
from apogee_batch.cli_model import model_calibrate, model_import
from apogee_batch.cli_options import with_manner_options
from apogee_batch.cli_report import report
from apogee_batch.cli_run import run_catalog, train
from apogee_batch.cli_select import select_ysos
from apogee_batch.cli_status import status, verify
from apogee_batch.cli_store import attach, ingest
from apogee_batch.cli_survey import demo, simulate
from apogee_batch.cli_validate import validate
from apogee_batch.cli_ysos import ysos
from apogee_batch.errors import ApogeeBatchError, UsageError, describe_place
from apogee_batch.exits import INTERRUPTED, RESUME, SignalWatch, explain_system_error, tell
from apogee_batch.output import choose_manner, make_all_events, manner, tell_bug

PROGRAM = "apogee-batch"
BUG = 1  # exit code of Python for an error that nobody expected
IMPORT_OBJECTS = (
    50_000  # torch and others make a million objects that stay: to look through them took a quarter
)
NOT_UTF_8 = {chr(code) for code in range(0xDC80, 0xDD00)}  # what Python makes of bytes that are no UTF-8
PLAIN: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}

app = typer.Typer(**PLAIN, help="Labels of stars from SDSS/APOGEE apStar spectra: log g, Teff, [Fe/H].")
labels_app = typer.Typer(**PLAIN, help="Training labels of a store.")
model_app = typer.Typer(**PLAIN, help="Trained networks.")
app.add_typer(labels_app, name="labels")
app.add_typer(model_app, name="model")
select_app = typer.Typer(**PLAIN, help="Samples of stars from a catalogue.")
app.add_typer(select_app, name="select")
cluster_app = typer.Typer(**PLAIN, help="Jobs in the queue of a cluster.")
app.add_typer(cluster_app, name="cluster")


def _version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"apogee-batch {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Labels of stars from SDSS/APOGEE apStar spectra: log g, Teff, [Fe/H]."""


def _add(group: typer.Typer, command: Callable[..., None], example: str, name: str | None = None) -> None:
    """Add a command, whose help ends with an example."""
    group.command(name, epilog=f"\b\nExample:\n  apogee-batch {example}")(with_manner_options(command))


_add(app, fetch_list, "fetch-list allStar-l31c.2.fits --out dr14-list")
_add(app, ingest, "ingest stars/ --allstar allStar-l31c.2.fits --store dr14.zarr")
_add(labels_app, attach, "labels attach dr14.zarr --payne payne.fits --yso ysos.csv")
_add(labels_app, mdwarfs, "labels mdwarfs phot.fits --out mdwarfs.parquet --settings mdwarfs.toml")
_add(labels_app, ysos, "labels ysos yso-photometry.fits --isochrones parsec.dat --out ysos.parquet")
_add(app, train, "train dr14.zarr --out model1")
_add(app, run_catalog, "run-catalog dr14.zarr --model model1 --out run1 --workers 8")
_add(model_app, model_import, "model import apogee_net.pt --out official", "import")
_add(model_app, model_calibrate, "model calibrate official dr14.zarr", "calibrate")
_add(app, run_shard, "run-shard run1/plan.json --index $SLURM_ARRAY_TASK_ID")
_add(cluster_app, cluster_show, "cluster show --config jobs/slurm.toml --role cpu", "show")
_add(cluster_app, cluster_test, "cluster test --config jobs/slurm.toml --store dr14.zarr", "test")
_add(app, status, "status run1")
_add(app, verify, "verify run1")
_add(app, validate, "validate run1 --json run1.json")
_add(select_app, select_ysos, "select ysos run1 --probability --isochrones BHAC15_iso.2mass.txt", "ysos")
_add(app, report, "report run1 --store dr14.zarr")
_add(app, export, "export run1 --format votable --format mrt")
_add(app, describe, "describe run1/catalog/catalog.fits")
_add(app, doctor, "doctor --gate --model run1")
_add(app, simulate, "simulate survey --stars 1200 --seed 1")
_add(app, demo, "demo demo")


def main() -> None:
    """Run the command line; what a user can mend becomes one line and an exit code."""
    choose_manner(sys.argv[1:])
    if manner().is_json:
        make_all_events()
    gc.set_threshold(IMPORT_OBJECTS, *gc.get_threshold()[1:])
    ended = None
    with SignalWatch() as watch:
        ended = _run_whole()
    code, message = watch.ending(ended)
    if message:
        tell(message, code)
    gc.freeze()  # the process ends: what torch and others hold need not be looked through once more
    sys.exit(code)


def _run_whole() -> tuple[int, str]:
    """Return what `_run` does; a bug is an event for programs, and keeps its traceback for people."""
    try:
        return _run()
    except Exception as error:
        if not manner().is_json:
            raise
        tell_bug(error, BUG)
        return BUG, ""


def _run() -> tuple[int, str]:
    """Return the exit code and what there is to tell about it; a bug keeps its traceback."""
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name=PROGRAM, standalone_mode=False)
    except typer.TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
        return error.exit_code, f"{error.format_message().rstrip('.')}; see '{command} --help'"
    except ApogeeBatchError as error:
        return error.exit_code, str(error) + describe_place(error)
    except (OSError, MemoryError) as error:
        explained = explain_system_error(error)
        if explained is None:
            raise
        return explained[0], explained[1] + describe_place(error)
    except UnicodeEncodeError as error:
        if error.object[error.start] not in NOT_UTF_8:
            raise
        text = f"{error.object!a}: the name of this file or folder is not UTF-8; rename it"
        return UsageError.exit_code, text
    except typer.Abort:
        code = INTERRUPTED
    if code == INTERRUPTED:  # also what typer makes of a KeyboardInterrupt
        return INTERRUPTED, f"interrupted; {RESUME}"
    return code if isinstance(code, int) else 0, ""
