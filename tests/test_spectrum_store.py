"""A store as its users see it."""

from pathlib import Path

import numpy as np
import pytest

from apogee_batch.errors import UsageError
from apogee_batch.store.spectrum_store import SpectrumStore
from apogee_batch.survey.apstar import read_apstar
from apogee_batch.survey.simulate import SimulatedSurvey


@pytest.fixture
def store(labelled_store: Path) -> SpectrumStore:
    return SpectrumStore(labelled_store)


def test_it_has_a_row_for_each_spectrum(store: SpectrumStore) -> None:
    assert len(store) == store.stars.num_rows == 48
    assert "48 spectra" in repr(store)
    assert store.labels is not None
    assert store.wavelength.shape == (8575,)
    assert store.wavelength[-1] == pytest.approx(16999.81, abs=0.01)


def test_a_star_is_what_its_file_holds(store: SpectrumStore, survey: SimulatedSurvey) -> None:
    row = store.stars.to_pylist()[7]
    spectrum = store.star(row["apstar_id"])
    found = read_apstar(next(survey.spectra.rglob(row["file"])))
    assert isinstance(found, list)
    for name in ("flux", "err", "mask"):
        np.testing.assert_array_equal(getattr(spectrum, name), getattr(found[0], name))
    assert spectrum.star.apogee_id == row["apogee_id"]
    assert spectrum.star.n_bad_pixels == found[0].star.n_bad_pixels


def test_a_star_is_found_by_either_name(store: SpectrumStore) -> None:
    names = store.stars["apogee_id"].to_pylist()
    single = next(name for name in names if names.count(name) == 1)
    assert store.star(single).star.apogee_id == single


def test_a_name_without_a_spectrum_is_told(store: SpectrumStore) -> None:
    with pytest.raises(UsageError, match="holds no star '2M0'"):
        store.star("2M0")


def test_a_star_with_several_spectra_must_be_named_fully(store: SpectrumStore) -> None:
    names = store.stars["apogee_id"].to_pylist()
    store.stars = store.stars.set_column(2, "apogee_id", [["2M1"] * len(names)])
    with pytest.raises(UsageError, match=r"2M1 has 48 spectra; ask for one of .* and 43 more"):
        store.star("2M1")


def test_shards_give_every_star_once_and_in_order(store: SpectrumStore) -> None:
    seen = []
    for stars, batch in store:
        assert stars["row"].to_pylist() == batch.row.tolist()
        seen += stars["apstar_id"].to_pylist()
    assert seen == store.stars["apstar_id"].to_pylist()


def test_xarray_sees_the_same_flux(store: SpectrumStore) -> None:
    row = store.stars["row"][3].as_py()
    dataset = store.to_xarray()
    name = store.stars["apstar_id"][3].as_py()
    np.testing.assert_array_equal(dataset["flux"][row].to_numpy(), store.star(name).flux)


def test_a_folder_that_is_no_store_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        SpectrumStore(tmp_path)
