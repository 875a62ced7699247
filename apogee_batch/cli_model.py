"""Commands about models."""

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
    EngineOption,
    Precision,
    Seed,
    Store,
    check_settings,
    open_view,
    print_lines,
    settings_of,
)


def model_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="State dict of APOGEE Net I.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    config: Config = None,
) -> None:
    """Import the weights of the authors.

    A torch state dict; the input of the model is raw flux.
    """
    check_settings(config)
    from apogee_batch.run import commands

    print_lines(commands.import_model(file, out))


@with_cluster_options
def model_calibrate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a trained or imported model.")],
    store: Store,
    realizations: Annotated[
        int | None, typer.Option(help="Noisy copies of each spectrum. [default: 100]")
    ] = None,
    err_cap: Annotated[
        str | None, typer.Option(help="Errors capped at 5 x median or mean. [default: median]")
    ] = None,
    precision: Precision = None,
    engine: EngineOption = None,
    seed: Seed = None,
    device: Device = None,
    break_lock: BreakLock = False,
    config: Config = None,
    cluster: Cluster = None,
    address: Address = None,
    *,
    cluster_flags: ClusterFlags,
) -> None:
    """Learn how wrong a model is.

    From the dev stars of a store: its errors, and which spectra are strange to it.
    """
    settings = settings_of(
        config,
        inference={
            "realizations": realizations,
            "seed": seed,
            "err_cap": err_cap,
            "precision": precision,
            "engine": engine,
        },
        cluster={"kind": cluster, "address": address, "device": device, **cluster_flags.of("gpu")},
    )
    from apogee_batch.run import commands

    with open_view() as view:
        going = commands.Going(break_lock=break_lock)
        lines = commands.calibrate(model, store, config=settings, progress=view, going=going)
    print_lines(lines)
