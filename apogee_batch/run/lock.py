"""One driver at a time in a folder: a lock file that the kernel frees when its owner ends, however it ends.

The lock is the kernel's (`flock`). What the file says is for people, and for what the kernel may not know:
on some network file systems `flock` holds within one host only, and on others there is none.
"""

import errno
import fcntl
import logging
import os
import socket
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from apogee_batch.errors import LockedError, UsageError
from apogee_batch.files import make_folder
from apogee_batch.run.lock_owner import (
    Owner,
    await_owner,
    is_here,
    is_predecessor,
    lives,
    read_owner,
    this_process,
    write_owner,
)
from apogee_batch.run.logs import LOGGER

ATTEMPTS = 100  # another process that leaves takes its file with it; each attempt opens the next one
NO_FLOCK = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
NOT_FOLLOWED = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # nonblocking: a FIFO would be waited for


class Lock:
    """A lock that this process holds.

    Parameters
    ----------
    path : Path
        The lock file.
    owner : Owner
        This process.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        self._path = path
        self._owner = owner

    def sign(self, descriptor: int) -> None:
        """Write into the opened lock file whose it is, or leave no file rather than a wrong one."""
        try:
            write_owner(descriptor, self._owner)
        except OSError as error:
            with suppress(OSError):
                self._path.unlink()
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def still_held(self) -> bool:
        """Tell whether the lock is still ours: somebody on another host may have broken it."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | NOT_FOLLOWED)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                return False
            raise
        try:
            return read_owner(descriptor) == self._owner
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """Raise LockedError if the lock was taken away."""
        if not self.still_held():
            raise LockedError(
                f"{self._path}: another process has taken this lock (--break-lock); this one stops, and what "
                "it finished is kept"
            )


@contextmanager
def hold_lock(path: Path, what: Path, *, break_lock: bool = False) -> Iterator[Lock]:
    """Hold a lock for the time of the block; the file is gone afterwards.

    The lock of a process that has ended is taken over, which the log tells. So is that of the same Slurm job
    on another host, before Slurm began it again. Children do not inherit it.

    Parameters
    ----------
    path : Path
        The lock file; its folder is made if it is missing.
    what : Path
        What is locked, for messages.
    break_lock : bool
        Take the lock away from a process on another host. One that lives on this host keeps it.

    Raises
    ------
    LockedError
        If another process has the lock, or one on another host may have it.
    UsageError
        If the lock file cannot be made.
    """
    is_folder_ours = not os.access(path.parent, os.F_OK)
    descriptor = _acquire(path, what, break_lock=break_lock)
    lock = Lock(path, this_process())
    try:
        lock.sign(descriptor)
        yield lock
    finally:
        with suppress(OSError):  # a file that stays is taken over; what ended the block says more
            if lock.still_held():
                path.unlink()  # before the kernel frees it, so that nobody can have taken it meanwhile
            if is_folder_ours:
                path.parent.rmdir()  # only where nothing was put into it
        os.close(descriptor)


def refuse_if_locked(path: Path, what: Path, remedy: str) -> None:
    """Refuse to work beside the owner of a lock, without taking the lock.

    It goes by what the file says: asking the kernel would need the lock for a moment, and whoever takes it in
    that moment would be refused. Nothing may depend on it, since an owner may come right after.

    Parameters
    ----------
    path : Path
        The lock file.
    what : Path
        What is locked, for messages.
    remedy : str
        What to do about an owner on another host that is gone.

    Raises
    ------
    LockedError
        If another process has the lock, or one on another host may have it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | NOT_FOLLOWED)
    except FileNotFoundError:
        return
    try:
        owner = await_owner(descriptor)
    finally:
        os.close(descriptor)
    if owner is not None and not (is_here(owner) and not lives(owner)):
        if_gone = "" if is_here(owner) else f"; if it is gone, {remedy}"
        raise LockedError(f"{what}: in use by {owner}; wait until it ends{if_gone}")


def _acquire(path: Path, what: Path, *, break_lock: bool) -> int:
    """Return the descriptor of the lock file, once it is ours."""
    for _ in range(ATTEMPTS):
        try:
            descriptor, is_new = _open(path)
        except FileNotFoundError:
            continue  # another process left and took its file, or the folder that it had made, with it
        is_ours = False
        try:
            is_ours = _claim(path, descriptor, what, is_new=is_new, break_lock=break_lock)
        finally:
            if not is_ours:
                os.close(descriptor)
        if is_ours:
            return descriptor
    if not path.parent.is_dir():  # as below /proc
        raise UsageError(f"{path.parent}: cannot be made; name another place")
    raise LockedError(f"{what}: other processes take and leave its lock {path} all the time; try again")


def _open(path: Path) -> tuple[int, bool]:
    """Open the lock file, and tell whether this call made it."""
    try:
        make_folder(path.parent)
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | NOT_FOLLOWED, 0o666), True
        except FileExistsError:
            descriptor = os.open(path, os.O_RDWR | NOT_FOLLOWED)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{path.parent}: is not a folder; name another place") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _not_a_file(path) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UsageError(
                f"{path.parent}: no lock can be made there ({error.strerror}: {path.name}); "
                "give yourself the right to write in that folder, or name another place"
            ) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_a_file(path)
    return descriptor, False


def _not_a_file(path: Path) -> UsageError:
    return UsageError(f"{path}: is not a regular file, as a lock is; remove it")


def _claim(path: Path, descriptor: int, what: Path, *, is_new: bool, break_lock: bool) -> bool:
    """Tell whether the opened file is our lock now; False: the path has another file, try again."""
    has_flock = _try_flock(descriptor)
    if has_flock is None:
        return is_new or _claim_by_content(path, descriptor, what, break_lock=break_lock)
    if not has_flock:
        owner = await_owner(descriptor)
        if owner is None or is_here(owner) or not _is_given_up(owner, break_lock=break_lock):
            raise LockedError(f"{what}: {_explain_live(owner, break_lock=break_lock)}")
        _tell_taken(what, owner)
        _set_aside(path, descriptor)
        return False
    if not _is_at(path, descriptor):
        return False
    owner = read_owner(descriptor)
    if owner is not None:
        if not is_here(owner) and not _is_given_up(owner, break_lock=break_lock):
            raise LockedError(f"{what}: {_explain_unseen(owner)}")
        _tell_taken(what, owner)
    return True


def _is_given_up(owner: Owner, *, break_lock: bool) -> bool:
    """Tell whether somebody who knows says that a process on another host is gone: the user, or Slurm."""
    return break_lock or is_predecessor(owner)


def _claim_by_content(path: Path, descriptor: int, what: Path, *, break_lock: bool) -> bool:
    """Judge by what the file says, where there is no `flock`; a file to be replaced is taken away."""
    owner = await_owner(descriptor)
    if owner is not None:
        if is_here(owner) and lives(owner):
            raise LockedError(f"{what}: {_explain_live(owner, break_lock=break_lock)}")
        if not is_here(owner) and not _is_given_up(owner, break_lock=break_lock):
            raise LockedError(f"{what}: {_explain_unseen(owner)}")
        _tell_taken(what, owner)
    _set_aside(path, descriptor)
    return False


def _try_flock(descriptor: int) -> bool | None:
    """Take the kernel's lock: True, False if another process has it, None if there is no such thing."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        return None
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Tell whether a path still leads to the opened file, which another process may have removed."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def _set_aside(path: Path, descriptor: int) -> None:
    """Take the opened file away from its path, unless another process was quicker."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    with suppress(FileNotFoundError):
        path.rename(aside)
        if not _is_at(aside, descriptor):
            with suppress(OSError):  # it is the new lock of the quicker one: give it back
                path.hardlink_to(aside)
        aside.unlink()


def _tell_taken(what: Path, owner: Owner) -> None:
    fate = "has ended" if is_here(owner) else "is said to be gone"
    logging.getLogger(LOGGER).warning("%s: took over the lock of %s, which %s", what, owner, fate)


def _explain_live(owner: Owner | None, *, break_lock: bool) -> str:
    if owner is None:
        return "another process has just taken its lock; wait until it ends"
    remedy = f"wait until it ends, or end it with 'kill {owner.pid}'"
    if not is_here(owner):
        return f"in use by {owner}; {remedy} there; --break-lock only if you are sure that it is gone"
    return f"in use by {owner}; {remedy}" + "; it lives, and --break-lock cannot break its lock" * break_lock


def _explain_unseen(owner: Owner) -> str:
    return (
        f"in use by {owner}; whether that process lives cannot be seen from {socket.gethostname()}: "
        "wait until it ends, or end it there; --break-lock only if you are sure that it is gone"
    )
