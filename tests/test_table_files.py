"""Damaged tables of every format end in one line that names the file, and soon."""

import gzip
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.table import Table
from strategies import make_table

from apogee_batch.catalog.description import read_facts
from apogee_batch.errors import UsageError
from apogee_batch.labels.tables import read_label_table
from apogee_batch.survey.allstar_table import read_allstar
from apogee_batch.survey.table_files import MAX_HDUS, UNREADABLE, first_words, open_hdus

# what astropy gives again and again where the file is compressed takes 20 MB a second
pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]

N_DAMAGES = 40
HEAD_BYTES = 3000  # where most formats describe themselves
LABEL_FORMATS = ("fits", "fits.gz", "csv", "csv.gz", "ecsv", "ecsv.gz", "vot", "vot.gz", "parquet")
WRITERS = {"csv": "ascii.csv", "ecsv": "ascii.ecsv", "vot": "votable", "fits": "fits", "mrt": "ascii.mrt"}
NAMES = [f"2M{i:08}+0000000" for i in range(40)]


def good_bytes(suffix: str, folder: Path) -> bytes:
    """Return a whole table of stars in a format, compressed or not."""
    plain = suffix.removesuffix(".gz")
    stars = Table({"apogee_id": NAMES, "teff": np.linspace(3500, 6000, 40), "logg": np.ones(40)})
    stars["fe_h"] = np.zeros(40)
    path = folder / f"good.{plain}"
    stars.write(path, format=WRITERS.get(plain))
    return gzip.compress(path.read_bytes(), mtime=0) if suffix.endswith("gz") else path.read_bytes()


def damages(good: bytes, seed: str) -> Iterator[bytes]:
    """Give the same table cut, with some other bytes, and with some other bytes near its start."""
    rng = random.Random(seed)
    for i in range(N_DAMAGES):
        bad = bytearray(good)
        if i % 3 == 0:
            yield good[: rng.randrange(1, len(good))]
            continue
        end = len(good) if i % 3 == 1 else min(len(good), HEAD_BYTES)
        for _ in range(rng.randrange(1, 4)):
            bad[rng.randrange(end)] = rng.randrange(256)
        yield bytes(bad)


def check_refusals(read: Callable[[Path], object], path: Path, good: bytes) -> None:
    """Check that each damage is overlooked, or refused in one line that names the file."""
    path.write_bytes(good)
    read(path)
    told = list[str]()
    for bad in damages(good, path.name):
        path.write_bytes(bad)
        try:
            read(path)
        except UsageError as error:
            told.append(str(error))
    assert told
    assert all(str(path) in line and "\n" not in line for line in told)


@pytest.mark.parametrize("suffix", LABEL_FORMATS)
def test_a_damaged_label_table_is_refused_in_one_line(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"labels.{suffix}"
    check_refusals(lambda path: read_label_table(path, "payne"), path, good_bytes(suffix, tmp_path))


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_damaged_allstar_table_is_refused_in_one_line(is_packed: bool, tmp_path: Path) -> None:
    columns = {"APOGEE_ID": ("18A", NAMES), "RA": ("D", np.arange(40.0)), "NVISITS": ("J", list(range(40)))}
    good = make_table(tmp_path, columns).read_bytes()
    check_refusals(read_allstar, tmp_path / "allStar.fits", gzip.compress(good) if is_packed else good)


@pytest.mark.parametrize("suffix", [*WRITERS, "parquet"])
def test_a_damaged_catalogue_is_refused_in_one_line(suffix: str, tmp_path: Path) -> None:
    check_refusals(read_facts, tmp_path / f"catalog.{suffix}", good_bytes(suffix, tmp_path))


def damage_each_header(good: bytes) -> Iterator[bytes]:
    """Give the compressed table with a sign that is no ASCII in the first card of each HDU."""
    for card in (b"SIMPLE  =", b"XTENSION="):
        bad = bytearray(good)
        bad[good.index(card) + 31] = 0x12
        yield gzip.compress(bytes(bad), mtime=0)


@pytest.mark.parametrize("i", [0, 1])
def test_a_damaged_header_in_a_compressed_table_ends_the_reading(i: int, tmp_path: Path) -> None:
    bad = list(damage_each_header(good_bytes("fits", tmp_path)))[i]
    path = tmp_path / "labels.fits.gz"
    path.write_bytes(bad)
    for read in (lambda path: read_label_table(path, "payne"), read_allstar):
        with pytest.raises(UsageError, match=f"the header of HDU {i} is damaged"):
            read(path)
    path = tmp_path / "catalog.fits"  # compressed files are known by their first bytes, too
    path.write_bytes(bad + bytes(-len(bad) % 2880))
    with pytest.raises(UsageError, match=f"the header of HDU {i} is damaged"):
        read_facts(path)


def test_damage_behind_the_table_that_is_read_harms_nobody(tmp_path: Path) -> None:
    good = make_table(tmp_path, {"APOGEE_ID": ("18A", NAMES)}).read_bytes()
    other = good[good.index(b"XTENSION=") :].replace(b"BITPIX ", b"BITPIX\x12")
    path = tmp_path / "allStar.fits.gz"
    path.write_bytes(gzip.compress(good + other))
    assert read_allstar(path).n_stars == len(NAMES)


def test_hdus_without_end_are_not_looked_through(tmp_path: Path) -> None:
    path = tmp_path / "many.fits"
    image = fits.ImageHDU()
    fits.HDUList([fits.PrimaryHDU(), *[image] * MAX_HDUS]).writeto(path)
    with pytest.raises(UsageError, match=f"it has more than {MAX_HDUS} HDUs"):
        read_allstar(path)
    fits.HDUList([fits.PrimaryHDU(), *[image] * (MAX_HDUS - 1)]).writeto(path, overwrite=True)
    with open_hdus(path) as hdus:
        assert len(list(hdus)) == MAX_HDUS


def test_a_fits_column_without_a_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.fits"
    good = good_bytes("fits", tmp_path)
    path.write_bytes(good.replace(b"TTYPE2  =", b"TTYPX2  ="))
    with pytest.raises(UsageError, match="a column without a name"):
        read_label_table(path, "payne")


@pytest.mark.parametrize("error", [zlib.error("a"), pa.ArrowException("a"), fits.VerifyError("a")])
def test_what_readers_raise_is_known_and_told_in_one_line(error: Exception) -> None:
    assert isinstance(error, UNREADABLE)
    assert first_words(error) == "a"
    assert first_words(ValueError("one\n  two")) == "one two"
    assert first_words(EOFError()) == "EOFError"
    assert first_words(FileNotFoundError(2, "No such file", "f")) == "No such file"
