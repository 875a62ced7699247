"""The script that compares fetched files with the checksums of the archive, and the way to `ingest`."""

import functools
import hashlib
import http.server
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from apogee_batch.run.fetch_list import FetchSettings, write_fetch_list
from apogee_batch.survey.allstar import match_allstar, read_allstar
from apogee_batch.survey.simulate import SimulatedSurvey, simulate_survey
from apogee_batch.survey.sources import find_apstar_files

N_STARS = 8


@pytest.fixture(scope="module")
def small_survey(tmp_path_factory: pytest.TempPathFactory) -> SimulatedSurvey:
    return simulate_survey(tmp_path_factory.mktemp("small") / "survey", n_stars=N_STARS, seed=5)


@pytest.fixture
def archive(tmp_path: Path, small_survey: SimulatedSurvey) -> Path:
    """A folder as a release of the archive has it, with a file of checksums in each folder."""
    root = tmp_path / "archive"
    shutil.copytree(small_survey.allstar.parent / "redux", root / "apogee/spectro/redux")
    for folder in (root / "apogee/spectro/redux/r8/stars/apo25m").iterdir():
        write_sums(folder)
    return root


def write_sums(folder: Path) -> None:
    lines = [f"{sha1(path)}  {path.name}\n" for path in sorted(folder.glob("apStar-*"))]
    (folder / f"r8_stars_apo25m_{folder.name}.sha1sum").write_text("".join(lines))


def sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@pytest.fixture
def lists(tmp_path: Path, small_survey: SimulatedSurvey) -> Path:
    write_fetch_list(small_survey.allstar, tmp_path / "lists", FetchSettings())
    return tmp_path / "lists"


def fetch(archive: Path, lists: Path) -> list[Path]:
    """Copy what a list names into the folder of the spectra, as rsync would; return the stars."""
    names = (lists / "rsync.txt").read_text().splitlines()
    for name in names:
        target = lists / "spectra" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(archive / name, target)
    return [lists / "spectra" / name for name in names if name.endswith(".fits")]


def check(lists: Path, *folder: str) -> tuple[int, str]:
    done = subprocess.run(
        ["sh", str(lists / "check.sh"), *folder], check=False, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


def names_in(path: Path) -> list[str]:
    return [Path(line).name for line in path.read_text().splitlines()]


def test_files_as_the_archive_has_them_pass(archive: Path, lists: Path) -> None:
    fetch(archive, lists)
    code, said = check(lists)
    assert said == f"{N_STARS} as the archive has them, 0 damaged, 0 missing, 0 without a checksum\n"
    assert code == 0
    assert check(lists, str(lists / "spectra")) == (code, said)


def test_one_changed_byte_is_found(archive: Path, lists: Path) -> None:
    path = fetch(archive, lists)[3]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, said = check(lists)
    assert code == 1
    assert f"{N_STARS - 1} as the archive has them, 1 damaged" in said
    assert "damaged: delete the files" in said
    assert names_in(lists / "damaged.txt") == [path.name]


def test_a_file_that_is_not_there_is_missing(archive: Path, lists: Path) -> None:
    path = fetch(archive, lists)[0]
    path.unlink()
    code, said = check(lists)
    assert (code, names_in(lists / "missing.txt")) == (1, [path.name])
    assert "1 missing" in said


def test_a_dated_name_in_the_checksums_stands_for_the_plain_one(archive: Path, lists: Path) -> None:
    path = fetch(archive, lists)[2]
    (sums,) = path.parent.glob("*.sha1sum")
    dated = path.name.replace(".fits", "-56123.fits")
    sums.write_text(sums.read_text().replace(f"  {path.name}", f" *./folder/{dated}"))
    assert check(lists) == (
        0,
        f"{N_STARS} as the archive has them, 0 damaged, 0 missing, 0 without a checksum\n",
    )
    path.write_bytes(b"another")
    assert check(lists)[0] == 1
    assert names_in(lists / "damaged.txt") == [path.name]


def test_two_dated_names_that_differ_decide_nothing(archive: Path, lists: Path) -> None:
    path = fetch(archive, lists)[2]
    (sums,) = path.parent.glob("*.sha1sum")
    dated = [path.name.replace(".fits", f"-5612{day}.fits") for day in (3, 4)]
    others = [line for line in sums.read_text().splitlines(keepends=True) if path.name not in line]
    sums.write_text("".join(others) + f"{sha1(path)}  {dated[0]}\n{'0' * 40}  {dated[1]}\n")
    code, said = check(lists)
    assert (code, names_in(lists / "unchecked.txt")) == (0, [path.name])
    assert "1 without a checksum" in said


def test_without_any_checksum_nothing_is_said_to_be_right(archive: Path, lists: Path) -> None:
    for path in fetch(archive, lists):
        for sums in path.parent.glob("*.sha1sum"):
            sums.write_text("<html>moved</html>\n")
    code, said = check(lists)
    assert (code, len(names_in(lists / "unchecked.txt"))) == (1, N_STARS)
    assert "no file could be compared" in said


def test_a_folder_that_is_not_there_is_an_error(lists: Path) -> None:
    code, said = check(lists, "/nowhere/at all")
    assert code == 1
    assert said == "error: /nowhere/at all: no such folder; name the one that the files were fetched into\n"


def test_ingest_finds_the_row_of_every_fetched_file(
    archive: Path, lists: Path, small_survey: SimulatedSurvey
) -> None:
    fetch(archive, lists)
    files = find_apstar_files([str(lists / "spectra")])
    found = match_allstar(read_allstar(small_survey.allstar), files)
    assert (found.n_found, found.n_missing, found.n_extra, found.n_duplicate) == (N_STARS, 0, 0, 0)


@pytest.fixture
def server(archive: Path) -> Iterator[str]:
    """The archive behind an address of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(archive.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/archive"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"no {name} here"))
        for name in ("wget", "rsync")
    ],
)
def test_the_printed_commands_do_what_they_say(
    program: str, archive: Path, server: str, small_survey: SimulatedSurvey, tmp_path: Path
) -> None:
    settings = FetchSettings(form=program, base_urls=(server,) if program == "wget" else ())
    lines = write_fetch_list(small_survey.allstar, tmp_path / "a b", settings)
    commands = [
        line.strip() for line in lines if line.startswith("  ") and shlex.split(line)[0] in (program, "sh")
    ]
    if program == "rsync":  # a folder in the place of the archive's address
        commands[0] = commands[0].replace("rsync://dtn.sdss.org/dr14/", f"{shlex.quote(str(archive))}/")
    for command in commands:
        done = subprocess.run(
            ["sh", "-c", command], check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{N_STARS} as the archive has them, 0 damaged, 0 missing")
    files = find_apstar_files([str(tmp_path / "a b/spectra")])
    assert match_allstar(read_allstar(small_survey.allstar), files).n_found == N_STARS
