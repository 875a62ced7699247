"""Options of jobs on a cluster, the commands about its queue, and the one for its job arrays."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from apogee_batch.cli_options import (
    Cluster,
    Config,
    Device,
    EngineOption,
    open_view,
    print_lines,
    settings_of,
)
from apogee_batch.errors import UsageError

Role = Literal["cpu", "gpu"]
SHORT_FORMS = ("partition", "account", "walltime", "memory", "gres")

RoleOption = Annotated[
    Role | None, typer.Option(help="Jobs of ingest (cpu), or of training and inference (gpu). [default: gpu]")
]

JOB_OPTIONS: dict[str, Any] = {
    "cluster_config": Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Settings of the site: jobqueue.NAME in Dask's YAML files."),
    ],
    "partition": Annotated[str | None, typer.Option(metavar="NAME", help="Partition or queue of the jobs.")],
    "account": Annotated[str | None, typer.Option(metavar="NAME", help="Account or project that pays.")],
    "walltime": Annotated[str | None, typer.Option(metavar="HH:MM:SS", help="Time of a job.")],
    "memory": Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of a job, as 16GB.")],
    "gres": Annotated[str | None, typer.Option(metavar="LIST", help="Slurm: GPUs of a job, as gpu:1.")],
    "job": Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Any other setting of a job, as cores=8; repeatable."),
    ],
    "interface": Annotated[str | None, typer.Option(metavar="NAME", help="Network interface, as ib0.")],
    "no_tls": Annotated[bool, typer.Option("--no-tls", help="Without encryption; needs --i-know too.")],
    "i_know": Annotated[
        bool, typer.Option("--i-know", help="With --no-tls: anyone on the network may run code as you.")
    ],
}


@dataclass(frozen=True)
class ClusterFlags:
    """What the command line said about the jobs of a cluster.

    Attributes
    ----------
    said : dict
        Values of `JOB_OPTIONS`.
    """

    said: dict[str, Any]

    def of(self, role: Role) -> dict[str, Any]:
        """Return them as settings of a cluster, those of a job for one role.

        Raises
        ------
        UsageError
            If a setting of a job is given in another form than KEY=VALUE, or twice.
        """
        return {
            "site": self.said["cluster_config"],
            "interface": self.said["interface"],
            "tls": False if self.said["no_tls"] else None,
            "without_tls_i_know": True if self.said["i_know"] else None,
            role: self._job(),
        }

    def _job(self) -> dict[str, Any]:
        job: dict[str, Any] = {key: self.said[key] for key in SHORT_FORMS if self.said[key] is not None}
        return _with_pairs(job, self.said["job"]) if self.said["job"] else job


def _with_pairs(job: dict[str, Any], pairs: Sequence[str]) -> dict[str, Any]:
    """Add KEY=VALUE pairs; those of a list one by one."""
    from apogee_batch.run.job_settings import is_list_setting

    job = dict(job)
    for pair in pairs:
        name, equals, value = pair.partition("=")
        key = name.strip().replace("-", "_")
        if not (key and equals):
            raise UsageError(f"--job {pair}: write it as KEY=VALUE, for example --job cores=8")
        if is_list_setting(key):
            job[key] = (*job.get(key, ()), value)
        elif key in job:
            raise UsageError(f"--job {pair}: {key} is given twice")
        else:
            job[key] = value
    return job


def with_cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all `JOB_OPTIONS`, which it gets together as `cluster_flags`.

    Typer makes options of a function's parameters, so the function is shown to it with one for each.
    """
    own = inspect.signature(command, eval_str=True).parameters
    kind = inspect.Parameter.KEYWORD_ONLY
    added = {
        name: inspect.Parameter(
            name, kind, default=False if name in ("no_tls", "i_know") else None, annotation=option
        )
        for name, option in JOB_OPTIONS.items()
    }
    shown = [parameter for name, parameter in own.items() if name != "cluster_flags"]

    @wraps(command)
    def run(**arguments: Any) -> None:
        flags = ClusterFlags({name: arguments.pop(name) for name in JOB_OPTIONS})
        command(**arguments, cluster_flags=flags)

    parameters = [*shown, *added.values()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@with_cluster_options
def cluster_show(
    role: RoleOption = None,
    config: Config = None,
    cluster: Cluster = None,
    *,
    cluster_flags: ClusterFlags,
) -> None:
    """Show the script of a job.

    As it would be submitted; only address and paths are made up.
    """
    wanted = role or "gpu"
    settings = settings_of(config, cluster={"kind": cluster, **cluster_flags.of(wanted)})
    from apogee_batch.run.cluster_show import show_job

    print_lines(show_job(settings.cluster, wanted))


@with_cluster_options
def cluster_test(
    store: Annotated[Path | None, typer.Option(help="Store that the nodes must see.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of a run that the nodes must see.")] = None,
    role: RoleOption = None,
    config: Config = None,
    cluster: Cluster = None,
    device: Device = None,
    *,
    cluster_flags: ClusterFlags,
) -> None:
    """Try one worker in a job.

    Versions, devices, memory, and the folders as the node sees them.
    """
    wanted = role or "gpu"
    said = {"kind": cluster, "device": device, **cluster_flags.of(wanted)}
    settings = settings_of(config, cluster=said)
    from apogee_batch.run.preflight import test_cluster

    with open_view() as view:
        lines = test_cluster(store, out, settings, view, (wanted,))
    print_lines(lines)


def run_shard(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="plan.json of 'run-catalog --plan-only'.")],
    index: Annotated[int, typer.Option(min=0, help="Number of the shard, from 0.")],
    device: Device = None,
    engine: EngineOption = None,
    config: Config = None,
) -> None:
    """Infer one shard: a task of a job array.

    In this process, for sites without Dask.
    """
    settings = settings_of(config, cluster={"device": device}, inference={"engine": engine})
    from apogee_batch.run.array import run_shard as run_one_shard

    with open_view() as view:
        lines = run_one_shard(
            plan, index, device=settings.cluster.device, engine=settings.inference.engine, progress=view
        )
    print_lines(lines)
