"""Settings of the labels of M dwarfs: which stars are taken, and by which relations."""

from typing import Annotated, Self

import numpy as np
from numpy.polynomial.polynomial import polyval2d
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from apogee_batch.labels.mann2015 import TEFF_RELATIONS
from apogee_batch.labels.photometry_columns import BANDS
from apogee_batch.schema import DoubleArray

ABSOLUTE = "m_"  # "m_k" is the absolute magnitude in K


def bands_of(quantity: str) -> tuple[str, ...]:
    """Return the bands of a colour like "j-k" or an absolute magnitude like "m_k"; none of a label.

    Raises
    ------
    ValueError
        If it is neither, or has a band that we do not know.
    """
    if quantity in ("teff", "fe_h"):
        return ()
    bands = tuple(quantity.split("-")) if "-" in quantity else (quantity.removeprefix(ABSOLUTE),)
    is_known = all(band in BANDS for band in bands) and len(bands) <= 2
    if not is_known or (len(bands) == 1) != quantity.startswith(ABSOLUTE):
        raise ValueError(
            f"{quantity!r} is no colour and no absolute magnitude; write 'j-k' or 'm_k', of the bands "
            f"{', '.join(BANDS)}"
        )
    return bands


def _is_range(limits: tuple[float, float]) -> tuple[float, float]:
    if not limits[0] < limits[1]:
        raise ValueError(f"[{limits[0]:g}, {limits[1]:g}] is no range; the lower limit comes first")
    return limits


Range = Annotated[tuple[float, float], AfterValidator(_is_range)]


class _Section(BaseModel):
    """A table of the TOML file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PolynomialRelation(_Section):
    """A relation as its authors print it: a polynomial in one or two quantities, with range and scatter.

    Attributes
    ----------
    source : str
        Where the coefficients are printed.
    x, y : str
        Colours ("g-k"), absolute magnitudes ("m_k") or labels ("fe_h", "teff"); without `y` the relation is
        of `x` alone.
    coefficients : tuple of tuple of float
        `coefficients[i][j]` multiplies x**i * y**j.
    scatter : float
        One-sigma scatter of the relation, in the unit of its result.
    valid_x, valid_y, valid_result : tuple of float, optional for y and the result
        Where it holds.
    x_origin, x_scale, y_origin, y_scale : float
        The polynomial is of (x - x_origin) / x_scale, likewise y.
    """

    source: str = Field(min_length=1)
    x: str
    y: str | None = None
    coefficients: tuple[tuple[float, ...], ...] = Field(min_length=1)
    scatter: float = Field(ge=0)
    valid_x: Range
    valid_y: Range | None = None
    valid_result: Range | None = None
    x_origin: float = 0.0
    x_scale: float = Field(1.0, gt=0)
    y_origin: float = 0.0
    y_scale: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        widths = {len(row) for row in self.coefficients}
        if len(widths) != 1 or widths == {0}:
            raise ValueError("the rows of coefficients differ in length; fill up with zeros")
        if self.y is None and widths != {1}:
            raise ValueError("without y each row of coefficients has one number: [[a], [b], ...]")
        if (self.y is None) != (self.valid_y is None):
            raise ValueError("y and valid_y come together")
        return self

    @property
    def quantities(self) -> tuple[str, ...]:
        """What it is a relation of."""
        return (self.x,) if self.y is None else (self.x, self.y)

    @property
    def valid(self) -> tuple[tuple[float, float], ...]:
        """The range of each of the quantities."""
        return tuple(limits for limits in (self.valid_x, self.valid_y) if limits is not None)

    def evaluate(self, *values: DoubleArray) -> DoubleArray:
        """Return the result of `quantities`, given as arrays of one shape; also outside the range."""
        x = (values[0] - self.x_origin) / self.x_scale
        y = np.zeros_like(x) if self.y is None else (values[1] - self.y_origin) / self.y_scale
        return np.asarray(polyval2d(x, y, self.coefficients), dtype=np.float64)


class Selection(_Section):
    """Which stars are taken for M dwarfs.

    Attributes
    ----------
    cuts : dict of str to tuple of float
        Range of each colour or absolute magnitude. The ranges are the paper's (section 2.3.1); which
        colour each belongs to is lost in its text, and here inferred.
    parallax_over_error : float
        Smallest significance of a parallax. At 10 the distance 1/parallax is biased by about 1 %, and its
        error of 10 % makes 0.22 mag; the paper's own limit is lost in its text.
    young_fields : tuple of str
        Fields of star-forming regions and young clusters, whose stars are left out; * and ? stand for any
        characters. The paper names the regions (Orion Complex, clusters of Perseus, NGC 2264, Pleiades);
        the patterns are ours.
    """

    cuts: dict[str, Range] = {"j-k": (0.7, 1.05), "g-k": (3.37, 8.46), "m_k": (5.0, 10.0)}
    parallax_over_error: float = Field(10.0, ge=3)
    young_fields: tuple[str, ...] = (
        "*ORI*",
        "*NGC1333*",
        "N1333*",
        "*IC348*",
        "*NGC2264*",
        "N2264*",
        "*PLEIAD*",
    )

    @model_validator(mode="after")
    def _cuts_are_of_quantities(self) -> Self:
        for quantity in self.cuts:
            if not bands_of(quantity):
                raise ValueError(f"a cut in {quantity} is not possible before it is known")
        return self


class Relations(_Section):
    """By what the labels are estimated; without a polynomial of its own a label comes by Mann et al. (2015).

    Attributes
    ----------
    fe_h, teff, logg : PolynomialRelation, optional
        Relations that the user gives. [Fe/H] has no other, but for a column of the table.
    teff_relation : str, optional
        The relation of `TEFF_RELATIONS` for all stars; default for each star the one of the smallest
        scatter that it has the bands for.
    """

    fe_h: PolynomialRelation | None = None
    teff: PolynomialRelation | None = None
    logg: PolynomialRelation | None = None
    teff_relation: str | None = None

    @model_validator(mode="after")
    def _know_their_quantities(self) -> Self:
        known = {"fe_h": (), "teff": ("fe_h",), "logg": ("fe_h", "teff")}
        for label, before in known.items():
            relation = getattr(self, label)
            for quantity in () if relation is None else relation.quantities:
                if not bands_of(quantity) and quantity not in before:
                    raise ValueError(f"{label} cannot be a relation of {quantity}")
        if self.teff_relation is not None and self.teff_relation not in TEFF_RELATIONS:
            raise ValueError(
                f"unknown teff_relation {self.teff_relation!r}; it is one of {', '.join(TEFF_RELATIONS)}"
            )
        if self.teff is not None and self.teff_relation is not None:
            raise ValueError("give teff or teff_relation, not both")
        return self


class Errors(_Section):
    """What is not in the table: scatter of the relations and, if need be, errors of the photometry.

    Attributes
    ----------
    radius : float
        Scatter of the radius from Teff and [Fe/H], relative (9.3 %: the authors' own code).
    mass : float
        Scatter of the mass from the radius, relative; 0, because none is published for this polynomial.
    radius_m_k, mass_m_k : float
        Scatter of radius and mass from M_K, relative (3 % and 2 %: abstract of Mann et al. 2015).
    magnitude : float, optional
        Error of the magnitudes of every band whose error the table does not give.
    fe_h : float, optional
        Error of a column of [Fe/H] without errors.
    realizations : int
        Draws of each star.
    seed : int
        Seed of all draws.
    """

    radius: float = Field(0.093, ge=0)
    mass: float = Field(0.0, ge=0)
    radius_m_k: float = Field(0.03, ge=0)
    mass_m_k: float = Field(0.02, ge=0)
    magnitude: float | None = Field(None, ge=0)
    fe_h: float | None = Field(None, ge=0)
    realizations: int = Field(1000, ge=100, le=1_000_000)
    seed: int = Field(0, ge=0, lt=2**63)


class MDwarfSettings(_Section):
    """All settings of `labels mdwarfs`.

    Attributes
    ----------
    max_logg_difference : float, optional
        Stars whose log g from Teff and from M_K differ by more get no label; default none is left out.
    """

    selection: Selection = Selection()
    relations: Relations = Relations()
    errors: Errors = Errors()
    max_logg_difference: float | None = Field(None, gt=0)
