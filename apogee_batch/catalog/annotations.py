"""What each reader wants to be told about the columns: units, UCDs, descriptions, widths of texts."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from astropy import units as u
from astropy.table import Column as AstropyColumn
from astropy.table import Table
from astropy.table.meta import get_yaml_from_table
from astropy.table.serialize import SerializedColumn

from apogee_batch.schema import Column, catalog_flags, catalog_version

VOTABLE_NAMESPACE = "http://www.ivoa.net/xml/VOTable/v1.3"
VOPARQUET_VERSION = "1.0"
TITLE = "Stellar labels from APOGEE spectra"
FRAME = "ICRS"  # of the positions: most are those of 2MASS; the survey itself says J2000
_POSITION = ("ra", "dec")
_FRAME_ID = "sky"  # by which columns of a VOTable name their frame
_VOTABLE_TYPES = {"int32": "int", "int64": "long", "float32": "float", "float64": "double"}
_COMMENT_WIDTH = 70  # of astropy's comments: one character of a card's 72 marks that a line goes on


def file_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return what a catalogue file says of itself: the caller's words, its format and the flags."""
    flags = {
        flag.name: {"bit": flag.bit, "description": flag.description} for flag in catalog_flags().values()
    }
    return {
        "title": TITLE,
        "catalog_version": str(catalog_version()),
        **metadata,
        "flags": json.dumps(flags, separators=(",", ":")),
    }


def parquet_yaml(columns: Sequence[Column], widths: Mapping[str, int], metadata: Mapping[str, str]) -> str:
    """Return the column descriptions that astropy looks for in a Parquet file."""
    table = _described_columns(columns, widths)
    table.meta.update(metadata)
    return "\n".join(get_yaml_from_table(table))


def fits_comments(
    columns: Sequence[Column], widths: Mapping[str, int], *, with_nulls: Collection[str]
) -> list[str]:
    """Return the comments from which astropy restores what a FITS header cannot say.

    These are descriptions, UCDs and the logarithmic units, which no FITS reader would take in TUNIT.

    Parameters
    ----------
    columns : sequence of Column
        Of the file, in order.
    widths : mapping of str to int
        Characters of each text column.
    with_nulls : collection of str
        Columns that come back masked.
    """
    table = _described_columns(columns, widths)
    table.meta["__serialized_columns__"] = {
        column.name: {
            "__class__": f"astropy.table.column.{'MaskedColumn' if column.name in with_nulls else 'Column'}",
            "unit": column.unit,
            "data": SerializedColumn({"name": column.name}),
        }
        for column in columns
        if is_logarithmic(column)
    }
    comments = ["--BEGIN-ASTROPY-SERIALIZED-COLUMNS--"]
    for line in get_yaml_from_table(table):
        pieces = [line[i : i + _COMMENT_WIDTH] for i in range(0, len(line), _COMMENT_WIDTH)]
        comments += [piece + "\\" for piece in pieces[:-1]] + pieces[-1:]  # a backslash: the line goes on
    return [*comments, "--END-ASTROPY-SERIALIZED-COLUMNS--"]


def is_logarithmic(column: Column) -> bool:
    """Tell whether a column's unit is a kind of dex, which no standard of FITS or the VO knows."""
    unit = u.Unit(column.unit)
    return bool(unit == u.dex or isinstance(unit, u.function.FunctionUnitBase))


def _described_columns(columns: Sequence[Column], widths: Mapping[str, int]) -> Any:
    """Return some columns as an astropy table of no rows."""
    described = [
        AstropyColumn(
            name=column.name,
            dtype=f"U{widths[column.name]}" if column.dtype == "string" else column.dtype,
            unit=column.unit or None,
            description=column.description,
            meta={"ucd": column.ucd},
            length=0,
        )
        for column in columns
    ]
    return Table(described)


def votable_header(columns: Sequence[Column], widths: Mapping[str, int], n_rows: int) -> str:
    """Return the VOTable, without its data, that a VOParquet file carries.

    VOTable 1.3 takes the units of the CDS, which can say `dex`: [cm.s-2] is log10 of cm/s2. The frame of the
    positions has no epoch, since they are of several years.
    """
    votable = ET.Element("VOTABLE", {"version": "1.3", "xmlns": VOTABLE_NAMESPACE})
    resource = ET.SubElement(votable, "RESOURCE", {"type": "results"})
    ET.SubElement(resource, "COOSYS", {"ID": _FRAME_ID, "system": FRAME})
    table = ET.SubElement(resource, "TABLE", {"name": "catalog", "nrows": str(n_rows)})
    ET.SubElement(table, "DESCRIPTION").text = TITLE
    for column in columns:
        attributes = {"name": column.name, "ucd": column.ucd}
        if column.dtype == "string":
            attributes |= {"datatype": "char", "arraysize": str(widths[column.name])}
        else:
            attributes["datatype"] = _VOTABLE_TYPES[column.dtype]
        if column.unit:
            attributes["unit"] = _cds_unit(column)
        if column.name in _POSITION:
            attributes["ref"] = _FRAME_ID
        field = ET.SubElement(table, "FIELD", attributes)
        ET.SubElement(field, "DESCRIPTION").text = column.description
    return ET.tostring(votable, encoding="unicode", xml_declaration=False)


def _cds_unit(column: Column) -> str:
    """Return a unit in the words of the CDS, where a bare dex is `[-]`."""
    unit = u.Unit(column.unit)
    return "[-]" if unit == u.dex else str(unit.to_string("cds"))
