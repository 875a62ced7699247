"""Isochrone tables: what is read out of them, and stars between them."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from young_isochrones import MASSES, parsec_lines, true_star, write_bhac15, write_parsec

from apogee_batch.errors import UsageError
from apogee_batch.labels.isochrones import Isochrones, read_isochrones

BANDS = {"g_gaia": "G", "bp": "G_BP", "rp": "G_RP", "j": "J", "h": "H", "k": "Ks"}


@pytest.fixture(scope="module")
def parsec(tmp_path_factory: pytest.TempPathFactory) -> Isochrones:
    folder = tmp_path_factory.mktemp("parsec")
    first = write_parsec(folder / "young.dat", (4.0, 2.0))
    return read_isochrones([first, write_parsec(folder / "old.dat", (1000.0,))])


def test_several_ages_in_one_file_and_one_a_file_are_put_in_order(parsec: Isochrones) -> None:
    assert [round(one.age_myr, 6) for one in parsec.isochrones] == [2.0, 4.0, 1000.0]
    assert [one.source for one in parsec.isochrones] == ["young.dat", "young.dat", "old.dat"]
    assert parsec.bands == tuple(BANDS)
    assert parsec.age_range == pytest.approx((np.log10(2e6), 9.0))


def test_a_parsec_table_is_read_by_the_names_of_its_columns(parsec: Isochrones) -> None:
    one = parsec.isochrones[1]
    star = true_star(np.array(MASSES), np.full(len(MASSES), np.log10(4e6)))
    assert one.mass.tolist() == list(MASSES)
    for name in ("log_teff", "logg", "log_luminosity", "log_radius"):
        np.testing.assert_allclose(getattr(one, name), star[name], atol=1e-7)
    for ours, theirs in BANDS.items():
        np.testing.assert_allclose(one.magnitude[ours], star[theirs], atol=1e-6)


def test_bhac15_tables_say_the_same_in_other_units(tmp_path: Path, parsec: Isochrones) -> None:
    bhac15 = read_isochrones([write_bhac15(tmp_path / "bhac15.txt", (2.0, 4.0, 1000.0))])
    assert bhac15.bands == ("j", "h", "k")
    np.testing.assert_allclose(bhac15.log_ages, parsec.log_ages, atol=1e-7)
    for ours, theirs in zip(parsec.isochrones, bhac15.isochrones, strict=True):
        np.testing.assert_allclose(ours.log_teff, theirs.log_teff, atol=1e-7)
        np.testing.assert_allclose(ours.log_radius, theirs.log_radius, atol=1e-7)
        np.testing.assert_allclose(ours.magnitude["k"], theirs.magnitude["k"], atol=1e-6)
        assert set(theirs.stage.tolist()) == {-1}


def test_of_two_bp_passbands_that_of_faint_stars_is_taken(tmp_path: Path) -> None:
    lines = parsec_lines((4.0,), bp="G_BPbr")
    lines = [f"{line} G_BPftmag" if "Zini" in line else line for line in lines]
    lines = [line if line.startswith("#") else f"{line} 7.5" for line in lines]
    (tmp_path / "weiler.dat").write_text("\n".join(lines))
    one = read_isochrones([tmp_path / "weiler.dat"]).isochrones[0]
    assert set(one.magnitude["bp"].tolist()) == {7.5}


@given(mass=st.floats(0.1, 3.0), age=st.floats(2.0, 4.0))
def test_between_power_laws_interpolation_is_exact(parsec: Isochrones, mass: float, age: float) -> None:
    masses, log_ages = np.array([mass]), np.clip(np.log10([age * 1e6]), *parsec.log_ages[:2])
    models, star = parsec.at(masses, log_ages), true_star(masses, log_ages)
    assert models.is_covered.all()
    np.testing.assert_allclose(models.logg, star["logg"], atol=1e-7)
    np.testing.assert_allclose(models.magnitude["bp"], star["G_BP"], atol=1e-6)


def test_nothing_is_extrapolated(parsec: Isochrones) -> None:
    log_age = np.log10(3e6)
    mass = np.array([0.0999, 3.001, 1.0, 1.0, 1.0])
    models = parsec.at(mass, np.array([log_age, log_age, 6.0, 9.1, log_age]))
    assert models.is_covered.tolist() == [False, False, False, False, True]


def test_a_wide_gap_between_ages_is_not_interpolated_over(parsec: Isochrones) -> None:
    inside = np.array([np.log10(3e6), 8.0, 9.0])
    assert parsec.at(np.ones(3), inside).is_covered.tolist() == [True, False, True]
    assert parsec.at(np.ones(3), inside, max_age_gap_dex=3.0).is_covered.all()
    young, old = parsec.log_ages[:2].tolist(), 9.0
    assert parsec.covered_ages() == (tuple(young), (old, old))
    assert parsec.covered_ages(max_age_gap_dex=3.0) == ((young[0], old),)


def test_a_star_is_interpolated_between_young_stars_only(tmp_path: Path) -> None:
    labels = (0, 0, 0, 0, 1, 1, 2, 3)
    write_parsec(tmp_path / "a.dat", (2.0,))
    write_parsec(tmp_path / "b.dat", (4.0,), labels=labels)
    read = read_isochrones([tmp_path / "a.dat", tmp_path / "b.dat"])
    mass, log_age = np.array([0.5, 1.4, 1.6, 2.5]), np.full(4, np.log10(3e6))
    assert read.at(mass, log_age).is_covered.tolist() == [True, True, False, False]
    assert read.at(mass, log_age, last_stage=0).is_covered.tolist() == [True, False, False, False]
    assert read.at(mass, log_age, last_stage=3).is_covered.all()


def test_a_packed_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "packed.dat.gz"
    path.write_bytes(gzip.compress("\n".join(parsec_lines((2.0, 4.0))).encode()))
    assert len(read_isochrones([path]).isochrones) == 2


def test_a_table_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "packed.dat.gz"
    path.write_bytes(gzip.compress("\n".join(parsec_lines((2.0,))).encode())[:-20])
    with pytest.raises(UsageError, match=r"packed\.dat\.gz: cannot be read .*whole"):
        read_isochrones([path])
    text = "\n".join(parsec_lines((2.0,)))
    (tmp_path / "short.dat").write_text(text[: text.rindex(" 0 9.99")])
    with pytest.raises(UsageError, match=r"short\.dat.*17 columns"):
        read_isochrones([tmp_path / "short.dat"])


def test_other_files_are_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("mass age\n1 2\n")
    for path, words in (
        (tmp_path / "other.txt", "not an isochrone table"),
        (tmp_path / "no", "does not exist"),
    ):
        with pytest.raises(UsageError, match=words):
            read_isochrones([path])
    with pytest.raises(UsageError, match="--isochrones FILE"):
        read_isochrones([])


def test_tables_of_another_metallicity_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"rich\.dat.*\+0\.30.*\[M/H\] = 0"):
        read_isochrones([write_parsec(tmp_path / "rich.dat", (2.0,), fe_h=0.3)])


def test_an_age_may_be_given_once(tmp_path: Path) -> None:
    files = [write_parsec(tmp_path / name, (2.0, age)) for name, age in (("a.dat", 4.0), ("b.dat", 8.0))]
    with pytest.raises(UsageError, match=r"b\.dat: its age 2 Myr is in a\.dat too"):
        read_isochrones(files)


def test_two_families_of_models_do_not_mix(tmp_path: Path) -> None:
    files = [write_parsec(tmp_path / "a.dat", (2.0,)), write_bhac15(tmp_path / "b.txt", (4.0,))]
    with pytest.raises(UsageError, match="BHAC15, PARSEC"):
        read_isochrones(files)


def test_a_table_without_a_needed_column_is_refused(tmp_path: Path) -> None:
    lines = [line.replace("logTe", "Teff") for line in parsec_lines((2.0,))]
    (tmp_path / "other.dat").write_text("\n".join(lines))
    with pytest.raises(UsageError, match=r"other\.dat.*no column logTe"):
        read_isochrones([tmp_path / "other.dat"])


@pytest.mark.data
def test_the_real_tables_are_read(shared_data: Path) -> None:
    folder = shared_data / "isochrones"
    parsec = read_isochrones(sorted(folder.glob("parsec_cmd34_*.dat")))
    assert [round(one.age_myr, 3) for one in parsec.isochrones] == [4.0, 15.0, 1000.0]
    assert parsec.bands == tuple(BANDS)
    assert "Weiler 2018" in parsec.notes[0]
    bhac15 = read_isochrones([folder / "BHAC15_iso.2mass.txt"])
    assert len(bhac15.isochrones) == 30
    for read in (parsec, bhac15):
        for one in read.isochrones:  # log g follows from mass and radius, but where mass was lost
            young = one.mass <= one.mass_range(0)[1]
            expected = 4.438 + np.log10(one.mass) - 2 * one.log_radius
            np.testing.assert_allclose(one.logg[young], expected[young], atol=0.01)


@pytest.mark.data
def test_four_to_fifteen_myr_may_be_interpolated_and_more_may_not(shared_data: Path) -> None:
    bhac15 = read_isochrones([shared_data / "isochrones" / "BHAC15_iso.2mass.txt"])
    by_age = {round(one.age_myr, 3): one for one in bhac15.isochrones}
    mass = np.array([0.1, 0.3, 0.5, 0.8, 1.0])

    def worst(first: float, between: float, last: float) -> float:
        log_age = np.full(mass.size, by_age[between].log_age)
        pair = Isochrones((by_age[first], by_age[last]))
        guess = pair.at(mass, log_age, max_age_gap_dex=3.0).logg
        return float(np.abs(guess - bhac15.at(mass, log_age).logg).max())

    assert worst(4.0, 8.0, 15.0) < 0.03
    assert worst(15.0, 100.0, 1000.0) > 0.2
