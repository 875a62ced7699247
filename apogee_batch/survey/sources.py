"""Which files to read: folders, patterns, lists of paths and single files, as a user names them."""

import fnmatch
import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from apogee_batch.errors import UsageError

LIST_SUFFIXES = (".txt", ".lst")
LIST_MARK = "@"

# Absolute path of each file, and whether it is a link. A listing tells so; to ask for every file takes
# minutes on a network file system, and to keep `Path`s takes seconds where there are 100,000.
Found = dict[str, bool]

# DOTALL: a file whose name holds a line break would be missed without a word.
# Cameras and other systems write .FITS; how a name begins says what is in the file, if it is the survey's.
_FITS_NAME = re.compile(r".+(?i:\.fits(?:\.gz)?)", re.DOTALL)
_APSTAR_NAME = re.compile(r"(?:ap|as)StarC?-.+(?i:\.fits(?:\.gz)?)", re.DOTALL)


@dataclass(frozen=True)
class SourceFiles:
    """What some sources name.

    Attributes
    ----------
    files : list of Path
        Those to read: absolute, sorted; one that can be reached by several paths only once.
    left_out : list of Path
        Sorted: other FITS files of folders from which files named as apStar files are taken.
    """

    files: list[Path]
    left_out: list[Path]

    def describe_left_out(self) -> list[str]:
        """Say in one line what was left out; nothing where all FITS files are taken."""
        n = len(self.left_out)
        if n == 0:
            return []
        first = self.left_out[0]
        if n == 1:
            return [f"left out: 1 FITS file not named as apStar files are: {first}; name it to take it"]
        return [
            f"left out: {n} FITS files not named as apStar files are, the first is {first}; name them, or a "
            "pattern that matches them, to take them"
        ]


def find_apstar_files(sources: Sequence[str]) -> list[Path]:
    """Return the files to read of `find_source_files`, and raise as it does."""
    return find_source_files(sources).files


def find_source_files(sources: Sequence[str]) -> SourceFiles:
    """Return the files that some sources name.

    Parameters
    ----------
    sources : sequence of str
        Each one a folder, of which all files named as apStar files are taken, however deep (if there is
        none, all FITS files); a glob pattern, where ``**`` stands for any depth; a text list of paths, named
        with the suffix .txt or .lst or with a leading @ (one path a line, relative to the list's folder;
        empty lines and lines that begin with # are left out); or a file, which is taken whatever its name.

    Returns
    -------
    SourceFiles

    Raises
    ------
    UsageError
        For a source that is missing, unreadable, or gives no file.

    Notes
    -----
    Links to folders are not followed inside a folder, because a link to a parent has no end. Links
    to files are.
    """
    found: Found = {}
    others: Found = {}
    for source in sources:
        found |= _expand(source, others)
    taken = _by_real_path(found)
    left = _by_real_path(others)
    left_out = [Path(path) for real, path in left.items() if real not in taken]
    return SourceFiles([Path(path) for path in taken.values()], left_out)


def _expand(source: str, others: Found) -> Found:
    """Return the files of one source; add to the others the FITS files of folders with names of their own."""
    if "\0" in source:  # no file system has such names, and Python stops at them in some places only
        raise UsageError(f"{source!r}: a null character in a path; remove it")
    if source.startswith(LIST_MARK) and not os.path.lexists(source):
        return _read_list(_absolute(source[len(LIST_MARK) :]), others)
    path = _absolute(source)
    if _is_folder(path):
        return _list_folder(path, others)
    if os.path.lexists(path):
        return _read_list(path, others) if path.suffix.lower() in LIST_SUFFIXES else _one_file(path)
    if glob.has_magic(source):
        return _match_pattern(source, others)
    raise UsageError(f"{source}: no such file or folder; check the path")


def _absolute(source: str, beside: Path = Path()) -> Path:
    """Return an absolute path without following links: their names tell telescope and field."""
    try:
        path = beside / Path(source).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{source}: no home folder of that user; write the path in full") from error
    return Path(os.path.abspath(path))  # noqa: PTH100  resolve() follows links


def _one_file(path: str | Path) -> Found:
    """Return a file that was named, or matched, by itself."""
    return {os.fspath(path): os.path.islink(path)}  # noqa: PTH114  the entries of a listing are texts


def _is_folder(path: str | Path) -> bool:
    """Tell whether a path leads to a folder; what cannot be followed, as a link to itself, does not."""
    return os.path.isdir(path)  # noqa: PTH112  that of pathlib raises for a loop and for a long name


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Give all entries below a folder that are no folders, not following links to folders.

    Raises
    ------
    UsageError
        For a folder that cannot be listed: its stars would be missed without a word.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        yield entry
        except OSError as error:
            text = f"{here}: cannot be listed ({error.strerror}); mend its permissions or leave it out"
            raise UsageError(text) from error


def _list_folder(folder: Path, others: Found) -> Found:
    """Return the files below a folder that are named as apStar files are; if none is, its FITS files.

    A folder of renamed files is then read, and one of another product is rejected file by file, with reasons.
    Where names of both kinds are mixed, the other FITS files are left out, and told.
    """
    fits = _find_fits(folder)
    if not fits:
        raise UsageError(
            f"{folder}: no file named apStar-*.fits, asStar-*.fits or apStarC-*.fits, and no other *.fits "
            "(or .fits.gz) in it; name the folder that holds the stars"
        )
    return _apstar_only(fits, others) or fits


def _find_fits(folder: Path) -> Found:
    """Return the FITS files below a folder, by their names."""
    return _files(entry for entry in _walk(folder) if _FITS_NAME.fullmatch(entry.name))


def _apstar_only(fits: Found, others: Found) -> Found:
    """Return the files named as apStar files are, and add the rest to the others."""
    named = {path: link for path, link in fits.items() if _APSTAR_NAME.fullmatch(path.rpartition("/")[2])}
    others |= {path: link for path, link in fits.items() if path not in named}
    return named


def _files(entries: Iterable[os.DirEntry[str]]) -> Found:
    """Return the entries that are no links to folders."""
    links = ((entry.path, entry.is_symlink()) for entry in entries)
    return {path: is_link for path, is_link in links if not (is_link and _is_folder(path))}


def _match_pattern(pattern: str, others: Found) -> Found:
    """Return the files that a glob pattern matches, and those in the folders that it matches."""
    absolute = _absolute(pattern)
    if "**" in absolute.parts:
        matches = _match_any_depth(absolute)
    else:
        matches = {}
        for path in glob.glob(os.fspath(absolute)):  # noqa: PTH207  absolute
            matches |= _one_file(path)
    if not matches:
        raise UsageError(f"{pattern}: no file matches; quote the pattern and check it")
    found: Found = {}
    for path, is_link in matches.items():
        found |= _apstar_only(_find_fits(Path(path)), others) if _is_folder(path) else {path: is_link}
    if not found:
        raise UsageError(f"{pattern}: matches folders only, and no file named as apStar files are in them")
    return found


def _match_any_depth(pattern: Path) -> Found:
    """Return the files that match a pattern with ``**``; glob itself would follow links for ever."""
    parts = pattern.parts
    n_plain = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:n_plain])
    if not _is_folder(root):
        return {}
    return _files(
        entry for entry in _walk(root) if _is_match(Path(entry.path).parts[n_plain:], parts[n_plain:])
    )


def _is_match(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Tell whether the names of a path match the parts of a pattern, as a shell would say."""
    if not parts:
        return not names
    if parts[0] == "**" and _is_match(names, parts[1:]):
        return True
    if not names or (names[0].startswith(".") and not parts[0].startswith(".")):
        return False
    if parts[0] == "**":
        return _is_match(names[1:], parts)
    return fnmatch.fnmatchcase(names[0], parts[0]) and _is_match(names[1:], parts[1:])


def _read_list(path: Path, others: Found) -> Found:
    """Return the paths that a text list names.

    Raises
    ------
    UsageError
        For a list that cannot be read, names nothing, or names what is not there.
    """
    lines = _read_lines(path)
    named = [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip()[:1] not in ("", "#")]
    paths = [(i, _absolute(line, path.parent)) for i, line in named]
    absent = [(i, listed) for i, listed in paths if not os.path.lexists(listed)]
    if absent:
        i, first = absent[0]
        raise UsageError(
            f"{path}: {len(absent)} of {len(paths)} paths do not exist, the first in line {i}: {first}; "
            "paths are relative to the list's folder"
        )
    if not paths:
        raise UsageError(f"{path}: the list names no file; write one path a line")
    found: Found = {}
    for _, listed in paths:
        found |= _list_folder(listed, others) if _is_folder(listed) else _one_file(listed)
    return found


def _read_lines(path: Path) -> list[str]:
    """Return the lines of a text list; raise UsageError where it is none."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe may never speak, /dev/zero never ends
            raise UsageError(f"{path}: the list cannot be read (not a regular file); write it into a file")
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        text = getattr(error, "strerror", None) or "not a text file in UTF-8"
        raise UsageError(f"{path}: the list cannot be read ({text})") from error


def _parts(path: str) -> list[str]:
    """Return the names in an absolute path, by which `Path`s are sorted too, but not as fast."""
    return path.split("/")


def _by_real_path(found: Found) -> dict[str, str]:
    """Return each file once, sorted, by its first path where links give it several; keys are real paths.

    Folders are resolved once each: to resolve every file takes ten calls of the system a star.
    """
    folders: dict[str, str] = {}
    kept: dict[str, str] = {}
    for path in sorted(found, key=_parts):
        if found[path]:
            real = os.path.realpath(path)
        else:
            folder, name = os.path.split(path)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            real = os.path.join(folders[folder], name)  # noqa: PTH118  text
        kept.setdefault(real, path)
    return kept
