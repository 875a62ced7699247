"""Files of the survey's layout that are damaged in one way each: each costs itself, and says its own code."""

import os
import re
import tracemalloc
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from malformed import BLOCK, CARD, CUTS, KINDS, NAN, Malformed, flipped, good_file, put, spans
from spectrum_checks import assert_equal, assert_well_formed, write
from strategies import NAME, make_values, packed, write_apstar

from apogee_batch.errors import RejectReason
from apogee_batch.survey.apstar import (
    FileContent,
    RejectedSpectrum,
    Rows,
    Spectrum,
    count_spectra,
    read_apstar_file,
)
from apogee_batch.survey.byte_ranges import MAX_FILE_BYTES
from apogee_batch.survey.pixels import N_PIXELS

ROWS: tuple[Rows, ...] = ("combined", "visits")
Answer = tuple[list[Spectrum] | RejectedSpectrum, FileContent]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("malformed")


def read_by_law(path: Path, rows: Rows = "combined") -> Answer:
    """Read a file and check what must be true of every answer: of a spectrum, of a reason, of a hash."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result, content = read_apstar_file(path, rows=rows)
        again = read_apstar_file(path, rows=rows)
    assert again[1] == content
    if isinstance(result, RejectedSpectrum):
        assert again[0] == result
        assert result.reason in RejectReason
        assert result.text.isprintable()
        assert result.text
        return result, content
    assert isinstance(again[0], list)
    assert len(again[0]) == len(result) == count_spectra(path, rows=rows) >= 1
    assert content.digest is not None
    for one, other in zip(result, again[0], strict=True):
        assert_well_formed(one)
        assert repr(one.star) == repr(other.star)  # NaN equals itself in words only
    assert_equal(result, again[0])
    return result, content


def assert_rejected(path: Path, reason: RejectReason, said: str, rows: Rows = "combined") -> FileContent:
    result, content = read_by_law(path, rows)
    assert isinstance(result, RejectedSpectrum), "the file was read"
    assert (result.reason, bool(re.search(said, result.text))) == (reason, True), result.text
    return content


@pytest.mark.parametrize("n_visits", [1, 3])
@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "gz"])
def test_the_file_that_is_damaged_below_is_good(folder: Path, n_visits: int, is_packed: bool) -> None:
    whole = good_file(n_visits)
    path = write(folder, packed(whole) if is_packed else whole)
    for rows in ROWS:
        result, content = read_by_law(path, rows)
        assert isinstance(result, list)
        assert content.size == path.stat().st_size


@pytest.mark.parametrize("n_visits", [1, 3])
@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("kind", [*CUTS, *KINDS], ids=lambda kind: kind.name)
def test_each_damage_has_its_own_reason_and_words(
    folder: Path, kind: Malformed, is_packed: bool, n_visits: int
) -> None:
    damaged = kind.change(good_file(n_visits))
    path = write(folder, packed(damaged) if is_packed else damaged)
    if not damaged and is_packed:
        assert_rejected(path, RejectReason.NOT_FITS, "does not begin")
        return
    for rows in ROWS:
        content = assert_rejected(path, kind.reason, kind.said, rows)
        assert content.size == path.stat().st_size
        assert (content.digest is None) == (content.size == 0)


@pytest.mark.data
@pytest.mark.parametrize("kind", [*CUTS, *KINDS], ids=lambda kind: kind.name)
def test_real_files_that_are_damaged_have_the_same_reasons(
    folder: Path, shared_data: Path, kind: Malformed
) -> None:
    for name in ("apStar-r6-2M03290406+3117075.fits", "apStar-r8-2M19390532+4027346.fits"):
        damaged = kind.change((shared_data / "apstar" / name).read_bytes())
        assert_rejected(write(folder, damaged), kind.reason, kind.said)


@pytest.mark.parametrize("n_kept", [2, 9, 10, 11, 2000, 0.5, 0.999, -9, -8, -4, -1])
def test_gzip_data_cut_anywhere_are_cut_short(folder: Path, n_kept: float) -> None:
    whole = packed(good_file(1))
    end = int(n_kept * len(whole)) if isinstance(n_kept, float) else n_kept
    assert_rejected(write(folder, whole[:end], f"{NAME}.gz"), RejectReason.TRUNCATED, "gzip data are cut")


def test_damaged_gzip_data_are_unreadable(folder: Path) -> None:
    whole = packed(good_file(1))
    for at in (2, 3, 2000, len(whole) // 2, -6, -3):
        path = write(folder, flipped(at % len(whole), whole))
        assert_rejected(path, RejectReason.UNREADABLE, "gzip data are damaged")
    path = write(folder, whole + b"and more")
    assert_rejected(path, RejectReason.UNREADABLE, "gzip data are damaged")


def test_zeros_after_gzip_data_are_padding(folder: Path) -> None:
    result, _ = read_by_law(write(folder, packed(good_file(1)) + bytes(300_000)))
    assert isinstance(result, list)


def test_a_spectrum_in_many_gzip_members_is_the_same(folder: Path) -> None:
    whole = good_file(1)
    members = b"".join(packed(whole[i : i + 5000]) for i in range(0, len(whole), 5000)) + packed(b"")
    result, _ = read_by_law(write(folder, members))
    plain, _ = read_by_law(write(folder, whole))
    assert isinstance(result, list)
    assert isinstance(plain, list)
    np.testing.assert_array_equal(result[0].flux, plain[0].flux)


def test_a_gzip_file_of_millions_of_members_is_not_followed(folder: Path) -> None:
    content = packed(good_file(1)) + packed(b"") * 70_000
    assert_rejected(write(folder, content), RejectReason.UNREADABLE, "more than 65536 gzip members")


@pytest.mark.fault
def test_a_gzip_bomb_is_too_large_and_takes_bounded_memory(folder: Path) -> None:
    zeros = packed(bytes(64 << 20))
    path = write(folder, packed(good_file(1)) + zeros * 64)
    assert path.stat().st_size < 20 << 20  # and 4 GiB in it
    tracemalloc.start()
    try:
        result, _ = read_apstar_file(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(result, RejectedSpectrum)
    assert (result.reason, "larger than any" in result.text) == (RejectReason.TOO_LARGE, True)
    assert peak < 1.5 * MAX_FILE_BYTES


def test_a_bomb_of_zeros_is_not_even_inflated(folder: Path) -> None:
    path = write(folder, packed(bytes(64 << 20)))
    tracemalloc.start()
    try:
        result, _ = read_apstar_file(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(result, RejectedSpectrum)
    assert result.reason is RejectReason.NOT_FITS
    assert peak < 8 << 20


def test_a_file_too_large_is_not_read(folder: Path) -> None:
    path = write(folder, good_file(1), "large.fits")
    os.truncate(path, MAX_FILE_BYTES + 1)
    content = assert_rejected(path, RejectReason.TOO_LARGE, "more than 256 MiB")
    assert content == FileContent(MAX_FILE_BYTES + 1, None)
    path.unlink()


def test_images_larger_than_any_are_told_from_files_cut_short(folder: Path) -> None:
    whole = good_file(3)
    card = f"NAXIS2  = {5:>20}".encode()
    assert whole.count(card) == 3
    path = write(folder, whole.replace(card, f"NAXIS2  = {10**9:>20}".encode()))
    assert_rejected(path, RejectReason.TOO_LARGE, "larger than any apStar file's")
    path = write(folder, whole.replace(card, f"NAXIS2  = {50:>20}".encode()))
    assert_rejected(path, RejectReason.TRUNCATED, "bytes promised")


@pytest.mark.parametrize("exponent", [6, 9, 18])
def test_a_primary_hdu_that_promises_any_size_costs_its_own_file_only(folder: Path, exponent: int) -> None:
    whole = good_file(3)
    cards = [
        b"SIMPLE  =                    T",
        b"BITPIX  =                   16",
        b"NAXIS   =                    3",
    ]
    cards += [f"NAXIS{axis}  = {10**exponent:>20}".encode() for axis in (1, 2, 3)]
    header = b"".join(card.ljust(CARD) for card in [*cards, b"END"])
    path = write(folder, header.ljust(BLOCK) + whole[BLOCK:])
    assert isinstance(read_apstar_file(path)[0], RejectedSpectrum)


def extension(n_comments: int = 0) -> bytes:
    """Return an HDU without data."""
    cards = [b"XTENSION= 'IMAGE   '", f"BITPIX  = {8:>20}".encode(), f"NAXIS   = {0:>20}".encode()]
    header = b"".join(card.ljust(CARD) for card in [*cards, *[b"COMMENT"] * n_comments, b"END"])
    return header.ljust(len(header) + -len(header) % BLOCK)


def test_thousands_of_hdus_behind_the_mask_are_not_followed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[int] = []
    original = os.pread

    def noting(descriptor: int, n_bytes: int, offset: int) -> bytes:
        fetched.append(offset)
        return original(descriptor, n_bytes, offset)

    path = write(folder, good_file(1) + extension() * 3000 + b"x")
    monkeypatch.setattr(os, "pread", noting)
    result, _ = read_apstar_file(path)
    assert isinstance(result, list)
    assert len(fetched) < 150


def test_long_headers_are_not_kept(folder: Path) -> None:
    tracemalloc.start()
    try:
        for i in range(20):
            content = good_file(1) + extension(20_000).replace(b"COMMENT ", f"COMM{i:04d}".encode()) + b"x"
            result, _ = read_apstar_file(write(folder, content))
            assert isinstance(result, list)
        del content, result
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 4 << 20  # of 20 times 1.6 MB


def test_what_is_no_file_is_unreadable(folder: Path) -> None:
    (folder / "folder.fits").mkdir()
    for name in ("folder.fits", "absent.fits"):
        content = assert_rejected(folder / name, RejectReason.UNREADABLE, "regular file|No such file")
        assert content == FileContent(0, None)


def test_one_visit_of_nan_rejects_the_visits_and_not_the_combined_spectrum(folder: Path) -> None:
    whole = good_file(3)
    at = spans(whole)[1].data + 3 * 4 * N_PIXELS
    path = write(folder, put(whole, at, NAN * N_PIXELS))
    assert isinstance(read_by_law(path)[0], list)
    assert_rejected(path, RejectReason.NON_FINITE, "visit 2 has no pixel", "visits")


HEADER_CARDS = (
    *(f"NAXIS{i} " for i in ("", 1, 2, 3)),
    *("BITPIX", "BSCALE", "BZERO", "BLANK", "PCOUNT", "GCOUNT", "XTENSION", "SIMPLE", "EXTEND", "ZIMAGE"),
    *("CRVAL1", "CDELT1", "CRPIX1", "OBJID", "NVISITS", "SNR", "RA", "STARFLAG", "LOCID", "END"),
)
CARD_VALUES = st.one_of(
    st.sampled_from(
        ["T", "F", "'IMAGE   '", "'BINTABLE'", "", "0", "1", "-1", "-32", "8", "1E400", "NaN", "8575"]
    ),
    st.integers(-(10**40), 10**40).map(str),
    st.floats().map(str),
    st.text(max_size=70),
)


@st.composite
def mutations(draw: st.DrawFn, content: bytes) -> bytes:
    """Change a file as a bad disk, a broken transfer or an enemy might."""
    size = max(1, len(content))
    header = st.sampled_from([span.header + CARD * i for span in spans(good_file(1)) for i in range(40)])
    places = st.one_of(st.integers(0, size - 1), header.map(lambda at: at % size))
    blocks = st.integers(0, max(0, size // BLOCK - 1)).map(lambda i: i * BLOCK)
    at, what = draw(places), draw(st.integers(0, 7))
    if what == 0:
        return put(content, at, draw(st.binary(min_size=1, max_size=8)))
    if what == 1:
        return content[:at]
    if what == 2:
        return content[:at] + draw(st.binary(max_size=200)) + content[at:]
    if what == 3:
        return content[:at] + content[at + draw(st.integers(1, 2 * BLOCK)) :]
    if what == 4:
        keyword, value = draw(st.sampled_from(HEADER_CARDS)), draw(CARD_VALUES)
        card = f"{keyword:<8}= {value:>20}".encode("latin-1", "replace")[:CARD].ljust(CARD)
        return put(content, draw(header) % size, card)
    one, other = draw(blocks), draw(blocks)
    block, second = content[one : one + BLOCK], content[other : other + BLOCK]
    if what == 5:
        return put(put(content, one, second), other, block)
    if what == 6:
        return content[:one] + block + content[one:]
    return put(content, at, bytes(draw(st.integers(1, 50_000))))[: len(content)]


@cache
def whole_files() -> tuple[bytes, ...]:
    """Return the files that are damaged: of one visit, of three, and as DR17 types them."""
    arrays = make_values(3, real="f8", integer="i8", gap="nan")[:3]
    return good_file(1), good_file(3), write_apstar(*arrays)


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """Draw a file, changed up to four times, before or after it was packed."""
    content = whole_files()[draw(st.integers(0, 2))]
    is_packed = draw(st.booleans())
    for _ in range(draw(st.integers(1, 3))):
        content = draw(mutations(content))
    if is_packed:
        content = packed(content)
        for _ in range(draw(st.integers(0, 1))):
            content = draw(mutations(content))
    return content


@pytest.mark.fault
@given(damaged_files(), st.sampled_from(ROWS))
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_damaged_file_gives_a_spectrum_or_a_reason_and_nothing_else(
    folder: Path, content: bytes, rows: Rows
) -> None:
    path = write(folder, content)
    result, told = read_by_law(path, rows)
    event(result.reason if isinstance(result, RejectedSpectrum) else "read")
    assert told.size == len(content)
    assert (told.digest is None) == (not content)
