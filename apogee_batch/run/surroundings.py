"""What surrounds the program on a machine: queue systems, places to write to, the shell's completion."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.programs import run_program

GIB = 2**30
PROBE_S = 5.0  # a queue that does not tell its version by then is told as such
QUEUE_PROGRAMS = {  # command -> the option that makes it tell its version
    "sbatch": "--version",
    "squeue": "--version",
    "qsub": "--version",
    "bsub": "-V",
    "condor_submit": "-version",
}
KIND_OF = {"sbatch": "slurm", "bsub": "lsf", "condor_submit": "htcondor"}  # qsub is that of PBS or of SGE
COMPLETIONS = {
    "bash": ".bash_completions/apogee-batch.sh",
    "zsh": ".zfunc/_apogee-batch",
    "fish": ".config/fish/completions/apogee-batch.fish",
}
MOUNTS = Path("/proc/self/mountinfo")


def find_queue_programs(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the commands of queue systems on the PATH, and what each says of its version."""
    found = [name for name in QUEUE_PROGRAMS if shutil.which(name, path=environment.get("PATH"))]

    def ask(name: str) -> str:
        try:
            answer = run_program([name, QUEUE_PROGRAMS[name]], environment=environment, timeout_s=PROBE_S)
        except (ClusterError, OSError) as error:
            return f"found, but: {error}"
        if answer.code is None:
            return f"found, but gave no answer within {PROBE_S:.0f} s"
        lines = [line.strip() for line in (answer.out + answer.err).splitlines() if line.strip()]
        return lines[0] if answer.is_good and lines else f"found, but tells no version: {answer.told()[:60]}"

    with ThreadPoolExecutor(len(QUEUE_PROGRAMS)) as pool:
        return dict(zip(found, pool.map(ask, found), strict=True))


def cluster_kinds(programs: Iterable[str]) -> list[str]:
    """Return the values of --cluster that fit the commands that were found."""
    names = set(programs)
    kinds = [kind for command, kind in KIND_OF.items() if command in names]
    return [*kinds, "pbs", "sge"] if "qsub" in names and "sbatch" not in names else kinds


def describe_place(path: Path) -> dict[str, Any]:
    """Return what can be known of a folder to write to: space, file system, and whether writing works."""
    folder = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    told: dict[str, Any] = {"path": str(path), "exists": path.exists(), "reason": ""}
    try:
        told["free_gib"] = round(shutil.disk_usage(folder).free / GIB, 1)
    except OSError as error:
        told["free_gib"], told["reason"] = None, str(error.strerror)
    told["file_system"] = file_system_of(folder)
    if not folder.is_dir():
        return told | {"writable": False, "reason": "is not a folder; name one"}
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return told | {
            "writable": False,
            "reason": f"{error.strerror}; give yourself the right, or name another",
        }
    return told | {"writable": True}


def file_system_of(folder: Path, mounts: Path = MOUNTS) -> str:
    """Return the type of the file system of a folder; empty where the system does not tell."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    real = os.path.realpath(folder)
    for line in lines:
        head, _, tail = line.partition(" - ")
        fields, kinds = head.split(), tail.split()
        if len(fields) < 5 or not kinds:
            continue
        point = fields[4].replace("\\040", " ")
        is_around = real == point or real.startswith(point.rstrip("/") + "/")
        if is_around and len(point) >= len(best):
            best, kind = point, kinds[0]
    return kind


def find_completions(home: Path | None = None) -> list[str]:
    """Return the shells for which this user has installed completion."""
    try:
        base = Path.home() if home is None else home
    except RuntimeError:  # a user without a home
        return []
    return [shell for shell, name in COMPLETIONS.items() if (base / name).is_file()]
