"""The commands that compute: a training, and the whole catalogue."""

from pathlib import Path
from typing import Annotated

import typer

from apogee_batch.cli_cluster import ClusterFlags, with_cluster_options
from apogee_batch.cli_options import (
    Address,
    BreakLock,
    Cluster,
    Config,
    Device,
    DryRun,
    EngineOption,
    ErrCap,
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
    err_cap: ErrCap = None,
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
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Leave the page out; 'report' makes it later.")
    ] = False,
    *,
    cluster_flags: ClusterFlags,
) -> None:
    """Make the catalogue of a store.

    Trains a network unless --model is given, infers, publishes, and makes the page of the run.
    """
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
            wants_page=not no_report,
            progress=view,
            going=going,
        )
    print_lines(lines)
