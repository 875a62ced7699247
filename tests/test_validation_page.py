"""The page on validation: that its numbers are those of the program, and its example runs."""

import re
from pathlib import Path

import numpy as np
import pytest
from labelled_catalogs import make_catalog, validate_catalog

from apogee_batch.files import write_json
from apogee_batch.report.measures import MAD_TO_SIGMA, OUTLIER_SCATTERS, measure_pulls
from apogee_batch.report.validation import SNR_EDGES, TEFF_EDGES

PAGE = " ".join((Path(__file__).resolve().parents[1] / "docs" / "validate.md").read_text("utf-8").split())


def numbers_in(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


def test_the_bins_of_the_page_are_those_of_the_program() -> None:
    snr = re.search(r"with edges at ([^:]*): between", PAGE)
    teff = re.search(r"those of the label, with edges at (.*?) K: the paper", PAGE)
    assert snr is not None
    assert teff is not None
    assert numbers_in(snr[1]) == list(SNR_EDGES)
    assert numbers_in(teff[1]) == list(TEFF_EDGES)


def test_the_definitions_of_the_page_are_those_of_the_program() -> None:
    assert f"robust scatter: {MAD_TO_SIGMA} " in PAGE
    assert f"stars further than {OUTLIER_SCATTERS:g} scatters" in PAGE


@pytest.mark.parametrize(("n_stars", "told"), [(100, "4.7 % with 100"), (10, "14.7 % with 10")])
def test_what_few_stars_vary_by_is_as_the_page_says(n_stars: int, told: str) -> None:
    chance = measure_pulls(np.zeros(n_stars), np.ones(n_stars, np.float32)).within_1_chance
    assert chance is not None
    assert f"{100 * chance:.1f} % with {n_stars}" == told
    assert told in PAGE


def test_the_example_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "validate.md").read_text("utf-8")
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert example is not None
    write_json(tmp_path / "run1/report/validation.json", validate_catalog(make_catalog(60)).to_json())
    monkeypatch.chdir(tmp_path)
    exec(example[1], {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 * (len(SNR_EDGES) + 2)
    assert lines[0].startswith("full <10 ")
