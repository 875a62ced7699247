"""An error model finds what residuals were made of, and its intervals hold what they should."""

import numpy as np
import pytest

from apogee_batch.network import error_fit
from apogee_batch.network.error_fit import MIN_STARS, fit_error_model
from apogee_batch.network.error_model import PLACES, ErrorModel, LabelErrors, place_of
from apogee_batch.schema import LABEL_NAMES, DoubleArray

UNIT = np.array([0.1, 60.0, 0.03])  # logg, teff, fe_h: what errors of real surveys are like
GIANT, DWARF, COOL, BETWEEN = (2.0, 4800.0, 0.0), (4.3, 5800.0, 0.0), (4.9, 3500.0, 0.0), (3.8, 3900.0, 0.0)


class Drawn:
    """Stars whose residuals have a known floor, scale and dependence on SNR."""

    def __init__(
        self,
        n_stars: int,
        seed: int,
        *,
        floor: dict[str, float] | float = 1.0,
        scale: float = 2.0,
        per_snr: float = 0.0,
        outliers: float = 0.0,
        tails: float = np.inf,
    ) -> None:
        rng = np.random.default_rng(seed)
        kinds = rng.choice(4, n_stars, p=[0.4, 0.3, 0.15, 0.15])
        self.predicted = np.array([GIANT, DWARF, COOL, BETWEEN])[kinds] + rng.normal(0, 0.02, (n_stars, 3))
        self.snr = 10 ** rng.uniform(1.0, 2.7, n_stars)
        self.sigma = UNIT * (20 / self.snr)[:, None] * rng.uniform(0.7, 1.4, (n_stars, 3))
        floors = dict.fromkeys(PLACES, floor) if isinstance(floor, float) else floor
        own = np.array([floors[PLACES[place]] for place in place_of(self.predicted)])
        variance = (own**2 + (per_snr * 100 / self.snr) ** 2)[:, None] * UNIT**2 + (scale * self.sigma) ** 2
        normal = rng.standard_normal((n_stars, 3))
        if np.isfinite(tails):
            normal /= np.sqrt(rng.chisquare(tails, (n_stars, 1)) / tails)
        wrong = rng.random((n_stars, 1)) < outliers
        self.residual = np.sqrt(variance) * normal * np.where(wrong, 12, 1)

    def fit(self) -> ErrorModel:
        return fit_error_model(self.residual, self.sigma, self.snr, self.predicted)

    def ratios(self, model: ErrorModel) -> DoubleArray:
        """Return |residual| in units of the total error."""
        return np.abs(self.residual) / model.total(self.sigma, self.snr, self.predicted)


def coverage(model: ErrorModel, stars: Drawn) -> tuple[DoubleArray, DoubleArray]:
    """Return for each label which part of stars lies within the 68 and the 95 percent interval."""
    ratios, factors = stars.ratios(model), np.array([label.factor_95 for label in model.labels])
    return (ratios <= 1).mean(axis=0), (ratios <= factors).mean(axis=0)


@pytest.mark.parametrize(
    ("floor", "scale", "seed"), [(1.0, 1.0, 0), (0.4, 3.0, 1), (2.0, 6.0, 2), (1.0, 0.0, 3)]
)
def test_floor_and_scale_are_found(floor: float, scale: float, seed: int) -> None:
    model = Drawn(1500, seed, floor=floor, scale=scale).fit()
    for label, unit in zip(model.labels, UNIT, strict=True):
        np.testing.assert_allclose(label.floor, floor * unit, rtol=0.2)
        assert label.scale == pytest.approx(scale, rel=0.2, abs=0.5)
        assert label.factor_95 == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("seed", range(3))
def test_intervals_hold_what_they_should_of_other_stars(seed: int) -> None:
    floor = {"cool_dwarf": 2.0, "cool_between": 3.5, "giant": 0.7, "warm_dwarf": 1.0}
    made = {"floor": floor, "scale": 3.0, "tails": 5.0, "outliers": 0.01}
    n_dev, n_test = 800, 4000
    model, test = Drawn(n_dev, seed, **made).fit(), Drawn(n_test, 100 + seed, **made)
    for part, wanted in zip(coverage(model, test), (0.6827, 0.9545), strict=True):
        binomial = np.sqrt(wanted * (1 - wanted) * (1 / n_dev + 1 / n_test))
        assert (np.abs(part - wanted) < 4.5 * binomial).all(), part


def test_a_place_that_scatters_more_has_a_larger_floor() -> None:
    model = Drawn(
        1000, 7, floor={"cool_dwarf": 1.0, "cool_between": 4.0, "giant": 1.0, "warm_dwarf": 1.0}
    ).fit()
    for label in model.labels:
        assert label.terms[0] == "floor by place"
        floors = dict(zip(PLACES, label.floor, strict=True))
        assert floors["cool_between"] > 3 * floors["giant"]


def test_terms_that_the_stars_do_not_ask_for_are_left_out() -> None:
    chosen = [label.terms for seed in range(4) for label in Drawn(400, seed).fit().labels]
    assert chosen.count(("floor", "scale")) >= 9  # of 12


def test_an_error_that_follows_snr_and_not_sigma_is_seen() -> None:
    made = {"floor": 0.3, "scale": 0.5, "per_snr": 1.5}
    stars = Drawn(1500, 3, **made)
    stars.sigma = UNIT * np.random.default_rng(8).uniform(
        0.05, 0.2, stars.sigma.shape
    )  # knows nothing of SNR
    model = stars.fit()
    for label, unit in zip(model.labels, UNIT, strict=True):
        assert "SNR" in label.terms
        assert label.per_snr == pytest.approx(1.5 * unit, rel=0.2)


def test_outliers_do_not_widen_everybody_and_are_told_by_the_95_percent() -> None:
    clean, dirty = Drawn(1000, 5).fit(), Drawn(1000, 5, outliers=0.04).fit()
    for before, after in zip(clean.labels, dirty.labels, strict=True):
        np.testing.assert_allclose(after.floor, before.floor, rtol=0.25)
        assert after.degrees_of_freedom < before.degrees_of_freedom
        assert after.factor_95 > before.factor_95 + 0.15


def test_a_bias_is_part_of_the_error() -> None:
    stars = Drawn(1000, 6, scale=0.1, floor=1.0)
    stars.residual = stars.residual + 2 * UNIT
    assert np.all(np.array([label.floor for label in stars.fit().labels]) > 1.5 * UNIT[:, None])


def test_a_star_stands_for_as_many_as_its_weight_says() -> None:
    few, many = Drawn(300, 1, floor=3.0), Drawn(300, 2, floor=1.0)
    columns = ("residual", "sigma", "snr", "predicted")
    joined = [np.concatenate([getattr(few, name), getattr(many, name)]) for name in columns]
    model = fit_error_model(*joined, weight=np.repeat([1e-3, 1.0], 300))
    np.testing.assert_allclose([label.floor[0] for label in model.labels], UNIT, rtol=0.25)


def test_too_few_stars_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        Drawn(MIN_STARS - 1, 0).fit()
    assert Drawn(MIN_STARS, 0).fit().n_stars == MIN_STARS


def test_few_stars_give_few_terms_and_a_sensible_error() -> None:
    for seed in range(5):
        model = Drawn(60, seed).fit()
        part, _ = coverage(model, Drawn(1000, 50 + seed))
        assert ((part > 0.45) & (part < 0.9)).all()


def test_residuals_that_are_all_zero_have_no_error() -> None:
    stars = Drawn(100, 0)
    stars.residual = np.zeros_like(stars.residual)
    total = stars.fit().total(stars.sigma, stars.snr, stars.predicted)
    assert np.isfinite(total).all()
    assert (total < 1e-3 * UNIT).all()


def test_a_star_without_snr_has_an_error_where_none_is_asked_for() -> None:
    labels = [LabelErrors((1.0,) * 4, 2.0, per_snr, 2.0, np.inf, (), {}) for per_snr in (0.0, 3.0, 0.0)]
    model = ErrorModel(tuple(labels), 100, {})
    total = model.total(np.ones((4, 3)), np.array([np.nan, 0.0, -1.0, 100.0]), np.array([GIANT] * 4))
    np.testing.assert_allclose(total[:, 0], np.sqrt(5))
    np.testing.assert_allclose(total[:, 1], [np.nan] * 3 + [np.sqrt(14)])


def test_stars_without_snr_keep_the_term_out_of_the_fit() -> None:
    stars = Drawn(200, 1)
    assert any("SNR" in terms for label in stars.fit().labels for terms in label.gains)
    stars.snr[3] = np.nan
    assert not any("SNR" in terms for label in stars.fit().labels for terms in label.gains)


def test_the_model_that_was_written_is_the_one_that_is_read() -> None:
    model = Drawn(300, 4, tails=4.0).fit()
    assert ErrorModel.from_json(model.to_json()) == model
    assert tuple(model.to_json()["labels"]) == LABEL_NAMES


def test_places_are_where_the_text_says() -> None:
    stars = np.array(
        [GIANT, DWARF, COOL, BETWEEN, (3.6, 5000.0, 0.0), (3.4, 5000.0, 0.0), (1.0, 3900.0, 0.0)]
    )
    expected = ["giant", "warm_dwarf", "cool_dwarf", "cool_between", "warm_dwarf", "giant", "giant"]
    assert [PLACES[place] for place in place_of(stars)] == expected
    assert len(place_of(np.full((2, 3), np.nan))) == 2


def test_a_place_without_stars_has_the_worst_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    stars = Drawn(300, 9, floor={"cool_dwarf": 1.0, "cool_between": 5.0, "giant": 1.0, "warm_dwarf": 1.0})
    monkeypatch.setattr(error_fit, "CANDIDATES", (("floor by place", "scale"),))
    chosen = place_of(stars.predicted) != PLACES.index("giant")
    columns = (stars.residual, stars.sigma, stars.snr, stars.predicted)
    model = fit_error_model(*(column[chosen] for column in columns))
    for label in model.labels:
        floors = dict(zip(PLACES, label.floor, strict=True))
        assert floors["giant"] == max(label.floor) == floors["cool_between"]
