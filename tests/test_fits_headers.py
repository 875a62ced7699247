"""Cards and HDUs as the FITS standard writes them, held against astropy."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import GRID, compress_images, make_values, simple_file, to_bytes

from apogee_batch.errors import ApStarError, RejectReason
from apogee_batch.survey import fits_headers
from apogee_batch.survey.byte_ranges import open_bytes
from apogee_batch.survey.fits_headers import BLOCK_BYTES, Header, HeaderError, Layout, check_rest, read_hdu

VALUES = st.one_of(
    st.integers(-(10**18), 10**18),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=33),  # fits a card, all quotes too
)


def header(*cards: str) -> Header:
    text = "".join(card.ljust(80) for card in (*cards, "END"))
    return Header(text.ljust(-(-len(text) // BLOCK_BYTES) * BLOCK_BYTES).encode())


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_-]{0,7}", fullmatch=True), VALUES, max_size=40))
@settings(max_examples=30, deadline=None)
def test_cards_that_astropy_writes_are_understood(values: dict[str, object]) -> None:
    values = {f"Z{name}"[:8]: value for name, value in values.items()}  # no keyword with a meaning
    written = fits.Header()
    for name, value in values.items():
        written[name] = (value, "a comment with SNR     = 5") if isinstance(value, int) else value
    own, read = Header(written.tostring().encode()), fits.Header.fromstring(written.tostring())
    for name in values:
        if isinstance(values[name], str):
            # What was written, not what astropy reads: it cuts "'/" at the slash.
            assert own.text(name) == str(values[name]).strip()
        else:
            assert own.value(name) == read[name]
    assert own.value("ABSENT") is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("                   1.5D3 / double", 1500.0),
        ("  .5", 0.5),
        ("4.179/no space", 4.179),
        ("'it''s / here' / comment", "it's / here"),
        ("''", ""),
        ("T", True),
        ("F / not", False),
        ("", None),
        ("/ nothing", None),
        ("'no end", None),
        ("NaN", None),
        ("1_000", None),
        ("(1.0, 2.0)", None),
        ("1.5.2", None),
        ("TRUE", None),
    ],
)
def test_a_value_field_means_what_the_standard_says(field: str, value: object) -> None:
    assert header(f"SNR     = {field}").value("SNR") == value


def test_a_keyword_inside_another_card_is_no_card() -> None:
    own = header("COMMENT   SNR     = 5", "HISTORY SNR     =", "OBJID   = 'SNR     = 7'", "SNR     = 3")
    assert own.value("SNR") == 3


def test_of_a_repeated_card_the_first_counts_as_for_astropy() -> None:
    assert header("SNR     = 1", "SNR     = 2").value("SNR") == 1


def test_a_value_of_another_kind_is_no_number() -> None:
    own = header("A       = T", "B       = '5'", "C       = 5.0", "D       = 5")
    assert [own.integer(name) for name in "ABCD"] == [None, None, None, 5]
    assert [own.number(name) for name in "ABCD"] == [None, None, 5.0, 5]
    assert [own.text(name) for name in "ABCD"] == ["", "5", "", ""]


@pytest.mark.parametrize(
    "cards",
    [
        (),
        ("BITPIX  = 12", "NAXIS   = 0"),
        ("BITPIX  = 16",),
        ("BITPIX  = 16", "NAXIS   = -1"),
        ("BITPIX  = 16", "NAXIS   = 1"),
        ("BITPIX  = 16", "NAXIS   = 1", "NAXIS1  = -5"),
        ("BITPIX  = 16.0", "NAXIS   = 0"),
    ],
)
def test_a_header_without_its_size_says_so(cards: tuple[str, ...]) -> None:
    with pytest.raises(HeaderError, match=r"no (BITPIX|NAXIS)"):
        _ = header(*cards).layout


def test_the_size_of_a_table_includes_its_heap() -> None:
    own = header("BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 10", "NAXIS2  = 3", "PCOUNT  = 7")
    assert own.layout == Layout(8, (3, 10), 37)


def test_hdus_lie_where_astropy_finds_them(tmp_path: Path) -> None:
    flux, err, mask, _ = make_values(4)
    table = fits.BinTableHDU(np.zeros(7, [("a", "f8"), ("b", "S3")]))
    path = tmp_path / "a.fits"
    path.write_bytes(
        to_bytes([fits.PrimaryHDU(mask), *compress_images([flux, err]), table, fits.ImageHDU(flux)])
    )
    with open_bytes(path) as source, fits.open(path, disable_image_compression=True) as hdus:
        start = 0
        for number in range(len(hdus)):
            place = hdus.fileinfo(number)
            hdu = read_hdu(source, start)
            assert hdu is not None
            assert (hdu.data_start, hdu.end) == (place["datLoc"], place["datLoc"] + place["datSpan"])
            start = hdu.end
        assert read_hdu(source, start) is None


def test_a_compressed_image_is_an_image(tmp_path: Path) -> None:
    flux, err, mask, _ = make_values(4)
    path = tmp_path / "a.fits"
    path.write_bytes(to_bytes([fits.PrimaryHDU(), *compress_images([flux, err, mask])]))
    with open_bytes(path) as source:
        primary = read_hdu(source, 0)
        assert primary is not None
        hdu = read_hdu(source, primary.end)
    assert hdu is not None
    assert hdu.header.image is not None
    assert (hdu.header.image.bitpix, hdu.header.image.shape, hdu.header.is_plain) == (-32, (4, 8575), False)


def test_a_primary_header_of_any_length_is_read(tmp_path: Path) -> None:
    cards = ["SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0", *(f"V{i:<7}= {i}" for i in range(3000))]
    path = tmp_path / "a.fits"
    path.write_bytes(header(*cards).cards)
    with open_bytes(path) as source:
        hdu = read_hdu(source, 0)
    assert hdu is not None
    assert hdu.header.integer("V2999") == 2999


def test_a_header_whose_end_is_lost_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(simple_file().replace(b"END" + b" " * 77, b"AND" + b" " * 77, 1))
    with open_bytes(path) as source, pytest.raises(ApStarError, match="no END before the next HDU") as caught:
        read_hdu(source, 0)
    assert caught.value.reason is RejectReason.MISSING_HDU


def test_a_comment_that_ends_in_end_is_not_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    cards = [
        "SIMPLE  = T",
        "BITPIX  = 8",
        "NAXIS   = 0",
        "COMMENT this is not the END",
        *[""] * 40,
        "OBJID   = 'A'",
    ]
    path.write_bytes(header(*cards).cards)
    with open_bytes(path) as source:
        hdu = read_hdu(source, 0)
    assert hdu is not None
    assert hdu.header.text("OBJID") == "A"


def test_a_header_without_end_is_not_sought_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(b"SIMPLE  =                    T".ljust(80) + b" " * (20 << 20))
    with open_bytes(path) as source, pytest.raises(ApStarError, match="no END in 4 MiB"):
        read_hdu(source, 0)


def test_all_promises_are_checked_where_the_size_is_odd(tmp_path: Path) -> None:
    content = simple_file(n_extra=3)
    path = tmp_path / "a.fits"
    for n_lost, is_whole in ((0, True), (10, True), (BLOCK_BYTES, True), (BLOCK_BYTES + 10, False)):
        path.write_bytes(content[: len(content) - n_lost])
        with open_bytes(path) as source:
            if is_whole:
                check_rest(source, 0)
            else:
                with pytest.raises(ApStarError, match="bytes promised"):
                    check_rest(source, 0)


def test_the_grid_is_in_the_header(tmp_path: Path) -> None:
    assert header(*(f"{name:8}= {value!r}" for name, value in GRID.items())).number("CDELT1") == 6e-6


def test_a_file_that_ends_in_the_first_letters_of_a_header_is_cut_short(tmp_path: Path) -> None:
    content = simple_file(n_extra=1)
    last = content.rfind(b"XTENSION")
    path = tmp_path / "a.fits"
    for n_kept in (1, 8, 100):
        path.write_bytes(content[: last + n_kept])
        with open_bytes(path) as source, pytest.raises(ApStarError, match="ends inside a header") as caught:
            check_rest(source, 0)
        assert caught.value.reason is RejectReason.TRUNCATED


@given(st.text(st.sampled_from("0123456789+-. /eED'T_n"), max_size=12))
@settings(max_examples=400, deadline=None)
def test_a_number_is_what_the_value_of_its_card_is(field: str) -> None:
    read = header(f"A       ={field}")
    value = read.value("A")
    number = read.number("A")
    assert number == (None if isinstance(value, bool | str) else value)
    assert repr(read.numbers("A", "B", "A")) == repr([number, None, number])
    assert type(number) is (type(None) if isinstance(value, bool | str) else type(value))


@given(st.text(st.sampled_from("ab'/ 1.T"), max_size=14))
@settings(max_examples=400, deadline=None)
def test_a_text_is_what_the_value_of_its_card_is(field: str) -> None:
    read = header(f"A       = {field}")
    value = read.value("A")
    assert read.text("A") == (value.strip() if isinstance(value, str) else "")


PRIMARY = header("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0").cards
IMAGE = ("XTENSION= 'IMAGE   '", "BITPIX  = 8", "NAXIS   = 1", "NAXIS1  = 10", "PCOUNT  = 0")


def extension(*cards: str) -> bytes:
    return header(*IMAGE, *cards).cards


def test_headers_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for crval1 in (1.5, 2.5, 1.5):
        path.write_bytes(
            header("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0").cards + extension(f"CRVAL1  = {crval1}")
        )
        with open_bytes(path) as source:
            hdu = read_hdu(source, BLOCK_BYTES)
        assert hdu is not None
        assert (hdu.header.number("CRVAL1"), hdu.data_start) == (crval1, 2 * BLOCK_BYTES)


def test_a_header_that_grew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for n_cards in (10, 100, 10):
        cards = [f"K{i:<7}= {i}" for i in range(n_cards)]
        path.write_bytes(PRIMARY + extension(*cards) + bytes(BLOCK_BYTES))
        with open_bytes(path) as source:
            hdu = read_hdu(source, BLOCK_BYTES)
        assert hdu is not None
        assert hdu.data_start == BLOCK_BYTES + len(extension(*cards))
        assert hdu.header.integer(f"K{n_cards - 1}") == n_cards - 1


def test_a_header_cut_in_its_last_block_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    whole = extension("CUT     = T")
    for n_bytes in (len(whole) - 100, len(whole)):
        path.write_bytes((PRIMARY + whole)[: BLOCK_BYTES + n_bytes])
        with open_bytes(path) as source:
            hdu = read_hdu(source, BLOCK_BYTES)
        assert hdu is not None
        assert hdu.data_start == 2 * BLOCK_BYTES


def test_the_memory_of_headers_is_bounded() -> None:
    recent = fits_headers._RecentHeaders()
    for i in range(2 * fits_headers.MAX_RECENT):
        recent.keep(BLOCK_BYTES, Header(extension(f"K       = {i}").replace(b"= 10 ", b"= %-3d" % (i % 999))))
        assert len(recent._held) <= fits_headers.MAX_RECENT
    long = Header(extension(*["COMMENT"] * 400))
    recent.keep(BLOCK_BYTES, long)
    assert recent.find(BLOCK_BYTES, long.cards) is None
