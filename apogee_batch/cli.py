"""The command line: parse, call one function, print.

What a command needs is imported when it runs, so that `--help` answers at once.
"""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apogee_batch import __version__
from apogee_batch.errors import ApogeeBatchError, IncompleteRunError

if TYPE_CHECKING:
    from apogee_batch.run.config import RunConfig

PROGRAM = "apogee-batch"
INTERRUPTED = 130
PLAIN: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}

app = typer.Typer(**PLAIN, help="Labels of stars from SDSS/APOGEE apStar spectra: log g, Teff, [Fe/H].")
labels_app = typer.Typer(**PLAIN, help="Training labels of a store.")
model_app = typer.Typer(**PLAIN, help="Trained networks.")
app.add_typer(labels_app, name="labels")
app.add_typer(model_app, name="model")

Store = Annotated[Path, typer.Argument(metavar="STORE", help="Store made by 'ingest'.")]
Config = Annotated[Path | None, typer.Option(help="TOML file with settings; flags win over it.")]
Cluster = Annotated[str | None, typer.Option(help="serial, local or address. [default: local]")]
Workers = Annotated[int | None, typer.Option(help="Worker processes. [default: one a core]")]
Address = Annotated[str | None, typer.Option(help="Running scheduler, for --cluster address.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda. [default: auto]")]
Seed = Annotated[int | None, typer.Option(help="Seed of all random numbers. [default: 0]")]
Recipe = Annotated[str | None, typer.Option(help="robust, paper or a TOML file. [default: robust]")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def _settings(config: Path | None, **sections: dict[str, Any]) -> "RunConfig":
    from apogee_batch.run.config import load_config

    return load_config(config, sections)


def _print(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)


def _view() -> Any:
    from rich.console import Console

    from apogee_batch.run.progress import progress_view

    return progress_view(Console())


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
def ingest(
    source: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Folders, globs, files, or text lists of paths.")
    ],
    store: Annotated[Path, typer.Option(help="Store to make, or to append to.")],
    allstar: Annotated[Path | None, typer.Option(help="allStar summary: decides which stars.")] = None,
    row: Annotated[str | None, typer.Option(help="combined, or visits. [default: combined]")] = None,
    shard_stars: Annotated[int | None, typer.Option(help="Stars of a shard. [default: by size]")] = None,
    config: Config = None,
    cluster: Cluster = None,
    workers: Workers = None,
    address: Address = None,
    dry_run: DryRun = False,
) -> None:
    """Read apStar files into a store."""
    settings = _settings(
        config,
        ingest={"row": row, "shard_stars": shard_stars},
        cluster={"kind": cluster, "workers": workers, "address": address},
    )
    from apogee_batch.run import commands

    with _view() as view:
        lines = commands.ingest(
            source, store, allstar=allstar, config=settings, is_dry_run=dry_run, progress=view
        )
    _print(lines)


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
    config: Config = None,
) -> None:
    """Attach label tables (FITS, CSV, ECSV, Parquet, VOTable) to the stars of a store."""
    _settings(config)
    from apogee_batch.run import commands

    tables = {"payne": payne or [], "mstar": mstar or [], "yso": yso or []}
    _print(commands.attach(store, tables, column_map=column_map or []))


@app.command(epilog="\b\nExample:\n  apogee-batch train dr14.zarr --out model1")
def train(
    store: Store,
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    recipe: Recipe = None,
    seed: Seed = None,
    threads: Annotated[int | None, typer.Option(help="Threads. [default: one a core]")] = None,
    device: Device = None,
    config: Config = None,
    cluster: Cluster = None,
    address: Address = None,
) -> None:
    """Train the network on the labels of a store."""
    settings = _settings(
        config,
        training={"recipe": recipe, "seed": seed, "threads": threads},
        cluster={"kind": cluster, "address": address, "device": device},
    )
    from apogee_batch.run import commands

    with _view() as view:
        lines = commands.train(store, out, config=settings, progress=view)
    _print(lines)


@app.command(
    epilog="\b\nExample:\n  apogee-batch run-catalog dr14.zarr --model model1 --out run1 --workers 8"
)
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
    recipe: Recipe = None,
    seed: Seed = None,
    config: Config = None,
    cluster: Cluster = None,
    workers: Workers = None,
    address: Address = None,
    device: Device = None,
    dry_run: DryRun = False,
) -> None:
    """Make the catalogue of a store: train unless --model is given, infer, publish."""
    settings = _settings(
        config,
        training={"recipe": recipe, "seed": seed},
        inference={"realizations": realizations, "seed": seed, "err_cap": err_cap},
        cluster={"kind": cluster, "workers": workers, "address": address, "device": device},
    )
    from apogee_batch.run import commands

    with _view() as view:
        lines = commands.make_catalog(
            store, out, model=model, config=settings, is_dry_run=dry_run, progress=view
        )
    _print(lines)


@app.command(epilog="\b\nExample:\n  apogee-batch status run1")
def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run or a model, or a store.")],
    config: Config = None,
) -> None:
    """Say how far a run, a training or an ingest is."""
    _settings(config)
    from apogee_batch.run.status import describe_status

    _print(describe_status(run))


@model_app.command("import", epilog="\b\nExample:\n  apogee-batch model import apogee_net.pt --out official")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="State dict of APOGEE Net I.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    config: Config = None,
) -> None:
    """Import the authors' weights (a torch state dict); the input is then raw flux."""
    _settings(config)
    from apogee_batch.run import commands

    _print(commands.import_model(file, out))


@app.command(epilog="\b\nExample:\n  apogee-batch simulate survey --stars 1200 --seed 1")
def simulate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the survey.")],
    stars: Annotated[int, typer.Option(help="Number of stars.", min=1, max=1_000_000)] = 1200,
    seed: Annotated[int, typer.Option(help="Seed of the survey.", min=0)] = 1,
    config: Config = None,
) -> None:
    """Simulate a small survey with known labels: apStar files, allStar, label tables."""
    _settings(config)
    from apogee_batch.run.demo import simulate as simulate_with_progress

    with _view() as view:
        survey = simulate_with_progress(folder, n_stars=stars, seed=seed, progress=view)
    _print([f"{stars} stars in {survey.spectra}; summary {survey.allstar}"])


@app.command(epilog="\b\nExample:\n  apogee-batch demo demo")
def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the demo.")] = Path("demo"),
    stars: Annotated[int, typer.Option(help="Number of stars.", min=100, max=100_000)] = 1200,
    seed: Annotated[
        int | None, typer.Option(help="Seed. [default: 1 for the survey, of the settings for the run]", min=0)
    ] = None,
    realizations: Annotated[
        int | None, typer.Option(help="Noisy copies of each spectrum. [default: 100]")
    ] = None,
    config: Config = None,
    cluster: Cluster = None,
    workers: Workers = None,
) -> None:
    """Simulate a survey and make its catalogue: the whole way in some minutes."""
    settings = _settings(
        config,
        training={"seed": seed},
        inference={"realizations": realizations, "seed": seed},
        cluster={"kind": cluster, "workers": workers},
    )
    from apogee_batch.run.demo import DEMO_SEED, run_demo

    survey_seed = DEMO_SEED if seed is None else seed
    with _view() as view:
        lines = run_demo(folder, n_stars=stars, seed=survey_seed, config=settings, progress=view)
    _print(lines)


class Terminated(BaseException):
    """SIGTERM came: leave as for an interruption, but with the code for a run that can be resumed."""


def _terminate(_number: int, _frame: object) -> None:
    raise Terminated


def main() -> None:
    """Run the command line; what a user can mend becomes one line and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name=PROGRAM, standalone_mode=False)
    except typer.TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
        _fail(f"{error.format_message().rstrip('.')}; see '{command} --help'", error.exit_code)
    except ApogeeBatchError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; check its permissions and the space on the disk", 1)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Terminated:
        _fail("terminated; the same command goes on where it stopped", IncompleteRunError.exit_code)
    if code == INTERRUPTED:
        _fail("interrupted; the same command goes on where it stopped", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(code)
