"""The ledger trusts bytes, not names."""

from pathlib import Path

import pytest

from apogee_batch.files import write_bytes
from apogee_batch.run.ledger import Ledger, ShardReport, WrittenFile, find_damage, relative_digest


def report(base: Path, shard: int, content: bytes) -> ShardReport:
    written = write_bytes(base / f"part-{shard}", content)
    return ShardReport(shard, 5, 4, 1, (relative_digest(written, base),), 0.5, "host", {"device": "cpu"})


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


def damage(path: Path, how: str) -> None:
    text = path.read_text()
    changed = {
        "cut": text[:-10],
        "emptied": "",
        "changed": text.replace('"n_stars": 4', '"n_stars": 5'),
        "key": text.replace('"key": "key"', '"key": "kez"'),
        "another's": path.with_name("00000.json").read_text(),
        "no object": "[]",
    }
    path.write_text(changed[how])


@pytest.mark.parametrize("how", ["cut", "emptied", "changed", "key", "another's", "no object"])
def test_a_damaged_entry_counts_as_none_and_is_named(tmp_path: Path, how: str) -> None:
    ledger = Ledger(tmp_path / "ledger", tmp_path, "key")
    for shard in (0, 1):
        ledger.commit(report(tmp_path, shard, b"x"))
    assert ledger.damaged() == []
    damage(tmp_path / "ledger" / "00001.json", how)
    assert set(ledger.done()) == {0}
    assert ledger.entry(1) is None
    assert ledger.damaged() == [tmp_path / "ledger" / "00001.json"]


def test_one_entry_is_read_alone(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", tmp_path, "key")
    ledger.commit(report(tmp_path, 7, b"x"))
    found = ledger.entry(7)
    assert found is not None
    assert found.n_stars == 4
    assert ledger.entry(8) is None
    assert Ledger(tmp_path / "ledger", tmp_path, "other").entry(7) is None


def test_the_damage_of_a_file_is_told(tmp_path: Path) -> None:
    written = relative_digest(write_bytes(tmp_path / "a", b"abc"), tmp_path)
    assert find_damage(written, tmp_path) is None
    (tmp_path / "a").write_bytes(b"abd")
    assert find_damage(written, tmp_path) == "has other bytes than were written"
    assert find_damage(written, tmp_path, check_bytes=False) is None
    (tmp_path / "a").write_bytes(b"ab")
    assert find_damage(written, tmp_path) == "has 2 bytes, not 3"
    assert find_damage(WrittenFile("b", 0, ""), tmp_path) == "is missing"


def test_what_is_to_be_done_again_is_said(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", tmp_path, "key")
    for shard in range(4):
        ledger.commit(report(tmp_path, shard, b"abc"))
    assert ledger.problems(ledger.done()) == []
    (tmp_path / "part-1").write_bytes(b"abd")
    (tmp_path / "part-2").unlink()
    damage(tmp_path / "ledger" / "00003.json", "cut")
    assert ledger.problems(ledger.done()) == [
        f"{tmp_path / 'ledger' / '00003.json'}: damaged ledger entry",
        f"{tmp_path / 'part-1'}: has other bytes than were written",
        f"{tmp_path / 'part-2'}: is missing",
    ]
