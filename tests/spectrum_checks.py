"""What tests of readers say of their results."""

from pathlib import Path

import numpy as np
from strategies import NAME

from apogee_batch.errors import RejectReason
from apogee_batch.survey.apstar import RejectedSpectrum, Spectrum
from apogee_batch.survey.pixels import GAP_ERR, N_PIXELS


def write(folder: Path, content: bytes, name: str = NAME) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def spectra(result: list[Spectrum] | RejectedSpectrum) -> list[Spectrum]:
    assert isinstance(result, list), result
    return result


def reason(result: list[Spectrum] | RejectedSpectrum) -> RejectReason:
    assert isinstance(result, RejectedSpectrum)
    assert result.text
    return result.reason


def assert_equal(one: list[Spectrum], other: list[Spectrum]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for name in ("flux", "err", "mask"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def assert_well_formed(spectrum: Spectrum) -> None:
    gap = spectrum.err >= 1e9
    assert (spectrum.flux.dtype, spectrum.err.dtype, spectrum.mask.dtype) == (
        np.float32,
        np.float32,
        np.int32,
    )
    assert all(a.dtype.isnative for a in (spectrum.flux, spectrum.err, spectrum.mask))
    assert np.isfinite(spectrum.flux).all()
    assert (spectrum.err > 0).all()
    assert (spectrum.flux[gap] == 0).all()
    assert (spectrum.err[gap] == np.float32(GAP_ERR)).all()
    assert spectrum.star.n_bad_pixels == gap.sum() < N_PIXELS
