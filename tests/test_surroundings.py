"""What `doctor` finds around the program: queue commands, places to write to, completion."""

from pathlib import Path

import pytest

from apogee_batch.run import surroundings
from apogee_batch.run.surroundings import (
    cluster_kinds,
    describe_place,
    file_system_of,
    find_completions,
    find_queue_programs,
)


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_commands_of_queues_are_asked_for_their_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "PROBE_S", 0.5)
    program(tmp_path / "bin", "sbatch", "echo slurm 24.05.1")
    program(tmp_path / "bin", "bsub", "echo no licence >&2; exit 3")
    program(tmp_path / "bin", "condor_submit", "exec /bin/sleep 60")
    found = find_queue_programs({"PATH": str(tmp_path / "bin")})
    assert found["sbatch"] == "slurm 24.05.1"
    assert found["bsub"] == "found, but tells no version: no licence"
    assert found["condor_submit"].startswith("found, but gave no answer within")
    assert sorted(found) == ["bsub", "condor_submit", "sbatch"]
    assert cluster_kinds(found) == ["slurm", "lsf", "htcondor"]
    assert cluster_kinds(["qsub"]) == ["pbs", "sge"]
    assert find_queue_programs({"PATH": str(tmp_path)}) == {}


def test_places_are_tried_by_writing(tmp_path: Path) -> None:
    here = describe_place(tmp_path)
    assert (here["exists"], here["writable"], [*tmp_path.iterdir()]) == (True, True, [])
    assert here["free_gib"] >= 0
    new = describe_place(tmp_path / "a" / "b")
    assert (new["exists"], new["writable"]) == (False, True)
    (tmp_path / "file").touch()
    assert "not a folder" in describe_place(tmp_path / "file")["reason"]


def test_the_file_system_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:4 / /scratch rw shared:1 - lustre mds rw\n"
        "3 1 0:5 / /scratch2 rw - nfs4 server rw\ntorn\n"
    )
    assert file_system_of(Path("/scratch/run1"), mounts) == "lustre"
    assert file_system_of(Path("/scratch2"), mounts) == "nfs4"
    assert file_system_of(Path("/home"), mounts) == "ext4"
    assert file_system_of(Path("/home"), tmp_path / "nowhere") == ""


def test_completion_is_found_where_it_is_installed(tmp_path: Path) -> None:
    assert find_completions(tmp_path) == []
    (tmp_path / ".zfunc").mkdir()
    (tmp_path / ".zfunc" / "_apogee-batch").touch()
    assert find_completions(tmp_path) == ["zsh"]
