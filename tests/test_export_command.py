"""`apogee-batch export`: what was published, in other formats, or a word on what is missing."""

from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest
from astropy.table import Table

from apogee_batch.catalog.export import write_parquet
from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import write_sealed_json
from apogee_batch.run.export import FORMATS, export
from apogee_batch.run.ledger import relative_digest
from apogee_batch.run.publish import MANIFEST_FILE
from apogee_batch.schema import arrow_schema, catalog_columns

SCHEMA = arrow_schema(catalog_columns())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as publication leaves it, as far as an export looks."""
    kinds = {"string": str, "int32": int}
    rows = {c.name: [kinds.get(c.dtype, float)(i) for i in (1, 2)] for c in catalog_columns()}
    folder = tmp_path / "run"
    path = folder / "catalog" / "catalog.parquet"
    digest = write_parquet(pa.table(rows, schema=SCHEMA), path, metadata={"run_id": "0123abcd"})
    write_sealed_json(folder / MANIFEST_FILE, {"files": [asdict(relative_digest(digest, folder))]})
    return folder


def test_every_format_is_written_beside_the_catalogue(run: Path) -> None:
    lines = export(run, list(FORMATS))
    names = [f"catalog.{chosen.suffix}" for chosen in FORMATS.values()]
    assert [line.split(": ")[0] for line in lines] == [str(run / "export" / name) for name in names]
    assert sorted(path.name for path in (run / "export").iterdir()) == sorted(names)
    assert [path.name for path in (run / "catalog").iterdir()] == ["catalog.parquet"]
    assert Table.read(run / "export" / "catalog.ecsv").meta["run_id"] == "0123abcd"


def test_another_folder_can_be_named(run: Path, tmp_path: Path) -> None:
    export(run, ["csv", "csv"], out=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["catalog.csv"]
    assert not (run / "export").exists()


def test_an_unknown_format_is_told_before_anything_is_written(run: Path) -> None:
    with pytest.raises(UsageError, match=r"--format excel: the formats are votable, csv, ecsv, mrt"):
        export(run, ["csv", "excel"])
    assert not (run / "export").exists()


def test_a_run_that_is_not_published_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no published catalogue \(manifest.json is missing\)"):
        export(tmp_path, ["csv"])


def test_a_catalogue_that_was_changed_is_not_given_away(run: Path) -> None:
    path = run / "catalog" / "catalog.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"catalog.parquet: is missing or not what was published"):
        export(run, ["csv"])


def test_a_damaged_manifest_is_told(run: Path) -> None:
    (run / MANIFEST_FILE).write_text("{}")
    with pytest.raises(IntegrityError, match=r"manifest.json: damaged"):
        export(run, ["csv"])
