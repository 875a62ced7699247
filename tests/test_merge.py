"""Parts are merged one after another: the catalogue is that of all rows together."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rows import label_rows, star_table

from apogee_batch.catalog import rows as catalog_rows
from apogee_batch.catalog.export import write_fits, write_parquet
from apogee_batch.catalog.fits_stream import add_words, encode_checksum
from apogee_batch.catalog.flags import mark_duplicates
from apogee_batch.catalog.merge import merge_parts, sky_positions
from apogee_batch.catalog.parts import build_part, write_part
from apogee_batch.catalog.rows import Summary, ascii_text, ascii_texts, rows_of
from apogee_batch.catalog.sky_order import in_sky_order
from apogee_batch.schema import catalog_flags

NAMES = [f"apogee.s.{i // 3}" + (f".visit{i % 3}" if i < 6 else f".{i}") for i in range(12)]
STARS = star_table(
    12,
    apstar_id=NAMES,
    apogee_id=["2M0", "2M0", "2M0", "2M1", "2M1", "2M0", "2M2", "2M2", "2M3", "2M4", "2M5", "2M5"],
    telescope=[None if i % 4 == 0 else f"Las  Campañas {i}" for i in range(12)],
)
ESTIMATE: dict[str, Any] = {"mean": np.full((12, 3), 4.0), "std": np.full((12, 3), 0.1)}
WHOLE = build_part(
    STARS,
    **ESTIMATE,
    clean=np.full((12, 3), 4.1),
    n_realizations=9,
    labels=label_rows(STARS, [1, 5]),
    label_range=None,
)
BIT = 1 << catalog_flags()["DUPLICATE"].bit


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return three parts, the second of them without stars, all with DUPLICATE set wrongly."""
    folder, paths = tmp_path_factory.mktemp("parts"), []
    for start, stop in ((0, 5), (5, 5), (5, 12)):
        stars = STARS.slice(start, stop - start)
        numbers = {name: values[start:stop] for name, values in ESTIMATE.items()}
        labels = label_rows(STARS, [1, 5])
        clean = np.full((stop - start, 3), 4.1)
        part = build_part(stars, **numbers, clean=clean, n_realizations=9, labels=labels, label_range=None)
        i = part.schema.get_field_index("flags")
        flags = pa.array(part["flags"].to_numpy() | BIT)
        paths.append(folder / f"{start}-{stop}.parquet")
        write_part(paths[-1], part.set_column(i, part.schema.field(i), flags))
    return paths


def test_duplicates_are_those_of_the_whole_catalogue(parts: list[Path]) -> None:
    merged = pa.concat_tables(merge_parts(parts[::-1]).pieces())
    expected = mark_duplicates(WHOLE.replace_schema_metadata(None))
    assert merged.equals(expected)
    is_duplicate = [bool(flags & BIT) for flags in merged["flags"].to_pylist()]
    assert is_duplicate == [True] * 3 + [False] * 2 + [True] * 3 + [False] * 2 + [True] * 2


def test_visits_of_one_file_are_no_duplicates(tmp_path: Path) -> None:
    write_part(
        tmp_path / "p",
        build_part(STARS.slice(0, 3), **_first(3), labels=label_rows(STARS, [1]), label_range=None),
    )
    flags = pa.concat_tables(merge_parts([tmp_path / "p"]).pieces())["flags"].to_pylist()
    assert not any(flag & BIT for flag in flags)


def _first(n_stars: int) -> dict[str, Any]:
    estimates = {name: values[:n_stars] for name, values in ESTIMATE.items()}
    return {**estimates, "clean": np.full((n_stars, 3), 4.1), "n_realizations": 9}


def test_names_of_one_hash_are_told_apart(parts: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = pa.concat_tables(merge_parts(parts).pieces())

    def collide(texts: Any) -> Any:
        return np.fromiter((len(text) % 3 for text in texts.to_pylist()), np.int64, len(texts))

    monkeypatch.setattr("apogee_batch.catalog.merge._hash", collide)
    merged = pa.concat_tables(merge_parts(parts).pieces())
    assert merged["apstar_id"].equals(expected["apstar_id"])
    found = np.array(merged["flags"].to_pylist()) & BIT
    assert set(np.flatnonzero(found)) <= set(np.flatnonzero(np.array(expected["flags"].to_pylist()) & BIT))


@pytest.mark.parametrize("piece_rows", [1, 4, 5, 12, 100])
def test_pieces_have_one_length_whatever_the_parts(
    piece_rows: int, parts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_rows, "PIECE_ROWS", piece_rows)
    merged = merge_parts(parts)
    lengths = [len(piece) for piece in merged.pieces()]
    assert lengths == [piece_rows] * (12 // piece_rows) + ([12 % piece_rows] if 12 % piece_rows else [])
    assert pa.concat_tables(merged.pieces()).equals(pa.concat_tables(merged.read()))


@pytest.mark.parametrize("piece_rows", [1, 5, 100])
def test_the_fits_file_is_the_same_whatever_the_pieces(
    piece_rows: int, parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows_of(pa.concat_tables(merge_parts(parts).pieces()))
    write_fits(whole, tmp_path / "whole.fits", metadata={})
    monkeypatch.setattr(catalog_rows, "PIECE_ROWS", piece_rows)
    digest = write_fits(merge_parts(parts), tmp_path / "pieces.fits", metadata={})
    content = (tmp_path / "pieces.fits").read_bytes()
    assert content == (tmp_path / "whole.fits").read_bytes()
    assert digest.size == len(content)
    with fits.open(tmp_path / "pieces.fits", checksum=True) as hdus:  # a wrong sum is a warning, so an error
        hdus.verify("exception")
        assert hdus[1].data["apstar_id"].tolist() == NAMES
        assert hdus[1].data["telescope"][1] == "Las Campa\\xf1as 1"
        assert np.isnan(hdus[1].data["teff_label"][0])


def test_the_parquet_file_is_the_same_whatever_the_parts(parts: list[Path], tmp_path: Path) -> None:
    whole = write_parquet(pa.concat_tables(merge_parts(parts).pieces()), tmp_path / "a", metadata={})
    merged = write_parquet(merge_parts(parts), tmp_path / "b", metadata={})
    assert merged.sha256 == whole.sha256


def test_parts_that_describe_a_column_in_other_words_give_the_same_files(
    parts: list[Path], tmp_path: Path
) -> None:
    """As those of a run that was begun with an older version, and goes on with this one."""
    table = pq.read_table(parts[0])
    for name, text in (("ra", "Right ascension, J2000"), ("dec", "Declination, J2000")):
        i = table.schema.get_field_index(name)
        field = table.schema.field(name)
        table = table.set_column(i, field.with_metadata(field.metadata | {b"description": text}), table[name])
    pq.write_table(table, tmp_path / "old.parquet")
    old = [tmp_path / "old.parquet", *parts[1:]]
    for write in (write_parquet, write_fits):
        digests = []
        for paths in (parts, old):
            with in_sky_order(merge_parts(paths), sky_positions(paths), staging=tmp_path) as rows:
                digests.append(write(rows, tmp_path / "c", metadata={}).sha256)
        assert digests[0] == digests[1], write


def test_positions_are_read_by_store_row_whatever_the_order_of_the_parts(parts: list[Path]) -> None:
    positions = pa.concat_tables(sky_positions(parts[::-1]))
    assert positions.to_pydict() == WHOLE.select(["ra", "dec"]).to_pydict()


TEXTS = st.lists(st.none() | st.text(max_size=8), max_size=6)


@given(TEXTS)
@settings(deadline=None, max_examples=60)
def test_a_summary_of_pieces_is_that_of_the_whole(texts: list[str | None]) -> None:
    table = pa.table({"x": pa.array(texts, pa.string()), "y": pa.array([1.0] * len(texts))})
    whole, pieces = Summary(), Summary()
    whole.add(table)
    for i in range(len(texts)):
        pieces.add(table.slice(i, 1))
    if texts:
        assert pieces == whole
    escaped = [ascii_text(text or "") for text in texts]
    assert ascii_texts(table["x"]).to_pylist() == escaped
    assert whole.fits_widths.get("x", 1) >= max(map(len, escaped), default=1)


@given(st.integers(0, (1 << 32) - 1))
@settings(deadline=None, max_examples=200)
def test_an_encoded_checksum_adds_up_to_its_value(value: int) -> None:
    text = encode_checksum(value)
    assert text.isalnum()
    assert text.isascii()
    codes = text[1:] + text[:1]  # it stands one byte further in its card
    zeros = int.from_bytes(b"0000", "big")
    words = np.frombuffer(codes.encode(), ">u4").astype(object) - zeros
    assert add_words(int(sum(words)), b"") in (value, value or (1 << 32) - 1)
