"""Extinction: the law against its printed table, Gaia's bands against published coefficients."""

import numpy as np
import pytest

from apogee_batch.errors import UsageError
from apogee_batch.labels.extinction import PASSBANDS, band_extinction, extinction_law

# Cardelli, Clayton and Mathis (1989), table 3: A(lambda)/A(V) for R_V = 3.1 at 1/lambda per micrometre
TABLE_3 = {"U": (2.78, 1.569), "V": (1.82, 1.000), "R": (1.43, 0.751), "I": (1.11, 0.479), "J": (0.80, 0.282)}
# Gaia Collaboration (2018, A&A 616, A10), table 1: k = A/A_0 in BP-RP and A_0
PUBLISHED = {
    "g_gaia": (0.9761, -0.1704, 0.0086, 0.0011, -0.0438, 0.0013, 0.0099),
    "bp": (1.1517, -0.0871, -0.0333, 0.0173, -0.0230, 0.0006, 0.0043),
    "rp": (0.6104, -0.0170, -0.0026, -0.0017, -0.0078, 0.00005, 0.0006),
}


@pytest.mark.parametrize("band", TABLE_3)
def test_the_law_gives_its_printed_table(band: str) -> None:
    x, printed = TABLE_3[band]
    assert extinction_law(np.array(1 / x)) == pytest.approx(printed, abs=0.0012)


def test_the_law_ends_where_its_branches_end() -> None:
    for wavelength in (0.30, 3.4):
        with pytest.raises(ValueError, match="micrometres"):
            extinction_law(np.array([1.0, wavelength]))


def test_its_branches_meet() -> None:
    below, above = extinction_law(1 / np.array([1.0999999, 1.1000001]))
    assert below == pytest.approx(above, abs=0.003)


@pytest.mark.parametrize(("band", "tolerance"), [("g_gaia", 0.04), ("bp", 0.02), ("rp", 0.09)])
def test_gaia_bands_agree_with_the_published_coefficients(band: str, tolerance: float) -> None:
    c = PUBLISHED[band]
    for teff, colour in ((10000.0, 0.0), (7000.0, 0.43), (5770.0, 0.82)):
        for a_v in (0.5, 1.0, 3.0):
            powers = (1, colour, colour**2, colour**3, a_v, a_v**2, colour * a_v)
            k = sum(a * b for a, b in zip(c, powers, strict=True))
            found = band_extinction(band, np.array([a_v]), np.array([np.log10(teff)]))
            assert found[0] == pytest.approx(k * a_v, rel=tolerance)


@pytest.mark.parametrize("band", [*PASSBANDS, "j"])
def test_more_dust_is_more_extinction_and_none_is_none(band: str) -> None:
    a_v = np.linspace(0, 20, 201)
    found = band_extinction(band, a_v, np.full(201, 3.6))
    assert found[0] == pytest.approx(0, abs=1e-9)
    assert np.all(np.diff(found) > 0)


def test_wide_bands_lose_their_blue_light_first() -> None:
    per_mag = band_extinction("g_gaia", np.array([0.5, 10.0]), np.full(2, 3.7)) / np.array([0.5, 10.0])
    assert per_mag[1] < 0.85 * per_mag[0]


def test_a_given_ratio_wins_and_an_unknown_band_asks_for_one() -> None:
    a_v, log_teff = np.array([2.0]), np.array([3.6])
    assert band_extinction("k", a_v, log_teff, ratios={"k": 0.1})[0] == pytest.approx(0.2)
    assert band_extinction("w2", a_v, log_teff, ratios={"w2": 0.05})[0] == pytest.approx(0.1)
    with pytest.raises(UsageError, match="--extinction w2=RATIO"):
        band_extinction("w2", a_v, log_teff)
