"""Files are whole or absent."""

from pathlib import Path

import pytest

from apogee_batch.files import (
    canonical_json,
    read_json,
    replace_on_success,
    sha256_of_file,
    sha256_of_text,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with replace_on_success(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_two_writers_at_once_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replace_on_success(path) as first, replace_on_success(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"


def test_the_temporary_file_can_lie_in_another_folder(tmp_path: Path) -> None:
    with replace_on_success(tmp_path / "clean" / "a", staging=tmp_path / "staging") as temporary:
        temporary.write_text("x")
        assert not (tmp_path / "clean" / "a").exists()
        assert list((tmp_path / "clean").iterdir()) == []
    assert (tmp_path / "clean" / "a").read_text() == "x"


def test_canonical_json_does_not_depend_on_order_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": [1.5, None]}) == canonical_json({"a": [1.5, None], "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_json_comes_back_as_it_went(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, "é"], "b": {"c": None}}
    write_json(tmp_path / "deep" / "v.json", value)
    assert read_json(tmp_path / "deep" / "v.json") == value


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"x" * 3_000_001)
    assert sha256_of_file(tmp_path / "t") == sha256_of_text("x" * 3_000_001)
