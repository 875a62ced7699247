"""The ledger and the parts of a finished ingest are two files, and mean what they meant as many."""

import shutil
from pathlib import Path

import pytest
from unpacked import unpack_ingest

from apogee_batch.run import commands
from apogee_batch.run.archive import list_files
from apogee_batch.run.config import RunConfig
from apogee_batch.run.fingerprint import store_fingerprint
from apogee_batch.run.ingest_mend import pack_finished
from apogee_batch.run.progress import SilentView
from apogee_batch.run.verify import verify
from apogee_batch.store.tables import read_stars
from apogee_batch.survey.simulate import SimulatedSurvey
from apogee_batch.survey.sources import find_apstar_files

ARCHIVES = ("ledger.tar", "parts.tar")


@pytest.fixture
def files(survey: SimulatedSurvey) -> list[Path]:
    return find_apstar_files([str(survey.spectra)])


@pytest.fixture
def store(labelled_store: Path, tmp_path: Path) -> Path:
    """A copy of a store with one ingest of three shards."""
    return Path(shutil.copytree(labelled_store, tmp_path / "s.zarr"))


@pytest.fixture
def old(labelled_store: Path, tmp_path: Path) -> Path:
    """The same as earlier versions left it: with a file for each entry and each part."""
    store = Path(shutil.copytree(labelled_store, tmp_path / "old.zarr"))
    unpack_ingest(store / "ingest" / "0001")
    return store


def ingest(sources: list[Path], store: Path, config: RunConfig) -> list[str]:
    texts = [str(source) for source in sources]
    return commands.ingest(texts, store, allstar=None, config=config, is_dry_run=False, progress=SilentView())


def test_a_finished_ingest_is_as_many_files_whatever_its_shards(store: Path) -> None:
    folder = store / "ingest" / "0001"
    assert sorted(path.name for path in folder.iterdir()) == [
        "allstar_match.parquet",
        "inputs.parquet",
        "ledger.tar",
        "parts.tar",
        "plan.json",
        "stages.jsonl",
        "summary.json",
    ]
    assert len(list_files(folder / "ledger")) == 3
    assert len(list_files(folder / "parts")) == 9


def test_a_store_means_the_same_packed_or_not(store: Path, old: Path) -> None:
    assert store_fingerprint(old) == store_fingerprint(store)
    assert verify(old).damages == verify(store).damages == []
    assert len(list((old / "ingest" / "0001" / "parts").iterdir())) == 9


def test_an_old_store_is_added_to_and_packed(
    store: Path, old: Path, files: list[Path], serial_config: RunConfig, tmp_path: Path
) -> None:
    extra = tmp_path / "apStar-r9-2M00000000+0000000.fits"
    shutil.copy(files[0], extra)
    for one in (store, old):
        ingest([extra], one, serial_config)
        assert verify(one).damages == []
    assert read_stars(old).equals(read_stars(store))
    assert store_fingerprint(old) == store_fingerprint(store)
    for name in ("0001", "0002"):
        found = [(one / "ingest" / name / "parts.tar").read_bytes() for one in (old, store)]
        assert found[0] == found[1]
        assert not (old / "ingest" / name / "ledger").exists()


def test_an_ingest_that_has_not_finished_is_not_packed(old: Path) -> None:
    (old / "ingest" / "0001" / "summary.json").unlink()
    pack_finished(old)
    assert not any((old / "ingest" / "0001" / name).exists() for name in ARCHIVES)


@pytest.mark.parametrize("name", ARCHIVES)
def test_files_beside_an_archive_are_packed_by_the_next_command(
    old: Path, store: Path, files: list[Path], serial_config: RunConfig, name: str
) -> None:
    folder = old / "ingest" / "0001"
    shutil.copy(store / "ingest" / "0001" / name, folder / name)
    small = folder / name.removesuffix(".tar")
    next(small.iterdir()).unlink()  # as if it had been killed while it removed them
    assert verify(old).damages == []
    assert "nothing to do" in ingest(files, old, serial_config)[0]
    assert not small.exists()
    assert (folder / name).read_bytes() == (store / "ingest" / "0001" / name).read_bytes()
