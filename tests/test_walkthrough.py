"""The Python of the walkthrough runs, and its assertions hold."""

import re
from pathlib import Path

import pytest

from apogee_batch.survey.simulate import SimulatedSurvey

PAGE = Path(__file__).resolve().parents[1] / "docs" / "walkthrough.md"


@pytest.mark.filterwarnings("ignore:Object at .* is not recognized")
def test_the_walkthrough_runs(
    survey: SimulatedSurvey,
    labelled_store: Path,
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "demo").mkdir()
    for name, target in (("survey", survey.folder), ("spectra.zarr", labelled_store), ("run", finished_run)):
        (tmp_path / "demo" / name).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 5
    code = "\n".join(blocks)
    assert "n_realizations=100" in code
    names: dict[str, object] = {}
    exec(code.replace("n_realizations=100", "n_realizations=3"), names)
    assert {"star", "flux", "found", "catalog"} <= set(names)
