"""What `apogee-batch fetch-list` does: lists of files for rsync and wget, and what to do with them.

Nothing is downloaded. The lists hold names that were checked and nothing else; the script that compares the
download with the archive's checksums holds none.
"""

import csv
import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from apogee_batch.errors import UsageError
from apogee_batch.files import make_folder, write_text
from apogee_batch.run.fetch_check import CHECK_SCRIPT
from apogee_batch.streams import replace_on_success
from apogee_batch.survey.allstar_table import read_allstar
from apogee_batch.survey.fetch_list import Choice, FetchList, Unlisted, list_files, split_evenly
from apogee_batch.survey.releases import RSYNC_URL, WGET_URL

FILES, CHECK, UNLISTED, SPECTRA = "files.txt", "check.sh", "not-listed.csv", "spectra"
FORMATS = {"rsync": ("rsync",), "wget": ("wget",), "both": ("rsync", "wget")}
MAX_PARTS = 1000
LINES_AT_ONCE = 1 << 16
SHOWN_ROWS = 3

_LIST_NAME = re.compile(r"(?:rsync|wget)(?:-\d+-of-\d+)?\.txt")
_BASE_URL = re.compile(
    r"(?P<scheme>rsync|https?)://[A-Za-z0-9.:@_-]+(?P<path>(?:/[A-Za-z0-9._~-]+)*)/?", re.ASCII
)


@dataclass(frozen=True)
class FetchSettings:
    """What is wanted.

    Attributes
    ----------
    choice : Choice
        Which rows.
    release : str or None
        None is what the names of the files say.
    form : {"rsync", "wget", "both"}
        Whose lists.
    base_urls : tuple of str
        Folder of the release at another archive or mirror, one at most for each program.
    n_parts : int
        How many lists for each program, to fetch several at a time.
    """

    choice: Choice = field(default_factory=Choice)
    release: str | None = None
    form: str = "both"
    base_urls: tuple[str, ...] = ()
    n_parts: int = 1


def write_fetch_list(allstar: Path, out: Path, settings: FetchSettings) -> list[str]:
    """Write what to fetch for the stars of an allStar table.

    Parameters
    ----------
    allstar : Path
        The table.
    out : Path
        Folder for the lists; lists of an earlier call in it are replaced.
    settings : FetchSettings
        What is wanted.

    Returns
    -------
    list of str
        What to tell: counts, and the commands to run next.

    Raises
    ------
    UsageError
        For a table or a setting that cannot be used, or if no star is left.
    """
    programs = _programs(settings)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: not a folder; name another one with --out")
    found = list_files(read_allstar(allstar), settings.choice, release=settings.release)
    bases = _base_urls(settings, found.release.name)
    make_folder(out)
    _write_lines(out / FILES, found.stars)
    lists = {
        program: _write_parts(out, program, bases[program], found, settings.n_parts) for program in programs
    }
    write_text(out / CHECK, CHECK_SCRIPT)
    write_text(out / UNLISTED, _as_csv(found.unlisted))
    _remove_others(out, {path.name for paths in lists.values() for path in paths})
    return [*_counts(found, out), "", *_next_commands(allstar, out, bases, lists, found.release.name)]


def _programs(settings: FetchSettings) -> tuple[str, ...]:
    """Return the programs to write lists for; raise UsageError for settings that no call can mean."""
    if settings.form not in FORMATS:
        raise UsageError(f"--format {settings.form!r}: choose one of {', '.join(FORMATS)}")
    if not 1 <= settings.n_parts <= MAX_PARTS:
        raise UsageError(f"--split {settings.n_parts}: give a number from 1 to {MAX_PARTS}")
    if settings.choice.limit is not None and settings.choice.limit < 1:
        raise UsageError(f"--limit {settings.choice.limit}: give at least 1")
    return FORMATS[settings.form]


def _base_urls(settings: FetchSettings, release: str) -> dict[str, str]:
    """Return where each program fetches from, without a slash at the end."""
    urls = {"rsync": RSYNC_URL.format(release=release), "wget": WGET_URL.format(release=release)}
    given: dict[str, str] = {}
    for url in settings.base_urls:
        match = _BASE_URL.fullmatch(url)
        if match is None or ".." in url:
            raise UsageError(
                f"--base-url {url!r}: give the folder of a release, as {urls['rsync']} or {urls['wget']}"
            )
        program = "rsync" if match["scheme"] == "rsync" else "wget"
        if program in given:
            raise UsageError(
                f"--base-url: {given[program]} and {url} are both for {program}; give one of them"
            )
        if program not in FORMATS[settings.form]:
            raise UsageError(
                f"--base-url {url}: is for {program}, but --format {settings.form} leaves it out"
            )
        given[program] = url.rstrip("/")
    return urls | given


def _write_lines(path: Path, lines: Sequence[str], prefix: str = "") -> None:
    """Write a text file with one line for each text, whole or not at all, in little memory."""
    with replace_on_success(path) as file:
        rest = iter(lines)
        while block := list(islice(rest, LINES_AT_ONCE)):
            file.write("".join(f"{prefix}{line}\n" for line in block).encode("ascii"))


def _write_parts(out: Path, program: str, base: str, found: FetchList, n_parts: int) -> list[Path]:
    """Write the lists of one program: names below the base for rsync, addresses for wget."""
    prefix = f"{base}/" if program == "wget" else ""
    # Checksums first: the few small files tell at once whether archive and folders are the right ones.
    parts = split_evenly([*found.checksums, *found.stars], n_parts)
    paths = []
    for number, part in enumerate(parts, start=1):
        name = program if n_parts == 1 else f"{program}-{number:0{len(str(n_parts))}}-of-{n_parts}"
        paths.append(out / f"{name}.txt")
        _write_lines(paths[-1], part, prefix)
    return paths


def _as_csv(unlisted: Sequence[Unlisted]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Unlisted._fields)
    writer.writerows(unlisted)
    return text.getvalue()


def _remove_others(out: Path, written: set[str]) -> None:
    """Remove the lists of an earlier call, which would fetch what this one leaves out."""
    for path in out.iterdir():
        if _LIST_NAME.fullmatch(path.name) and path.name not in written:
            path.unlink()


def _counts(found: FetchList, out: Path) -> list[str]:
    """Return what was found, in words."""
    size = (
        f"about {found.n_bytes / 1e9:,.1f} GB"
        if found.n_bytes >= 1e9
        else f"about {found.n_bytes / 1e6:.0f} MB"
    )
    if not found.release.is_measured:
        size += f" (no file of {found.release.name} was measured)"
    lines = [
        f"{len(found.stars):,} files for {found.n_chosen:,} rows ({found.n_rows:,} in the table), "
        f"{found.release.name}, reduction {found.release.reduction}",
        f"size:      {size}: an estimate from the number of visits; the table tells no sizes",
        f"checksums: {len(found.checksums):,} files of the archive, one a folder; the table tells none",
    ]
    if found.n_without_visits:
        lines.append(
            f"           {found.n_without_visits:,} rows tell no visits and count as the mean of the others"
        )
    if found.n_repeated:
        lines.append(
            f"repeated:  {found.n_repeated:,} rows name a file that an earlier row names; it is listed once"
        )
    if found.unlisted:
        lines.append(
            f"left out:  {len(found.unlisted):,} rows that name no file to fetch, see {out / UNLISTED}"
        )
        lines += [f"           row {row}: {reason}" for row, _, reason in found.unlisted[:SHOWN_ROWS]]
    return lines


def _next_commands(
    allstar: Path, out: Path, bases: dict[str, str], lists: dict[str, list[Path]], release: str
) -> list[str]:
    """Return the commands to run next, quoted for a shell."""
    spectra = out / SPECTRA
    ingest = ["ingest", str(spectra), "--allstar", str(allstar), "--store", f"{release}.zarr"]
    commands: list[str] = []
    for program, paths in lists.items():
        many = f", {len(paths)} at a time if the archive lets you" if len(paths) > 1 else ""
        other = " (or)" if commands else ""
        commands.append(f"fetch with {program}{other}{many}:")
        commands += [f"  {_fetch_command(program, bases[program], path, spectra)}" for path in paths]
    return [
        *commands,
        "compare with the checksums of the archive (what it lacks ends rsync with code 23, wget with 8):",
        f"  {shlex.join(['sh', str(out / CHECK), str(spectra)])}",
        "read into a store:",
        f"  {shlex.join(['apogee-batch', *ingest])}",
    ]


def _fetch_command(program: str, base: str, listed: Path, spectra: Path) -> str:
    """Return the command that fetches the files of a list into the folders that `ingest` understands."""
    if program == "rsync":
        # -L: some names in the archive are links to files whose names hold a date
        return shlex.join(["rsync", "-aL", "--partial", f"--files-from={listed}", f"{base}/", f"{spectra}/"])
    n_folders = len(base.split("://", 1)[1].split("/")) - 1
    words = [
        "wget",
        "-nv",
        "-c",
        "-x",
        "-nH",
        f"--cut-dirs={n_folders}",
        "-P",
        str(spectra),
        "-i",
        str(listed),
    ]
    return shlex.join(words)
