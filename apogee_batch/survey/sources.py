"""Which files to read: folders, patterns, lists of paths and single files, as a user names them."""

import fnmatch
import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from apogee_batch.errors import UsageError

LIST_SUFFIXES = (".txt", ".lst")
LIST_MARK = "@"

_FITS_NAME = re.compile(r".+\.fits(?:\.gz)?")
_APSTAR_NAME = re.compile(r"(?:ap|as)StarC?-.+\.fits(?:\.gz)?")


def find_apstar_files(sources: Sequence[str]) -> list[Path]:
    """Return the files that some sources name.

    Parameters
    ----------
    sources : sequence of str
        Each one a folder, of which all files named as apStar files are taken, however deep (if there is
        none, all FITS files); a glob
        pattern, where ``**`` stands for any depth; a text list of paths, named with the suffix .txt
        or .lst or with a leading @ (one path a line, relative to the list's folder; empty lines and
        lines that begin with # are left out); or a file, which is taken whatever its name.

    Returns
    -------
    list of Path
        Absolute, sorted; a file that can be reached by several paths only once.

    Raises
    ------
    UsageError
        For a source that is missing, unreadable, or gives no file.

    Notes
    -----
    Links to folders are not followed inside a folder, because a link to a parent has no end. Links
    to files are.
    """
    paths = sorted({path for source in sources for path in _expand(source)})
    return _drop_aliases(paths)


def _expand(source: str) -> list[Path]:
    """Return the files of one source."""
    if source.startswith(LIST_MARK) and not os.path.lexists(source):
        return _read_list(_absolute(source[len(LIST_MARK) :]))
    path = _absolute(source)
    if path.is_dir():
        return _list_folder(path)
    if os.path.lexists(path):
        return _read_list(path) if path.suffix.lower() in LIST_SUFFIXES else [path]
    if glob.has_magic(source):
        return _match_pattern(source)
    raise UsageError(f"{source}: no such file or folder; check the path")


def _absolute(source: str | Path) -> Path:
    """Return an absolute path without following links: their names tell telescope and field."""
    return Path(os.path.abspath(Path(source).expanduser()))  # noqa: PTH100  resolve() follows links


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


def _list_folder(folder: Path) -> list[Path]:
    """Return the files below a folder that are named as apStar files are; if none is, its FITS files.

    A folder of renamed files is then read, and one of another product is rejected file by file, with reasons.
    """
    paths = _find_below(folder, _APSTAR_NAME) or _find_below(folder, _FITS_NAME)
    if not paths:
        raise UsageError(
            f"{folder}: no file named apStar-*.fits, asStar-*.fits or apStarC-*.fits, and no other *.fits "
            "(or .fits.gz) in it; name the folder that holds the stars"
        )
    return paths


def _find_below(folder: Path, name: re.Pattern[str]) -> list[Path]:
    """Return what lies below a folder under such a name and is no link to a folder."""
    entries = (entry for entry in _walk(folder) if name.fullmatch(entry.name))
    return [Path(entry.path) for entry in entries if not (entry.is_symlink() and entry.is_dir())]


def _match_pattern(pattern: str) -> list[Path]:
    """Return the files that a glob pattern matches, and those in the folders that it matches."""
    absolute = _absolute(pattern)
    if "**" in absolute.parts:
        matches = _match_any_depth(absolute)
    else:
        matches = [Path(path) for path in glob.glob(os.fspath(absolute))]  # noqa: PTH207  absolute
    if not matches:
        raise UsageError(f"{pattern}: no file matches; quote the pattern and check it")
    paths = []
    for path in matches:
        paths += _find_below(path, _APSTAR_NAME) if path.is_dir() else [path]
    if not paths:
        raise UsageError(f"{pattern}: matches folders only, and no file named as apStar files are in them")
    return paths


def _match_any_depth(pattern: Path) -> list[Path]:
    """Return the files that match a pattern with ``**``; glob itself would follow links for ever."""
    parts = pattern.parts
    n_plain = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:n_plain])
    if not root.is_dir():
        return []
    return [
        Path(entry.path)
        for entry in _walk(root)
        if _is_match(Path(entry.path).parts[n_plain:], parts[n_plain:])
        and not (entry.is_symlink() and entry.is_dir())
    ]


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


def _read_list(path: Path) -> list[Path]:
    """Return the paths that a text list names.

    Raises
    ------
    UsageError
        For a list that cannot be read, names nothing, or names what is not there.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        text = getattr(error, "strerror", None) or "not a text file in UTF-8"
        raise UsageError(f"{path}: the list cannot be read ({text})") from error
    named = [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip()[:1] not in ("", "#")]
    paths = [(i, _absolute(path.parent / Path(line).expanduser())) for i, line in named]
    absent = [(i, listed) for i, listed in paths if not os.path.lexists(listed)]
    if absent:
        i, first = absent[0]
        raise UsageError(
            f"{path}: {len(absent)} of {len(paths)} paths do not exist, the first in line {i}: {first}; "
            "paths are relative to the list's folder"
        )
    if not paths:
        raise UsageError(f"{path}: the list names no file; write one path a line")
    found: list[Path] = []
    for _, listed in paths:
        found += _list_folder(listed) if listed.is_dir() else [listed]
    return found


def _drop_aliases(paths: Sequence[Path]) -> list[Path]:
    """Return each file once, by its first path, where links give it several.

    Folders are resolved once each: to resolve every file takes ten calls of the system a star.
    """
    folders: dict[Path, str] = {}
    kept: dict[str, Path] = {}
    for path in paths:
        if path.is_symlink():
            real = os.path.realpath(path)
        else:
            if path.parent not in folders:
                folders[path.parent] = os.path.realpath(path.parent)
            real = f"{folders[path.parent]}/{path.name}"
        kept.setdefault(real, path)
    return list(kept.values())
