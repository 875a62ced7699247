"""A plan is written once; another one is refused with what differs."""

from pathlib import Path

import pytest

from apogee_batch.errors import IntegrityError, UsageError
from apogee_batch.run.plan import compare_plans, read_plan, run_id, settle_plan, software_versions

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
    with pytest.raises(UsageError, match=r"seed: 1 -> 2; software\.torch: 2\.13\.0 -> 3\.0"):
        settle_plan(tmp_path, other)
    assert (tmp_path / "plan.json").read_bytes() == before


def test_differences_are_listed_by_key() -> None:
    assert compare_plans(PLAN, PLAN) == []
    assert compare_plans({"a": 1}, {"b": "x" * 60}) == ["a: 1 -> None", f"b: None -> {'x' * 37}..."]


def test_a_damaged_plan_is_told(tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None
    (tmp_path / "plan.json").write_text('{"kind": ')
    with pytest.raises(IntegrityError, match="damaged plan"):
        read_plan(tmp_path)


def test_the_versions_that_numbers_depend_on_are_known() -> None:
    assert {"apogee-batch", "torch", "numpy", "python"} <= set(software_versions())
