"""The HATS collection: whole, with the catalogue's values, nulls and units; made without an open door."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.table import Table
from hats_scenes import N_STARS, N_WITHOUT, PARTITION_ROWS, Exported
from sky_catalogs import publish, sky_catalog

from apogee_batch.catalog.description import read_facts
from apogee_batch.catalog.rows import rows_of
from apogee_batch.errors import ApogeeBatchError, UsageError
from apogee_batch.run import hats
from apogee_batch.run.export import export
from apogee_batch.schema import catalog_columns

pytest.importorskip("hats_import")

INDEX = "_healpix_29"
CREATED = b"hats_creation_date"


def partitions(folder: Path) -> list[Path]:
    return sorted((folder / "dataset").rglob("Npix=*.parquet"))


def read(folder: Path) -> pa.Table:
    return ds.dataset([str(path) for path in partitions(folder)]).to_table()


def test_hats_import_finds_the_collection_valid(exported: Exported, tmp_path: Path) -> None:
    from hats_import.verification.arguments import VerificationArguments
    from hats_import.verification.run_verification import run

    arguments = VerificationArguments(
        input_catalog_path=exported.folder,
        output_path=tmp_path,
        truth_total_rows=N_STARS - N_WITHOUT,
        verbose=False,
    )
    results = run(arguments).results
    assert len(results) >= 6
    assert [result.test for result in results if not result.passed] == []


def test_each_star_with_a_place_is_in_one_partition_with_its_values_and_nulls(exported: Exported) -> None:
    files = partitions(exported.folder / "apogee")
    assert len(files) > 5
    assert all(pq.read_metadata(path).num_rows <= PARTITION_ROWS for path in files)
    found = read(exported.folder / "apogee").drop_columns(INDEX).sort_by("apstar_id")
    expected = exported.catalog.slice(0, N_STARS - N_WITHOUT).sort_by("apstar_id")
    assert found.to_pydict() == expected.to_pydict()
    assert found["teff"].null_count > 0


@pytest.mark.parametrize("part", ["apogee", "apogee_10arcs"])
def test_every_file_tells_units_ucds_and_descriptions(part: str, exported: Exported) -> None:
    files = [*partitions(exported.folder / part), exported.folder / part / "dataset" / "_common_metadata"]
    for path in files:
        schema = pq.read_schema(path)
        for column in catalog_columns():
            told = schema.field(column.name).metadata
            assert told.get(b"unit", b"").decode() == column.unit
            assert (told[b"ucd"].decode(), told[b"description"].decode()) == (column.ucd, column.description)
        assert schema.metadata[b"apogee_batch.run_id"] == b"0123abcd"
        assert b"apogee_batch.sorted_by" not in schema.metadata


def test_astropy_reads_a_partition_with_units(exported: Exported) -> None:
    path = partitions(exported.folder / "apogee")[0]
    for reader in ("parquet", "parquet.votable"):
        table = Table.read(path, format=reader)
        assert table.colnames == [INDEX, *(column.name for column in catalog_columns())]
        assert table["logg"].unit == u.dex(u.cm / u.s**2)
        assert table[INDEX].meta["ucd"] == "pos.healpix"


def test_no_file_names_the_folder_that_it_was_made_in(exported: Exported) -> None:
    for path in exported.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b".partial" not in content, path
            assert str(exported.run).encode() not in content, path
    assert sorted(path.name for path in exported.folder.parent.iterdir()) == ["hats"]


def test_the_same_catalogue_gives_the_same_bytes_but_for_the_date(exported: Exported, tmp_path: Path) -> None:
    hats.export_hats(
        rows_of(exported.catalog),
        tmp_path / "hats",
        metadata={"run_id": "0123abcd", "precision": "exact"},
        partition_rows=PARTITION_ROWS,
    )
    names = [sorted(p.relative_to(f) for p in f.rglob("*")) for f in (exported.folder, tmp_path / "hats")]
    assert names[0] == names[1]
    for name in names[0]:
        ours, theirs = exported.folder / name, tmp_path / "hats" / name
        if ours.is_dir():
            continue
        lines = [[x for x in p.read_bytes().split(b"\n") if CREATED not in x] for p in (ours, theirs)]
        assert lines[0] == lines[1], name


def test_the_command_tells_how_many_rows_are_left_out(tmp_path: Path) -> None:
    run = publish(sky_catalog(40, n_without=3), tmp_path / "run")
    lines = export(run, ["csv", "hats"], margin_arcsec=30)
    assert lines[1].startswith(f"{run / 'export' / 'hats'}: HATS collection")
    assert "37 rows, margin 30 arcsec" in lines[1]
    assert lines[2].startswith(f"{run / 'export' / 'hats'}: 3 rows without a position are left out")
    assert (run / "export" / "hats" / "apogee_30arcs").is_dir()
    export(run, ["hats"])  # takes the place of the first
    names = sorted(path.name for path in (run / "export" / "hats").iterdir())
    assert names == ["apogee", "apogee_10arcs", "collection.properties"]
    assert sorted(path.name for path in (run / "export").iterdir()) == ["catalog.csv", "hats"]


def test_a_catalogue_without_any_position_is_told(tmp_path: Path) -> None:
    run = publish(sky_catalog(5, n_without=5), tmp_path / "run")
    with pytest.raises(UsageError, match="no row of the catalogue has a position"):
        export(run, ["hats"])
    assert list((run / "export").iterdir()) == []


def test_a_cell_with_more_stars_than_a_partition_may_hold_is_one_partition(tmp_path: Path) -> None:
    crowded = sky_catalog(50, ra=[10.0] * 50, dec=[41.0] * 50)
    hats.export_hats(rows_of(crowded), tmp_path / "hats", metadata={}, partition_rows=20)
    assert read(tmp_path / "hats" / "apogee").num_rows == 50


def test_nobody_outside_can_reach_what_works_and_nothing_outside_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening: set[str] = set()
    make = hats.make_collection

    def refuse(*address: Any, **named: Any) -> Any:
        raise AssertionError(f"a connection to {address}")

    def watch(*arguments: Any, **named: Any) -> None:
        found = psutil.Process().net_connections(kind="inet")
        listening.update(door.laddr.ip for door in found if door.status == psutil.CONN_LISTEN)
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", refuse)
            patch.setattr(socket, "create_connection", refuse)
            make(*arguments, **named)

    monkeypatch.setattr(hats, "make_collection", watch)
    hats.export_hats(rows_of(sky_catalog(30)), tmp_path / "hats", metadata={})
    assert listening <= {"127.0.0.1"}
    assert not [child for child in psutil.Process().children() if "distributed" in " ".join(child.cmdline())]


def test_what_fails_leaves_the_earlier_export_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = publish(sky_catalog(30), tmp_path / "run")
    export(run, ["hats"])
    before = {path: path.read_bytes() for path in (run / "export").rglob("*") if path.is_file()}
    from apogee_batch.catalog import hats as making

    monkeypatch.setattr(making, "_verify", lambda *_: ["num rows (file footers vs truth)"])
    with pytest.raises(ApogeeBatchError, match=r"hats: hats-import could not .* num rows"):
        export(run, ["hats"])
    assert {path: path.read_bytes() for path in (run / "export").rglob("*") if path.is_file()} == before


KILLED = """
import os, signal, sys
from pathlib import Path
from apogee_batch.catalog import hats
from apogee_batch.run.export import export
hats._verify = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
export(Path(sys.argv[1]), ["hats"])
"""


def test_what_a_killed_export_leaves_is_nothing_half_and_is_removed_by_the_next(tmp_path: Path) -> None:
    run = publish(sky_catalog(30), tmp_path / "run")
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(run)], env=os.environ, timeout=200, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    left = [path.name for path in (run / "export").iterdir()]
    assert len(left) == 1
    assert left[0].startswith(".hats.")
    export(run, ["hats"])
    assert [path.name for path in (run / "export").iterdir()] == ["hats"]


def test_describe_tells_of_the_folder_what_it_tells_of_the_published_file(exported: Exported) -> None:
    told, published = read_facts(exported.folder), read_facts(exported.run / "catalog" / "catalog.parquet")
    assert told.n_rows == published.n_rows - N_WITHOUT
    assert [(c.name, c.unit, c.ucd) for c in told.columns[1:]] == [
        (c.name, c.unit, c.ucd) for c in published.columns
    ]
    assert told.columns[0].name == INDEX
    assert told.remarks[1].startswith("margin cache apogee_10arcs (the default): 10.0 arcsec")
    assert told.origin["run_id"] == "0123abcd"
    assert sum(n for _, n in told.flag_counts) > 0
