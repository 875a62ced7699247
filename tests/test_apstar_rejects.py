"""Files that are damaged, or no apStar files: each costs itself only, and says why."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from spectrum_checks import assert_equal, assert_well_formed, reason, spectra, write
from strategies import (
    GRID,
    ApStarFile,
    apstar_files,
    compress_images,
    make_values,
    packed,
    simple_file,
    to_bytes,
    write_apstar,
)

from apogee_batch.errors import RejectReason
from apogee_batch.survey.apstar import RejectedSpectrum, count_spectra, read_apstar
from apogee_batch.survey.fits_headers import BLOCK_BYTES
from apogee_batch.survey.pixels import N_PIXELS

SMALL = simple_file(n_rows=3, n_extra=0)
HEADER_PLACES = [
    place
    for start in (
        0,
        *(place for place in range(0, len(SMALL), BLOCK_BYTES) if SMALL[place:].startswith(b"XTENSION")),
    )
    for place in range(start, start + BLOCK_BYTES)
    if SMALL[place] != ord(" ")
]
PACKED_TILES = to_bytes([fits.PrimaryHDU(), *compress_images(list(make_values(1)[:3]))])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("apstar")


@given(apstar_files(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_cut_short_is_rejected_or_whole_in_what_is_read(
    folder: Path, file: ApStarFile, data: st.DataObject
) -> None:
    whole = spectra(read_apstar(write(folder, file.content)))
    n_kept = data.draw(st.integers(0, len(file.content) - 1))
    with fits.open(write(folder, file.content)) as hdus:
        needed = hdus.fileinfo(3)["datLoc"] + hdus[3].data.nbytes
    result = read_apstar(write(folder, file.content[:n_kept]))
    if n_kept < needed or isinstance(result, RejectedSpectrum):
        assert reason(result) in {
            RejectReason.TRUNCATED,
            RejectReason.MISSING_HDU,
            RejectReason.EMPTY,
            RejectReason.NOT_FITS,
        }
    else:
        assert_equal(result, whole)


@given(st.integers(1, 3 * BLOCK_BYTES))
@settings(max_examples=30, deadline=None)
def test_a_file_cut_anywhere_in_its_last_image_is_rejected(folder: Path, n_lost: int) -> None:
    content = simple_file(n_extra=1)
    n_padding = -(4 * N_PIXELS) % BLOCK_BYTES
    result = read_apstar(write(folder, content[: len(content) - n_lost]))
    if n_lost > n_padding and n_lost % BLOCK_BYTES:
        assert reason(result) is RejectReason.TRUNCATED


def test_a_file_cut_anywhere_in_its_first_headers_is_rejected(folder: Path) -> None:
    content = simple_file(n_extra=0)
    for n_kept in range(1, 2 * BLOCK_BYTES + 1, 13):
        result = read_apstar(write(folder, content[:n_kept]))
        assert reason(result) in {RejectReason.TRUNCATED, RejectReason.NOT_FITS, RejectReason.MISSING_HDU}


def test_a_mask_cut_at_the_end_of_a_block_is_cut_short(folder: Path) -> None:
    content = simple_file(n_rows=3, n_extra=0)  # its first row, the only one wanted, is still there
    assert reason(read_apstar(write(folder, content[:-BLOCK_BYTES]))) is RejectReason.TRUNCATED


def test_a_file_without_its_last_padding_is_whole(folder: Path) -> None:
    content = simple_file(n_extra=1)
    spectra(read_apstar(write(folder, content[:-100])))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_damage_to_a_header_raises(folder: Path, data: st.DataObject) -> None:
    content = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.sampled_from(HEADER_PLACES))
        content[place] = data.draw(st.integers(0, 255))
    path = write(folder, bytes(content))
    for rows in ("combined", "visits"):
        result = read_apstar(path, rows=rows)  # type: ignore[arg-type]
        if isinstance(result, list):
            for spectrum in result:
                assert_well_formed(spectrum)
        else:
            assert reason(result) in RejectReason
        assert count_spectra(path, rows=rows) >= 1  # type: ignore[arg-type]


@given(apstar_files(max_rows=3), st.data())
@settings(max_examples=30, deadline=None)
def test_no_damage_to_gzip_data_raises(folder: Path, file: ApStarFile, data: st.DataObject) -> None:
    content = bytearray(packed(file.content))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
        assert isinstance(read_apstar(write(folder, bytes(content))), RejectedSpectrum)
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        result = read_apstar(write(folder, bytes(content)))
        assert isinstance(result, list | RejectedSpectrum)


@given(st.binary(max_size=6000), st.sampled_from([b"", b"SIMPLE  =", b"\x1f\x8b\x08"]))
@settings(max_examples=50, deadline=None)
def test_no_file_at_all_raises(folder: Path, content: bytes, start: bytes) -> None:
    path = write(folder, start + content)
    result = read_apstar(path)
    assert isinstance(result, RejectedSpectrum)
    assert result.apogee_id == "2M19390532+4027346"
    assert count_spectra(path, rows="visits") == 1


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_no_damage_to_a_compressed_image_raises(folder: Path, data: st.DataObject) -> None:
    content = bytearray(PACKED_TILES)
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(BLOCK_BYTES, len(content) - 1))] = data.draw(st.integers(0, 255))
    result = read_apstar(write(folder, bytes(content)))
    assert isinstance(result, list | RejectedSpectrum)


def test_a_reason_is_given_for_each_kind_of_bad_file(folder: Path) -> None:
    flux, err, mask, _ = make_values(1)
    nothing = np.full_like(flux, np.nan)
    no_hdu = to_bytes([fits.PrimaryHDU()])
    table = to_bytes([fits.PrimaryHDU(), fits.BinTableHDU(np.zeros(3, [("a", "f4")]))])
    large = mask.astype("i8")
    large[0, 5] = 1 << 40
    cases = {
        RejectReason.EMPTY: b"",
        RejectReason.NOT_FITS: b"<html>404 not found</html>",
        RejectReason.MISSING_HDU: no_hdu,
        RejectReason.NOT_APSTAR: table,
        RejectReason.BAD_SHAPE: write_apstar(flux[:, :-1], err[:, :-1], mask[:, :-1]),
        RejectReason.BAD_GRID: write_apstar(flux, err, mask, grid=GRID | {"CDELT1": 6.01e-6}),
        RejectReason.BAD_ID: write_apstar(flux, err, mask, cards={"OBJID": "../../etc/passwd"}),
        RejectReason.BAD_MASK: write_apstar(flux, err, large),
        RejectReason.NON_FINITE: write_apstar(np.ones_like(flux), nothing, mask, cards={"SNR": None}),
        RejectReason.NO_GOOD_PIXELS: write_apstar(flux, np.full_like(err, 1e10), mask),
    }
    found = {expected: reason(read_apstar(write(folder, content))) for expected, content in cases.items()}
    assert found == {expected: expected for expected in cases}


@pytest.mark.parametrize(
    "grid",
    [{}, GRID | {"CRVAL1": 4.18}, GRID | {"CRPIX1": 2}, {"CRVAL1": 4.179}, GRID | {"CRVAL1": "4.179"}],
)
def test_another_grid_is_rejected(folder: Path, grid: dict[str, Any]) -> None:
    assert reason(read_apstar(write(folder, simple_file(grid=grid)))) is RejectReason.BAD_GRID


def test_images_without_rows_are_rejected(folder: Path) -> None:
    content = simple_file(n_rows=3).replace(
        b"NAXIS2  =                    3", b"NAXIS2  =                    0"
    )
    assert reason(read_apstar(write(folder, content))) is RejectReason.BAD_SHAPE


@pytest.mark.parametrize("n_pixels", [4096, 2048])
def test_an_exposure_is_told_from_apstar(folder: Path, n_pixels: int) -> None:
    content = simple_file(n_rows=3).replace(
        b"NAXIS1  =                 8575", f"NAXIS1  = {n_pixels:20d}".encode()
    )
    result = read_apstar(write(folder, content))
    assert reason(result) is RejectReason.NOT_APSTAR
    assert isinstance(result, RejectedSpectrum)
    assert "as apVisit files have" in result.text
    assert "--row visits" in result.text


def test_images_of_different_shapes_are_rejected(folder: Path) -> None:
    flux, err, mask, _ = make_values(3)
    assert reason(read_apstar(write(folder, write_apstar(flux, err[:1], mask)))) is RejectReason.BAD_SHAPE


def test_a_file_without_flux_in_real_numbers_is_rejected(folder: Path) -> None:
    _, err, mask, _ = make_values(1)
    result = read_apstar(write(folder, write_apstar(mask, err, mask)))
    assert reason(result) is RejectReason.NOT_APSTAR


def test_a_mask_with_blanks_is_rejected_not_guessed(folder: Path) -> None:
    flux, err, mask, _ = make_values(1)
    content = write_apstar(flux, err, mask).replace(
        b"CTYPE1  = 'LOG-LINEAR'".ljust(80), b"BLANK   =                    1".ljust(80)
    )
    assert reason(read_apstar(write(folder, content))) is RejectReason.BAD_MASK


def test_compressed_tiles_that_promise_gigabytes_are_not_unpacked(folder: Path) -> None:
    hdus = compress_images(list(make_values(3)[:3]))
    content = to_bytes([fits.PrimaryHDU(), *hdus])
    card = b"ZNAXIS2 =                    3"
    assert content.count(card) == 3
    result = read_apstar(write(folder, content.replace(card, b"ZNAXIS2 =            100000000")))
    assert reason(result) is RejectReason.TOO_LARGE


def test_two_rows_are_combined_spectra_without_visits(folder: Path) -> None:
    path = write(folder, simple_file(n_rows=2))
    assert len(spectra(read_apstar(path))) == 1
    assert reason(read_apstar(path, rows="visits")) is RejectReason.BAD_SHAPE
    assert count_spectra(path, rows="visits") == 1


def test_a_visit_without_good_pixels_rejects_the_file(folder: Path) -> None:
    flux, err, mask, _ = make_values(4)
    err[3] = 1e10
    path = write(folder, write_apstar(flux, err, mask))
    assert len(spectra(read_apstar(path))) == 1
    result = read_apstar(path, rows="visits")
    assert reason(result) is RejectReason.NO_GOOD_PIXELS
    assert isinstance(result, RejectedSpectrum)
    assert "visit 2" in result.text


@pytest.mark.parametrize("card", [b"BSCALE  = 'x'", b"BSCALE  = 2,5", b"BSCALE  =", b"BZERO   = nope"])
def test_a_scale_that_cannot_be_understood_is_not_taken_for_none(folder: Path, card: bytes) -> None:
    content = SMALL.replace(b"CTYPE1  = 'LOG-LINEAR'".ljust(80), card.ljust(80), 1)
    assert len(content) == len(SMALL)
    assert reason(read_apstar(write(folder, content))) is RejectReason.UNREADABLE
