"""Errors cross process boundaries whole."""

import pickle
from pathlib import Path

import pytest

from apogee_batch.errors import ApStarError, IntegrityError, RejectReason, describe_place, set_place


def test_an_error_of_a_file_comes_back_from_a_worker_as_it_was() -> None:
    error = ApStarError(Path("a.fits"), RejectReason.TRUNCATED, "ends at byte 7")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is ApStarError
    assert str(back) == str(error) == "a.fits: ends at byte 7"
    assert (back.path, back.reason, back.text) == (error.path, error.reason, error.text)


@pytest.mark.parametrize("error", [IntegrityError("damaged"), OSError(28, "No space left", "x")])
def test_an_error_knows_its_place_after_a_journey(error: Exception) -> None:
    set_place(error, "on n1, job 7")
    arrived = pickle.loads(pickle.dumps(error))
    assert describe_place(arrived) == " (on n1, job 7)"
    assert describe_place(IntegrityError("here")) == ""
