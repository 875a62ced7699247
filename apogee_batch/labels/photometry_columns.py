"""Names that surveys give to the columns of photometry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from apogee_batch.errors import UsageError
from apogee_batch.labels.columns import find_columns, list_columns

IDENTIFIERS = ("apogee_id", "apstar_id")
FLUX_OVER_ERROR = "_flux_over_error"  # how the names of Gaia's columns of significances end


@dataclass(frozen=True)
class Spelling:
    """Names of one quantity, the preferred first, and the names of its error beside them.

    Attributes
    ----------
    any_case : tuple of str
        Names that mean it whatever their case.
    exact : tuple of str
        Names that mean it in this case only: gmag is of Pan-STARRS, Gmag of Gaia.
    errors : tuple of str
        Names of the error that are not made of the quantity's name by a prefix or an ending.
    """

    any_case: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def _optical(band: str) -> Spelling:
    """Return the names of a band of SDSS and Pan-STARRS."""
    return Spelling(
        any_case=(
            f"{band}meanpsfmag",
            f"{band}_mean_psf_mag",
            f"psfmag_{band}",
            f"{band}_ps1",
            f"{band}_sdss",
        ),
        exact=(band, f"{band}mag"),
        errors=(f"{band}_mean_psf_mag_error", f"psfmagerr_{band}"),
    )


def _gaia(band: str, *exact: str, any_case: tuple[str, ...] = ()) -> Spelling:
    name = f"phot_{band}_mean"
    return Spelling((*any_case, f"{name}_mag"), exact, (f"{name}_mag_error", f"{name}{FLUX_OVER_ERROR}"))


def _twomass(band: str, *others: str) -> Spelling:
    names = (band, *others, f"{band}_m", f"{band}mag")
    return Spelling(
        names, errors=(f"{band}_msigcom", f"{band}_cmsig", f"{others[0] if others else band}_msigcom")
    )


def _wise(band: str) -> Spelling:
    return Spelling((band, f"{band}mpro", f"{band}mag"), errors=(f"{band}sigmpro",))


BANDS: dict[str, Spelling] = {
    "g_gaia": _gaia("g", "G", "Gmag", any_case=("g_gaia", "gaia_g")),
    "bp": _gaia("bp", any_case=("bp", "bpmag", "gaia_bp")),
    "rp": _gaia("rp", any_case=("rp", "rpmag", "gaia_rp")),
    "j": _twomass("j"),
    "h": _twomass("h"),
    "k": _twomass("k", "ks", "ks_m", "ksmag"),
    "g": _optical("g"),
    "r": _optical("r"),
    "z": _optical("z"),
    "v": Spelling(("v", "vmag", "v_mag", "apass_v")),
    "w1": _wise("w1"),
    "w2": _wise("w2"),
    "w3": _wise("w3"),
}
"""Our names of bands: Gaia G, BP, RP; 2MASS J, H, K; g, r, z of SDSS or Pan-STARRS; Johnson V; WISE."""

OTHERS: dict[str, Spelling] = {
    "parallax": Spelling(("parallax", "plx", "gaia_parallax")),
    "fe_h": Spelling(("fe_h", "feh")),
    "radius": Spelling(("radius", "radius_val")),
    "luminosity": Spelling(("luminosity", "lum_val")),
}
NUMBER_UNITS = {
    **dict.fromkeys(BANDS, "mag"),
    "parallax": "mas",
    "parallax_error": "mas",
    "fe_h": "dex",
    "radius": "Rsun",
    "luminosity": "Lsun",
}


@dataclass(frozen=True)
class PhotometryColumns:
    """What is looked for in a table: bands, other columns, and which of them it must have."""

    bands: tuple[str, ...]
    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    required: tuple[str, ...]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.bands) - set(BANDS))
        if unknown:
            raise UsageError(f"unknown band {', '.join(unknown)}; the bands are {', '.join(BANDS)}")

    @property
    def names_to_map(self) -> tuple[str, ...]:
        """Return what `--map` may name; bands that nobody asked for included."""
        with_errors = (*BANDS, *self.numbers)
        errors = (f"e_{name}" for name in with_errors if not name.startswith("e_"))
        names = (*IDENTIFIERS, *BANDS, "parallax", "parallax_error", *self.numbers, *self.texts, *errors)
        return tuple(dict.fromkeys(names))


def find_photometry_columns(
    path: Path, names: Sequence[str], wanted: PhotometryColumns, column_map: Mapping[str, str]
) -> dict[str, str]:
    """Return the table's name of each of our columns that it has.

    Raises
    ------
    UsageError
        If a column is missing or ambiguous, or `column_map` names what does not exist.
    """
    unknown = sorted(set(column_map) - set(wanted.names_to_map))
    if unknown:
        raise UsageError(
            f"cannot map {', '.join(unknown)}: the columns to map are {', '.join(wanted.names_to_map)}"
        )
    search = _Search(path, names, column_map)
    for name in (*IDENTIFIERS, *wanted.texts):
        search.add(name, Spelling((name,)))
    for name in (*wanted.bands, "parallax", *wanted.numbers):
        search.add(name, BANDS.get(name) or OTHERS.get(name) or Spelling((name,)))
        if name in (*wanted.bands, "parallax") or f"e_{name}" in wanted.numbers:
            search.add_error(name)
    missing = [name for name in wanted.required if name not in search.found]
    if not any(name in search.found for name in IDENTIFIERS):
        missing.insert(0, "apogee_id")
    if missing:
        raise UsageError(
            f"{path}: no column for {', '.join(missing)}; {list_columns(names)}; "
            f"say which is meant: --map {missing[0]}=NAME"
        )
    return search.found


class _Search:
    """The columns found so far; one that was mapped is not found again under another name."""

    def __init__(self, path: Path, names: Sequence[str], column_map: Mapping[str, str]) -> None:
        self._path = path
        self._map = column_map
        self._names = names
        self._free = [name for name in names if name not in column_map.values()]
        self.found: dict[str, str] = {}

    def add(self, ours: str, spelling: Spelling) -> None:
        """Find a quantity: the mapped name, our own, else one of the surveys' if it is the only one."""
        if ours in self.found or self._take_mapped(ours):
            return
        own = find_columns([ours], self._free, any_case=ours in spelling.any_case)
        others = [find_columns([name], self._free, any_case=False) for name in spelling.exact]
        others += [find_columns([name], self._free) for name in spelling.any_case]
        self._choose(ours, own or list(dict.fromkeys(name for found in others for name in found)))

    def add_error(self, ours: str) -> None:
        """Find the error of a quantity that was found, by the name that the quantity has in the table."""
        name = "parallax_error" if ours == "parallax" else f"e_{ours}"
        if ours not in self.found or name in self.found or self._take_mapped(name):
            return
        theirs = self.found[ours]
        spelling = BANDS.get(ours) or OTHERS.get(ours) or Spelling((ours,))
        is_any_case = theirs.lower() in spelling.any_case or theirs not in spelling.exact
        made = [f"e_{theirs}", f"E_{theirs}", f"e{theirs}", f"err_{theirs}"]
        made += [f"{theirs}{end}" for end in ("_err", "_ERR", "_error", "_ERROR", "Err", "err")]
        found = find_columns(made, self._free, any_case=is_any_case)
        self._choose(name, found or find_columns((name, *spelling.errors), self._free))

    def _take_mapped(self, ours: str) -> bool:
        """Take the column that the user names, if he names one."""
        if ours not in self._map:
            return False
        matches = find_columns([self._map[ours]], self._names)
        if not matches:
            raise UsageError(
                f"{self._path}: no column {self._map[ours]!r} for {ours}; {list_columns(self._names)}"
            )
        self._choose(ours, matches)
        return True

    def _choose(self, ours: str, matches: Sequence[str]) -> None:
        if len(matches) > 1:
            raise UsageError(
                f"{self._path}: {' and '.join(matches)} may be {ours}; say which: --map {ours}={matches[0]}"
            )
        if matches:
            self.found[ours] = matches[0]
