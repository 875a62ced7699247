"""Reading apStar files: real ones and awkward ones."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
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
    NAME,
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
from apogee_batch.survey.apstar import (
    FileContent,
    RejectedSpectrum,
    count_spectra,
    read_apstar,
    read_apstar_file,
)
from apogee_batch.survey.apstar_images import open_primary, read_images
from apogee_batch.survey.byte_ranges import open_bytes
from apogee_batch.survey.fits_headers import Header
from apogee_batch.survey.pixels import GAP_ERR, N_PIXELS
from apogee_batch.survey.spectrum import UNKNOWN_STAR

ALL_OF_IT = settings(max_examples=25, deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("apstar")


@pytest.mark.data
def test_every_real_file_is_read_as_astropy_reads_it(shared_data: Path) -> None:
    paths = sorted((shared_data / "apstar").glob("*.fits"))
    assert len(paths) == 13
    for path in paths:
        (spectrum,) = spectra(read_apstar(path))
        with fits.open(path) as hdus:
            for name, number in (("flux", 1), ("err", 2), ("mask", 3)):
                row = np.atleast_2d(hdus[number].data)[0]
                np.testing.assert_array_equal(getattr(spectrum, name), row)
        assert_well_formed(spectrum)


@pytest.mark.data
def test_the_snr_card_of_every_real_file_is_reproduced(shared_data: Path) -> None:
    for path in sorted((shared_data / "apstar").glob("*.fits")):
        (spectrum,) = spectra(read_apstar(path))
        assert spectrum.star.snr == pytest.approx(spectrum.star.snr_header, rel=1e-5)


@pytest.mark.data
def test_headers_of_real_files_describe_their_stars(shared_data: Path) -> None:
    (spectrum,) = spectra(read_apstar(shared_data / "apstar" / "apStar-r6-2M03290406+3117075.fits"))
    star = spectrum.star
    assert star.apstar_id == "apogee.apo25m.r6.stars.4587.2M03290406+3117075"
    assert (star.telescope, star.field, star.location_id, star.release) == ("apo25m", "N1333", 4587, "r6")
    assert (star.ra, star.dec, star.h) == (52.26693, 31.285429, 12.675)
    assert (star.n_visits, star.visit, star.starflag, star.n_bad_pixels) == (1, 0, 131584, 855)


@pytest.mark.data
def test_two_releases_of_one_star_have_different_names(shared_data: Path) -> None:
    paths = (shared_data / "apstar").glob("*2M19390532+4027346.fits")
    stars = [spectra(read_apstar(path))[0].star for path in paths]
    assert len({star.apogee_id for star in stars}) == 1
    assert len({star.apstar_id for star in stars}) == 2


@pytest.mark.data
def test_visits_of_real_files_are_the_rows_after_the_combined_ones(shared_data: Path) -> None:
    for path in sorted((shared_data / "apstar").glob("*.fits")):
        visits = spectra(read_apstar(path, rows="visits"))
        with fits.open(path) as hdus:
            flux = np.atleast_2d(hdus[1].data)
            assert len(visits) == hdus[0].header["NVISITS"] == count_spectra(path, rows="visits")
            for i, visit in enumerate(visits):
                np.testing.assert_array_equal(visit.flux, flux[-len(visits) + i])
                assert visit.star.starflag == hdus[0].header[f"FLAG{i + 1}"]
        assert len({visit.star.apstar_id for visit in visits}) == len(visits)


@pytest.mark.data
def test_other_products_are_rejected_each_for_its_own_reason(shared_data: Path) -> None:
    paths = sorted((shared_data / "not-apstar").glob("*.fits"))
    reasons = [reason(read_apstar(path)) for path in paths]
    assert reasons == [RejectReason.NOT_APSTAR] * 2


@given(apstar_files(), st.booleans())
@ALL_OF_IT
def test_what_was_written_is_read(folder: Path, file: ApStarFile, is_packed: bool) -> None:
    path = write(folder, packed(file.content) if is_packed else file.content)
    (spectrum,) = spectra(read_apstar(path))
    is_gap = file.is_gap[0]
    np.testing.assert_array_equal(spectrum.flux, np.where(is_gap, 0, file.flux[0]).astype(np.float32))
    np.testing.assert_array_equal(spectrum.err, np.where(is_gap, 1e10, file.err[0]).astype(np.float32))
    np.testing.assert_array_equal(spectrum.mask, file.mask[0])
    assert_well_formed(spectrum)
    assert spectrum.star.snr == pytest.approx(spectrum.star.snr_header, rel=1e-5)
    assert spectrum.star.n_visits == file.n_visits


@given(apstar_files(max_rows=5))
@ALL_OF_IT
def test_visits_are_counted_as_they_are_read(folder: Path, file: ApStarFile) -> None:
    path = write(folder, file.content)
    visits = spectra(read_apstar(path, rows="visits"))
    assert len(visits) == count_spectra(path, rows="visits") == file.n_visits
    for i, visit in enumerate(visits):
        own = len(file.flux) - file.n_visits + i
        np.testing.assert_array_equal(visit.mask, file.mask[own])
        np.testing.assert_array_equal(
            visit.flux[~file.is_gap[own]], file.flux[own][~file.is_gap[own]].astype("f4")
        )
        assert visit.star.visit == i + 1
        assert visit.star.apstar_id.endswith(f".visit{i + 1:02d}")
        assert np.isnan(visit.star.snr_header)
        assert_well_formed(visit)


@given(apstar_files())
@ALL_OF_IT
def test_bytes_and_astropy_give_the_same(folder: Path, file: ApStarFile) -> None:
    path = write(folder, file.content)
    direct = spectra(read_apstar(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Header, "is_plain", False)
        assert_equal(spectra(read_apstar(path)), direct)


def scale_flux(images: list[np.ndarray]) -> list[Any]:
    hdus = [fits.ImageHDU(image) for image in images]
    hdus[0].scale("float32", bscale=2.0)
    return hdus


def shift_err(images: list[np.ndarray]) -> list[Any]:
    hdus = [fits.ImageHDU(image) for image in images]
    hdus[1].scale("float32", bzero=1.0)
    return hdus


def without_sign(images: list[np.ndarray]) -> list[Any]:
    return [*(fits.ImageHDU(image) for image in images[:2]), fits.ImageHDU(images[2].astype("u2"))]


@pytest.mark.parametrize("make", [compress_images, scale_flux, shift_err, without_sign])
def test_compressed_and_scaled_images_are_read_as_astropy_reads_them(
    folder: Path, make: Callable[[list[np.ndarray]], list[Any]]
) -> None:
    flux, err, mask, _ = make_values(3)
    hdus = make([flux, err, mask])
    for hdu in hdus:
        hdu.header.update(GRID)
    path = write(folder, to_bytes([fits.PrimaryHDU(), *hdus]))
    for rows, first in (("combined", 0), ("visits", 2)):
        (spectrum,) = spectra(read_apstar(path, rows=rows))  # type: ignore[arg-type]
        with fits.open(path) as read:
            good = spectrum.err < 1e9
            np.testing.assert_array_equal(spectrum.flux[good], read[1].data[first][good])
            np.testing.assert_array_equal(spectrum.err[good], read[2].data[first][good])
            np.testing.assert_array_equal(spectrum.mask, mask[first])


def test_what_was_decoded_keeps_no_rows_in_memory_that_nobody_wants(folder: Path) -> None:
    flux, err, mask, _ = make_values(5)
    hdus = compress_images([flux, err, mask])
    path = write(folder, to_bytes([fits.PrimaryHDU(), *hdus]))
    with open_bytes(path) as source:
        _, images = read_images(source, open_primary(source), "combined")
    for image in images:
        assert image.shape == (1, N_PIXELS)
        assert image.base is None or image.base.nbytes == image.nbytes


def test_visits_are_counted_by_rows_where_the_header_does_not_tell(folder: Path) -> None:
    for n_rows, n_visits in ((1, 1), (3, 1), (5, 3)):
        path = write(folder, simple_file(n_rows, cards={"NVISITS": None}))
        (spectrum,) = spectra(read_apstar(path))
        assert spectrum.star.n_visits == n_visits
        assert {visit.star.n_visits for visit in spectra(read_apstar(path, rows="visits"))} == {1}


def test_pixels_that_are_no_measurement_become_gaps(folder: Path) -> None:
    flux, err, mask, _ = make_values(1, real="f8")
    bad = [
        (np.nan, 1.0),
        (np.inf, 1.0),
        (5.0, np.nan),
        (5.0, np.inf),
        (5.0, 0.0),
        (5.0, -1.0),
        (5.0, 1e9),
        (1e300, 1.0),
    ]
    for i, (value, sigma) in enumerate(bad, 1000):
        flux[0, i], err[0, i] = value, sigma
    (spectrum,) = spectra(read_apstar(write(folder, write_apstar(flux, err, mask))))
    assert (spectrum.flux[1000:1008] == 0).all()
    assert (spectrum.err[1000:1008] == np.float32(GAP_ERR)).all()
    assert (spectrum.err[1008:2000] < 1e9).any()
    assert_well_formed(spectrum)
    assert np.isfinite(spectrum.star.snr)


def test_negative_flux_is_a_measurement(folder: Path) -> None:
    flux, err, mask, _ = make_values(1)
    flux[0, 2000] = -3.5
    (spectrum,) = spectra(read_apstar(write(folder, write_apstar(flux, err, mask))))
    assert spectrum.flux[2000] == -3.5


def test_only_a_tenth_of_a_large_file_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = simple_file(n_rows=12)
    path = write(folder, content)
    read: list[int] = []
    original = os.pread

    def counting(descriptor: int, n_bytes: int, offset: int) -> bytes:
        read.append(n_bytes)
        return original(descriptor, n_bytes, offset)

    monkeypatch.setattr(os, "pread", counting)
    spectra(read_apstar(path))
    assert len(read) == 3
    assert sum(read) < 150_000 < len(content) / 10


def test_a_file_is_told_by_its_size_and_what_was_read(folder: Path) -> None:
    content = simple_file(n_rows=3, n_extra=2)
    path = write(folder, content)
    _, told = read_apstar_file(path)
    assert told.size == len(content)
    assert read_apstar_file(path)[1] == told == read_apstar_file(write(folder, content, "other.fits"))[1]
    assert read_apstar_file(path, known=UNKNOWN_STAR)[1] == told
    assert read_apstar_file(path, rows="visits")[1] != told


@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "gz"])
def test_what_makes_the_spectrum_makes_the_hash(folder: Path, is_packed: bool) -> None:
    content = simple_file(n_rows=3, n_extra=2)
    pack = packed if is_packed else bytes
    before = read_apstar_file(write(folder, pack(content)))[1].digest
    with fits.open(write(folder, content)) as hdus:
        places = [hdus.fileinfo(number)["datLoc"] + 400 for number in (1, 2, 3, 4)]
    for place in (content.index(b"N6819"), *places[:3]):
        changed = bytearray(content)
        changed[place] ^= 1
        assert read_apstar_file(write(folder, pack(bytes(changed))))[1].digest != before
    changed = bytearray(content)
    changed[places[3]] ^= 1  # the sky is not read, except in gzip
    assert (read_apstar_file(write(folder, pack(bytes(changed))))[1].digest == before) == (not is_packed)


def test_a_rejected_file_is_told_too_and_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    original = os.open

    def counting(path: object, *options: Any) -> int:
        opened.append(path)
        return original(path, *options)  # type: ignore[arg-type]

    path = write(folder, simple_file(grid={}))
    monkeypatch.setattr(os, "open", counting)
    result, told = read_apstar_file(path)
    assert reason(result) is RejectReason.BAD_GRID
    assert opened == [path]
    assert told.size == path.stat().st_size
    assert told.digest is not None
    assert read_apstar_file(path)[1] == told
    assert read_apstar_file(folder / "absent.fits")[1] == FileContent(0, None)
    assert read_apstar_file(write(folder, b""))[1] == FileContent(0, None)


def test_a_name_that_is_no_name_is_not_passed_on(folder: Path) -> None:
    known = replace(UNKNOWN_STAR, apogee_id="../../x")
    result, _ = read_apstar_file(write(folder, simple_file()), known=known)
    assert reason(result) is RejectReason.BAD_ID
    assert isinstance(result, RejectedSpectrum)
    assert result.apogee_id == "2M19390532+4027346"


@pytest.mark.parametrize("filler", [b"\0", b"\xff"])
def test_astropy_does_not_warn_of_a_header_that_is_not_as_it_should_be(folder: Path, filler: bytes) -> None:
    flux, err, mask, _ = make_values(1)
    hdus = scale_flux([flux, err, mask])  # which is left to astropy
    hdus[0].header.update(GRID)
    content = to_bytes([fits.PrimaryHDU(), *hdus])
    path = write(folder, content[:2879] + filler + content[2880:])
    assert len(spectra(read_apstar(path))) == 1


def test_a_summary_table_wins_over_the_header(folder: Path) -> None:
    known = replace(
        UNKNOWN_STAR,
        apstar_id="apogee.apo25m.s.stars.4264.2M00000032+5737103",
        apogee_id="2M00000032+5737103",
        telescope="lco25m",
        field="elsewhere",
        location_id=4264,
        ra=1.0,
        h=9.0,
        n_visits=7,
        starflag=0,
    )
    path = write(folder, simple_file())
    (spectrum,) = spectra(read_apstar(path, known=known))
    star = spectrum.star
    told = ("apstar_id", "apogee_id", "telescope", "field", "location_id", "ra", "h", "n_visits", "starflag")
    assert {name: getattr(star, name) for name in told} == {name: getattr(known, name) for name in told}
    assert (star.dec, star.j, star.release, star.file) == (40.459633, 10.517, "r8", NAME)
    (visit,) = spectra(read_apstar(path, rows="visits", known=known))
    assert visit.star.apstar_id == f"{known.apstar_id}.visit01"


def test_a_table_that_knows_nothing_changes_nothing(folder: Path) -> None:
    path = write(folder, simple_file())
    (alone,), (told,) = spectra(read_apstar(path)), spectra(read_apstar(path, known=UNKNOWN_STAR))
    assert alone.star == told.star


def test_a_rejected_file_is_named_as_well_as_can_be(folder: Path) -> None:
    flux, err, mask, _ = make_values(1)
    bad = write_apstar(flux, err, mask, grid={})
    names = Counter(
        result.apogee_id
        for result in (
            read_apstar(write(folder, bad)),
            read_apstar(write(folder, bad, "download(1).fits")),
            read_apstar(write(folder, b"", "x-2M19390532+4027346(1).fits")),
            read_apstar(folder / "absent.fits"),
            read_apstar(folder / "absent.fits", known=replace(UNKNOWN_STAR, apogee_id="VESTA")),
        )
        if isinstance(result, RejectedSpectrum)
    )
    assert names == {"2M19390532+4027346": 3, None: 1, "VESTA": 1}
