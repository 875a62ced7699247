"""What an ingest says of the files that it does not take, and of a folder that was the wrong one."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from strategies import make_table

from apogee_batch.errors import TooManyBadInputsError, UsageError
from apogee_batch.files import read_json
from apogee_batch.run import commands
from apogee_batch.run.config import RunConfig
from apogee_batch.run.progress import SilentView
from apogee_batch.run.verify_store import verify_store
from apogee_batch.store.tables import read_stars, read_table, table_path
from apogee_batch.survey.simulate import SimulatedSurvey
from apogee_batch.survey.sources import find_apstar_files


class Listener(SilentView):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


class Desk:
    """Three good files in a folder, and a store to be."""

    def __init__(self, survey: SimulatedSurvey, config: RunConfig, folder: Path) -> None:
        self.config, self.view = config, Listener()
        self.good, self.store = folder / "good", folder / "s.zarr"
        self.good.mkdir()
        for path in find_apstar_files([str(survey.spectra)])[:3]:
            shutil.copy(path, self.good)
        self.paths = find_apstar_files([str(self.good)])

    def ingest(
        self, source: Path, *, is_dry_run: bool = False, allstar: Path | None = None, bad: float = 0.01
    ) -> list[str]:
        config = self.config.model_copy(
            update={"ingest": self.config.ingest.model_copy(update={"max_bad_fraction": bad})}
        )
        return commands.ingest(
            [str(source)],
            self.store,
            allstar=allstar,
            config=config,
            is_dry_run=is_dry_run,
            progress=self.view,
        )


@pytest.fixture
def desk(survey: SimulatedSurvey, serial_config: RunConfig, tmp_path: Path) -> Desk:
    return Desk(survey, serial_config, tmp_path)


def test_fits_files_that_are_left_out_are_told_before_and_after(desk: Desk) -> None:
    other = desk.paths[0].rename(desk.good / "my_giant.fits")
    told = f"left out: 1 FITS file not named as apStar files are: {other}; name it to take it"
    assert told in desk.ingest(desk.good, is_dry_run=True)
    lines = desk.ingest(desk.good)
    assert told in lines
    assert desk.view.said.index(told) == 0
    assert "2 spectra; 2 files read" in lines[0]
    assert "3 spectra" in desk.ingest(other)[0]


def test_nothing_is_told_where_nothing_is_left_out(desk: Desk) -> None:
    lines = desk.ingest(desk.good)
    assert not [line for line in [*lines, *desk.view.said] if "left out" in line]


def second_reduction(desk: Desk) -> tuple[Path, Path]:
    """Add an earlier reduction of the first star; return it and a summary without reductions."""
    name = desk.paths[0].name
    star = name.split("-", 2)[2].removesuffix(".fits")
    earlier = desk.good / f"apStar-r1-{star}.fits"
    content = bytearray(desk.paths[0].read_bytes())
    content[8000] ^= 1  # another file, not a copy
    earlier.write_bytes(content)
    stars = [path.name.split("-", 2)[2].removesuffix(".fits") for path in desk.paths]
    table = {"APOGEE_ID": ("18A", [*stars, stars[1]]), "EXTRATARG": ("J", [0, 0, 0, 0])}
    return earlier, make_table(desk.good.parent, table)


def test_a_further_file_of_a_star_is_a_reject_and_files_are_told_from_rows(desk: Desk) -> None:
    earlier, allstar = second_reduction(desk)
    lines = desk.ingest(desk.good, allstar=allstar)
    listed = desk.store / "ingest" / "0001" / "allstar_match.parquet"
    assert lines[-1] == (
        "allStar: rows: 3 found, 0 missing, 1 repeated; files: 0 extra, 1 duplicate; "
        f"listed in {listed.resolve()}"
    )
    (reject,) = read_table(table_path(desk.store, "rejects")).to_pylist()
    assert (reject["path"], reject["reason"]) == (str(desk.paths[0]), "DUPLICATE_STAR")
    assert reject["text"].startswith(f"{earlier} is ")
    assert "rejected: 1 DUPLICATE_STAR" in " ".join(lines)
    summary = read_json(listed.with_name("summary.json"))
    assert summary["stars_in_store"] + summary["rejects_in_store"] == 4
    assert verify_store(desk.store) == []
    assert "listed in" not in desk.ingest(desk.good, allstar=allstar, is_dry_run=True)[-1]


def test_a_store_whose_rejects_lack_such_files_is_whole(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    _, allstar = second_reduction(desk)
    monkeypatch.setattr("apogee_batch.run.store_tables.further_files", lambda *_, **__: [])
    desk.ingest(desk.good, allstar=allstar)
    assert len(read_table(table_path(desk.store, "rejects"))) == 0
    assert verify_store(desk.store) == []


def test_a_list_of_the_match_that_was_lost_costs_nothing_else(desk: Desk) -> None:
    _, allstar = second_reduction(desk)
    desk.ingest(desk.good, allstar=allstar)
    listed = desk.store / "ingest" / "0001" / "allstar_match.parquet"
    listed.write_bytes(b"PAR1, and no more")
    (desk.store / "tables" / "rejects.parquet").unlink()
    desk.ingest(desk.good, allstar=allstar)
    assert len(read_stars(desk.store)) == 3
    assert len(read_table(table_path(desk.store, "rejects"))) == 0


def test_a_file_that_is_read_after_all_is_no_reject(desk: Desk) -> None:
    _, allstar = second_reduction(desk)
    desk.ingest(desk.good, allstar=allstar)
    desk.ingest(desk.paths[0])
    assert len(read_stars(desk.store)) == 4  # by its header it is another spectrum of the star
    assert len(read_table(table_path(desk.store, "rejects"))) == 0


def wrong_folder(desk: Desk) -> Path:
    folder = desk.good.parent / "wrong"
    folder.mkdir()
    for i in range(3):
        (folder / f"image{i}.fits").write_bytes(b"")
    return folder


def test_after_a_wrong_folder_the_right_one_is_taken(desk: Desk) -> None:
    wrong = wrong_folder(desk)
    with pytest.raises(
        TooManyBadInputsError, match="if these are not the files that you meant, name the righ"
    ):
        desk.ingest(wrong)
    assert "3 spectra; 3 files read" in desk.ingest(desk.good)[0]
    assert len(read_table(table_path(desk.store, "rejects"))) == 0
    (aside,) = (desk.store / "ingest").glob("old-0001-*")
    assert pq.read_table(aside / "inputs.parquet")["path"].to_pylist() == sorted(map(str, wrong.iterdir()))
    assert any(str(aside) in text for text in desk.view.said)


def test_an_ingest_that_has_stored_a_spectrum_is_not_given_up_unasked(desk: Desk) -> None:
    wrong = wrong_folder(desk)
    shutil.copy(desk.paths[0], wrong / "image9.fits")
    with pytest.raises(TooManyBadInputsError) as caught:
        desk.ingest(wrong)
    assert "not the files that you meant" not in str(caught.value)
    with pytest.raises(UsageError, match="was begun with another plan"):
        desk.ingest(desk.good)


def test_a_wrong_folder_can_still_be_gone_on_with(desk: Desk) -> None:
    wrong = wrong_folder(desk)
    with pytest.raises(TooManyBadInputsError):
        desk.ingest(wrong)
    with pytest.raises(TooManyBadInputsError, match="none of the 3 files could be used"):
        desk.ingest(wrong, bad=1.0)
    assert not list((desk.store / "ingest").glob("old-*"))


def test_names_in_capitals_match_the_summary(desk: Desk) -> None:
    capital = desk.paths[0].rename(desk.paths[0].with_suffix(".FITS"))
    stars = [path.name.split("-", 2)[2].removesuffix(".fits") for path in desk.paths]
    table = make_table(desk.good.parent, {"APOGEE_ID": ("18A", stars)})
    assert "rows: 3 found, 0 missing" in desk.ingest(desk.good, allstar=table)[-1]
    assert capital.name in read_stars(desk.store)["file"].to_pylist()
