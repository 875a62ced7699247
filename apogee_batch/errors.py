"""What can go wrong, in the words that a user reads."""

from enum import StrEnum
from pathlib import Path


class ApogeeBatchError(Exception):
    """Something that a user can mend; the message names the thing, the problem and the remedy."""

    exit_code = 1


class UsageError(ApogeeBatchError):
    """A wrong option, path, table or setting."""

    exit_code = 2


class TooManyBadInputsError(ApogeeBatchError):
    """More inputs had to be rejected than a run accepts."""

    exit_code = 3


class ClusterError(ApogeeBatchError):
    """The workers could not be started, or were lost for good."""

    exit_code = 4


class IntegrityError(ApogeeBatchError):
    """Something written earlier is missing, damaged or does not add up."""

    exit_code = 5


class LockedError(ApogeeBatchError):
    """Another process works in the same folder."""

    exit_code = 6


class IncompleteRunError(ApogeeBatchError):
    """A run stopped before its end; running the same command again goes on with it."""

    exit_code = 75


def set_place(error: BaseException, place: str) -> None:
    """Let an error say where it happened, also when it has been to another process."""
    error.place = place  # type: ignore[attr-defined]
    error.add_note(place)


def describe_place(error: BaseException) -> str:
    """Return where an error happened, as the end of a sentence; nothing if it was here."""
    place = getattr(error, "place", "")
    return f" ({place})" if place else ""


class RejectReason(StrEnum):
    """Why an input gave no spectrum: the `reason` column of `rejects.parquet`."""

    EMPTY = "EMPTY"  # a file of no bytes
    NOT_FITS = "NOT_FITS"  # does not begin as a FITS file does
    TRUNCATED = "TRUNCATED"  # shorter than its headers promise
    MISSING_HDU = "MISSING_HDU"  # flux, error or mask extension absent
    NOT_APSTAR = "NOT_APSTAR"  # a FITS file of another product
    BAD_SHAPE = "BAD_SHAPE"  # not 8575 pixels
    BAD_GRID = "BAD_GRID"  # another wavelength grid
    BAD_ID = "BAD_ID"  # an identifier with characters that identifiers do not have
    BAD_MASK = "BAD_MASK"  # mask values that do not fit 32 bits
    NON_FINITE = "NON_FINITE"  # no pixel of which both flux and error are finite
    NO_GOOD_PIXELS = "NO_GOOD_PIXELS"  # no pixel with a measurement
    TOO_LARGE = "TOO_LARGE"  # larger than any apStar file, for example a gzip bomb
    UNREADABLE = "UNREADABLE"  # no permission, not a regular file, or a read error
    CHANGED = "CHANGED"  # another size, or more spectra, than when the ingest was planned
    DUPLICATE_FILE = "DUPLICATE_FILE"  # the content of a file that was read before, under another name
    DUPLICATE_STAR = "DUPLICATE_STAR"  # a second file with the apstar_id of an earlier one
    WORKER_KILLED = "WORKER_KILLED"  # ended every worker that took it: a crash in native code, or memory


class ApStarError(ApogeeBatchError):
    """An apStar file that cannot be used.

    Parameters
    ----------
    path : Path
        The file.
    reason : RejectReason
        The reason code.
    text : str
        What was found, for people.
    """

    def __init__(self, path: Path, reason: RejectReason, text: str) -> None:
        super().__init__(f"{path}: {text}")
        self.path = path
        self.reason = reason
        self.text = text

    def __reduce__(self) -> tuple[type["ApStarError"], tuple[Path, RejectReason, str]]:
        """Pickle by the arguments; an exception otherwise keeps its message alone and cannot be rebuilt."""
        return type(self), (self.path, self.reason, self.text)
