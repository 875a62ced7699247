"""The command line: parse, call one function, print.

What a command needs is imported when it runs, so that `--help` answers at once.
"""

import gc
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from apogee_batch import __version__
from apogee_batch.cli_cluster import ClusterFlags, cluster_show, cluster_test, run_shard, with_cluster_options
from apogee_batch.cli_doctor import doctor
from apogee_batch.cli_model import model_import
from apogee_batch.cli_options import (
    Address,
    BreakLock,
    Cluster,
    Config,
    Device,
    DryRun,
    EngineOption,
    ForceNewPlan,
    MaxBad,
    Precision,
    Recipe,
    Seed,
    Store,
    TrainWorkers,
    Workers,
    open_view,
    print_lines,
    settings_of,
)
from apogee_batch.cli_status import status, verify
from apogee_batch.cli_survey import demo, simulate
from apogee_batch.errors import ApogeeBatchError, describe_place
from apogee_batch.exits import INTERRUPTED, RESUME, SignalWatch, explain_system_error, tell

PROGRAM = "apogee-batch"
IMPORT_OBJECTS = (
    50_000  # torch and others make a million objects that stay: to look through them took a quarter
)
PLAIN: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}

app = typer.Typer(**PLAIN, help="Labels of stars from SDSS/APOGEE apStar spectra: log g, Teff, [Fe/H].")
labels_app = typer.Typer(**PLAIN, help="Training labels of a store.")
model_app = typer.Typer(**PLAIN, help="Trained networks.")
app.add_typer(labels_app, name="labels")
app.add_typer(model_app, name="model")
cluster_app = typer.Typer(**PLAIN, help="The queue system of a cluster: its jobs, and whether they work.")
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


@app.command(
    epilog="\b\nExample:\n  apogee-batch ingest stars/ --allstar allStar-l31c.2.fits --store dr14.zarr"
)
@with_cluster_options
def ingest(
    source: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Folders, globs, files, or text lists of paths.")
    ],
    store: Annotated[Path, typer.Option(help="Store to make, or to append to.")],
    allstar: Annotated[Path | None, typer.Option(help="allStar summary: decides which stars.")] = None,
    row: Annotated[str | None, typer.Option(help="combined, or visits. [default: combined]")] = None,
    shard_stars: Annotated[int | None, typer.Option(help="Stars of a shard. [default: by size]")] = None,
    max_bad_fraction: MaxBad = None,
    trust_mtime: Annotated[
        bool, typer.Option("--trust-mtime", help="Do not hash files again whose size and time are as before.")
    ] = False,
    force_new_plan: ForceNewPlan = False,
    break_lock: BreakLock = False,
    config: Config = None,
    cluster: Cluster = None,
    workers: Workers = None,
    address: Address = None,
    dry_run: DryRun = False,
    *,
    cluster_flags: ClusterFlags,
) -> None:
    """Read apStar files into a store."""
    settings = settings_of(
        config,
        ingest={"row": row, "shard_stars": shard_stars, "max_bad_fraction": max_bad_fraction},
        cluster={"kind": cluster, "workers": workers, "address": address, **cluster_flags.of("cpu")},
    )
    from apogee_batch.run import commands

    going = commands.Going(force_new_plan, break_lock, trust_mtime)
    with open_view() as view:
        lines = commands.ingest(
            source, store, allstar=allstar, config=settings, is_dry_run=dry_run, progress=view, going=going
        )
    print_lines(lines)


@labels_app.command(
    epilog="\b\nExample:\n  apogee-batch labels attach dr14.zarr --payne payne.fits --yso ysos.csv"
)
def attach(
    store: Store,
    payne: Annotated[list[Path] | None, typer.Option(help="Table of Payne labels.")] = None,
    mstar: Annotated[list[Path] | None, typer.Option(help="Table of M-dwarf labels.")] = None,
    yso: Annotated[list[Path] | None, typer.Option(help="Table of labels of young stars.")] = None,
    column_map: Annotated[
        list[str] | None, typer.Option("--map", metavar="OURS=THEIRS", help="Name of a column, as teff=TEFF.")
    ] = None,
    break_lock: BreakLock = False,
    config: Config = None,
) -> None:
    """Attach label tables (FITS, CSV, ECSV, Parquet, VOTable) to the stars of a store."""
    settings_of(config)
    from apogee_batch.run import commands

    tables = {"payne": payne or [], "mstar": mstar or [], "yso": yso or []}
    going = commands.Going(break_lock=break_lock)
    with open_view():
        lines = commands.attach(store, tables, column_map=column_map or [], going=going)
    print_lines(lines)


@app.command(epilog="\b\nExample:\n  apogee-batch train dr14.zarr --out model1")
@with_cluster_options
def train(
    store: Store,
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    recipe: Recipe = None,
    seed: Seed = None,
    train_workers: TrainWorkers = None,
    threads: Annotated[int | None, typer.Option(help="Threads. [default: one a core]")] = None,
    device: Device = None,
    force_new_plan: ForceNewPlan = False,
    break_lock: BreakLock = False,
    config: Config = None,
    cluster: Cluster = None,
    address: Address = None,
    *,
    cluster_flags: ClusterFlags,
) -> None:
    """Train the network on the labels of a store."""
    settings = settings_of(
        config,
        training={"recipe": recipe, "seed": seed, "threads": threads, "workers": train_workers},
        cluster={"kind": cluster, "address": address, "device": device, **cluster_flags.of("gpu")},
    )
    from apogee_batch.run import commands

    with open_view() as view:
        going = commands.Going(force_new_plan, break_lock)
        lines = commands.train(store, out, config=settings, progress=view, going=going)
    print_lines(lines)


@app.command(
    epilog="\b\nExample:\n  apogee-batch run-catalog dr14.zarr --model model1 --out run1 --workers 8"
)
@with_cluster_options
def run_catalog(
    store: Store,
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    model: Annotated[
        Path | None, typer.Option(help="Folder of a trained model. [default: train one]")
    ] = None,
    realizations: Annotated[
        int | None, typer.Option(help="Noisy copies of each spectrum. [default: 100]")
    ] = None,
    err_cap: Annotated[
        str | None, typer.Option(help="Errors capped at 5 x median or mean. [default: median]")
    ] = None,
    precision: Precision = None,
    engine: EngineOption = None,
    recipe: Recipe = None,
    seed: Seed = None,
    train_workers: TrainWorkers = None,
    max_bad_fraction: MaxBad = None,
    force_new_plan: ForceNewPlan = False,
    break_lock: BreakLock = False,
    config: Config = None,
    cluster: Cluster = None,
    workers: Workers = None,
    address: Address = None,
    device: Device = None,
    dry_run: DryRun = False,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Plan, for an array of 'run-shard' jobs, and stop.")
    ] = False,
    finalise: Annotated[
        bool, typer.Option("--finalise", help="Publish what 'run-shard' jobs have made; infer nothing.")
    ] = False,
    *,
    cluster_flags: ClusterFlags,
) -> None:
    """Make the catalogue of a store: train unless --model is given, infer, publish."""
    settings = settings_of(
        config,
        training={"recipe": recipe, "seed": seed, "workers": train_workers},
        inference={
            "realizations": realizations,
            "seed": seed,
            "err_cap": err_cap,
            "precision": precision,
            "engine": engine,
            "max_bad_fraction": max_bad_fraction,
        },
        cluster={
            "kind": cluster,
            "workers": workers,
            "address": address,
            "device": device,
            **cluster_flags.of("gpu"),
        },
    )
    from apogee_batch.run import commands

    with open_view() as view:
        going = commands.Going(force_new_plan, break_lock)
        lines = commands.make_catalog(
            store,
            out,
            model=model,
            config=settings,
            is_dry_run=dry_run,
            is_plan_only=plan_only,
            is_finalise=finalise,
            progress=view,
            going=going,
        )
    print_lines(lines)


model_app.command("import", epilog="\b\nExample:\n  apogee-batch model import apogee_net.pt --out official")(
    model_import
)
app.command(epilog="\b\nExample:\n  apogee-batch run-shard run1/plan.json --index $SLURM_ARRAY_TASK_ID")(
    run_shard
)
cluster_app.command(
    "show", epilog="\b\nExample:\n  apogee-batch cluster show --config jobs/slurm.toml --role cpu"
)(cluster_show)
cluster_app.command(
    "test", epilog="\b\nExample:\n  apogee-batch cluster test --config jobs/slurm.toml --store dr14.zarr"
)(cluster_test)
app.command(epilog="\b\nExample:\n  apogee-batch status run1")(status)
app.command(epilog="\b\nExample:\n  apogee-batch verify run1")(verify)
app.command(epilog="\b\nExample:\n  apogee-batch doctor --gate --model run1")(doctor)
app.command(epilog="\b\nExample:\n  apogee-batch simulate survey --stars 1200 --seed 1")(simulate)
app.command(epilog="\b\nExample:\n  apogee-batch demo demo")(demo)


def main() -> None:
    """Run the command line; what a user can mend becomes one line and an exit code."""
    gc.set_threshold(IMPORT_OBJECTS, *gc.get_threshold()[1:])
    ended = None
    with SignalWatch() as watch:
        ended = _run()
    code, message = watch.ending(ended)
    if message:
        tell(message)
    gc.freeze()  # the process ends: what torch and others hold need not be looked through once more
    sys.exit(code)


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
    except typer.Abort:
        code = INTERRUPTED
    if code == INTERRUPTED:  # also what typer makes of a KeyboardInterrupt
        return INTERRUPTED, f"interrupted; {RESUME}"
    return code if isinstance(code, int) else 0, ""
