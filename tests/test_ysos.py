"""Labels of young stars: from photometry to a table that can be attached."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from young_isochrones import write_parsec

from apogee_batch.errors import UsageError
from apogee_batch.labels.isochrones import read_isochrones
from apogee_batch.labels.photometric_checkpoint import TrainedNet, load_net, save_net
from apogee_batch.labels.photometric_net import TrainingSettings
from apogee_batch.labels.photometry import Photometry
from apogee_batch.labels.synthetic_stars import (
    OUTPUTS,
    StarInputs,
    SyntheticSettings,
    draw_synthetic_stars,
)
from apogee_batch.labels.tables import read_label_table
from apogee_batch.labels.yso_training import photometric_residual, train_photometric_net
from apogee_batch.labels.ysos import YsoReason, YsoSettings, estimate_yso_labels
from apogee_batch.run.yso_settings import NetworkSettings, read_yso_settings
from apogee_batch.run.ysos import make_yso_labels, network_folder

BANDS = ("g_gaia", "bp", "rp", "j", "h", "k")
AGES = (1.0, 3.0, 10.0, 30.0, 100.0)
LOOSE = YsoSettings(n_realizations=10, seed=1, max_residual_mag=1e9)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parsec(tmp_path_factory.mktemp("parsec") / "parsec.dat", AGES)


@pytest.fixture(scope="module")
def trained(table: Path) -> TrainedNet:
    torch.set_num_threads(1)
    found = train_photometric_net(
        read_isochrones([table]),
        SyntheticSettings(),
        files={},
        n_stars=500,
        seed=5,
        training=TrainingSettings(epochs=3, batch_size=50),
    )
    wide = {name: [low - 9, high + 9] for name, (low, high) in found.training["ranges"].items()}
    return replace(found, training={**found.training, "ranges": wide})  # nothing counts as extrapolated


@pytest.fixture(scope="module")
def photometry(trained: TrainedNet) -> Photometry:
    """Twenty synthetic stars as a survey would list them; rows 1 and 2 lack what is needed."""
    stars = draw_synthetic_stars(trained.isochrones, trained.settings, n_stars=20, seed=9, purpose="sky")
    given = np.where(stars.inputs.is_given, stars.inputs.values, np.nan)
    magnitude = {band: given[:, k].copy() for k, band in enumerate(BANDS)}
    parallax = 1000 / 10 ** given[:, -1]
    magnitude["h"][1], parallax[2] = np.nan, -0.1
    return Photometry(
        source="sky",
        apogee_id=tuple(f"2M{i:08d}+0000000" for i in range(20)),
        apstar_id=("",) * 20,
        magnitude=magnitude,
        error={band: np.full(20, 0.02) for band in BANDS},
        parallax_mas=parallax,
        parallax_error_mas=0.01 * np.abs(parallax),
        numbers={},
        texts={},
        columns={},
    )


def _rows(photometry: Photometry, rows: list[int], **changes: object) -> Photometry:
    """Return some rows, the parallax in mas and the magnitudes changed if asked."""
    parallax = np.array([changes.get("parallax", photometry.parallax_mas[i]) for i in rows], dtype=float)
    return replace(
        photometry,
        apogee_id=tuple(str(changes.get("name", photometry.apogee_id[i])) for i in rows),
        apstar_id=("",) * len(rows),
        magnitude={k: v[rows] + float(str(changes.get(k, 0))) for k, v in photometry.magnitude.items()},
        error={k: v[rows] for k, v in photometry.error.items()},
        parallax_mas=parallax,
        parallax_error_mas=0.01 * np.abs(parallax),
    )


def test_a_star_does_not_depend_on_its_neighbours(trained: TrainedNet, photometry: Photometry) -> None:
    together = estimate_yso_labels(trained, photometry, LOOSE)
    alone = estimate_yso_labels(trained, _rows(photometry, [7, 0]), LOOSE)
    for name in together.values:
        for found in ("values", "errors"):
            ours, theirs = getattr(together, found)[name], getattr(alone, found)[name]
            np.testing.assert_array_equal(ours[[7, 0]], theirs)


def test_the_noise_follows_from_the_seed_and_the_name(trained: TrainedNet, photometry: Photometry) -> None:
    first = estimate_yso_labels(trained, _rows(photometry, [0]), LOOSE).errors["teff"][0]
    for other in (
        estimate_yso_labels(trained, _rows(photometry, [0], name="another"), LOOSE),
        estimate_yso_labels(trained, _rows(photometry, [0]), replace(LOOSE, seed=2)),
    ):
        assert other.errors["teff"][0] != first
        assert other.errors["teff"][0] == pytest.approx(first, rel=2)


def test_without_errors_there_is_no_scatter_and_more_error_is_more(
    trained: TrainedNet, photometry: Photometry
) -> None:
    row = _rows(photometry, [0])
    spread = []
    for error in (0.0, 0.01, 0.1):
        given = replace(
            row,
            error={band: np.full(1, error) for band in BANDS},
            parallax_error_mas=error * row.parallax_mas,
        )
        labels = estimate_yso_labels(trained, given, replace(LOOSE, n_realizations=50))
        spread.append(labels.errors["teff"][0])
    assert spread[0] == pytest.approx(0.0, abs=1e-2)  # K: the same copies, rounded in 32 bits
    assert spread[1] > 0
    assert spread[2] > 3 * spread[1]


def test_the_labels_are_what_the_network_says(trained: TrainedNet, photometry: Photometry) -> None:
    row = _rows(photometry, [0])
    exact = replace(row, error={band: np.zeros(1) for band in BANDS}, parallax_error_mas=np.zeros(1))
    labels = estimate_yso_labels(trained, exact, LOOSE)
    magnitudes = np.array([[row.magnitude[band][0] for band in BANDS]])
    limits = np.array([trained.settings.limits[band] for band in BANDS])
    values = np.where(np.isfinite(magnitudes), magnitudes, limits)
    inputs = StarInputs(
        np.column_stack([values, np.log10(1000 / row.parallax_mas)]),
        np.column_stack([np.isfinite(magnitudes), [True]]),
    )
    said = dict(zip(OUTPUTS, trained.net.predict(inputs)[0], strict=True))
    assert labels.values["teff"][0] == pytest.approx(10 ** said["log_teff"], rel=1e-5)
    assert labels.values["logg"][0] == pytest.approx(said["logg"], abs=1e-5)
    assert labels.n_bands[0] == np.isfinite(magnitudes).sum()
    residual = photometric_residual(trained, inputs, trained.net.predict(inputs))[0]
    assert labels.residual_mag[0] == pytest.approx(residual, abs=1e-5)


def test_a_star_that_cannot_be_told_has_a_reason_and_no_label(
    trained: TrainedNet, photometry: Photometry
) -> None:
    cases = {
        YsoReason.NO_REQUIRED_BAND: _rows(photometry, [1]),
        YsoReason.NO_PARALLAX: _rows(photometry, [2]),
        YsoReason.OUTSIDE_DISTANCE: _rows(photometry, [0], parallax=0.5),
        YsoReason.NO_NAME: _rows(photometry, [0], name=""),
        YsoReason.UNLIKE_MODELS: _rows(photometry, [0], j=-5.0),
    }
    for reason, given in cases.items():
        labels = estimate_yso_labels(trained, given, replace(LOOSE, max_residual_mag=1.0))
        assert labels.reason == (reason,)
        assert np.isnan([labels.values["teff"][0], labels.errors["teff"][0]]).all()


def test_a_magnitude_without_an_error_is_an_upper_limit_where_the_table_has_errors(
    trained: TrainedNet, photometry: Photometry
) -> None:
    given = _rows(photometry, [0])
    given.error["j"][0] = np.nan
    n_bands = [
        estimate_yso_labels(trained, replace(given, columns=columns), LOOSE).n_bands[0]
        for columns in ({"j": "J"}, {"j": "J", "e_j": "J_ERR"})
    ]
    assert n_bands[1] == n_bands[0] - 1


def test_labels_beyond_those_learned_are_not_given(trained: TrainedNet, photometry: Photometry) -> None:
    narrow = {**trained.training["ranges"], "log_age": [2.0, 2.1]}
    net = replace(trained, training={**trained.training, "ranges": narrow})
    labels = estimate_yso_labels(net, _rows(photometry, [0, 3]), LOOSE)
    assert labels.reason == (YsoReason.OUTSIDE_LABELS,) * 2


def _photometry_file(photometry: Photometry, path: Path, *, radius: bool = False) -> Path:
    columns: dict[str, object] = {"apogee_id": photometry.apogee_id, "parallax": photometry.parallax_mas}
    columns["parallax_error"] = photometry.parallax_error_mas
    for band in BANDS:
        columns[band], columns[f"e_{band}"] = photometry.magnitude[band], photometry.error[band]
    if radius:
        columns["radius"] = columns["luminosity"] = np.full(20, 1.0)
    pq.write_table(pa.table(columns), path)
    return path


def test_a_table_of_labels_is_made_kept_reused_and_attached(
    table: Path, photometry: Photometry, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    sky, out = _photometry_file(photometry, tmp_path / "sky.parquet"), tmp_path / "ysos.parquet"
    made = NetworkSettings(n_stars=300, training=TrainingSettings(epochs=2))
    lines = make_yso_labels(sky, out, isochrones=[table], made=made, settings=LOOSE)
    assert any("ages 1 to 100 Myr" in line for line in lines)
    assert [line.split()[-1] for line in lines if line.startswith("  log_teff")] == ["0.003"]
    found = pq.read_table(out)
    assert found["apogee_id"].to_pylist() == list(photometry.apogee_id)
    assert found["reason"].to_pylist()[1:3] == ["NO_REQUIRED_BAND", "NO_PARALLAX"]
    has_label = np.array([reason is None for reason in found["reason"].to_pylist()])
    assert has_label.sum() >= 10
    for name in ("teff", "e_teff", "logg", "fe_h", "log_age", "mass", "a_v"):
        np.testing.assert_array_equal(found[name].is_valid().to_numpy(), has_label)
    assert set(found["fe_h"].drop_null().to_pylist()) == {0.0}

    again = tmp_path / "again.parquet"
    lines = make_yso_labels(sky, again, network=network_folder(out), settings=LOOSE)
    assert "nothing was trained" in lines[0]
    assert pq.read_table(again).equals(found)
    assert again.read_bytes() == out.read_bytes()
    assert not network_folder(again).exists()

    labels = read_label_table(out, "yso")
    assert labels.n_rows == 20
    assert len(labels.apogee_id) == has_label.sum()


def test_a_network_is_refused_for_other_bands_tables_and_columns(
    table: Path, trained: TrainedNet, photometry: Photometry, tmp_path: Path
) -> None:
    save_net(tmp_path / "net", replace(trained, files={"other.dat": "0" * 64}))
    sky, out = _photometry_file(photometry, tmp_path / "sky.parquet"), tmp_path / "ysos.parquet"
    made, _ = read_yso_settings(bands="j,h,k")
    with pytest.raises(UsageError, match=r"takes the bands g_gaia,bp,rp,j,h,k, not j,h,k"):
        make_yso_labels(sky, out, network=tmp_path / "net", made=made)
    with pytest.raises(UsageError, match=r"made of other isochrones \(other\.dat\)"):
        make_yso_labels(sky, out, network=tmp_path / "net", isochrones=[table])
    for words, told in (
        ({"scatter_mag": 0.03}, "scatter_mag"),
        ({"limits": ["h=14"]}, "limits_mag"),
        ({"epochs": 3}, "training"),
    ):
        made, _ = read_yso_settings(**words)
        with pytest.raises(UsageError, match=rf"made already, and {told} cannot be changed"):
            make_yso_labels(sky, out, network=tmp_path / "net", made=made)
    rich = SyntheticSettings(uses_radius_luminosity=True)
    with_radius = replace(trained, settings=rich, net=_net_of(rich))
    save_net(tmp_path / "rich", with_radius)
    with pytest.raises(UsageError, match="no column for radius and luminosity"):
        make_yso_labels(sky, out, network=tmp_path / "rich")
    assert not out.exists()


def test_isochrone_files_of_one_name_are_told_apart_by_their_user(
    table: Path, photometry: Photometry, tmp_path: Path
) -> None:
    sky = _photometry_file(photometry, tmp_path / "sky.parquet")
    (tmp_path / "other").mkdir()
    same = tmp_path / "other" / table.name
    same.write_bytes(b"# " + table.read_bytes())
    with pytest.raises(UsageError, match="the name of 2 isochrone files; rename one"):
        make_yso_labels(sky, tmp_path / "ysos.parquet", isochrones=[table, same])


def _net_of(settings: SyntheticSettings) -> object:
    from apogee_batch.labels.photometric_net import PhotometricNet

    return PhotometricNet(settings.inputs, settings.bands, settings.required_band)


def test_radius_and_luminosity_are_taken_if_the_table_has_both(
    table: Path, photometry: Photometry, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    made = NetworkSettings(n_stars=200, training=TrainingSettings(epochs=1))
    for name, expected in (("plain", False), ("rich", True)):
        sky = _photometry_file(photometry, tmp_path / f"{name}.parquet", radius=expected)
        out = tmp_path / f"{name}-ysos.parquet"
        make_yso_labels(sky, out, isochrones=[table], made=made, settings=LOOSE)
        assert load_net(network_folder(out)).settings.uses_radius_luminosity is expected


def test_a_network_that_takes_the_place_of_another_is_told(
    table: Path, photometry: Photometry, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    sky, out = _photometry_file(photometry, tmp_path / "sky.parquet"), tmp_path / "ysos.parquet"
    told = []
    for seed in (0, 0, 1):
        made = NetworkSettings(n_stars=200, seed=seed, training=TrainingSettings(epochs=1))
        told.append(make_yso_labels(sky, out, isochrones=[table], made=made, settings=LOOSE))
    has_told = [any("replaces another" in line for line in lines) for lines in told]
    assert has_told == [False, False, True]


def test_only_parquet_is_written_and_never_over_the_photometry(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.parquet"):
        make_yso_labels(tmp_path / "sky.csv", tmp_path / "ysos.fits")
    sky = tmp_path / "sky.parquet"
    sky.touch()
    with pytest.raises(UsageError, match="is the photometry itself"):
        make_yso_labels(sky, sky)


def test_flags_become_settings() -> None:
    made, settings = read_yso_settings(
        bands="h, w1",
        limits=["w1=16.5"],
        extinction=["w1=0.06"],
        draws_log_age=True,
        max_age_gap_dex=0.3,
        scatter_mag=0.02,
        n_stars=500,
        epochs=4,
        n_realizations=7,
        max_residual_mag=0.4,
        seed=3,
    )
    synthetic = SyntheticSettings(**made.synthetic)
    assert (synthetic.bands, synthetic.limits["w1"]) == (("h", "w1"), 16.5)
    assert (synthetic.extinction_ratios, synthetic.draws_log_age) == ({"w1": 0.06}, True)
    assert synthetic.scatter_mag == 0.02
    assert (synthetic.max_age_gap_dex, made.n_stars, made.training.epochs, made.seed) == (0.3, 500, 4, 3)
    assert settings == YsoSettings(7, 3, 0.4)
    assert read_yso_settings() == (NetworkSettings(), YsoSettings())


@pytest.mark.data
def test_real_photometry_is_labelled_or_told_why_not(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "ysos.parquet"
    ours = {"apogee_id": "source_id", "g_gaia": "g", "e_g_gaia": "eg", "parallax_error": "eparallax"}
    lines = make_yso_labels(
        shared_data / "tables" / "auriga_test.csv",
        out,
        isochrones=sorted((shared_data / "isochrones").glob("parsec_cmd34_*.dat")),
        made=NetworkSettings(n_stars=1000, training=TrainingSettings(epochs=5)),
        column_map=ours,
    )
    assert any("ages 4 to 15 Myr" in line for line in lines)
    found = pq.read_table(out)
    assert found.num_rows == 75
    teff, reason = found["teff"].to_pylist(), found["reason"].to_pylist()
    assert all((t is None) == (r is not None) for t, r in zip(teff, reason, strict=True))
    assert reason.count(None) < 40  # the cluster is older than the tables: most of its stars lie below them


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"bands": "h,x"}, "--bands: band 'x' is unknown"),
        ({"bands": "h,h"}, "--bands: band 'h' is twice"),
        ({"limits": ["w1"]}, "--limit w1: write it as BAND=NUMBER"),
        ({"extinction": ["k=nan"]}, "--extinction k=nan: write it"),
    ],
)
def test_a_flag_that_cannot_be_read_is_named(said: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_yso_settings(**said)  # type: ignore[arg-type]
