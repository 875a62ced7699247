"""After any damage of a file: verify names it, and the same command mends it or says what to do, in one line.

The catalogue is that of the undisturbed run, or there is none.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from scenes import Scene, catalog_hashes, hash_all
from torn import RUN_KINDS, STORE_KINDS, UNFINISHED, UNTOLD, WAYS, tear

from apogee_batch.errors import ApogeeBatchError, IntegrityError, UsageError
from apogee_batch.files import write_text
from apogee_batch.network.checkpoint import save_checkpoint
from apogee_batch.network.header import CheckpointHeader
from apogee_batch.network.model import SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform
from apogee_batch.report import figures
from apogee_batch.run.config import RunConfig
from apogee_batch.run.verify import Damage, verify_run, verify_store
from apogee_batch.survey.simulate import SimulatedSurvey

pytestmark = pytest.mark.fault

SEEDS = range(1, 6)  # of the flipped bits
REMEDIES = ("again", "restores", "train", "put", "make one with")

# What the command that made a store or a run does not mend by itself, and what does.
ATTACHED = ("tables/labels.parquet", "tables/unmatched_labels.parquet", "tables/attached.json")
FOR_PEOPLE_ONLY = ("ingest/0001/allstar_match.parquet",)  # written with new files only
MODEL = ("model.json", "model.safetensors")  # there is no other copy of a given model
# Files with times in them: what they hold is compared by verify, not their bytes.
WITH_TIMES = ("ingest/0001/inputs.parquet", "ingest/0001/summary.json")  # the latter: how the summary agreed

TWINS = ("mask/zarr.json", "err/zarr.json", "mask/c/0/0")  # of kinds that are tried anyway
WITHOUT_MENDING = [
    *((f"tables/{name}.parquet", way) for name in ("stars", "rejects", "labels") for way in WAYS),
    ("tables/attached.json", "delete"),
    ("tables/ingested.json", "flip"),
    *(("zarr.json", way) for way in WAYS),
    ("err/zarr.json", "zero"),
    ("mask/zarr.json", "delete"),
    ("flux/c/1/0", "flip"),
    ("ingest/0001/plan.json", "truncate"),
    ("ingest/0001/inputs.parquet", "delete"),
    ("ingest/0001/ledger.tar", "zero"),
    ("ingest/0001/summary.json", "delete"),
]
BEGUN = [
    ("tables/stars.parquet", "flip"),
    ("tables/rejects.parquet", "truncate"),
    ("tables/labels.parquet", "flip"),
    ("tables/labels.parquet", "delete"),
    ("err/c/2/0", "zero"),
    ("ingest/0001/ledger.tar", "delete"),
]


def write_words(catalog: Any, path: Path) -> None:
    """Stand in for a picture, which takes nine tenths of the time of publishing."""
    write_text(path, f"{sum(map(len, catalog))} stars\n")


@pytest.fixture(scope="module", autouse=True)
def plain_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "kiel_diagram", write_words)
        patch.setattr(figures, "label_comparison", write_words)
        yield


@pytest.fixture(scope="module")
def undisturbed(
    plain_pictures: None,
    survey: SimulatedSurvey,
    serial_config: RunConfig,
    labelled_store: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Scene:
    """The survey of 48 stars, its store, a model that was never trained, and the run that they make."""
    folder = tmp_path_factory.mktemp("torn")
    network = SpectrumNet()
    initialise_kaiming(network, torch.Generator().manual_seed(1))
    header = CheckpointHeader(origin="official", transform=InputTransform(), scaler=OFFICIAL_SCALER)
    save_checkpoint(folder / "model", network.state_dict(), header)
    scene = Scene(survey, serial_config, labelled_store, folder / "run", folder / "model")
    scene.make_catalog(scene.run)
    return scene


@pytest.fixture
def store(undisturbed: Scene, tmp_path: Path) -> Path:
    """A copy of the store."""
    return Path(shutil.copytree(undisturbed.store, tmp_path / "s.zarr"))


@pytest.fixture
def run(undisturbed: Scene, tmp_path: Path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(undisturbed.run, tmp_path / "run"))


def damage(folder: Path, name: str, way: str, seed: int = 0) -> None:
    tear(folder / name, way, seed=seed)


def outcome(command: Callable[[], None], *names: str) -> int:
    """Return the exit code of a command; what it refuses must name the file, or its folder, and a remedy."""
    refusal = None
    try:
        command()
    except ApogeeBatchError as error:
        refusal = error
    if refusal is None:
        return 0
    text = str(refusal)
    assert refusal.exit_code in (IntegrityError.exit_code, UsageError.exit_code), text
    assert "\n" not in text
    assert any(name in text for name in names), text
    assert any(word in text for word in REMEDIES), text
    return refusal.exit_code


@pytest.mark.parametrize("name", STORE_KINDS)
def test_any_flipped_bit_of_a_store_is_named(store: Path, name: str) -> None:
    if (name, "flip") not in UNTOLD:
        expect_each_flip_is_named(store, name, verify_store)


@pytest.mark.parametrize("name", RUN_KINDS)
def test_any_flipped_bit_of_a_run_is_named(run: Path, name: str) -> None:
    expect_each_flip_is_named(run, name, verify_run)


def expect_each_flip_is_named(folder: Path, name: str, verify: Callable[[Path], list[Damage]]) -> None:
    whole = (folder / name).read_bytes()
    for seed in SEEDS:
        damage(folder, name, "flip", seed)
        assert [found.path for found in verify(folder)] == [folder / name], seed
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for name in STORE_KINDS if name not in TWINS])
def test_a_damaged_store_is_named_and_mended(
    undisturbed: Scene, store: Path, tmp_path: Path, name: str, way: str
) -> None:
    damage(store, name, way)
    is_told = (name, way) not in UNTOLD and not (way == "delete" and name in UNFINISHED)
    assert [found.path for found in verify_store(store)] == ([store / name] if is_told else [])
    assert outcome(lambda: undisturbed.ingest(store), name) == 0
    if name in ATTACHED:
        assert [found.path for found in verify_store(store)] == [store / name]
        undisturbed.attach(store)
    if name in FOR_PEOPLE_ONLY:
        (store / name).unlink(missing_ok=True)
    assert verify_store(store) == []
    now, then = hash_all(store), hash_all(undisturbed.store)
    changing = {*WITH_TIMES, *FOR_PEOPLE_ONLY}
    assert [path for path in then if path not in changing and now.get(path) != then[path]] == []
    assert now.keys() - changing == then.keys() - changing


@pytest.mark.parametrize(("name", "way"), WITHOUT_MENDING)
def test_a_catalogue_of_a_damaged_store_has_the_same_rows_or_there_is_none(
    undisturbed: Scene, store: Path, tmp_path: Path, name: str, way: str
) -> None:
    damage(store, name, way, seed=5)
    new, names = (
        tmp_path / "new",
        (f"{store / name}", Path(name).name, "the entry of shard", f"{store}: ingest 0001 has not finished"),
    )
    if outcome(lambda: undisturbed.make_catalog(new, store=store), *names) == 0:
        for table in ("catalog/catalog.parquet", "rejects.parquet"):
            assert pq.read_table(new / table).equals(pq.read_table(undisturbed.run / table))
    else:
        assert not (new / "catalog").exists()


@pytest.mark.parametrize(("name", "way"), BEGUN)
def test_a_run_begun_with_a_damaged_store_goes_on_when_that_is_mended(
    undisturbed: Scene, store: Path, tmp_path: Path, name: str, way: str
) -> None:
    damage(store, name, way, seed=5)
    with suppress(ApogeeBatchError):
        undisturbed.make_catalog(tmp_path / "new", store=store)
    undisturbed.ingest(store)
    undisturbed.attach(store)
    undisturbed.make_catalog(tmp_path / "new", store=store)
    assert catalog_hashes(tmp_path / "new") == undisturbed.catalog_hashes


@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "deleted"])
@pytest.mark.parametrize(("name", "way"), [("flux/c/1/0", "flip"), ("mask/c/0/0", "delete")])
def test_a_damaged_shard_is_not_made_again_from_other_files(
    undisturbed: Scene, tmp_path: Path, name: str, way: str, is_replaced: bool
) -> None:
    files = Path(shutil.copytree(undisturbed.survey.spectra, tmp_path / "spectra"))
    store, scene = (
        tmp_path / "s.zarr",
        replace(undisturbed, survey=replace(undisturbed.survey, spectra=files)),
    )
    scene.ingest(store)
    first, second = _paths_of_shard(store, int(name.split("/")[2]))[:2]
    damage(store, name, way)
    before = hash_all(store)
    if is_replaced:
        first.write_bytes(first.read_bytes()[:-2880] + second.read_bytes()[-2880:])
        tear(first, "flip", within=(0.2, 0.3))
    else:
        first.unlink()
    assert outcome(lambda: scene.ingest(store), str(first)) != 0
    assert hash_all(store) == before


def _paths_of_shard(store: Path, shard: int) -> list[Path]:
    inputs = pq.read_table(store / "ingest" / "0001" / "inputs.parquet").to_pylist()
    return [Path(record["path"]) for record in inputs if record["shard"] == shard]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RUN_KINDS)
def test_a_damaged_run_is_named_and_mended(undisturbed: Scene, run: Path, name: str, way: str) -> None:
    damage(run, name, way)
    is_told = not (way == "delete" and name in UNFINISHED)
    assert [found.path for found in verify_run(run)] == ([run / name] if is_told else [])
    assert outcome(lambda: undisturbed.make_catalog(run), name) == 0
    assert verify_run(run) == []
    assert hash_all(run) == hash_all(undisturbed.run)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODEL)
def test_a_damaged_model_is_named_and_makes_no_catalogue(
    undisturbed: Scene, run: Path, tmp_path: Path, name: str, way: str
) -> None:
    model = Path(shutil.copytree(undisturbed.model, tmp_path / "model"))
    damage(model, name, way)
    assert [found.path for found in verify_run(model)] == [model / name]
    scene = Scene(undisturbed.survey, undisturbed.config, undisturbed.store, run, model)
    assert outcome(lambda: scene.make_catalog(run), name) != 0
    assert outcome(lambda: scene.make_catalog(tmp_path / "new"), name) != 0
    assert hash_all(run) == hash_all(undisturbed.run)
