"""The commands that fill a store: spectra, and the labels of some of them."""

from pathlib import Path
from typing import Annotated

import typer

from apogee_batch.cli_cluster import ClusterFlags, with_cluster_options
from apogee_batch.cli_options import (
    Address,
    BreakLock,
    Cluster,
    Config,
    DryRun,
    ForceNewPlan,
    MaxBad,
    Store,
    Workers,
    check_settings,
    choices,
    open_view,
    print_lines,
    settings_of,
)


@with_cluster_options
def ingest(
    source: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Folders, globs, files, or text lists of paths.")
    ],
    store: Annotated[Path, typer.Option(help="Store to make, or to append to.")],
    allstar: Annotated[Path | None, typer.Option(help="allStar summary: decides which stars.")] = None,
    row: Annotated[
        str | None,
        typer.Option(help="combined, or visits. [default: combined]", autocompletion=choices("row")),
    ] = None,
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
    """Attach label tables to the stars of a store.

    FITS, CSV, ECSV, Parquet or VOTable.
    """
    check_settings(config)
    from apogee_batch.run import commands

    tables = {"payne": payne or [], "mstar": mstar or [], "yso": yso or []}
    going = commands.Going(break_lock=break_lock)
    with open_view():
        lines = commands.attach(store, tables, column_map=column_map or [], going=going)
    print_lines(lines)
