"""A store whose columns are described in the words of an older version is whole, and is read."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from apogee_batch.run import commands, ingest_tables
from apogee_batch.run.config import RunConfig
from apogee_batch.run.progress import SilentView
from apogee_batch.run.verify import verify_store
from apogee_batch.schema import Column, reject_columns, star_columns
from apogee_batch.store.tables import REJECTS, STARS, read_stars, table_path
from apogee_batch.survey.simulate import SimulatedSurvey

OLD_WORDS = b"Where it stood on old maps"


def as_it_was(columns: tuple[Column, ...], **changed: str) -> tuple[Column, ...]:
    """Return columns of which `ra` was something else."""
    return tuple(replace(column, **changed) if column.name == "ra" else column for column in columns)


def ingest(source: list[str], store: Path, allstar: Path, config: RunConfig) -> None:
    commands.ingest(source, store, allstar=allstar, config=config, is_dry_run=False, progress=SilentView())


def description_of(store: Path) -> bytes | None:
    field = pq.read_schema(table_path(store, STARS)).field("ra")
    return (field.metadata or {}).get(b"description")


def ingest_with(
    monkeypatch: pytest.MonkeyPatch,
    survey: SimulatedSurvey,
    store: Path,
    config: RunConfig,
    **changed: str,
) -> None:
    """Ingest by a version in which the column `ra` was something else."""
    with monkeypatch.context() as older:
        older.setattr(ingest_tables, "star_columns", lambda: as_it_was(star_columns(), **changed))
        ingest([str(survey.spectra)], store, survey.allstar, config)


def test_a_store_with_older_words_is_whole_and_is_read(
    survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s.zarr"
    ingest_with(monkeypatch, survey, store, serial_config, description=OLD_WORDS.decode())
    assert description_of(store) == OLD_WORDS
    assert verify_store(store) == []
    assert len(read_stars(store)) == 48
    before = table_path(store, STARS).read_bytes(), table_path(store, REJECTS).read_bytes()
    table_path(store, STARS).unlink()
    ingest(
        [str(survey.spectra)], store, survey.allstar, serial_config
    )  # which writes it again, by this version
    assert before == (table_path(store, STARS).read_bytes(), table_path(store, REJECTS).read_bytes())
    assert verify_store(store) == []


@pytest.mark.parametrize("changed", [{"unit": "rad"}, {"ucd": "pos.eq.dec"}, {"dtype": "float32"}])
def test_another_unit_meaning_or_type_is_damage(
    survey: SimulatedSurvey,
    serial_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, str],
) -> None:
    store = tmp_path / "s.zarr"
    ingest_with(monkeypatch, survey, store, serial_config, **changed)
    (damage,) = verify_store(store)
    assert damage.path == table_path(store, STARS)
    assert "other columns" in damage.problem


def test_positions_are_called_what_they_are() -> None:
    words = {column.name: column.description for column in (*star_columns(), *reject_columns())}
    assert "ICRS" in words["ra"]
    assert "ICRS" in words["dec"]
    assert not any("J2000" in text for text in words.values())
