"""Labels of M dwarfs from a table to a table: what `labels mdwarfs` does."""

import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from apogee_batch import __version__
from apogee_batch.errors import UsageError
from apogee_batch.files import sha256_of_file, write_table
from apogee_batch.labels.mann2015 import TEFF_RELATIONS
from apogee_batch.labels.mdwarf_selection import MDwarfReason, needed_bands
from apogee_batch.labels.mdwarf_settings import MDwarfSettings, bands_of
from apogee_batch.labels.mdwarf_table import mdwarf_table
from apogee_batch.labels.mdwarfs import MDwarfLabels, asked_bands, label_mdwarfs, teff_candidates
from apogee_batch.labels.photometry import Photometry, read_photometry

_NO_FE_H = (
    "[Fe/H] has no relation and no column: give coefficients as [relations.fe_h] in the --settings file "
    "(none are built in: those of Hejazi et al. 2015 could not be verified), or a column: --map fe_h=NAME"
)
_SUMMARY_SIGMA = 3.0


def make_mdwarf_labels(
    photometry: Path,
    out: Path,
    *,
    settings: Path | None = None,
    flags: Mapping[str, Mapping[str, Any]] | None = None,
    column_map: Mapping[str, str] | None = None,
) -> list[str]:
    """Label the M dwarfs of a table of photometry, write them, and tell what was done.

    Parameters
    ----------
    photometry : Path
        Table in any format that `read_photometry` knows.
    out : Path
        Parquet file, written whole or not at all.
    settings : Path, optional
        TOML file of `MDwarfSettings`.
    flags : mapping of section to mapping of key to value
        What the command line said; it wins over the file, a None is "not said".
    column_map : mapping of str to str, optional
        Our names of columns to those of the table.

    Raises
    ------
    UsageError
        If a setting or the table is of no use; says what to change.
    """
    if out.suffix.lower() not in (".parquet", ".parq"):
        raise UsageError(f"{out}: the labels are written as Parquet; give a name that ends in .parquet")
    if out.exists() and photometry.exists() and out.samefile(photometry):
        raise UsageError(f"{out}: is the photometry itself; give another name with --out")
    chosen = load_mdwarf_settings(settings, flags)
    table = _read(photometry, chosen, column_map or {})
    labels = label_mdwarfs(table, chosen)
    provenance = {
        "version": __version__,
        "photometry": {"name": photometry.name, "sha256": sha256_of_file(photometry)},
        "columns": table.columns,
        "settings": chosen.model_dump(mode="json"),
    }
    write_table(out, mdwarf_table(table, labels, provenance=provenance))
    return _summary(table, labels, chosen, out)


def load_mdwarf_settings(
    path: Path | None, flags: Mapping[str, Mapping[str, Any]] | None = None
) -> MDwarfSettings:
    """Put the settings together: flags win over the TOML file, that over the defaults.

    Raises
    ------
    UsageError
        If the file cannot be read, or a key is unknown or a value of no use; names it.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{path}: cannot be read as TOML ({error})") from error
    for section, table in (flags or {}).items():
        said = {key: value for key, value in table.items() if value is not None}
        if said and isinstance(values.setdefault(section, {}), dict):
            values[section] = values[section] | said
    try:
        return MDwarfSettings.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in item['loc'])}: "
            + item["msg"]
            .removeprefix("Value error, ")
            .replace("Extra inputs are not permitted", "unknown setting")
            for item in error.errors()
        ]
        raise UsageError(f"{path or 'command line'}: {'; '.join(problems)}") from error


def _read(path: Path, settings: MDwarfSettings, column_map: Mapping[str, str]) -> Photometry:
    """Read the photometry that the settings ask for, and see that it is there."""
    relations = settings.relations
    own = [relation for relation in (relations.fe_h, relations.teff, relations.logg) if relation is not None]
    of_own = [band for relation in own for x in relation.quantities for band in bands_of(x)]
    required = (*needed_bands(settings.selection), *of_own)
    photometry = read_photometry(
        path,
        bands=asked_bands(settings),
        column_map=column_map,
        required=(*dict.fromkeys(required), "parallax", "parallax_error"),
        numbers=("fe_h", "e_fe_h"),
        texts=("field",),
    )
    _check_teff(path, photometry, settings)
    _check_errors(path, photometry, settings)
    _check_fe_h(path, photometry, settings)
    if settings.selection.young_fields and "field" not in photometry.columns:
        raise UsageError(
            f"{path}: no column field, by which young stars are left out; name it with --map field=NAME, or "
            "take all stars: young_fields = [] in [selection] of the --settings file"
        )
    return photometry


def _check_teff(path: Path, photometry: Photometry, settings: MDwarfSettings) -> None:
    """See that there is a relation for Teff whose bands the table has."""
    names = teff_candidates(settings)
    if names and not any(set(TEFF_RELATIONS[name].bands) <= photometry.columns.keys() for name in names):
        wanted = " or ".join(dict.fromkeys("-".join(TEFF_RELATIONS[name].bands) for name in names))
        raise UsageError(
            f"{path}: no colour for Teff: it takes {wanted}; name the columns, for example --map "
            f"{TEFF_RELATIONS[names[0]].bands[0]}=NAME"
        )


def _check_errors(path: Path, photometry: Photometry, settings: MDwarfSettings) -> None:
    """See that every band that may be used has errors."""
    bare = [b for b in photometry.magnitude if b in photometry.columns and f"e_{b}" not in photometry.columns]
    if bare and settings.errors.magnitude is None:
        raise UsageError(
            f"{path}: no column of errors for {', '.join(bare)}; name it with --map e_{bare[0]}=NAME, or "
            "state one error for all such bands: magnitude = 0.03 in [errors] of the --settings file"
        )


def _check_fe_h(path: Path, photometry: Photometry, settings: MDwarfSettings) -> None:
    """See that there is a way to [Fe/H]."""
    if settings.relations.fe_h is not None:
        return
    if "fe_h" not in photometry.columns:
        raise UsageError(f"{path}: {_NO_FE_H}")
    if "e_fe_h" not in photometry.columns and settings.errors.fe_h is None:
        raise UsageError(
            f"{path}: no column of errors for fe_h; name it with --map e_fe_h=NAME, or state one for all: "
            "fe_h = 0.1 in [errors] of the --settings file"
        )


def _summary(photometry: Photometry, labels: MDwarfLabels, settings: MDwarfSettings, out: Path) -> list[str]:
    """Tell how many stars have labels, by what, and why the others have none."""
    reasons = Counter(str(reason) for reason in labels.reason if reason is not None)
    n_labelled = photometry.n_stars - reasons.total()
    pairs = ", ".join(f"{ours} = {theirs}" for ours, theirs in photometry.columns.items())
    own = settings.relations.fe_h
    lines = [
        f"columns: {pairs}",
        f"{n_labelled} of {photometry.n_stars} stars labelled: {out}",
        "[Fe/H] by " + (f"column {photometry.columns['fe_h']}" if own is None else own.source),
    ]
    relations = Counter(name for name in labels.teff_relation if name)
    if relations:
        lines.append("Teff by " + ", ".join(f"{name} ({n})" for name, n in relations.most_common()))
        lines.append(_comparison(labels))
    if reasons:
        in_order = [f"{reasons[reason]} {reason}" for reason in MDwarfReason if reasons[reason]]
        lines.append("no label: " + ", ".join(in_order))
    young = Counter(
        field
        for field, reason in zip(photometry.texts.get("field", ()), labels.reason, strict=False)
        if reason is MDwarfReason.YOUNG_FIELD
    )
    if young:
        lines.append("young fields: " + ", ".join(f"{name} ({n})" for name, n in young.most_common()))
    return lines


def _comparison(labels: MDwarfLabels) -> str:
    """Tell how the two ways to log g agree."""
    is_labelled = np.array([reason is None for reason in labels.reason], dtype=bool)
    difference = (labels.values["logg"] - labels.values["logg_m_k"])[is_labelled]
    sigma = np.hypot(labels.errors["logg"], labels.errors["logg_m_k"])[is_labelled]
    n_apart = int((np.abs(difference) > _SUMMARY_SIGMA * sigma).sum())
    return (
        f"log g from Teff minus log g from M_K: median {np.median(difference):+.3f} dex, standard deviation "
        f"{np.std(difference):.3f}; {n_apart} stars differ by more than {_SUMMARY_SIGMA:g} sigma"
    )
