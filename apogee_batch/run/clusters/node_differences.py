"""Where a node differs from the driver, or from what its job asks for, so that a run would go wrong."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from apogee_batch.run.config import Device
from apogee_batch.run.job_settings import JobSettings

MUST_AGREE = ("apogee-batch", "dask", "distributed", "cloudpickle", "msgpack")
SHOULD_AGREE = ("numpy", "torch", "zarr", "numcodecs", "pyarrow", "lz4")
OPTIONAL = ("lz4",)
GIB = 1 << 30
LEAST_SHARE = 0.9  # of the memory asked for that a node must give: queues round it down


@dataclass(frozen=True)
class Mismatch:
    """Something that differs on a node, with the remedy.

    Attributes
    ----------
    text : str
        One line.
    is_fatal : bool
        Whether a run would fail, or only be slow or differ in its last bits.
    """

    text: str
    is_fatal: bool


def compare(
    driver: Mapping[str, Any], node: Mapping[str, Any], job: JobSettings, device: Device
) -> list[Mismatch]:
    """Return where a node differs from the driver, or from what its job asks for.

    Parameters
    ----------
    driver, node : mapping
        What `probe_node` returned on each.
    job : JobSettings
        What the job asks for.
    device : {"auto", "cpu", "cuda"}
        Where the work of this job is to run.
    """
    return [
        *_compare_python(driver, node),
        *_compare_packages(driver, node),
        *_check_gpus(node, job, device),
        *_check_memory(node, job),
        *_check_folders(node),
    ]


def _compare_python(driver: Mapping[str, Any], node: Mapping[str, Any]) -> Iterator[Mismatch]:
    if node["python"].split(".")[:2] != driver["python"].split(".")[:2]:
        yield Mismatch(
            f"the node has Python {node['python']} ({node['executable']}), the driver {driver['python']}: "
            f"set `python` of the job to {driver['executable']}, on a file system that the nodes see",
            is_fatal=True,
        )
    if node["machine"] != driver["machine"]:
        yield Mismatch(
            f"the node is a {node['machine']}, the driver a {driver['machine']}: last digits may differ "
            "from those of other nodes; keep to one kind with `partition` or `constraint`",
            is_fatal=False,
        )


def _compare_packages(driver: Mapping[str, Any], node: Mapping[str, Any]) -> Iterator[Mismatch]:
    for name, here in driver["versions"].items():
        there = node["versions"].get(name)
        if there == here:
            continue
        is_missing = there is None and name not in OPTIONAL
        effect = "" if is_missing or name in MUST_AGREE else "; results may differ in their last digits"
        yield Mismatch(
            f"the node has {_named(name, there)} in {node['executable']}, the driver {_named(name, here)}"
            f"{effect}: install the same there, or set `python` of the job to {driver['executable']}",
            is_fatal=is_missing or name in MUST_AGREE,
        )


def _named(package: str, found: str | None) -> str:
    return f"no {package}" if found is None else f"{package} {found}"


def _check_gpus(node: Mapping[str, Any], job: JobSettings, device: Device) -> Iterator[Mismatch]:
    cuda = node["cuda"]
    if cuda is None:
        return
    if cuda["count"] == 0:
        built = f"built for CUDA {cuda['version']}" if cuda["version"] else "built without CUDA"
        why = f" ({cuda['trouble']})" if cuda["trouble"] else ""
        remedy = (
            "ask for one with `gres`" if job.gres is None else "check `gres`, the GPU driver and the torch"
        )
        remedy = remedy if cuda["version"] else "install a torch with CUDA"
        text = f"torch, {built}, sees no GPU on the node{why}: {remedy}, or say --device cpu"
        if device == "cuda" or job.gres is not None:
            yield Mismatch(text, is_fatal=device == "cuda")
    elif cuda["count"] < job.processes and device != "cpu":
        yield Mismatch(
            f"the job has {job.processes} processes and {cuda['count']} GPUs, which they must share: "
            "ask for as many with `gres`, or set `processes` lower",
            is_fatal=False,
        )


def _check_memory(node: Mapping[str, Any], job: JobSettings) -> Iterator[Mismatch]:
    wanted, found = 0 if job.memory is None else job.memory_bytes, node["memory_bytes"]
    if found < LEAST_SHARE * wanted:
        yield Mismatch(
            f"the job asks for {wanted / GIB:.1f} GiB of memory and its node gives {found / GIB:.1f} GiB: "
            "check `memory` and `partition`",
            is_fatal=False,
        )


def _check_folders(node: Mapping[str, Any]) -> Iterator[Mismatch]:
    for folder, trouble in node["folders"].items():
        if trouble:
            yield Mismatch(
                f"{folder} cannot be used from the node ({trouble}): put it on a file system that the driver "
                "and all nodes see, with the same rights",
                is_fatal=True,
            )
