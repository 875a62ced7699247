"""Full disks, limits and folders that cannot be written to: one line, code 75, and the same bytes later."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from filesystems import (
    BLOCK_BYTES,
    PROGRAM,
    Ended,
    SmallDisk,
    call,
    small_disk,
    taken,
    with_file_limit,
    with_umask,
)
from scenes import Scene, catalog_hashes, hash_all

from apogee_batch.store.spectra import STAR_ARRAYS

pytestmark = pytest.mark.fault

DISK_BYTES = 96 << 20
CLUSTERS = {"serial": "kind = 'serial'", "local": "kind = 'local'\nworkers = 2"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", DISK_BYTES) as found:
        if found is None:
            pytest.skip("no file system can be mounted here (unshare -m, or unshare -rm)")
        yield found


@pytest.fixture
def local(scene: Scene, tmp_path: Path) -> Path:
    return write_config(tmp_path / "c.toml", scene, "local")


@pytest.fixture
def serial(scene: Scene, tmp_path: Path) -> Path:
    return write_config(tmp_path / "c.toml", scene, "serial")


def write_config(path: Path, scene: Scene, cluster: str) -> Path:
    settings = scene.config
    path.write_text(
        f"[ingest]\nshard_stars = {settings.ingest.shard_stars}\n"
        f"[training]\nrecipe = '{settings.training.recipe}'\nthreads = 1\n"
        f"[inference]\nrealizations = {settings.inference.realizations}\n"
        f"[cluster]\n{CLUSTERS[cluster]}\ndevice = 'cpu'\n"
    )
    return path


def ingesting(scene: Scene, store: Path, config: Path) -> list[object]:
    return [
        "ingest",
        scene.survey.spectra,
        "--allstar",
        scene.survey.allstar,
        "--store",
        store,
        "--config",
        config,
    ]


def making(scene: Scene, run: Path, config: Path) -> list[object]:
    return ["run-catalog", scene.store, "--model", scene.model, "--out", run, "--config", config]


def check_stopped(ended: Ended, problem: str, remedy: str, below: Path) -> None:
    """See that a command left with code 75 and one line, which names a file of the disk and the remedy."""
    assert ended.returncode == 75, ended
    assert ended.stderr.startswith(f"error: {below}"), ended.stderr
    assert f": {problem}; what was finished is kept: {remedy}, and the same command goes on\n" in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr


def check_done(ended: Ended) -> None:
    assert (ended.returncode, ended.stderr) == (0, "")


def check_full(ended: Ended, below: Path) -> None:
    check_stopped(ended, "No space left on device", "free some space", below)


def check_store(store: Path, scene: Scene) -> None:
    """See that a store holds what the undisturbed one holds, byte for byte."""
    ours, theirs = hash_all(store), hash_all(scene.store)
    names = {name for name in theirs if name.startswith((*STAR_ARRAYS, "tables/stars", "tables/rejects"))}
    assert {name: ours.get(name) for name in names} == {name: theirs[name] for name in names}
    assert list(store.rglob("*.partial")) == []


def test_an_ingest_goes_on_each_time_that_there_is_more_space(
    disk: SmallDisk, scene: Scene, serial: Path
) -> None:
    command = ingesting(scene, disk.path / "s.zarr", serial)
    for part in (0, 0.001, 0.4, 0.995):
        disk.leave(int(part * taken(scene.store)) - disk.used_by("s.zarr"))
        check_full(disk.run(*command), disk.path)
    disk.clear()
    check_done(disk.run(*command))
    check_store(disk.seen / "s.zarr", scene)


def test_a_run_goes_on_each_time_that_there_is_more_space(
    disk: SmallDisk, scene: Scene, serial: Path
) -> None:
    command = making(scene, disk.path / "run", serial)
    before_publication = sum(taken(scene.run / name) for name in ("ledger", "parts", "inputs"))
    for n_bytes in (0, 0.5 * before_publication, before_publication + 6 * BLOCK_BYTES):
        disk.leave(int(n_bytes) - disk.used_by("run"))
        check_full(disk.run(*command), disk.path)
        assert not (disk.seen / "run" / "manifest.json").exists()
    assert len(list((disk.seen / "run" / "ledger").iterdir())) == len(list((scene.run / "ledger").iterdir()))
    disk.clear()
    check_done(disk.run(*command))
    assert catalog_hashes(disk.seen / "run") == scene.catalog_hashes


def test_workers_tell_their_driver_of_a_full_disk(disk: SmallDisk, scene: Scene, local: Path) -> None:
    command = ingesting(scene, disk.path / "s.zarr", local)
    disk.leave(int(0.6 * taken(scene.store)))
    check_full(disk.run(*command), disk.path)
    disk.clear()
    check_done(disk.run(*command))
    check_store(disk.seen / "s.zarr", scene)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_limit_on_the_size_of_files_is_told_as_a_full_disk_is(
    scene: Scene, tmp_path: Path, cluster: str
) -> None:
    store, problem, remedy = (
        tmp_path / "s.zarr",
        "File too large",
        "raise the limit on the size of files (ulimit -f)",
    )
    command = ingesting(scene, store, write_config(tmp_path / "c.toml", scene, cluster))
    limit = max(path.stat().st_size for path in scene.store.glob("flux/c/*/0")) - 1
    check_stopped(with_file_limit(limit, *command), problem, remedy, tmp_path)
    check_done(call([*PROGRAM, *command]))
    check_store(store, scene)


@pytest.mark.parametrize("stage", ["parts", "catalog"])
def test_a_limit_on_the_size_of_files_stops_a_run_that_goes_on_without_it(
    scene: Scene, serial: Path, tmp_path: Path, stage: str
) -> None:
    run, problem, remedy = (
        tmp_path / "run",
        "File too large",
        "raise the limit on the size of files (ulimit -f)",
    )
    command = making(scene, run, serial)
    limit = max(path.stat().st_size for path in (scene.run / stage).iterdir()) - 1
    check_stopped(with_file_limit(limit, *command), problem, remedy, tmp_path)
    check_done(call([*PROGRAM, *command]))
    assert catalog_hashes(run) == scene.catalog_hashes


def check_refused(ended: Ended, below: Path) -> None:
    """See that a command left with one line, which names a path of the disk, and the code of a wrong path."""
    assert ended.returncode in (2, 75), ended
    assert ended.stderr.startswith(f"error: {below}"), ended.stderr
    assert "Read-only file system" in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr


def test_a_disk_that_cannot_be_written_to_is_told(disk: SmallDisk, scene: Scene, serial: Path) -> None:
    shutil.copytree(scene.store, disk.seen / "old.zarr")
    shutil.copytree(scene.run, disk.seen / "old")
    (disk.seen / "old" / "manifest.json").unlink()
    (disk.seen / "old.zarr" / "ingest" / "0001" / "summary.json").unlink()
    disk.remount("ro")
    for command in (
        ingesting(scene, disk.path / "new.zarr", serial),
        ingesting(scene, disk.path / "old.zarr", serial),
        making(scene, disk.path / "new", serial),
        making(scene, disk.path / "old", serial),
    ):
        check_refused(disk.run(*command), disk.path)
    disk.remount("rw")
    check_done(disk.run(*making(scene, disk.path / "old", serial)))
    assert catalog_hashes(disk.seen / "old") == scene.catalog_hashes


@pytest.mark.skipif(os.geteuid() == 0, reason="modes do not bind root")
def test_a_folder_without_the_right_to_write_is_told(scene: Scene, serial: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o500)
    for command in (ingesting(scene, folder / "s.zarr", serial), making(scene, folder / "run", serial)):
        ended = call([*PROGRAM, *command])
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended
        assert ended.stderr.startswith(f"error: {folder}")
        assert "Permission denied" in ended.stderr


def test_the_modes_of_all_files_are_what_the_umask_makes(scene: Scene, serial: Path, tmp_path: Path) -> None:
    tables = [word for name, path in scene.survey.labels.items() for word in (f"--{name}", path)]
    store, run = tmp_path / "s.zarr", tmp_path / "run"
    check_done(with_umask("027", *ingesting(scene, store, serial)))
    check_done(with_umask("027", "labels", "attach", store, *tables))
    check_done(with_umask("027", "run-catalog", store, "--out", run, "--config", serial))
    modes = {
        path: stat.S_IMODE(path.stat().st_mode) for top in (store, run) for path in [top, *top.rglob("*")]
    }
    assert {
        path: oct(mode) for path, mode in modes.items() if mode != (0o750 if path.is_dir() else 0o640)
    } == {}
    assert catalog_hashes(run).keys() == scene.catalog_hashes.keys()
