"""A store that was damaged is mended to what it was, or the command says why it cannot be."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from unpacked import unpack_ingest

from apogee_batch.errors import IntegrityError, TooManyBadInputsError, UsageError
from apogee_batch.run import commands
from apogee_batch.run.config import Going, RunConfig
from apogee_batch.run.ingest_plan import ingest_folders
from apogee_batch.run.progress import SilentView
from apogee_batch.run.verify import verify
from apogee_batch.store.tables import read_stars, read_table, table_path
from apogee_batch.survey.simulate import SimulatedSurvey
from apogee_batch.survey.sources import find_apstar_files


@pytest.fixture
def files(survey: SimulatedSurvey, tmp_path: Path) -> list[Path]:
    """Copies of the files of 20 stars."""
    (tmp_path / "in").mkdir()
    found = find_apstar_files([str(survey.spectra)])[:20]
    return [Path(shutil.copy(path, tmp_path / "in" / path.name)) for path in found]


def ingest(files: list[Path], store: Path, config: RunConfig, going: Going | None = None) -> list[str]:
    return commands.ingest(
        [str(path) for path in files],
        store,
        allstar=None,
        config=config,
        is_dry_run=False,
        progress=SilentView(),
        going=going or Going(),
    )


def accept_bad(config: RunConfig, fraction: float) -> RunConfig:
    settings = config.ingest.model_copy(update={"max_bad_fraction": fraction})
    return config.model_copy(update={"ingest": settings})


def swap(path: Path, other: Path) -> None:
    """Put another star's content of the same size into a file."""
    assert path.stat().st_size == other.stat().st_size
    shutil.copy(other, path)


def same_size(files: list[Path]) -> tuple[Path, Path]:
    """Return two files of the same shard and size."""
    for i, path in enumerate(files[:16]):
        for other in files[i + 1 : 16]:
            if path.stat().st_size == other.stat().st_size:
                return path, other
    pytest.fail("the survey has no two files of the same size")


def test_a_shard_is_not_made_again_as_another_one(
    files: list[Path], serial_config: RunConfig, tmp_path: Path
) -> None:
    store, (path, other) = tmp_path / "s.zarr", same_size(files)
    ingest(files, store, serial_config)
    before, content = read_stars(store), path.read_bytes()
    unpack_ingest(store / "ingest" / "0001")
    contents = store / "ingest" / "0001" / "parts" / "contents-00000.parquet"
    contents.write_bytes(bytes(contents.stat().st_size))  # nobody can tell from it what was read
    swap(path, other)
    with pytest.raises(IntegrityError, match=r"shard 0 was damaged, and made again it is another one"):
        ingest(files, store, serial_config)
    assert verify(store).damages
    path.write_bytes(content)
    ingest(files, store, serial_config)
    assert verify(store).damages == []
    assert read_stars(store).equals(before)


def test_a_server_that_is_away_costs_no_star(
    files: list[Path], serial_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def fail(path: Path, *arguments: int) -> int:
        if str(path).endswith(".fits"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return opened(path, *arguments)

    monkeypatch.setattr("apogee_batch.survey.byte_ranges.os.open", fail)
    with pytest.raises(OSError, match="Stale") as caught:
        ingest(files, tmp_path / "s.zarr", serial_config)
    assert str(caught.value.filename).endswith(".fits")
    monkeypatch.undo()
    ingest(files, tmp_path / "s.zarr", serial_config)
    assert len(read_stars(tmp_path / "s.zarr")) == 20


def test_a_refused_append_leaves_the_store_as_it_was(
    files: list[Path], serial_config: RunConfig, tmp_path: Path
) -> None:
    store, (path, other) = tmp_path / "s.zarr", same_size(files)
    ingest(files[:16], store, serial_config)
    swap(path, other)
    with pytest.raises(UsageError, match="1 file is not what ingest 0001 read"):
        ingest(files, store, serial_config)
    assert [folder.name for folder in ingest_folders(store)] == ["0001"]
    assert verify(store).damages == []


def test_an_append_that_was_begun_can_be_given_up(
    files: list[Path], serial_config: RunConfig, tmp_path: Path
) -> None:
    store, empty = tmp_path / "s.zarr", [tmp_path / f"apStar-r8-2M0000000{i}+0000000.fits" for i in (1, 2, 3)]
    ingest(files[:10], store, serial_config)
    before = read_stars(store)
    for path in empty:
        path.write_bytes(b"")
    with pytest.raises(TooManyBadInputsError):
        ingest([*files[:10], *empty], store, serial_config)
    assert len(ingest_folders(store)) == 2
    assert "nothing to do" in ingest(files[:10], store, serial_config, Going(force_new_plan=True))[0]
    assert len(ingest_folders(store)) == 1
    assert verify(store).damages == []
    assert read_stars(store).equals(before)


def test_rejects_that_were_accepted_are_not_counted_again(
    files: list[Path], serial_config: RunConfig, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    for path in files[:3]:
        path.write_bytes(b"")
    ingest(files, store, accept_bad(serial_config, 0.2))
    for path in files[:3]:
        path.chmod(0o600)
    ingest(files, store, serial_config)
    assert len(read_table(table_path(store, "rejects"))) == 3
    assert "nothing to do" in ingest(files, store, serial_config)[0]


def test_restored_inputs_make_nothing_new(
    files: list[Path], serial_config: RunConfig, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    files[0].write_bytes(b"")
    ingest(files, store, serial_config)
    (store / "ingest" / "0001" / "inputs.parquet").unlink()
    assert "nothing to do" in ingest(files, store, serial_config)[0]
    assert verify(store).damages == []


def test_a_store_is_the_same_by_whatever_link(
    files: list[Path], serial_config: RunConfig, tmp_path: Path
) -> None:
    store, link = tmp_path / "s.zarr", tmp_path / "link.zarr"
    link.symlink_to(store)
    seen = []

    class Looker(SilentView):
        def say(self, text: str) -> None:
            seen.append(sorted(path.name for path in tmp_path.glob("*.lock")))

    for path in (store, link):
        commands.ingest(
            [str(file) for file in files],
            path,
            allstar=None,
            config=serial_config,
            is_dry_run=False,
            progress=Looker(),
        )
    assert {tuple(names) for names in seen} == {("s.zarr.lock",)}


@pytest.mark.parametrize("table", ["rejects", "stars"])
def test_a_damaged_table_is_mended_beside_an_unfinished_append(
    files: list[Path], serial_config: RunConfig, tmp_path: Path, table: str
) -> None:
    store, whole = tmp_path / "s.zarr", tmp_path / "whole.zarr"
    for path in (store, whole):
        ingest(files[:10], path, serial_config)
        ingest(files, path, serial_config)
    (store / "ingest" / "0002" / "summary.json").unlink()
    unpack_ingest(store / "ingest" / "0002")
    (store / "ingest" / "0002" / "ledger" / "00001.json").unlink()
    table_path(store, table).write_bytes(b"x")
    ingest(files, store, serial_config)
    assert read_stars(store).equals(read_stars(whole))
    assert verify(store).damages == []


def test_tables_of_a_first_ingest_that_was_killed_at_its_end_are_written_by_the_next_call(
    files: list[Path], serial_config: RunConfig, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    ingest(files, store, serial_config)
    before = read_stars(store)
    (store / "ingest" / "0001" / "summary.json").unlink()
    (store / "tables" / "ingested.json").unlink()
    (store / "tables" / "rejects.parquet").unlink()
    ingest(files, store, serial_config)
    assert read_stars(store).equals(before)
    assert verify(store).damages == []
