"""Where the survey's archive keeps the apStar files of each public release.

Nothing here was tried on the archive itself; each piece says which public source it is from.

* Folders and names: the path `apStar` of the package `tree` (data/dr12.cfg, which later releases inherit):
  ``$APOGEE_REDUX/{apred}/{apstar}/{telescope}/{field}/{prefix}Star-{apred}-{obj}.fits``. That the field is
  a number (LOCATION_ID) for apo25m up to DR14, and a name everywhere else, is from programs that
  fetch these files (jobovy/apogee, tools/path.py; henrysky/astroNN, apogee/downloader.py).
* Files of checksums: henrysky/astroNN, for apo25m in DR13 and DR14, for all telescopes in DR16 and DR17. That
  apo1m has them in DR14 too, under the same kind of name, is an inference.
* Hosts: sdss/sdss_access (tests/sync/test_rsync.py) takes dtn.sdss.org for rsync; all of these know
  data.sdss.org/sas.
"""

from dataclasses import dataclass

from apogee_batch.errors import UsageError
from apogee_batch.survey.identity import ONE_METER

RSYNC_URL = "rsync://dtn.sdss.org/{release}"
WGET_URL = "https://data.sdss.org/sas/{release}"

# Measured on 13 files of DR12-DR14 with 1 to 6 visits: 43,200 + 229,700 bytes a row to 1.3 %.
FILE_BYTES = 43_200
FLOAT32_ROW_BYTES = 229_700
FLOAT64_ROW_BYTES = 487_000  # not measured: the same rows with the float64 and int64 of DR17


@dataclass(frozen=True)
class Release:
    """A public release, as far as its apStar files go.

    Attributes
    ----------
    name, reduction : str
        As "dr14" and "r8".
    telescopes : tuple of str
        Those that have data in it.
    is_by_location : bool
        Whether the folders of apo25m are named by LOCATION_ID and not by FIELD.
    row_bytes : int
        What one spectrum with its sky and telluric correction takes in a file.
    is_measured : bool
        Whether `row_bytes` was measured on real files.
    """

    name: str
    reduction: str
    telescopes: tuple[str, ...]
    is_by_location: bool
    row_bytes: int
    is_measured: bool

    @property
    def root(self) -> str:
        """Folder of the stars below that of the release."""
        return f"apogee/spectro/redux/{self.reduction}/stars"

    def checksums(self, telescope: str, folder: str) -> str:
        """Return the path of the file that holds the SHA-1 of every file of a folder."""
        return f"{self.root}/{telescope}/{folder}/{self.reduction}_stars_{telescope}_{folder}.sha1sum"

    def has_location_folder(self, telescope: str) -> bool:
        """Tell whether the folders of a telescope are named by number."""
        return self.is_by_location and telescope != ONE_METER

    def file_bytes(self, n_visits: float) -> float:
        """Return about how many bytes the file of a star with so many visits has."""
        n_rows = 1 if n_visits <= 1 else n_visits + 2  # with several visits, two combined spectra come first
        return FILE_BYTES + n_rows * self.row_bytes


_NORTH, _BOTH = ("apo25m", ONE_METER), ("apo25m", "lco25m", ONE_METER)
RELEASES = {
    release.name: release
    for release in (
        Release("dr14", "r8", _NORTH, True, FLOAT32_ROW_BYTES, True),
        Release("dr16", "r12", _BOTH, False, FLOAT32_ROW_BYTES, False),
        Release("dr17", "dr17", _BOTH, False, FLOAT64_ROW_BYTES, False),
    )
}


def find_release(reduction: str) -> Release:
    """Return the release whose files are of a reduction.

    Raises
    ------
    UsageError
        For a reduction of which nothing is known here.
    """
    for release in RELEASES.values():
        if release.reduction == reduction:
            return release
    known = ", ".join(f"{release.reduction} ({release.name})" for release in RELEASES.values())
    raise UsageError(
        f"where the archive keeps files of reduction {reduction!r} is not known here, only of {known}; "
        "take the allStar table of one of these"
    )
