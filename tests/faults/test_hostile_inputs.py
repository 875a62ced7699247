"""Names, files and folders that somebody made to do harm: nothing waits, nothing runs, nothing is trusted."""

import os
import pickle
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from malformed import good_file, with_objid
from spectrum_checks import write
from strategies import NAME, packed

from apogee_batch.errors import ApogeeBatchError, IntegrityError, RejectReason, UsageError
from apogee_batch.files import sha256_of_file, write_json
from apogee_batch.network.checkpoint import HEADER_FILE, MODEL_FILE, load_checkpoint
from apogee_batch.network.official import import_official
from apogee_batch.survey.apstar import RejectedSpectrum, Star, count_spectra, read_apstar_file
from apogee_batch.survey.identity import is_identifier
from apogee_batch.survey.sources import find_apstar_files
from apogee_batch.survey.spectrum import UNKNOWN_STAR

pytestmark = pytest.mark.timeout(30)  # a test that waits for a pipe fails instead

HOSTILE_NAMES = {
    "climbing": "../../x",
    "absolute": "/etc/passwd",
    "dots": "..",
    "inner dots": "2M..x",
    "null": "2M0\0",
    "newline": "2M00000032+5737103\n",
    "carriage return": "2M0\r",
    "markup": "<script>alert(1)</script>",
    "quote": '2M"onload="x',
    "option": "-rf",
    "endless": "2" * 10_240,
    "digits of Arabic": "2M\u0661\u0662+\u0663",
    "look-alike": "2\u041c00000032+5737103",  # a Cyrillic letter
    "right to left": "2M\u202e123",
    "terminal": "\x1b]0;owned\x07\x1b[2J",
    "shell": "$(touch owned)",
    "spaces": "2M 1",
    "formula": "=1+1",
    "surrogate": "2M\udcff",
}
NAMES = pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=list(HOSTILE_NAMES))
CARD_TEXT = 66  # what is left of a card beside its keyword and quotes


def reject(path: Path, known: Star | None = None) -> RejectedSpectrum:
    result, _ = read_apstar_file(path, known=known)
    assert isinstance(result, RejectedSpectrum)
    assert result.apogee_id is None or is_identifier(result.apogee_id)
    assert result.text.isprintable()
    return result


@NAMES
def test_a_hostile_name_in_a_header_is_a_reason(tmp_path: Path, name: str) -> None:
    if len(name) > CARD_TEXT:
        name = name[:CARD_TEXT] + "/"
    text = name.encode("utf-8", "surrogateescape").decode("latin-1").replace("'", "''")
    content = good_file(1)
    place = content.index(b"OBJID   =")
    card = f"OBJID   = '{text}'".encode("latin-1").ljust(80)[:80]
    content = content[:place] + card + content[place + 80 :]
    if is_identifier(name.strip()):  # blanks at the end of a card are padding, and line breaks are blanks
        result, _ = read_apstar_file(write(tmp_path, content))
        assert isinstance(result, list)
        assert result[0].star.apogee_id == name.strip()
        return
    for whole in (content, packed(content)):
        assert reject(write(tmp_path, whole)).reason is RejectReason.BAD_ID


@NAMES
@pytest.mark.parametrize("column", ["apogee_id", "apstar_id", "telescope", "field"])
def test_a_hostile_name_in_a_summary_table_is_a_reason(tmp_path: Path, name: str, column: str) -> None:
    known = replace(UNKNOWN_STAR, **{column: name})  # type: ignore[arg-type]
    assert reject(write(tmp_path, good_file(1)), known).reason is RejectReason.BAD_ID


def test_a_summary_table_that_is_silent_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, good_file(1))
    result, _ = read_apstar_file(path, known=replace(UNKNOWN_STAR, apogee_id=""))
    assert isinstance(result, list)
    empty = write(tmp_path, with_objid("", good_file(1)), "spectrum.fits")
    assert reject(empty).reason is RejectReason.BAD_ID  # neither card nor file name


@NAMES
def test_a_hostile_file_name_is_read_by_its_header_or_a_reason(tmp_path: Path, name: str) -> None:
    name = f"apStar-r8-{name.replace('/', '_')[:200]}.fits"
    path = tmp_path / name
    if "\0" in name:
        assert reject(path).reason is RejectReason.UNREADABLE
        assert count_spectra(path, rows="visits") == 1
        return
    path = write(tmp_path, good_file(1), name)
    assert find_apstar_files([str(tmp_path)]) == [path]
    result, _ = read_apstar_file(path)
    assert isinstance(result, list)
    star = result[0].star
    assert all(is_identifier(text) for text in (star.apogee_id, star.apstar_id, star.telescope, star.field))
    path.write_bytes(with_objid("", good_file(1)))  # now the file name alone says which star it is
    result, _ = read_apstar_file(path)
    if isinstance(result, RejectedSpectrum):
        assert reject(path).reason is RejectReason.BAD_ID
    else:
        assert all(is_identifier(text) for text in (result[0].star.apogee_id, result[0].star.apstar_id))


@NAMES
def test_a_source_of_a_hostile_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    write(folder, good_file(1))
    monkeypatch.chdir(folder)
    for source in (name, f"@{name}", f"{name}/*.fits", f"~{name}/x", f"{name}.txt"):
        if source in ("..", "/etc/passwd"):
            continue  # an ordinary folder, and an ordinary file that is none of FITS
        try:
            found = find_apstar_files([source])
        except UsageError:
            continue
        assert all(path.name == NAME for path in found)


@NAMES
def test_a_hostile_line_of_a_list_is_refused_or_a_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(f"{name}\n".encode("utf-8", "surrogateescape"))
    try:
        found = find_apstar_files([str(path)])
    except UsageError:
        return
    assert all(os.path.lexists(named) for named in found)


@pytest.mark.fault
def test_a_hundred_thousand_files_in_one_folder_are_found(tmp_path: Path) -> None:
    for i in range(100_000):
        os.close(os.open(f"{tmp_path}/apStar-r8-2M{i:08d}+0000000.fits", os.O_CREAT | os.O_WRONLY))
    found = find_apstar_files([str(tmp_path)])
    assert len(found) == 100_000
    assert found[0].name == "apStar-r8-2M00000000+0000000.fits"
    assert found == sorted(found)


def test_links_that_lead_nowhere_are_left_to_the_reader(tmp_path: Path) -> None:
    good = write(tmp_path, good_file(1), "apStar-r8-A.fits")
    (tmp_path / "apStar-r8-B.fits").symlink_to("apStar-r8-B.fits")
    (tmp_path / "apStar-r8-C.fits").symlink_to("apStar-r8-D.fits")
    (tmp_path / "apStar-r8-D.fits").symlink_to("apStar-r8-C.fits")
    (tmp_path / "apStar-r8-E.fits").symlink_to("nowhere")
    (tmp_path / "apStar-r8-F.fits").symlink_to(tmp_path)
    deep = tmp_path / "deep"
    deep.mkdir()
    (deep / "up").symlink_to(tmp_path)
    for source in (tmp_path, f"{tmp_path}/**/*.fits", f"{tmp_path}/*.fits"):
        names = [path.name for path in find_apstar_files([str(source)])]
        assert names[:5] == [f"apStar-r8-{letter}.fits" for letter in "ABCDE"]
        assert len(names) == 5
    for path in find_apstar_files([str(tmp_path)])[1:]:
        assert reject(path).reason is RejectReason.UNREADABLE
    assert find_apstar_files([str(deep / "up" / "deep" / "up" / good.name)])
    for source in ("apStar-r8-B.fits/x", "loop/*"):
        (tmp_path / "loop").unlink(missing_ok=True)
        (tmp_path / "loop").symlink_to("loop")
        with pytest.raises(UsageError):
            find_apstar_files([str(tmp_path / source)])


@contextmanager
def socket_at(path: Path) -> Iterator[None]:
    """Listen at a path."""
    here = os.open(".", os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)  # a socket's path must be short
        try:
            server.bind(path.name)
        finally:
            os.fchdir(here)
            os.close(here)
        yield


def test_pipes_sockets_and_devices_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "apStar-r8-A.fits")
    (tmp_path / "apStar-r8-B.fits").symlink_to("/dev/zero")
    (tmp_path / "apStar-r8-C.fits").symlink_to("/dev/stdin")
    (tmp_path / "deep.fits").mkdir()
    os.mkfifo(tmp_path / "list.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    with socket_at(tmp_path / "apStar-r8-D.fits"):
        paths = find_apstar_files([str(tmp_path)])
        assert len(paths) == 4
        for path in [*paths, Path("/dev/zero"), Path("/dev/tty"), tmp_path / "deep.fits"]:
            if stat.S_ISREG(path.stat().st_mode if path.exists() else 0):
                continue  # the standard input of a test may be anything
            assert reject(path).reason is RejectReason.UNREADABLE
            assert count_spectra(path, rows="visits") == 1
        monkeypatch.chdir(tmp_path)
        for source in ("list.txt", "@list.txt", "zero.txt"):
            with pytest.raises(UsageError, match="not a regular file"):
                find_apstar_files([source])


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can enter, used by somebody who is not root."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
        os.seteuid(user)


def become_nobody() -> None:
    """Give up the rights of root, who may read everything, until the fixture takes them back."""
    if os.geteuid() == 0:
        os.seteuid(65534)


def test_what_may_not_be_read_is_unreadable(open_folder: Path) -> None:
    path = write(open_folder, good_file(1))
    path.chmod(0)
    become_nobody()
    rejected = reject(path)
    assert (rejected.reason, rejected.text) == (RejectReason.UNREADABLE, "Permission denied")
    assert rejected.apogee_id == "2M19390532+4027346"


def test_a_folder_that_may_not_be_listed_is_named(open_folder: Path) -> None:
    write(open_folder, good_file(1))
    closed = open_folder / "closed"
    closed.mkdir()
    write(closed, good_file(1))
    closed.chmod(0)
    become_nobody()
    try:
        for source in (open_folder, closed, f"{open_folder}/**/*.fits"):
            with pytest.raises(UsageError, match=r"closed: cannot be listed \(Permission denied\)"):
                find_apstar_files([str(source)])
        for source in (closed / NAME, f"{closed}/*.fits"):
            with pytest.raises(UsageError, match=r"no such file|no file matches"):
                find_apstar_files([str(source)])
    finally:
        os.seteuid(os.getuid())
        closed.chmod(0o755)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def malicious_files(folder: Path, canary: Path) -> list[Path]:
    """Write files that run code when they are unpickled, in every form that torch knows."""
    payload = Payload(canary)
    torch.save(payload, folder / "new.pt")
    torch.save(payload, folder / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"conv1.weight": torch.zeros(3), "evil": payload}, folder / "dict.pt")
    (folder / "raw.pt").write_bytes(pickle.dumps(payload))
    (folder / "protocol0.pt").write_bytes(pickle.dumps(payload, protocol=0))
    (folder / "model.tar").write_bytes(pickle.dumps({"state_dict": payload}))
    return [*sorted(folder.glob("*.pt")), folder / "model.tar"]


def test_the_payload_would_run(tmp_path: Path) -> None:
    for number, path in enumerate(malicious_files(tmp_path, tmp_path / "canary")):
        torch.load(path, weights_only=False) if number < 3 else pickle.loads(path.read_bytes())
        (tmp_path / "canary").rmdir()


def test_a_malicious_state_dict_is_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for path in malicious_files(tmp_path, canary):
        with pytest.raises(UsageError, match="not a torch file of weights only"):
            import_official(path, tmp_path / "model")
        assert not canary.exists()
        assert not (tmp_path / "model").exists()


def test_a_pickle_that_is_called_safetensors_is_not_run(tmp_path: Path) -> None:
    canary, model = tmp_path / "canary", tmp_path / "model"
    model.mkdir()
    for path in malicious_files(tmp_path, canary):
        (model / MODEL_FILE).write_bytes(path.read_bytes())
        (model / HEADER_FILE).write_bytes(path.read_bytes())
        with pytest.raises(IntegrityError, match="damaged"):
            load_checkpoint(model)
        header = {"header": {}, "weights_sha256": sha256_of_file(model / MODEL_FILE), "sha256": "0"}
        write_json(model / HEADER_FILE, header)  # its hash is right
        with pytest.raises(ApogeeBatchError):
            load_checkpoint(model)
        assert not canary.exists()
