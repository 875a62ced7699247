"""A plan is written once; another one is refused with what differs."""

from pathlib import Path

import pytest

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.files import read_json, write_json
from apogee_batch.run.plan import (
    read_plan,
    run_id,
    set_aside,
    settle_plan,
    software_versions,
    write_plan,
)
from apogee_batch.run.plan_words import compare_plans, describe_differences

PLAN = {"kind": "run-catalog", "seed": 1, "software": {"torch": "2.13.0"}, "labels": None}


def test_the_name_of_a_run_is_the_hash_of_its_plan(tmp_path: Path) -> None:
    name = settle_plan(tmp_path, PLAN)
    assert name == run_id(PLAN) == run_id(dict(reversed(PLAN.items())))
    assert name != run_id(PLAN | {"seed": 2})
    assert read_plan(tmp_path) == PLAN


def test_the_same_plan_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    settle_plan(tmp_path, PLAN)
    before = (tmp_path / "plan.json").read_bytes()
    assert settle_plan(tmp_path, PLAN) == run_id(PLAN)
    other = PLAN | {"seed": 2, "software": {"torch": "3.0"}}
    with pytest.raises(UsageError, match=r"seed: 1 -> 2; version of torch: 2\.13\.0 -> 3\.0"):
        settle_plan(tmp_path, other)
    assert (tmp_path / "plan.json").read_bytes() == before


def test_differences_are_listed_by_key() -> None:
    assert compare_plans(PLAN, PLAN) == []
    assert compare_plans({"a": 1}, {"b": "x" * 60}) == ["a: 1 -> None", f"b: None -> {'x' * 37}..."]


HASHES = ["a" * 64, "b" * 64]


def run_plan(which: int, **others: object) -> dict[str, object]:
    """Return the plan of a run whose hashes are all of one kind."""
    own = HASHES[which]
    inputs = {"stars": own, "rejects": own, "labels": own}
    model = {"given": own, "calibration": own}
    return {"store_sha256": own, "inputs_sha256": inputs, "model": model, "shards": [0]} | others


def test_what_plans_hold_as_a_hash_is_told_in_words() -> None:
    before, now = run_plan(0), run_plan(1, shards=[0, 1, 2])
    told = describe_differences(before, now)
    assert told == [
        "other labels are attached to the store",
        "another model is given",
        "shards: 1 -> 3",
        "the store holds other spectra",
    ]
    assert describe_differences(before, before) == []


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("labels", ["labels were attached to the store since", "the store has no labels any more"]),
        ("calibration", ["the model was calibrated since", "the model has no calibration any more"]),
    ],
)
def test_what_came_or_went_since_is_told_as_that(key: str, words: list[str]) -> None:
    group = "inputs_sha256" if key == "labels" else "model"
    without, having = {group: {"x": 1}}, {group: {"x": 1, key: HASHES[0]}}
    assert [describe_differences(without, having), describe_differences(having, without)] == [
        [words[0]],
        [words[1]],
    ]


def test_a_model_given_instead_of_a_training_is_told_once() -> None:
    trained = {"model": {"trained": {"seed": 0, "store_sha256": HASHES[0]}}}
    given = {"model": {"given": HASHES[0], "calibration": HASHES[1]}}
    assert describe_differences(trained, given) == ["a model is given now"]
    assert describe_differences(given, trained) == ["no model is given now, so one would be trained"]
    other = {"model": {"trained": {"seed": 1, "store_sha256": HASHES[1]}}, "store_sha256": HASHES[1]}
    assert describe_differences(trained | {"store_sha256": HASHES[0]}, other) == [
        "seed: 0 -> 1",
        "the store holds other spectra",
    ]


def test_hashes_of_a_refused_plan_are_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settle_plan(tmp_path, PLAN | {"store_sha256": HASHES[0]})
    with caplog.at_level("INFO"), pytest.raises(UsageError) as caught:
        settle_plan(tmp_path, PLAN | {"store_sha256": HASHES[1]})
    assert "another plan (the store holds other spectra);" in str(caught.value)
    assert "store_sha256: aaaaaaaa... -> bbbbbbbb..." in caplog.text


def test_a_damaged_plan_is_told(tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None
    (tmp_path / "plan.json").write_text('{"kind": ')
    with pytest.raises(IntegrityError, match="is damaged"):
        read_plan(tmp_path)


def test_a_plan_that_was_changed_is_damaged(tmp_path: Path) -> None:
    write_plan(tmp_path, PLAN)
    write_json(tmp_path / "plan.json", read_json(tmp_path / "plan.json") | {"seed": 2})
    with pytest.raises(IntegrityError, match="its run_id does not fit it"):
        read_plan(tmp_path)


@pytest.mark.parametrize("content", ["{", None])
def test_a_lost_plan_is_written_again_where_the_ledger_is_its_own(
    tmp_path: Path, content: str | None
) -> None:
    settle_plan(tmp_path, PLAN)
    write_json(tmp_path / "ledger" / "00000.json", {"key": f"{run_id(PLAN)} model"})
    (tmp_path / "plan.json").unlink()
    if content is not None:
        (tmp_path / "plan.json").write_text(content)
    other = IntegrityError if content else UsageError
    with pytest.raises(other, match=r"is damaged|not of this program"):
        settle_plan(tmp_path, PLAN | {"seed": 2})
    assert settle_plan(tmp_path, PLAN) == run_id(PLAN)
    assert read_plan(tmp_path) == PLAN


def test_more_is_said_of_a_difference_where_a_stage_knows_more(tmp_path: Path) -> None:
    settle_plan(tmp_path, PLAN)
    with pytest.raises(UsageError, match=r"3 files added \(x\.fits\); seed: 1 -> 2.*--force-new-plan"):
        settle_plan(tmp_path, PLAN | {"seed": 2}, explain=lambda: ["3 files added (x.fits)"])


def test_a_run_is_set_aside_whole_and_its_plan_last(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert set_aside(run, PLAN) is None
    settle_plan(run, PLAN)
    assert set_aside(run, PLAN) is None
    for other in ({"seed": 2}, {"seed": 1}, {"seed": 2}):
        (run / "parts").mkdir()
        (run / "parts" / "p").write_text(str(read_plan(run)))
        (run / "lock").write_text("held")
        aside = set_aside(run, PLAN | other)
        assert aside is not None
        assert sorted(path.name for path in aside.iterdir()) == ["parts", "plan.json"]
        assert (run / "lock").exists()
        settle_plan(run, PLAN | other)
    assert len(list(run.glob("old-*"))) == 3


def test_the_versions_that_numbers_depend_on_are_known() -> None:
    assert {"apogee-batch", "torch", "numpy", "python"} <= set(software_versions())


def test_a_folder_of_another_command_is_refused_in_one_sentence(tmp_path: Path) -> None:
    settle_plan(tmp_path, PLAN)
    with pytest.raises(
        UsageError, match="holds what 'run-catalog' made, and not 'train'; name another folder"
    ):
        settle_plan(tmp_path, PLAN | {"kind": "train", "seed": 2})
