"""What this machine offers: what numbers and speed depend on, where to write, and what would be used."""

import os
import platform
import re
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import torch

from apogee_batch import __version__
from apogee_batch.inference.choose import EngineOffer, available_engines, caution_of
from apogee_batch.run.clusters import available_cores, default_workers
from apogee_batch.run.clusters.probe import memory_limit_bytes
from apogee_batch.run.devices import choose_device
from apogee_batch.run.surroundings import (
    cluster_kinds,
    describe_place,
    find_completions,
    find_queue_programs,
)

PROGRAM = "apogee-batch"
OPTIONAL_PACKAGES = ("openvino",)
NAME_OF_PACKAGE = re.compile("[A-Za-z0-9._-]+")
TELLING_FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
GIB = 2**30
WIDTH = 79


def describe_machine(folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Return what the machine offers as JSON values.

    Parameters
    ----------
    folders : sequence of Path
        Places to look at beside the working folder and that for temporary files.
    """
    engines = [_offer_to_json(offer) for offer in available_engines()]
    programs = find_queue_programs()
    places = dict.fromkeys((Path.cwd(), Path(tempfile.gettempdir()), *folders))
    return {
        "apogee_batch": __version__,
        "python": platform.python_version(),
        "packages": {name: _version_of(name) for name in _packages()},
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "host": platform.node(),
        "cpu": cpu_model(),
        "cpu_features": cpu_features(),
        "cores": available_cores(),
        "cores_of_machine": os.cpu_count() or 1,
        "memory_gib": round(memory_limit_bytes() / GIB, 1),
        "memory_of_machine_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1),
        "malloc": platform.libc_ver()[0] or "not glibc",
        "cuda_of_torch": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "gpu_memory_gib": [
            round(torch.cuda.get_device_properties(i).total_memory / GIB, 1)
            for i in range(torch.cuda.device_count())
        ],
        "engines": engines,
        "queue_programs": programs,
        "places": [describe_place(place) for place in places],
        "completion": find_completions(),
        "would_use": _would_use(engines, cluster_kinds(programs)),
    }


def _would_use(engines: Sequence[dict[str, str]], kinds: Sequence[str]) -> dict[str, Any]:
    """Return what the commands take where neither options nor settings say anything."""
    device = choose_device("auto")
    usable = [e for e in engines if not e["reason"] and e["device"] == device and e["precision"] == "exact"]
    return {
        "engine": usable[0]["name"] if usable else "torch",
        "precision": "exact",
        "device": device,
        "cluster": "local",
        "workers": default_workers("auto"),
        "queues": list(kinds),
    }


def machine_lines(machine: dict[str, Any]) -> list[str]:
    """Return what `describe_machine` gave for people."""
    facts = {
        "version": f"{PROGRAM} {machine['apogee_batch']}, Python {machine['python']}",
        "packages": ", ".join(f"{name} {found}" for name, found in machine["packages"].items() if found),
        "system": f"{machine['system']}, {machine['malloc']}, host {machine['host']}",
        "CPU": f"{machine['cpu']}; {' '.join(machine['cpu_features']) or 'no vector features known'}",
        "cores": f"{machine['cores']} of {machine['cores_of_machine']} can be used",
        "memory": f"{machine['memory_gib']} of {machine['memory_of_machine_gib']} GiB can be used",
        "GPU": _gpus(machine),
        "queues": "; ".join(f"{name}: {told}" for name, told in machine["queue_programs"].items())
        or "no command of a queue system is on the PATH",
        "shell": _completion(machine["completion"]),
    }
    lines = [line for name, fact in facts.items() for line in _wrap(f"{name + ':':<10}", fact)]
    lines.append("places:")
    lines += [line for place in machine["places"] for line in _wrap("  ", _place(place))]
    lines.append("engines:  best first")
    for engine in machine["engines"]:
        name = f"{engine['name']} {engine['precision']}"
        use = f"can be used, but is {engine['caution']}" if engine["caution"] else "can be used"
        lines += _wrap(f"  {name:<16}{engine['device']:<6}", engine["reason"] or use)
    used = machine["would_use"]
    told = (
        f"engine {used['engine']} {used['precision']} on {used['device']}, --cluster {used['cluster']}, "
        f"{used['workers']} worker{'s' * (used['workers'] != 1)}"
    )
    if used["queues"]:
        told += f"; --cluster {' or '.join(used['queues'])} uses the queue"
    return [*lines, *_wrap("would use: ", told)]


def _gpus(machine: dict[str, Any]) -> str:
    """Name the GPUs, or say why there is none."""
    built = f"torch {machine['packages'].get('torch')}"
    if not machine["gpus"]:
        why = "is built for CPUs" if machine["cuda_of_torch"] is None else "sees none"
        return f"none; {built} {why}"
    named = zip(machine["gpus"], machine["gpu_memory_gib"], strict=True)
    return ", ".join(f"{name} ({gib} GiB)" for name, gib in named) + f"; CUDA {machine['cuda_of_torch']}"


def _completion(shells: Sequence[str]) -> str:
    if shells:
        return f"completion is installed for {', '.join(shells)}"
    return f"no completion; '{PROGRAM} --install-completion' installs it for bash, zsh or fish"


def _place(place: dict[str, Any]) -> str:
    """Describe a place to write to."""
    free = "" if place["free_gib"] is None else f", {place['free_gib']} GiB free"
    kind = f", {place['file_system']}" if place["file_system"] else ""
    if not place["writable"]:
        return f"{place['path']}: CANNOT be written to: {place['reason']}"
    return f"{place['path']}: can be {'written to' if place['exists'] else 'made'}{free}{kind}"


def _wrap(head: str, text: str) -> list[str]:
    """Return `text` after `head` in lines of a terminal, those that follow indented."""
    return textwrap.wrap(head + text, WIDTH, subsequent_indent=" " * len(head), break_on_hyphens=False)


def _offer_to_json(offer: EngineOffer) -> dict[str, str]:
    return {
        "name": offer.name,
        "precision": offer.precision,
        "device": offer.device,
        "reason": offer.reason,
        "caution": caution_of(offer),
    }


def _packages() -> list[str]:
    """Return the packages that this one stands on, those it can do without last."""
    try:
        wanted = [line for line in requires(PROGRAM) or [] if "extra ==" not in line]
    except PackageNotFoundError:
        wanted = ["torch", "numpy", "zarr", "dask", "astropy"]
    names = [found.group() for line in wanted if (found := NAME_OF_PACKAGE.match(line))]
    return [*names, *(name for name in OPTIONAL_PACKAGES if name not in names)]


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor, as far as the system tells it."""
    found = _cpuinfo_field(cpuinfo, ("model name", "CPU part"))
    return found or platform.processor() or platform.machine()


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Return those of `TELLING_FEATURES` that the processor has; where the system is silent, torch's word."""
    found = _cpuinfo_field(cpuinfo, ("flags", "Features")).split()
    if not found:
        return [torch.backends.cpu.get_cpu_capability().lower()]
    return [name for name in TELLING_FEATURES if name in found]


def _cpuinfo_field(cpuinfo: Path, names: Iterable[str]) -> str:
    """Return the first of some fields of the first processor; empty where there is none."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return ""
    fields = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return next((value for wanted in names for name, value in fields if name == wanted), "")
