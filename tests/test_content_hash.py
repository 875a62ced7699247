"""The hash of what is read of a file: of all of it, in order, by the algorithm that the store began with."""

import hashlib
import os
import shutil
import struct
from itertools import pairwise
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from strategies import packed
from unpacked import unpack_ingest

from apogee_batch.errors import UsageError
from apogee_batch.run import commands, ingest_command
from apogee_batch.run.config import Going, RunConfig
from apogee_batch.run.ingest_plan import CONTENT_HASH, IngestPlan, plan_ingest, read_ingest
from apogee_batch.run.progress import SilentView
from apogee_batch.run.verify import verify
from apogee_batch.store.tables import read_table, table_path
from apogee_batch.survey import content_hash
from apogee_batch.survey.byte_ranges import open_bytes
from apogee_batch.survey.content_hash import FileContent, HashName, begin_hash
from apogee_batch.survey.simulate import SimulatedSurvey
from apogee_batch.survey.sources import find_apstar_files

Ranges = list[tuple[int, bytes]]
BOTH: tuple[HashName, ...] = ("blake3", "blake2b")


def defined(name: HashName, ranges: Ranges) -> str:
    """Return the hash of some ranges as it is defined, made at once."""
    places = b"".join(struct.pack("<QQ", offset, len(content)) for offset, content in ranges)
    if name == "blake3":
        whole = b"".join(content for _, content in ranges) + places + struct.pack("<Q", len(ranges))
        return blake3(whole).hexdigest(16)
    pieces = [places[16 * i : 16 * i + 16] + content for i, (_, content) in enumerate(ranges)]
    return hashlib.blake2b(b"".join(pieces), digest_size=16).hexdigest()


def digest(name: HashName, ranges: Ranges) -> str | None:
    told = begin_hash(name)
    for offset, content in ranges:
        told.add(offset, content)
    found = told.content()
    assert told.content() == found  # to ask changes nothing
    return found.digest


@pytest.mark.parametrize("name", BOTH)
@given(
    ranges=st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=40)), min_size=1, max_size=9),
    at_once=st.integers(1, 60),
)
def test_it_is_the_same_however_many_ranges_are_hashed_at_once(
    name: HashName, ranges: Ranges, at_once: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content_hash, "UPDATE_BYTES", at_once)
        assert digest(name, ranges) == defined(name, ranges)


@pytest.mark.parametrize("name", BOTH)
def test_the_same_bytes_in_other_ranges_are_another_content(name: HashName) -> None:
    content = bytes(range(60))
    cuts = [[0, 60], [0, 20, 60], [0, 40, 60], [0, 0, 60], [0, 60, 60]]
    found = [digest(name, [(start, content[start:stop]) for start, stop in pairwise(cut)]) for cut in cuts]
    found += [digest(name, [(7, content)]), digest(name, [(0, content[20:]), (40, content[:20])])]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("name", BOTH)
def test_a_range_that_looks_like_places_does_not_stand_for_them(name: HashName) -> None:
    # what follows the content of one file is a part of the content of the other
    other = struct.pack("<3Q", 0, 0, 1)
    assert digest(name, [(0, b"")]) != digest(name, [(0, other)])
    assert digest(name, [(0, other), (0, b"")]) != digest(name, [(0, b""), (0, other)])


@pytest.mark.parametrize("name", BOTH)
def test_nothing_that_was_fetched_has_no_hash(name: HashName) -> None:
    assert begin_hash(name).content() == FileContent(0, None)
    assert digest(name, [(0, b"")]) is not None


@pytest.mark.parametrize("name", BOTH)
def test_the_hash_is_of_all_that_was_fetched(
    name: HashName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(b"x" + bytes(range(256)) * 2000)
    fetched: Ranges = []
    original = os.pread

    def noting(descriptor: int, n_bytes: int, offset: int) -> bytes:
        content = original(descriptor, n_bytes, offset)
        fetched.append((offset, content))
        return content

    monkeypatch.setattr(os, "pread", noting)
    told = begin_hash(name)
    with open_bytes(path, told) as source:
        for offset, n_bytes in ((10, 100), (70_000, 1000), (70_100, 5000), (10, 60_000), (75_000, 400_000)):
            source.read(offset, n_bytes)
    assert told.content() == FileContent(path.stat().st_size, defined(name, fetched))


@pytest.mark.parametrize("name", BOTH)
def test_the_hash_of_gzip_data_is_of_the_whole_file_as_it_is(name: HashName, tmp_path: Path) -> None:
    path = tmp_path / "a.fits.gz"
    content = packed(os.urandom(400_000))
    path.write_bytes(content)
    told = begin_hash(name)
    with open_bytes(path, told) as source:
        source.size()
    starts = (*range(0, len(content), 65536), len(content))  # the last finds the end
    ranges = [(offset, content[offset : offset + 65536]) for offset in starts]
    assert told.content() == FileContent(len(content), defined(name, ranges))


@pytest.fixture
def files(survey: SimulatedSurvey, tmp_path: Path) -> list[Path]:
    """Copies of the files of 20 stars."""
    (tmp_path / "in").mkdir()
    found = find_apstar_files([str(survey.spectra)])[:20]
    return [Path(shutil.copy(path, tmp_path / "in" / path.name)) for path in found]


def ingest(files: list[Path], store: Path, config: RunConfig) -> list[str]:
    return commands.ingest(
        [str(path) for path in files],
        store,
        allstar=None,
        config=config,
        is_dry_run=False,
        progress=SilentView(),
        going=Going(),
    )


def ingest_as_before(files: list[Path], store: Path, config: RunConfig) -> None:
    """Ingest as versions did that hashed by BLAKE2b and whose plans did not say so."""

    def plan_as_before(*arguments: object, **options: object) -> IngestPlan | None:
        plan = plan_ingest(*arguments, **options)  # type: ignore[arg-type]
        if plan is not None:
            del plan.values[CONTENT_HASH]
        return plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest_command, "plan_ingest", plan_as_before)
        ingest(files, store, config)


def hashed_by(store: Path, number: str) -> str:
    unpack_ingest(store / "ingest" / number)
    parts = (store / "ingest" / number / "parts").glob("contents-*.parquet")
    (name,) = {str(read_table(part).schema.names[-1]) for part in parts}
    return name


def test_a_new_store_hashes_by_blake3(files: list[Path], serial_config: RunConfig, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    ingest(files, store, serial_config)
    assert read_ingest(store / "ingest" / "0001").values[CONTENT_HASH] == "blake3"
    assert hashed_by(store, "0001") == "blake3"


def test_a_store_of_an_earlier_version_is_compared_and_mended_by_its_own_hash(
    files: list[Path], serial_config: RunConfig, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    ingest_as_before(files, store, serial_config)
    assert "nothing to do" in ingest(files, store, serial_config)[0]
    assert hashed_by(store, "0001") == "blake2b"
    (store / "ingest" / "0001" / "parts" / "contents-00000.parquet").write_bytes(b"")
    ingest(files, store, serial_config)  # fails where the shard is not, byte for byte, what it was
    assert verify(store).damages == []
    content = files[3].read_bytes()
    files[3].write_bytes(content.replace(b"SNR     =", b"SNR     = ", 1)[: len(content)])
    with pytest.raises(UsageError, match=r"1 file is not .* same size and another content"):
        ingest(files, store, serial_config)


def test_what_is_added_to_such_a_store_is_known_for_a_copy(
    files: list[Path], serial_config: RunConfig, tmp_path: Path
) -> None:
    store, copy = tmp_path / "s.zarr", tmp_path / "in" / "apStar-r8-2M00000000+0000000.fits"
    ingest_as_before(files[:10], store, serial_config)
    shutil.copy(files[0], copy)
    ingest([*files, copy], store, serial_config)
    assert hashed_by(store, "0002") == "blake2b"
    rejects = read_table(table_path(store, "rejects")).to_pylist()
    assert [(reject["path"], reject["reason"]) for reject in rejects] == [(str(copy), "DUPLICATE_FILE")]


def test_an_ingest_that_was_begun_with_the_earlier_hash_goes_on_with_it(
    files: list[Path], serial_config: RunConfig, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    ingest_as_before(files, store, serial_config)
    unpack_ingest(store / "ingest" / "0001")
    (store / "ingest" / "0001" / "summary.json").unlink()  # what makes it a finished one
    (store / "ingest" / "0001" / "ledger" / "00000.json").unlink()
    ingest(files, store, serial_config)
    assert hashed_by(store, "0001") == "blake2b"
    assert verify(store).damages == []
