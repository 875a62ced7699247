"""A place for Dask's scratch that no other user of a host can write to.

Dask takes a folder of one name for all users of a host, which belongs to whoever made it first, and looks for
Python modules in it before anywhere else: that user could run code as everybody who starts Dask there.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = "apogee-batch-"  # then the number of the user
SHELL_SCRATCH = '"$scratch"'
SHELL_BASE = '"${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"'  # of a node


@contextmanager
def private_scratch() -> Iterator[None]:
    """Let what Dask starts in this process use a folder of this user alone."""
    import dask

    base = Path(dask.config.get("temporary-directory", None) or tempfile.gettempdir())
    with dask.config.set({"temporary-directory": str(own_folder(base))}):
        yield


def shell_line(base: str = SHELL_BASE) -> str:
    """Return what does the same on a node, before its workers start; a link could lead anywhere.

    Parameters
    ----------
    base : str
        The shared folder, as a word for the shell.
    """
    return (
        f'base={base}; mkdir -p "$base" 2>/dev/null; scratch="$base/{NAME}$(id -u)"; '
        'mkdir -m 700 "$scratch" 2>/dev/null; '
        '{ [ -O "$scratch" ] && [ ! -L "$scratch" ]; } || scratch="$(mktemp -d)"'
    )


def own_folder(base: Path) -> Path:
    """Return a folder in a shared one that belongs to this user, whom alone it lets in."""
    folder = base / f"{NAME}{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(0o700, parents=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return Path(tempfile.mkdtemp(prefix=NAME, dir=base))
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    return folder
