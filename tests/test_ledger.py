"""The ledger trusts bytes, not names."""

from pathlib import Path

import pytest

from apogee_batch.errors import IntegrityError
from apogee_batch.run.ledger import Ledger, ShardReport, describe_file


def report(base: Path, shard: int, content: bytes) -> ShardReport:
    path = base / f"part-{shard}"
    path.write_bytes(content)
    return ShardReport(shard, 5, 4, 1, (describe_file(path, base),), 0.5, "host", {"device": "cpu"})


def test_what_is_committed_comes_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", tmp_path, "key")
    reports = [report(tmp_path, shard, bytes([shard])) for shard in (3, 0)]
    for entry in reports:
        ledger.commit(entry)
    assert ledger.entries() == reports[::-1]
    assert set(ledger.done()) == {0, 3}


def test_a_missing_or_changed_file_is_not_done(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", tmp_path, "key")
    for shard in range(3):
        ledger.commit(report(tmp_path, shard, b"abc"))
    (tmp_path / "part-0").unlink()
    (tmp_path / "part-1").write_bytes(b"abd")
    assert set(ledger.done()) == {2}
    assert set(ledger.done(check_bytes=False)) == {1, 2}
    (tmp_path / "part-2").write_bytes(b"ab")
    assert set(ledger.done(check_bytes=False)) == {1}


def test_entries_of_another_key_do_not_count(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger", tmp_path, "one").commit(report(tmp_path, 0, b"x"))
    assert Ledger(tmp_path / "ledger", tmp_path, "other").done() == {}


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    (tmp_path / "00000.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"00000\.json: damaged ledger entry"):
        Ledger(tmp_path, tmp_path, "key").entries()
