"""Pictures of fixed data look as they did: compared with small ones in `baseline/`, with edges blurred.

After a change that is meant, look at what `python tests/test_pictures_stay.py` draws, and keep it.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.axes import Axes
from PIL import Image, ImageFilter
from test_figures import make_catalog
from test_neighbours import REFERENCE, WAVELENGTH, spectrum
from test_page_figures import epoch, sigmas_of, sky_of, span

from apogee_batch.report import canvas, label_figure
from apogee_batch.report.figures import kiel_diagram, label_comparison
from apogee_batch.report.isochrone_lines import IsochroneLine
from apogee_batch.report.page_figures_pulls import draw_pulls
from apogee_batch.report.page_figures_sigma import draw_sigmas
from apogee_batch.report.page_figures_sky import draw_sky
from apogee_batch.report.page_figures_spectra import NamedSpectrum, draw_spectra
from apogee_batch.report.page_figures_timing import draw_timing
from apogee_batch.report.page_figures_training import draw_losses

BASELINE = Path(__file__).parent / "baseline"
WIDTH = 360  # dots of a picture that is kept
BLUR = 2.0  # dots: fonts and the smoothing of edges differ between versions, what is drawn where does not
LARGEST_RMS = 2.7  # of 255; other letters make 2, other colours of one type 3.5, an axis turned round 8


def kiel(path: Path) -> None:
    teff = np.linspace(3200.0, 6200.0, 20)
    line = IsochroneLine("1 Gyr", teff, 5.0 - (teff - 3200) / 2000)
    kiel_diagram(make_catalog(400), path, isochrones=[line])


def sigmas(path: Path) -> None:
    from labelled_catalogs import make_catalog as make_labelled

    draw_sigmas(sigmas_of(make_labelled(300)), path)


def losses(path: Path) -> None:
    draw_losses([*(epoch(i) for i in range(1, 9)), epoch(9, "adaptation", 1)], path)


def timing(path: Path) -> None:
    draw_timing([span(11.0 * (i // 2), host=f"node{i % 2}", n_stars=20 + 5 * i) for i in range(8)], path)


def pulls(path: Path) -> None:
    from labelled_catalogs import make_catalog as make_labelled
    from labelled_catalogs import validate_catalog

    draw_pulls(validate_catalog(make_labelled(600)), path)


def sky(path: Path) -> None:
    places = np.arange(300)
    draw_sky(sky_of(list(places * 1.2), list(60 * np.sin(places / 20.0))), path)


def strangest(path: Path) -> None:
    marked = ((15_600.0, 15_660.0),)
    shown = []
    for seed in (3, 4):
        flux, err = spectrum(seed)
        flux[(WAVELENGTH > 15_600) & (WAVELENGTH < 15_660)] *= 0.8
        shown.append(NamedSpectrum(f"star {seed}", flux, err, REFERENCE, marked))
    draw_spectra(WAVELENGTH, [*shown, NamedSpectrum("alone", *spectrum(5))], path)


PICTURES: dict[str, Callable[[Path], object]] = {
    "kiel": kiel,
    "labels": lambda path: label_comparison(make_catalog(400), path),
    "sigmas": sigmas,
    "losses": losses,
    "timing": timing,
    "pulls": pulls,
    "sky": sky,
    "strangest": strangest,
}


def shrink(path: Path) -> Image.Image:
    """Return a picture as small as it is kept."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    return picture.resize((WIDTH, round(WIDTH * picture.height / picture.width)), Image.Resampling.BOX)


def blurred(picture: Image.Image) -> npt.NDArray[np.float64]:
    return np.asarray(picture.convert("RGB").filter(ImageFilter.GaussianBlur(BLUR)), dtype=np.float64)


def difference(name: str, folder: Path) -> float:
    """Draw a picture and return the rms of its difference from the one that is kept, of 255."""
    PICTURES[name](folder / f"{name}.png")
    drawn = shrink(folder / f"{name}.png")
    with Image.open(BASELINE / f"{name}.png") as kept:
        if kept.size != drawn.size:
            return 255.0
        return float(np.sqrt(((blurred(kept) - blurred(drawn)) ** 2).mean()))


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_looks_as_it_did(tmp_path: Path, name: str) -> None:
    assert difference(name, tmp_path) < LARGEST_RMS


def test_pictures_that_are_kept_are_small() -> None:
    assert {path.stem for path in BASELINE.glob("*.png")} == set(PICTURES)
    assert all(path.stat().st_size < 30_000 for path in BASELINE.glob("*.png"))


def test_other_letters_are_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(canvas.STYLE, "text.hinting", "none")
    monkeypatch.setitem(canvas.STYLE, "font.family", "DejaVu Serif")
    assert difference("timing", tmp_path) < LARGEST_RMS


set_ylim = Axes.set_ylim


def turn(axes: Axes, *limits: Any, **others: Any) -> Any:
    """Set limits the wrong way round, as who forgets how astronomers draw them."""
    is_pair = len(limits) == 1 and not others
    return set_ylim(axes, limits[0][::-1]) if is_pair else set_ylim(axes, *limits, **others)


def test_an_axis_the_wrong_way_round_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Axes, "set_ylim", turn)
    assert difference("kiel", tmp_path) > 1.5 * LARGEST_RMS


def test_a_panel_without_its_residuals_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = label_figure._draw_residuals

    def draw(panels: list[Axes], *others: Any) -> None:
        real(panels, *others)
        panels[0].set_visible(False)

    monkeypatch.setattr(label_figure, "_draw_residuals", draw)
    assert difference("labels", tmp_path) > 1.5 * LARGEST_RMS


def test_a_sky_the_wrong_way_round_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scatter = Axes.scatter
    monkeypatch.setattr(Axes, "scatter", lambda axes, x, y, **others: scatter(axes, -x, y, **others))
    assert difference("sky", tmp_path) > LARGEST_RMS


def test_spectra_without_what_is_expected_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "REFERENCE", None)
    assert difference("strangest", tmp_path) > LARGEST_RMS


def test_other_colours_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(canvas.TYPE_COLOURS, "payne", "#ff0000")
    assert difference("labels", tmp_path) > LARGEST_RMS


if __name__ == "__main__":
    BASELINE.mkdir(exist_ok=True)
    with TemporaryDirectory() as scratch:
        for wanted in sys.argv[1:] or PICTURES:
            PICTURES[wanted](Path(scratch) / f"{wanted}.png")
            shrink(Path(scratch) / f"{wanted}.png").quantize(128).save(
                BASELINE / f"{wanted}.png", optimize=True
            )
