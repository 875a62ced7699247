"""The end of a run tells how many rows have which flag, and is loud where most stars are strange."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apogee_batch.output import ResultLine
from apogee_batch.report.flag_counts import FlagCounts
from apogee_batch.report.page_sections import TAUGHT_BY_SIMULATED, glance_section
from apogee_batch.report.page_sections_labels import SIMULATED
from apogee_batch.run.flag_lines import flag_line, warn_of_strange_stars
from apogee_batch.run.progress import SilentView
from apogee_batch.run.run_folder import CATALOG_FILE

LOW_SNR, OUTSIDE, DUPLICATE, STRANGE = 1, 4, 64, 512


class Listener(SilentView):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def table(flags: Sequence[int]) -> pa.Table:
    return pa.table(
        {"flags": pa.array(flags, pa.int32()), "teff": pa.array([5000.0] * len(flags), pa.float32())}
    )


def counts(*flags: int) -> FlagCounts:
    found = FlagCounts()
    found.add(table(flags))
    return found


def run_with(folder: Path, flags: Sequence[int]) -> Path:
    path = folder / CATALOG_FILE
    path.parent.mkdir(parents=True)
    pq.write_table(table(flags), path)
    return folder


def test_the_line_has_each_flag_the_most_frequent_first_and_the_rows_without_one() -> None:
    line = flag_line(counts(0, 0, DUPLICATE, STRANGE, STRANGE | LOW_SNR, STRANGE | OUTSIDE, 0, 0))
    assert line == (
        "flags:     STRANGE_SPECTRUM 3 (38 %), LOW_SNR 1 (12 %), OUTSIDE_TRAINING 1 (12 %), "
        "DUPLICATE 1 (12 %); 5 (62 %) without a flag, DUPLICATE apart"
    )
    assert isinstance(line, ResultLine)  # so that --quiet tells it, too
    assert line.values["rows"] == {"LOW_SNR": 1, "OUTSIDE_TRAINING": 1, "DUPLICATE": 1, "STRANGE_SPECTRUM": 3}
    assert line.values["without"] == 5


def test_a_catalogue_without_flags_or_without_stars_says_so() -> None:
    assert flag_line(counts(0, 0)) == "flags:     none; 2 (100 %) without a flag, DUPLICATE apart"
    assert flag_line(counts()) == "flags:     none; 0 (0 %) without a flag, DUPLICATE apart"


def test_a_few_of_many_are_not_nothing() -> None:
    assert "LOW_SNR 1 (0.1 %)" in flag_line(counts(LOW_SNR, *[0] * 999))


def test_more_than_five_percent_of_strange_stars_are_told_loudly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    view = Listener()
    warn_of_strange_stars(run_with(tmp_path / "some", [STRANGE] * 5 + [0] * 95), view)
    warn_of_strange_stars(run_with(tmp_path / "none", []), view)
    assert view.lines == []
    warn_of_strange_stars(run_with(tmp_path / "many", [STRANGE | LOW_SNR] * 6 + [LOW_SNR] * 94), view)
    (line,) = view.lines
    assert line.startswith("WARNING: 6 of 100 spectra (6 %) are unlike those that taught the model")
    assert "docs/strange.md" in line
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_the_page_says_at_its_top_what_forbids_to_trust_it() -> None:
    strange = counts(STRANGE, 0).strange_words()
    assert strange is not None
    boxes = glance_section((), are_simulated=False, is_taught_by_simulated=True, strange=strange).missing
    assert boxes[0] == TAUGHT_BY_SIMULATED
    assert boxes[1].startswith("1 of 2 spectra (50 %) are unlike those that taught the model")
    assert glance_section((), are_simulated=True, is_taught_by_simulated=True).missing == (SIMULATED,)
    assert glance_section((), are_simulated=False).missing == ()
