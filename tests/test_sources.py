"""Which files a user's sources name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apogee_batch.errors import UsageError
from apogee_batch.survey.sources import find_apstar_files, find_source_files

Tree = Callable[..., list[Path]]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make files and return their paths."""

    def make(*names: str) -> list[Path]:
        paths = [tmp_path / name for name in names]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        return paths

    return make


def test_a_folder_gives_its_apstar_files_however_deep(tmp_path: Path, tree: Tree) -> None:
    wanted = tree(
        "apo25m/1/apStar-r8-A.fits",
        "apo25m/2/apStarC-r8-A.fits.gz",
        "b/c/d/e/f/apStar-dr17-B.fits",
        "lco25m/x/asStar-r12-A.fits",
    )
    tree("apo25m/1/apVisit-r8-1.fits", "apo25m/1/apStar-r8-A.png", "allStar.fits", "b/.apStar-r8-A.fits.Xy12")
    assert find_apstar_files([str(tmp_path)]) == wanted


def test_a_file_is_taken_whatever_its_name(tree: Tree) -> None:
    (path,) = tree("spectrum.dat")
    assert find_apstar_files([str(path)]) == [path]


def test_a_link_to_a_parent_is_no_trap(tmp_path: Path, tree: Tree) -> None:
    wanted = tree("a/apStar-r8-A.fits", "a/b/apStar-r8-B.fits")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "apStar-r8-C.fits").symlink_to(tmp_path)  # named as a file, and a folder
    assert find_apstar_files([str(tmp_path)]) == wanted
    assert find_apstar_files([f"{tmp_path}/**/*.fits"]) == wanted


def test_a_link_that_the_user_names_is_followed(tmp_path: Path, tree: Tree) -> None:
    tree("real/apStar-r8-A.fits")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert find_apstar_files([str(tmp_path / "link")]) == [tmp_path / "link" / "apStar-r8-A.fits"]


def test_a_file_that_several_sources_give_is_taken_once(
    tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = tree("a/apStar-r8-A.fits")
    (tmp_path / "a" / "apStar-r8-B.fits").symlink_to(path)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    assert find_apstar_files(["a", str(path), "link/*.fits", "./a/../a/apStar-r8-A.fits"]) == [path]


def test_files_are_sorted_as_paths_are(tmp_path: Path, tree: Tree) -> None:
    paths = tree(
        *(f"{folder}/apStar-r8-{name}.fits" for folder in ("a", "a-b", "a/b", "A", "é") for name in "ZYa")
    )
    assert find_apstar_files([str(tmp_path)]) == sorted(paths)
    assert find_apstar_files([*map(str, reversed(paths))]) == sorted(paths)


def test_a_line_break_in_a_name_hides_no_file(tmp_path: Path, tree: Tree) -> None:
    renamed = tree("renamed\n.fits")
    assert find_apstar_files([str(tmp_path)]) == renamed
    wanted = tree("apStar-r8-A\n.fits", "apStar-r8-B.fits")
    assert find_apstar_files([str(tmp_path)]) == wanted


def test_a_listed_file_is_not_asked_for_again(
    tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = tree(*(f"a/apStar-r8-{letter}.fits" for letter in "ABCDEFGH"))
    asked: list[str] = []
    original = os.lstat

    def noting(path: str, **options: Any) -> os.stat_result:
        asked.append(str(path))
        return original(path, **options)

    monkeypatch.setattr(os, "lstat", noting)
    assert find_apstar_files([str(tmp_path)]) == wanted
    assert not [path for path in asked if path.endswith(".fits")]


def test_what_is_no_regular_file_is_left_to_the_reader(tmp_path: Path, tree: Tree) -> None:
    (wanted,) = tree("apStar-r8-A.fits")
    os.mkfifo(tmp_path / "apStar-r8-B.fits")
    (tmp_path / "apStar-r8-C.fits").symlink_to("nowhere")
    names = [path.name for path in find_apstar_files([str(tmp_path)])]
    assert names == [wanted.name, "apStar-r8-B.fits", "apStar-r8-C.fits"]


def test_patterns_match_as_in_a_shell(tmp_path: Path, tree: Tree) -> None:
    a, b, c, d = tree("1/x.fits", "1/2/x.fits", "1/2/3/y.fits", "1/.hidden/x.fits")
    assert find_apstar_files([f"{tmp_path}/*/x.fits"]) == [a]
    assert find_apstar_files([f"{tmp_path}/**/x.fits"]) == sorted([a, b])
    assert find_apstar_files([f"{tmp_path}/1/**"]) == sorted([a, b, c])
    assert find_apstar_files([f"{tmp_path}/1/**/3/[xy].fits"]) == [c]
    assert find_apstar_files([f"{tmp_path}/**/.hidden/*.fits"]) == [d]


def test_a_pattern_may_match_folders(tmp_path: Path, tree: Tree) -> None:
    wanted = tree("41/apStar-r8-A.fits", "42/apStar-r8-B.fits")
    tree("42/notes.md", "51/apStar-r8-C.fits")
    assert find_apstar_files([f"{tmp_path}/4?"]) == wanted


def test_a_file_may_have_the_name_of_a_pattern(tree: Tree) -> None:
    (path,) = tree("a[1].fits")
    assert find_apstar_files([str(path)]) == [path]


@pytest.mark.parametrize("name", ["list.txt", "stars.LST", "@list"])
def test_a_list_names_paths_relative_to_itself(tmp_path: Path, tree: Tree, name: str) -> None:
    a, b, c = tree("sub/x.fits", "sub/y z.fits", "sub/deep/apStar-r8-A.fits")
    path = tmp_path / "sub" / name.removeprefix("@")
    path.write_text(f"\ufeff# stars\r\n\r\nx.fits\n  y z.fits  \n{a}\ndeep\n", encoding="utf-8")
    mark = "@" if name.startswith("@") else ""
    assert find_apstar_files([f"{mark}{path}"]) == sorted([a, b, c])


@given(st.permutations(range(6)), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_order_and_repetition_of_sources_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], n_sources: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "order"
    folder.mkdir(exist_ok=True)
    paths = [folder / f"apStar-r8-{i}.fits" for i in range(6)]
    for path in paths:
        path.touch()
    named = [str(paths[i]) for i in order[:n_sources]]
    found = find_apstar_files([*named, *reversed(named)])
    assert found == sorted(Path(name) for name in named)
    assert find_apstar_files([*named, str(folder)]) == paths


def test_a_folder_without_apstar_names_gives_its_fits_files(tmp_path: Path) -> None:
    for name in ("star1.fits", "deep/star2.fits.gz", "notes.txt", "star3.fits.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_apstar_files([str(tmp_path)])
    assert [path.name for path in found] == ["star2.fits.gz", "star1.fits"]
    (tmp_path / "apStar-r8-1.fits").touch()
    assert [path.name for path in find_apstar_files([str(tmp_path)])] == ["apStar-r8-1.fits"]


def test_fits_files_that_a_folder_leaves_out_are_told(tmp_path: Path, tree: Tree) -> None:
    wanted = tree("deep/apStar-r8-A.fits", "deep/apStar-r8-B.fits")
    first, second, named = tree("2M15010818+2250020.fits", "deep/my_giant.FITS", "z.fits.gz")
    (tmp_path / "copy.fits").symlink_to(wanted[0])  # the same file again is not left out
    found = find_source_files([str(tmp_path), str(named)])
    assert (found.files, found.left_out) == ([*wanted, named], [first, second])
    (said,) = found.describe_left_out()
    assert f"left out: 2 FITS files not named as apStar files are, the first is {first}" in said
    second.unlink()
    (said,) = find_source_files([str(tmp_path), str(named)]).describe_left_out()
    assert said == f"left out: 1 FITS file not named as apStar files are: {first}; name it to take it"


def test_a_pattern_and_a_list_tell_what_their_folders_leave_out(tmp_path: Path, tree: Tree) -> None:
    tree("41/apStar-r8-A.fits")
    others = tree("41/x.fits", "42/y.fits")  # in 42 nothing is named as apStar files are
    assert find_source_files([f"{tmp_path}/4?"]).left_out == others
    (tmp_path / "stars.txt").write_text("41\n")
    assert find_source_files([str(tmp_path / "stars.txt")]).left_out == others[:1]


def test_where_all_fits_files_are_taken_none_is_left_out(tmp_path: Path, tree: Tree) -> None:
    wanted = tree("a.fits", "b.FITS")
    found = find_source_files([str(tmp_path)])
    assert (found.files, found.left_out, found.describe_left_out()) == (wanted, [], [])
    renamed = tree("apStar-r8-A.FITS", "apStar-r8-B.Fits.GZ")
    assert find_apstar_files([str(tmp_path)]) == renamed


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("absent", "no such file or folder"),
        ("empty", "no file named apStar"),
        ("*.nothing", "no file matches"),
        ("absent/**/*.fits", "no file matches"),
        ("emp*", "matches folders only"),
        ("@absent.txt", "cannot be read"),
        ("nothing.txt", "names no file"),
        ("missing.txt", "2 of 3 paths do not exist, the first in line 2"),
        ("binary.lst", "not a text file"),
        ("pipe.txt", "not a regular file"),
        ("@pipe", "not a regular file"),
        ("null\0", "null"),
        ("~nobody.of.this.name/x", "no home folder of that user"),
        ("home.txt", "no home folder of that user"),
        ("x" * 300, "no such file or folder"),
    ],
)
def test_a_source_that_gives_nothing_is_named(
    tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tree("here.fits", "full/apStar-r8-A.fits")
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing.txt").write_text("# nothing\n\n")
    (tmp_path / "missing.txt").write_text("here.fits\ngone.fits\nlost.fits\n")
    (tmp_path / "binary.lst").write_bytes(b"\xff\xfe\x80")
    (tmp_path / "home.txt").write_text("~nobody.of.this.name/x\n")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UsageError, match=said) as caught:
        find_apstar_files(["full", source])
    assert source.removeprefix("@") in str(caught.value) or said in str(caught.value)


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree("a/apStar-r8-A.fits", "b/apStar-r8-B.fits")
    original = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match=r"/b: cannot be listed \(Permission denied\)"):
        find_apstar_files([str(tmp_path)])
